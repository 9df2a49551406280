"""`cllm primes` and `cllm lattice`: output, JSON, exit codes, files."""

import csv
import json
import sys

import pytest
import sympy

from cllm.cli import lattice as lattice_cli
from cllm.cli import primes as primes_cli
from cllm.errors import CllmError, LimitError, MissingExtraError, UsageError

APPS = {"primes": primes_cli.app, "lattice": lattice_cli.app}


@pytest.fixture
def call(capsys):
    def run(line, code=0):
        name, *words = line.split()
        try:
            got = APPS[name](words, exit_on_error=False, print_error=False, result_action="return_value")
        except CllmError as error:
            got = error.exit_code
            print(error, file=sys.stderr)
        output = capsys.readouterr()
        assert (got or 0) == code, output.err
        return output.out.strip() if code == 0 or output.out else output.err

    return run


def test_primes_answers(call):
    assert call("primes count 10^12") == "37607912018"
    assert json.loads(call("primes nth 1e6 --json")) == {"n": 10**6, "prime": 15485863}
    assert call("primes list 90 97") == "97"
    assert call("primes list -5 11").split() == ["2", "3", "5", "7", "11"]
    assert call("primes factor 144001").endswith("11 · 13 · 19 · 53")
    assert json.loads(call("primes factor 360 --json")) == {
        "n": 360, "factors": [[2, 3], [3, 2], [5, 1]], "big_omega": 6, "omega": 3, "mobius": 0,
    }  # fmt: skip
    assert call("primes next 2^64") == str(sympy.nextprime(2**64))
    assert call("primes prev 10^12") == "999999999989"
    assert call("primes test 143999 2^61-1") == "143999: prime\n2305843009213693951: prime (Mersenne)"
    assert "144001: not prime" in call("primes test 144001", code=1)


def test_primes_bad_input(call):
    assert "at least 3" in call("primes prev 2", code=2)
    assert "not an integer" in call("primes count 1.5", code=2)
    assert "2^20 bits" in call("primes test 10^999999999", code=2)
    assert "10^15" in call("primes count 10^20", code=2)
    assert "p_1 = 2" in call("primes nth 0", code=2)
    assert "at least one number" in call("primes test", code=2)


@pytest.mark.parametrize(
    ("text", "value"),
    [("12", 12), ("-7", -7), ("1_000", 1000), ("1,000", 1000), ("10^12+1", 10**12 + 1), ("2**5", 32), ("1e6", 10**6),
     ("3*2^30+1", 3 * 2**30 + 1), ("2^127-1", 2**127 - 1), ("5-7*2", -9)],
)  # fmt: skip
def test_integers_as_written(text, value):
    assert primes_cli.integer(text) == value


@pytest.mark.parametrize("text", ["", "x", "1.5", "2^", "10^10^10", "1e", "--3", "2^-1"])
def test_not_integers(text):
    with pytest.raises(UsageError):
        primes_cli.integer(text)


def test_huge_integers_are_refused_before_they_are_made():
    for text in ("10^999999999", "9" * 400_000, "2^1000000*2^1000000"):
        with pytest.raises(LimitError):
            primes_cli.integer(text)


def test_export(call, tmp_path, monkeypatch):
    path = tmp_path / "p.csv"
    call(f"primes export {path} --start 10^6 --stop 10^6+1000")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    expected = list(sympy.primerange(10**6, 10**6 + 1001))
    assert [int(r["prime"]) for r in rows] == expected and int(rows[0]["index"]) == 78499
    import pyarrow.parquet

    path = tmp_path / "t.parquet"
    call(f"primes export {path} --start 1 --stop 3000 --factors")
    table = pyarrow.parquet.read_table(path).to_pydict()
    assert table["n"] == list(range(1, 3001)) and table["mobius"] == [sympy.mobius(n) for n in table["n"]]
    assert "csv or .parquet" in call(f"primes export {tmp_path}/x.txt", code=2)
    assert "cannot be written" in call(f"primes export {tmp_path}/none/x.csv --stop 10", code=2)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    from cllm.lattice.table_file import write_table

    with pytest.raises(MissingExtraError, match=r"cllm\[parquet\]"):
        write_table(tmp_path / "y.parquet", 1, 10)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.csv", "t.parquet"]  # nothing half written


def test_lattice_eval(call):
    shown = json.loads(call("lattice eval 10 12 7 --digits 25 --json"))
    assert float(shown["L"]) == pytest.approx(1.822553440744715266074401e28, rel=1e-15)
    assert shown["Lambda"] == "1/48000" and shown["Psi"] == "12/25" and shown["gamma_k"] == "-1"
    assert len([key for key in shown if key.startswith("cos_")]) == 12
    assert "5556.238174353432281417164" in call("lattice eval 5 12 2 --name seven --omega 528 --psi 4 3 --digits 25")
    assert "n counts from 1" in call("lattice eval 0", code=2)
    assert "opposite parity" in call("lattice eval 1 1 --psi 3 1", code=2)
    assert "unknown name" in call("lattice eval 1 1 --name sevn", code=2)
    assert "digits" in call("lattice eval 1 1 --digits 0", code=2)


def test_lattice_draw_and_animate(call, tmp_path):
    path = tmp_path / "u.png"
    told = json.loads(call(f"lattice draw ulam --count 400 --size 210 --out {path} --json"))
    assert told["checked"] == 441 and path.exists()
    assert "read back: 441 cells, each right" in call(f"lattice draw ulam --count 400 --size 210 --out {path}")
    path = tmp_path / "v.svg"
    call(f"lattice draw vogel --colour mu --count 50 --out {path}")
    assert path.read_text().count("<circle") >= 50
    path = tmp_path / "r.gif"
    call(f"lattice animate --count 100 --frames 3 --size 100 --out {path}")
    assert path.read_bytes()[:4] == b"GIF8"
    assert "did you mean" in call("lattice draw ulm", code=2)
    assert "directory" in call(f"lattice draw ulam --out {tmp_path}", code=2)
    assert "cannot be written" in call(f"lattice draw ulam --count 9 --out {tmp_path}/no/u.png", code=2)


@pytest.mark.parametrize("name", APPS)
def test_help_has_two_examples(name):
    for command in APPS[name]:
        if command.startswith("-"):
            continue
        text = APPS[name][command].help
        assert text.count(f"cllm {name} {command} ") >= 2, command
