"""What is shown: figures that are right, on stderr only, in any width, safe from what a model writes."""

from __future__ import annotations

import io
import itertools
import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from cllm.config import load
from cllm.training.progress import Figures, Live, Plain, Silent, bar_for, display_for, duration

CONFIG = load(
    preset="nano", overrides={"train.steps": 1000, "train.batch": 8, "train.accumulate": 2, "train.sequence": 32}
)


@dataclass
class Outcome:
    reason: str
    step: int
    steps: int
    score: None = None


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_eta_is_the_mean_of_this_session() -> None:
    clock = Clock()
    figures = Figures(200, 1000, clock)
    assert math.isnan(figures.eta_s) and "eta ?" in figures.text()
    clock.now += 50
    figures.step(300, 3.0, 1e-3, 0.5, 1000.0)
    assert figures.eta_s == pytest.approx(0.5 * 700) and figures.elapsed_s == 50
    assert figures.counter() == "step 300/1,000"
    assert figures.text() == "loss 3.0000  ema 3.0000  lr 1.00e-03  grad 0.5  1,000 tokens/s  eta 0:05:50"


def test_the_least_important_figures_go_first() -> None:
    figures = Figures(0, 10, Clock())
    figures.step(1, 3.0, 1e-3, 0.5, 1000.0)
    texts = [figures.text(width) for width in range(120)]
    assert all(len(text) <= width for width, text in enumerate(texts) if width >= 11)
    assert texts[5] == "loss 3.0000" and texts[119] == figures.text()
    order = [next(w for w, t in enumerate(texts) if word in t) for word in ("loss", "eta", "tok", "ema", "lr", "grad")]
    assert order == sorted(order)


def test_the_average_ignores_what_is_not_finite() -> None:
    figures = Figures(0, 10, Clock())
    for loss in (4.0, math.nan, 4.0):
        figures.step(1, loss, 0.0, 0.0, 1.0)
    assert figures.ema == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00:00"), (59.6, "0:01:00"), (3661, "1:01:01"), (90061, "1 d 01:01:01"), (math.nan, "?"), (math.inf, "?")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_plain_lines_come_at_their_time_and_at_the_end(tmp_path: Path) -> None:
    clock, out = Clock(), io.StringIO()
    display = Plain(tmp_path, out, every_s=10, clock=clock)
    display.preparing("encoding", 1, 4)
    display.preparing("encoding", 2, 4)
    display.preparing("writing", 7, 0)
    display.begin(CONFIG, 0, 4000)
    for step in range(1, 1001):
        clock.now += 0.1
        display.step(step, 5.0 - step / 500, 1e-3, 0.25, 8000.0)
    display.end(Outcome("done", 1000, 1000))
    lines = out.getvalue().splitlines()
    assert lines[:3] == [
        "encoding: 1 of 4",
        "writing: 7",
        "1,000 steps of 16 × 32 tokens, 4 passes over the training text",
    ]
    steps = [
        int(found[1].replace(",", "")) for line in lines if (found := re.match(r"step ([\d,]+)/1,000  loss", line))
    ]
    assert steps[0] == 1 and steps[-1] == 1000 and 10 <= len(steps) <= 12
    assert all(90 <= b - a <= 110 for a, b in itertools.pairwise(steps[:-1]))
    assert lines[-1] == f"done: 1,000 steps in 0:01:40. Curve: {tmp_path}/loss.svg. Try: cllm generate {tmp_path}"


def test_an_interrupted_training_says_how_to_go_on() -> None:
    out = io.StringIO()
    display = Plain(Path("my runs/book"), out)
    display.begin(CONFIG, 0, 10)
    display.end(Outcome("interrupted", 12, 1000))
    assert (
        out.getvalue()
        .splitlines()[-1]
        .endswith("everything is saved. Continue with: cllm train --out 'my runs/book' --resume")
    )


