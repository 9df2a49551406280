"""Expressions: grammar, exactness, proven digits, places of errors; nothing is ever evaluated by Python."""

from __future__ import annotations

import ast
import contextlib
import math
from fractions import Fraction
from pathlib import Path

import mpmath
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cllm.numbers.expression as expression_package
from cllm.errors import CllmError, DomainError, LimitError, UndecidableError, UsageError
from cllm.numbers.expression import ExpressionError, Sheet, evaluate, known_names, parse

EXACT = {
    "1+2*3": 7,
    "(1+2)*3": 9,
    "2^3^2": 512,
    "-2^2": -4,
    "(-2)^2": 4,
    "2^-2": Fraction(1, 4),
    "2**3": 8,
    "--3": 3,
    "-+-3": 3,
    "7//2": 3,
    "-7//2": -4,
    "7 mod 3": 1,
    "-7 % 3": 2,
    "7.5 mod 2": Fraction(3, 2),
    "mod(7, 3)": 1,
    "6/4": Fraction(3, 2),
    "1/3 + 1/6": Fraction(1, 2),
    "0.1 + 0.2": Fraction(3, 10),
    "1e3": 1000,
    "2.5e-1": Fraction(1, 4),
    "1_000": 1000,
    ".5": Fraction(1, 2),
    "0xff + 0b11 + 0o7": 265,
    "5!": 120,
    "3!!": 720,
    "2^3!": 64,
    "-3!": -6,
    "|−3|": 3,
    "|2-5|*2": 6,
    "√4": 2,
    "√4*2": 4,
    "√9/4": Fraction(3, 4),
    "sqrt(9/4)": Fraction(3, 2),
    "8^(1/3)": 2,
    "log(8, 4)": Fraction(3, 2),
    "sin(0) + cos(0) + exp(0)": 2,
    "gamma(5)": 24,
    "zeta(-1)": Fraction(-1, 12),
    "sinpi(1/6)": Fraction(1, 2),
    "gcd(12, 18, 27)": 3,
    "lcm(4, 6)": 12,
    "binomial(10, 3)": 120,
    "fib(10)": 55,
    "primorial(10)": 210,
    "isqrt(17)": 4,
    "next_prime(100)": 101,
    "prevprime(100)": 97,
    "totient(36)": 12,
    "moebius(30)": -1,
    "sigma(28)": 56,
    "sigma(28, 0)": 6,
    "jacobi(2, 7)": 1,
    "modpow(3, 100, 7)": 4,
    "modinv(3, 11)": 4,
    "crt(2, 3, 3, 5, 2, 7)": 23,
    "tower_mod(11, 2, 3, 2)": 6,
    "floor(-1/2)": -1,
    "ceil(7/2)": 4,
    "round(5/2)": 2,
    "frac(-1.25)": Fraction(3, 4),
    "sgn(-2)": -1,
    "abs(-2)": 2,
    "min(3, 1, 2)": 1,
    "max(3, 1, 2)": 3,
    "0^0": 1,
    "pi * 0": 0,
    "floor(pi*10^5)": 314159,
    "ceil(e)": 3,
    "round(100*phi)": 162,
    "2^100 mod 97": pow(2, 100, 97),
    "4 · 5 × 2 ÷ 8": 5,
    "factorial(20)/factorial(18)": 380,
    "carmichael(24)": 2,
    "+".join(["1"] * 3000): 3000,
    "infinite_tower(1/4)": Fraction(1, 2),
    "damped_tower(2, 0)": 1,
    "infinite_tower(1)": 1,
    "hypot(3, 4)": 5,
    "(2/3)^-3": Fraction(27, 8),
    "1^(10^30)": 1,
}


@pytest.mark.parametrize(("text", "value"), EXACT.items())
def test_rationals_stay_exact(text: str, value: Fraction) -> None:
    result = evaluate(text)
    assert result.fraction == value and result.kind == ("integer" if Fraction(value).denominator == 1 else "rational")
    assert result.exact == str(Fraction(value)) and result.ball.contains(value)


REAL = {
    "ln(2)^(1/3)": lambda: mpmath.log(2) ** (mpmath.mpf(1) / 3),
    "sin(1)^2": lambda: mpmath.sin(1) ** 2,
    "exp(pi*sqrt(163))": lambda: mpmath.exp(mpmath.pi * mpmath.sqrt(163)),
    "π^e": lambda: mpmath.pi**mpmath.e,
    "zeta(3) + gamma(1/3)": lambda: mpmath.zeta(3) + mpmath.gamma(mpmath.mpf(1) / 3),
    "(1/2)!": lambda: mpmath.gamma(1.5),
    "atan2(1, -2)": lambda: mpmath.atan2(1, -2),
    "W(1)": lambda: mpmath.lambertw(1),
    "log(10, 3)": lambda: mpmath.log(10, 3),
    "-√2": lambda: -mpmath.sqrt(2),
    "sin(10^40)": lambda: mpmath.sin(mpmath.mpf(10) ** 40),
    "φ": lambda: mpmath.phi,
    "1 - cos(10^-20)": lambda: 1 - mpmath.cos(mpmath.mpf(10) ** -20),
    "2^0.5": lambda: mpmath.sqrt(2),
    "frac(exp(20))": lambda: mpmath.frac(mpmath.exp(20)),
    "pi mod 1": lambda: mpmath.pi - 3,
    "erf(1/2)": lambda: mpmath.erf(0.5),
    "agm(1, √2)": lambda: mpmath.agm(1, mpmath.sqrt(2)),
    "min(pi, e)": lambda: mpmath.e,
    "γ": lambda: mpmath.euler,
}


