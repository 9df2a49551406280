"""Rows that use other rows, errors with their place, certificates that hold and forged ones that do not."""

from __future__ import annotations

import contextlib
import io
import time

import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from cllm.errors import CertificateError, DomainError, LimitError
from cllm.numbers.expression import evaluate, parse
from cllm.studio import calculate_certificate as certificates
from cllm.studio.calculate_sheet import MAX_SHOWN, names, row, used_names


def test_a_row_alone() -> None:
    found = row([], "ln(2)^(1/3)", 60)
    expected = evaluate("ln(2)^(1/3)", 60)
    assert found["text"] == expected.text
    assert found["proven"] == 60
    assert found["kind"] == "real"


def test_variables_and_answers() -> None:
    above = ["x = sqrt(2)", "y = x^2", "factor(12)", "1 + 1", "x = 10"]
    assert row(above, "y + x", 20)["text"] == "12.000000000000000000"
    assert row(above[:4], "x + 0", 20)["text"].startswith("1.414")
    assert row(above, "ans", 20)["text"] == "10"
    assert row(above[:3], "ans", 20)["text"].startswith("2.000")  # factors are no number: the row before them
    assert row(["5", "ans + 1", "ans * 2"], "ans", 20)["text"] == "12"


def test_only_the_rows_that_are_needed_are_evaluated() -> None:
    """A row that takes long, or is wrong, costs the others nothing."""
    above = ["slow = zeta(1/3 + 0)", "1 +", "f = nonsense(3)", "a = 2"]
    began = time.perf_counter()
    assert row([*above, "factor(2^397 - 1)"], "a + 1", 20)["text"] == "3"
    assert time.perf_counter() - began < 5
    assert "row 3" in row(above, "f + 1", 20)["error"]


def test_used_names() -> None:
    assert used_names(parse("x = a*sin(b) + |c|! - 2^ans")) == {"a", "b", "c", "ans"}


@pytest.mark.parametrize(
    ("text", "words", "start", "end"),
    [("1 +", "got the end", 3, 3), ("2 * foo(3)", "unknown function", 4, 7), ("1/0", "division by 0", 0, 3),
     ("sqrt(-1) + 1", "sqrt: got -1", 0, 8), ("pi = 3", "already a constant", 0, 2)],
)  # fmt: skip
def test_errors_say_where(text: str, words: str, start: int, end: int) -> None:
    found = row([], text, 20)
    assert words in found["error"]
    assert (found["start"], found["end"]) == (start, end)
    assert "^^" not in found["error"]


def test_integers_and_kinds() -> None:
    assert row([], "2^100", 10)["integer"] == str(2**100)
    assert row([], "6/4 * 2", 10)["integer"] == "3"
    assert "integer" not in row([], "1/3", 10)
    assert row([], "is_prime(97)", 10)["text"] == "true"
    assert row([], "base60(sqrt(2), 3)", 10)["text"] == "1;24,51,10…"
    long = row([], "10^50000 + 1/3", 20_000)
    assert len(long["text"]) <= MAX_SHOWN


def test_limits() -> None:
    for above, text, digits in (([], "1", 0), ([], "1", 10**9), (["1"] * 501, "1", 10), ([], "1" * 20_001, 10)):
        with pytest.raises(LimitError):
            row(above, text, digits)


def test_names_can_all_be_typed() -> None:
    known = {item["name"] for item in names()}
    assert {"sqrt", "factor", "pi", "ans", "base60", "tower_mod"} <= known
    assert all(item["help"] for item in names())


@given(st.integers(2, 10**18))
def test_certificates_hold(n: int) -> None:
    found = certificates.certificate(str(n))
    assert {int(p): e for p, e in found["factors"]} == sympy.factorint(n)
    for entry in found["primes"]:
        assert sympy.isprime(int(entry["p"]))


def test_the_script_checks_the_certificate_by_itself() -> None:
    """It runs with nothing of ours, and fails when a single number in it is changed."""
    script = certificates.certificate("2^101 - 1")["script"]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(script, "certificate", "exec"), {})  # noqa: S102
    assert "each factor is prime" in out.getvalue()
    with pytest.raises(AssertionError):
        exec(compile(script.replace("341117531003194129", "341117531003194131"), "forged", "exec"), {})  # noqa: S102


@pytest.mark.parametrize("kind", ["witness", "factor", "composite", "missing"])
def test_forged_certificates_are_refused(kind: str) -> None:
    n, factors = 1009 * 1013, [(1009, 1), (1013, 1)]
    entries: dict = {}
    for p, _ in factors:
        certificates._certify(p, entries)
    certificates._check(n, factors, entries)
    if kind == "witness":
        entries[1009]["g"] = 1
    elif kind == "factor":
        entries[1009]["f"] = [(2, 4), (3, 2)]
    elif kind == "composite":
        n, factors = 1009 * 1011, [(1009, 1), (1011, 1)]
        entries[1011] = {"g": 2, "f": [(2, 1), (5, 1), (101, 1)]}
        certificates._certify(101, entries)
    else:
        del entries[1013]
    with pytest.raises(CertificateError):
        certificates._check(n, factors, entries)


@pytest.mark.parametrize("text", ["1", "-7", "1/2", "pi"])
def test_certificates_are_for_integers(text: str) -> None:
    with pytest.raises(DomainError):
        certificates.certificate(text)
    with pytest.raises(LimitError):
        certificates.certificate("2^300 + 1")


def test_an_older_assignment_does_not_matter() -> None:
    assert row(["x = 1/0", "x = 3"], "x + 1", 20)["text"] == "4"