def test_control_characters_of_a_sample_do_not_reach_the_terminal(tmp_path: Path) -> None:
    evil = "a\x1b]0;title\x07\x1b[2Jb\x9b5mc\rd\ttab\nline [red]x[/red] [/]"
    for make in (
        lambda out: Plain(tmp_path, out),
        lambda out: Live(tmp_path, Console(file=out, force_terminal=True, width=80, color_system=None)),
    ):
        out = io.StringIO()
        display = make(out)
        display.message(evil)
        display.close()
        shown = out.getvalue()
        assert "a\ufffd]0;title\ufffd\ufffd[2Jb\ufffd5mc\ufffdd" in shown and "line [red]x[/red] [/]" in shown
        assert "\x1b]0" not in shown and "\x1b[2J" not in shown and "\x07" not in shown


def test_a_reader_that_went_away_does_not_end_the_training(tmp_path: Path) -> None:
    class Gone(io.StringIO):
        tries = 0

        def write(self, text: str) -> int:
            self.tries += 1
            raise BrokenPipeError(32, "Broken pipe")

    stream = Gone()
    display = Plain(tmp_path, stream)
    for _ in range(3):
        display.message("x")
    assert stream.tries == 1, "then it is silent"


@pytest.mark.parametrize("width", [20, 60, 80, 160])
def test_the_live_bar_fits_and_ends_with_the_last_figures(tmp_path: Path, width: int) -> None:
    out = io.StringIO()
    display = Live(tmp_path, Console(file=out, force_terminal=True, width=width, color_system=None))
    display.preparing("encoding", 3, 9)
    display.preparing("encoding", 9, 9)
    display.begin(CONFIG, 500, 4000)
    for step in range(501, 1001):
        display.step(step, 2.5, 1e-3, 0.25, 8000.0)
    display.message("a message above")
    display.end(Outcome("done", 1000, 1000))
    display.close()
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue()).replace("\r", "\n")
    lines = [line.rstrip() for line in text.split("\n")]
    assert all(len(line) <= width for line in lines if line.startswith(("step", "encoding")))
    assert "a message above" in lines
    assert any(line.endswith(f"cllm generate {tmp_path}") for line in lines), "commands are not broken into lines"
    last = next(line for line in reversed(lines) if line.startswith("step"))
    if width >= 60:
        assert "step 1,000/1,000" in last and "loss 2.5000" in last and "eta 0:00:00" in last
    if width == 160:
        assert "grad 0.25" in last and "8,000 tokens/s" in last and "━" in last


def test_quiet_shows_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with display_for(tmp_path, quiet=True) as display:
        assert type(display) is Silent
        display.preparing("x", 1, 2)
        display.begin(CONFIG, 0, 10)
        display.step(1, 1.0, 1.0, 1.0, 1.0)
        display.message("x")
        display.end(Outcome("done", 1, 1))
    assert capfd.readouterr() == ("", "")


def test_without_a_terminal_all_goes_to_stderr_in_lines(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with display_for(tmp_path) as display:
        assert type(display) is Plain
        display.begin(CONFIG, 0, 10)
        display.step(1, 1.0, 1.0, 1.0, 1.0)
    with bar_for("rows scored") as bar:
        bar(1, 2)
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 2 and "\x1b" not in err


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_on_a_terminal_the_bar_is_live_and_stdout_stays_empty(tmp_path: Path) -> None:
    import pty

    code = (
        "import sys, time\nfrom pathlib import Path\nfrom cllm.config import load\n"
        "from cllm.training.progress import display_for, bar_for\n"
        "with display_for(sys.argv[1]) as d:\n"
        "    d.begin(load(preset='nano', overrides={'train.steps': 20}), 0, 10)\n"
        "    for n in range(1, 21): d.step(n, 2.0, 1e-3, 0.5, 100.0)\n"
        "with bar_for('rows') as bar: bar(1, 2)\n"
    )
    ours, theirs = pty.openpty()
    try:
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=theirs,
            env=environment,
            check=True,
        )
        os.set_blocking(ours, False)
        shown = os.read(ours, 1 << 16).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.stdout == b"" and "step 20/20" in shown and "\x1b[?25h" in shown, "the cursor is given back"