@pytest.mark.parametrize("digits", [1, 15, 40, 300])
@pytest.mark.parametrize("text", REAL)
def test_every_printed_digit_is_right(text: str, digits: int) -> None:
    result = evaluate(text, digits)
    with mpmath.workdps(2 * digits + 80):
        value = REAL[text]().real
        shown = mpmath.mpf(result.text)
        unit = mpmath.mpf(10) ** (mpmath.floor(mpmath.log10(abs(value))) - digits + 1)
        assert abs(shown - value) <= unit * (mpmath.mpf(1) / 2 + mpmath.mpf(10) ** -20)
        assert mpmath.mpf(result.lower) <= value <= mpmath.mpf(result.upper)
    assert result.proven == digits
    mantissa = result.text.lstrip("-").partition("e")[0].replace(".", "").lstrip("0")
    assert len(mantissa) == digits


def test_other_kinds() -> None:
    assert evaluate("factor(-360)").text == "-1 · 2^3 · 3^2 · 5" and evaluate("factor(1)").text == "1"
    assert evaluate("factor(360)").as_dict()["value"] == [["2", 3], ["3", 2], ["5", 1]]
    assert evaluate("is_prime(2^127 - 1)").text == "true" and evaluate("isprime(561)").raw.value is False  # type: ignore[union-attr]
    assert evaluate("divisors(12)").text == "1, 2, 3, 4, 6, 12" and evaluate("base(255, 16)").text == "ff"
    assert evaluate("base60(305470)").text == "1,24,51,10" and evaluate("base60(1.5)").text == "1;30"
    assert evaluate("base60(sqrt(2), 3)").text == "1;24,51,10…"  # tablet YBC 7289
    assert evaluate("base60(-1/7, 3)").text == "-0;8,34,17…" and evaluate("base(-10, 60)").text == "-10"
    for text in ("factor(6) + 1", "x = factor(6)", "sin(is_prime(3))"):
        with pytest.raises(DomainError, match="number"):
            evaluate(text)


def test_text_of_results() -> None:
    assert (
        evaluate("1/3", 5).text == "0.33333"
        and evaluate("2/3", 5).text == "0.66667"
        and evaluate("1/8", 30).text == "0.125"
    )
    assert (
        evaluate("100", 30).text == "100"
        and evaluate("10^50", 5).text == "1e+50"
        and evaluate("2^100", 5).text == "1.2677e+30"
    )
    assert (
        evaluate("2^100", 5).exact == str(2**100)
        and evaluate("1e-400").text == "1e-400"
        and evaluate("120", 2).text == "1.2e+2"
    )
    third = evaluate("1/3", 4)
    assert (third.lower, third.upper) == ("0.3333", "0.3334")
    assert evaluate("10^20000").exact is None and evaluate("10^20000").kind == "integer"


@pytest.mark.parametrize("text", ["sin(pi)", "sqrt(2)^2 - 2", "gamma(1/2)^2 - pi"])
def test_what_may_be_zero_is_not_called_zero(text: str) -> None:
    result = evaluate(text, 20)
    assert (
        result.proven == 0
        and result.text.startswith("between -")
        and Fraction(result.lower) < 0 < Fraction(result.upper)
    )  # type: ignore[arg-type]


def test_sheet() -> None:
    sheet = Sheet()
    assert sheet.evaluate("x = 1/3").name == "x" and sheet.evaluate("x * 3").fraction == 1
    assert sheet.evaluate("ans + 1").fraction == 2
    sheet.evaluate("r = sqrt(2)", 5)
    assert sheet.evaluate("r", 60).text.startswith("1.41421356237309504880168872420969807856967187537694807317668")
    sheet.evaluate("s = r + 1")
    sheet.evaluate("r = 10")  # s keeps the r it was made with
    assert sheet.evaluate("s", 10).text == "2.414213562"
    sheet.evaluate("x = x + 1")
    assert sheet.evaluate("x").fraction == Fraction(4, 3) and {"x", "r", "s", "ans"} <= set(sheet.names())
    with pytest.raises(ExpressionError, match="already a constant"):
        sheet.evaluate("pi = 3")
    with pytest.raises(ExpressionError, match="already a function"):
        sheet.evaluate("sin = 3")
    sheet.evaluate("y = sqrt(2)")
    for _ in range(500):
        sheet.evaluate("y = y + 1", 5)
    assert sheet.evaluate("y", 10).text == "501.4142136"

    def deepen() -> None:
        for _ in range(1000):
            sheet.evaluate("y = 1/(1 + y)", 5)

    with pytest.raises(LimitError, match="nested"):  # stopped before the interpreter's stack is
        deepen()


