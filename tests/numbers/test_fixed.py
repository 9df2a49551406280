"""BigFixed: exact arithmetic rounded once, in every mode, at mixed scales; a citizen of Python's numeric tower."""

from __future__ import annotations

import math
import numbers
import pickle
import random
import statistics
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cllm.errors import DomainError, LimitError, UsageError
from cllm.numbers import Ball, BigFixed, BigInt, euler_gamma, exp, log, pi, rounding, sin, sqrt

F = Fraction
MODES = ["nearest-even", "nearest-away", "floor", "ceiling", "toward-zero", "away-from-zero"]
fixed = st.builds(BigFixed, st.integers(-(2**90), 2**90), st.integers(0, 70))
fractions = st.fractions(max_denominator=10**9)


def rounded(x: Fraction, scale: int, mode: str) -> int:
    """The definition of each mode, independently of the code."""
    y = x * 2**scale
    low = math.floor(y)
    if y == low:
        return low
    if mode == "floor" or (mode == "toward-zero" and y > 0) or (mode == "away-from-zero" and y < 0):
        return low
    if mode in ("ceiling", "toward-zero", "away-from-zero"):
        return low + 1
    if y - low != F(1, 2):
        return low if y - low < F(1, 2) else low + 1
    if mode == "nearest-even":
        return low if low % 2 == 0 else low + 1
    return low if y < 0 else low + 1


@given(fixed, fixed, st.sampled_from(MODES))
def test_arithmetic_is_the_exact_result_rounded_once(x: BigFixed, y: BigFixed, mode: str) -> None:
    a, b, scale = x.as_fraction(), y.as_fraction(), max(x.scale_bits, y.scale_bits)
    with rounding(mode):  # type: ignore[arg-type]
        results = [(x + y, a + b), (x - y, a - b), (x * y, a * b)]
        if b:
            results += [(x / y, a / b), (x % y, a % b)]
            assert x // y == a // b and divmod(x, y) == (a // b, x % y) and (x % y).as_fraction() == a % b
        for got, exact in results:
            assert got.scale_bits == scale and got.n == rounded(exact, scale, mode)


@given(fixed, fractions, st.sampled_from(MODES))
def test_exact_operands_take_part_exactly(x: BigFixed, q: Fraction, mode: str) -> None:
    a = x.as_fraction()
    with rounding(mode):  # type: ignore[arg-type]
        results = [(x + q, a + q), (q + x, a + q), (x - q, a - q), (q - x, q - a), (x * q, a * q), (q * x, a * q)]
        if q:
            results.append((x / q, a / q))
        if a:
            results.append((q / x, q / a))
        for got, exact in results:
            assert (
                type(got) is BigFixed and got.scale_bits == x.scale_bits and got.n == rounded(exact, x.scale_bits, mode)
            )


@given(fixed, fixed, fractions)
def test_order_and_hash_are_those_of_the_value(x: BigFixed, y: BigFixed, q: Fraction) -> None:
    a, b = x.as_fraction(), y.as_fraction()
    assert (x < y, x <= y, x == y, x != y, x > y, x >= y) == (a < b, a <= b, a == b, a != b, a > b, a >= b)
    assert (x < q, x == q, q < x, q == x) == (a < q, a == q, q < a, q == a)
    assert hash(x) == hash(a) and hash(x.rescale(x.scale_bits + 9)) == hash(x) and x.rescale(x.scale_bits + 9) == x
    assert Fraction(x) == a and x.as_integer_ratio() == a.as_integer_ratio()


def test_numeric_tower() -> None:
    x = BigFixed(3, 1)
    assert isinstance(x, numbers.Real) and isinstance(x, numbers.Rational) and not isinstance(x, numbers.Integral)
    assert hash(BigFixed(6, 1)) == hash(3) and BigFixed(6, 1) == 3 == BigInt(3) and {F(3, 2): 1}[x] == 1 and x == 1.5
    assert x + 1 == 2.5 and 1 - x == F(-1, 2) and x * 2.0 == 3 and Decimal("0.5") + x == 2 and BigInt(2) * x == 3
    assert np.float64(0.5) + x == 2 and type(np.float64(0.5) + x) is BigFixed and x * np.int64(2) == 3
    assert float(x) == 1.5 and complex(x) == 1.5 and int(BigFixed(-3, 1)) == -1 and bool(x) and not BigFixed(0, 9)
    assert (
        math.floor(-x) == -2
        and math.ceil(-x) == -1
        and math.trunc(-x) == -1
        and round(x) == 2
        and round(BigFixed(5, 1)) == 2
    )
    assert round(BigFixed.from_string("2.676", 100), 2) == BigFixed.from_string("2.68", 100)
    assert (
        x.real is x and x.imag == 0 and x.conjugate() is x and abs(-x) == x and +x is x and BigFixed(4, 1).is_integer()
    )
    assert isinstance(x + Ball(1), Ball) and isinstance(pi * x, Ball) and x < pi and x < math.inf and x != math.nan
    assert statistics.mean([F(1), F(2)]) == BigFixed(3, 1) and sorted([2, x, 1]) == [1, x, 2] and sum([x, x]) == 3
    assert pickle.loads(pickle.dumps(x)) == x and eval(repr(x), {"BigFixed": BigFixed}) == x
    with pytest.raises(ZeroDivisionError):
        x / 0
    with pytest.raises(DomainError):
        x % 0
    with pytest.raises(TypeError):
        x + "1"


