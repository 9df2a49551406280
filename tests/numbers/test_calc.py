"""`cllm calc` from the outside: a process with arguments, input, output and exit code."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import mpmath
import pytest

PROGRAM = """
import sys
import cllm.cli
cllm.cli.COMMANDS.setdefault("calc", ("cllm.cli.calc:calc", "Calculate with proven digits."))
sys.exit(cllm.cli.run(sys.argv[1:]))
"""
RUN = [sys.executable, "-c", PROGRAM, "calc"]


def calc(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RUN, *words], capture_output=True, text=True, input=given, timeout=60, check=False)


def test_a_thousand_digits() -> None:
    done = calc("ln(2)^(1/3)", "--digits", "1000")
    with mpmath.workdps(1100):
        expected = mpmath.nstr(mpmath.log(2) ** (mpmath.mpf(1) / 3), 1000, strip_zeros=False)
    assert done.returncode == 0 and done.stdout == expected + "\n" and done.stderr == ""


def test_exact_results_and_the_enclosure() -> None:
    assert (
        calc("1/3 + 1/6").stdout == "0.5\n= 1/2\n"
        and calc("-2^2").stdout == "-4\n"
        and calc("1", "+", "2").stdout == "3\n"
    )
    assert calc("pi", "--digits", "5", "--error").stdout == "3.1416\n≥ 3.141592\n≤ 3.141593\n"
    assert calc("3/2", "--error").stdout == "1.5\n= 3/2\nexact\n" and calc("factor(360)").stdout == "2^3 · 3^2 · 5\n"


def test_json() -> None:
    found = json.loads(calc("1/3", "--json", "--digits", "4").stdout)
    assert found == {
        "digits": 4,
        "kind": "rational",
        "text": "0.3333",
        "exact": "1/3",
        "lower": "0.3333",
        "upper": "0.3334",
        "proven": 4,
    }
    assert json.loads(calc("factor(12)", "--json").stdout)["value"] == [["2", 2], ["3", 1]]


def test_a_sheet_from_standard_input() -> None:
    done = calc("--digits", "10", given="x = sqrt(2)\n\nx^2 + ans\n")
    assert done.stdout == "1.414213562\n3.414213562\n" and done.returncode == 0


def test_failures_and_their_codes() -> None:
    zero = calc("sin(pi)")
    assert zero.returncode == 1 and zero.stdout.startswith("between -") and "no digit proven" in zero.stderr
    for words, message in (
        (("log(-1)",), "x > 0"),
        (("1 +",), "expected a number"),
        (("10^(10^9)",), "limit"),
        (("pi", "--digits", "0"), "digits"),
        (("--digit", "5", "pi"), '"--digits"'),
        (("pi", "--digits", "99999999999"), "limit"),
    ):
        done = calc(*words)
        assert done.returncode == 2 and done.stdout == "" and message in done.stderr, (words, done)
    assert calc("1/sin(pi)").returncode == 1
    assert "\n  1 + log(-1)\n      ^^^^^^^\n" in calc("1 + log(-1)").stderr
    assert calc("--help").stdout.count("cllm calc ") >= 2


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of its own is a Unix notion")
def test_the_interactive_sheet_keeps_variables_and_history(tmp_path: Path) -> None:
    import pty

    def session(typed: list[str]) -> str:
        master, slave = pty.openpty()
        environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "TERM": "dumb"}
        process = subprocess.Popen(RUN, stdin=slave, stdout=slave, stderr=slave, env=environment, close_fds=True)
        os.close(slave)
        seen = b""
        os.set_blocking(master, False)

        def read_until(mark: bytes, count: int) -> None:
            nonlocal seen
            end = time.monotonic() + 30
            while seen.count(mark) < count and time.monotonic() < end:
                try:
                    seen += os.read(master, 4096)
                except BlockingIOError:
                    time.sleep(0.01)
                except OSError:
                    return

        prompt = "› ".encode()
        for number, line in enumerate(typed):
            read_until(prompt, number + 1)
            os.write(master, line.encode())
        assert process.wait(timeout=30) == 0
        with contextlib.suppress(OSError):
            seen += os.read(master, 65536)
        os.close(master)
        return seen.decode(errors="replace")

    shown = session(["x = 7\n", "digits 5\n", "x + pi\n", "1/0\n", "fact\t(10)\n", "exit\n"])
    assert "10.142" in shown and "division by 0" in shown
    history = tmp_path / "cllm" / "calc-history"
    assert "x + pi" in history.read_text()
    again = session(["\x1b[A\x1b[A\x1b[A\x1b[A\n", "\x04"])  # the up key, four times: x + pi, where x is new again
    assert "unknown name 'x'" in again