WRONG = {
    "": (0, "expected an expression"),
    "1 +": (3, "the end"),
    "1 + * 2": (4, "expected a number"),
    "(1": (2, r"'\)'"),
    "1)": (1, "operator or the end"),
    "2pi": (1, r"2\*pi"),
    "2 (3)": (2, "operator"),
    "foo(1)": (0, "unknown function"),
    "1 + sine(2)": (4, "did you mean"),
    "x": (0, "unknown name"),
    "sin": (0, "is a function"),
    "pi(2)": (0, "not a function"),
    "1 $ 2": (2, "unexpected character"),
    "sin(1, 2)": (0, "got 2 arguments"),
    "gcd()": (0, "got 0 arguments"),
    "f(,": (2, "expected"),
    "1 = 2": (2, "plain name"),
    "0x": (1, "operator"),
    "1..2": (2, "operator"),
    "a.b": (1, "unexpected"),
    "'1'": (0, "unexpected"),
    "|1": (2, r"'\|'"),
    "!": (0, "expected"),
    "2 3": (2, "operator"),
}


@pytest.mark.parametrize(("text", "where"), WRONG.items())
def test_errors_say_where(text: str, where: tuple[int, str]) -> None:
    with pytest.raises(ExpressionError, match=where[1]) as caught:
        evaluate(text)
    assert caught.value.start == where[0] and caught.value.exit_code == 2
    line = str(caught.value).splitlines()
    assert line[-1].index("^") == 2 + where[0]


@pytest.mark.parametrize(
    ("text", "error", "start"),
    [
        ("1 + log(-1)", DomainError, 4),
        ("3 * (1/0)", DomainError, 5),
        ("1 + sqrt(-2)*2", DomainError, 4),
        ("gcd(1.5, 2)", DomainError, 0),
        ("tan(pi/2)", UndecidableError, 0),
        ("1/sin(pi)", UndecidableError, 0),
        ("2 + 10^(10^9)", LimitError, 4),
        ("(-8)^(1/3)", DomainError, 1),
        ("1e999999", LimitError, None),
        ("10000000000!", LimitError, 0),
        ("9^9^9^9", LimitError, None),
        ("base(10, 99)", DomainError, 0),
    ],
)
def test_mathematical_errors_point_into_the_text(text: str, error: type[CllmError], start: int | None) -> None:
    with pytest.raises(error) as caught:
        evaluate(text)
    assert "^" in str(caught.value).splitlines()[-1]
    if start is not None:
        assert caught.value.start == start  # type: ignore[attr-defined]


def test_absurd_texts_are_refused() -> None:
    for text in ("(" * 5000 + "1" + ")" * 5000, "-" * 5000 + "1", "1" * 2_000_000, "2^" * 3000 + "2", "√" * 5000 + "2"):
        with pytest.raises(LimitError):
            evaluate(text)
    with pytest.raises(LimitError, match="digits"):
        evaluate("pi", 10**9)
    with pytest.raises(DomainError):
        evaluate("pi", 0)


@given(
    st.recursive(
        st.integers(0, 50).map(str),
        lambda inner: (
            st.tuples(inner, st.sampled_from(["+", "-", "*", " // ", " % "]), inner).map(
                lambda t: f"({t[0]}{t[1]}{t[2]})"
            )
            | inner.map(lambda t: f"(-{t})")
        ),
        max_leaves=12,
    )
)
def test_random_integer_expressions_agree_with_python(text: str) -> None:
    """The judge is Python's own arithmetic on the same text (of digits and operators only)."""
    try:
        expected = eval(compile(ast.parse(text, mode="eval"), "judge", "eval"), {"__builtins__": {}})
    except ZeroDivisionError:
        with pytest.raises(DomainError, match="0"):
            evaluate(text)
        return
    assert evaluate(text).fraction == expected


@given(st.text(max_size=30))
def test_any_text_gives_a_value_or_an_error_of_ours(text: str) -> None:
    with contextlib.suppress(UsageError, LimitError):
        parse(text)


def test_names_are_listed_and_there_is_no_eval() -> None:
    assert {"sin", "pi", "factor", "ln", "base60", "ans"} <= set(known_names())
    for path in Path(expression_package.__file__).parent.glob("*.py"):
        calls = [
            n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        ]
        assert not {c.func.id for c in calls if isinstance(c.func, ast.Name)} & {
            "eval",
            "exec",
            "compile",
            "__import__",
        }
    assert math.isfinite(float(evaluate("pi").ball))