@given(st.integers(-(2**200), 2**200), st.integers(0, 150), st.integers(0, 60))
def test_formatting_is_the_decimal_rounding(n: int, scale: int, digits: int) -> None:
    x = BigFixed(n, scale)
    text = f"{x:.{digits}f}"
    assert F(text) == round(x.as_fraction(), digits)
    assert len(text.partition(".")[2]) == digits
    assert BigFixed.from_string(str(x), scale) == x


def test_text() -> None:
    x = BigFixed.from_string("1234567.891", 100)
    assert (
        f"{x:>20,.2f}|{x:+.1f}|{x:.3e}|{x:.4g}|{-x:015.2f}"
        == "        1,234,567.89|+1234567.9|1.235e+6|1.235e+6|-00001234567.89"
    )
    assert f"{sqrt(BigFixed.from_string('2', 200)):.50f}" == "1.41421356237309504880168872420969807856967187537695"
    assert str(BigFixed(1, 1)) == "0.5" and str(BigFixed(3, 0)) == "3" and str(BigFixed(4, 2)) == "1.0"
    assert (
        BigFixed.from_string("22/7", 10).n == round(F(22, 7) * 1024)
        and BigFixed.from_string("-1.5e-2", 3, "floor").n == -1
    )
    for wrong in ("", "x", "1..2", "nan", "1e999999999"):
        with pytest.raises(DomainError):
            BigFixed.from_string(wrong, 10)


def test_construction() -> None:
    assert BigFixed.from_value(0.1, 60).n == round(F(0.1) * 2**60) and BigFixed.from_value(Decimal("0.1"), 4).n == 2
    assert BigFixed.from_value(pi, 100) < pi < BigFixed.from_value(pi, 100, "ceiling")
    assert BigFixed.from_value(euler_gamma, 64, "floor") < euler_gamma
    for call in (lambda: BigFixed(0.5, 1), lambda: BigFixed(1, -1), lambda: BigFixed.from_value(Ball(1), 5)):  # type: ignore[arg-type]
        with pytest.raises(DomainError):
            call()
    with pytest.raises(LimitError, match="scale_bits"):
        BigFixed(1, 10**10)
    with pytest.raises(LimitError):
        BigFixed(10, 0) ** (10**9)
    with pytest.raises(UsageError, match="floor"):
        BigFixed.from_value(1, 2, "flor")


def test_functions_dispatch_to_correct_rounding_at_the_larger_scale() -> None:
    x = BigFixed.from_string("0.5", 80)
    assert type(exp(x)) is BigFixed and exp(x).scale_bits == 80 and sin(x).n == sin.rounded(F(1, 2), scale_bits=80).n
    assert log(BigFixed(8, 3), BigFixed(2, 90)).scale_bits == 90 and (x ** BigFixed(1, 100)).scale_bits == 100
    with rounding("floor"):
        low = exp(x)
    with rounding("ceiling"):
        high = exp(x)
    assert high.n - low.n == 1 and Ball(low) < exp(F(1, 2), bits=200) < Ball(high)
    assert (BigFixed(9, 2) ** BigFixed(1, 1)) == F(3, 2) and 2 ** BigFixed(3, 0) == 8 and BigFixed(2, 0) ** -1 == 0


def test_rounding_modes_nest_and_end() -> None:
    with rounding("floor"):
        assert (BigFixed(1, 4) / 3).n == 0
        with rounding("ceiling"):
            assert (BigFixed(1, 4) / 3).n == 1
        assert (BigFixed(-1, 4) / 3).n == -1
    assert (BigFixed(2, 4) / 3).n == 1


@pytest.mark.prove
def test_ten_thousand_divisions_and_powers_in_every_mode() -> None:
    rng = random.Random(5)
    for _ in range(10_000):
        x, y = F(rng.getrandbits(200) - 2**199, 2**100), F(rng.getrandbits(90) + 1, 2**60)
        scale, mode = rng.randint(0, 200), rng.choice(MODES)
        a = BigFixed.from_value(x, 100).rescale(max(scale, 100))
        with rounding(mode):  # type: ignore[arg-type]
            got = a / y
        assert got.n == rounded(x / y, got.scale_bits, mode)
