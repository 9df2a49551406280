"""Ball: construction, arithmetic, comparisons that decide or raise, digits that are proven."""

from __future__ import annotations

import copy
import math
import pickle
import threading
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cllm.errors import DomainError, LimitError, UndecidableError
from cllm.numbers import (
    Ball,
    BigFixed,
    BigInt,
    crt,
    current_bits,
    exp,
    factorial,
    flint_precision,
    modinv,
    pi,
    precision,
    sin,
    sqrt,
    tower_mod,
)
from cllm.numbers.context import at

F = Fraction
rationals = st.fractions(max_denominator=10**12)
finite = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("x", "value"),
    [
        (3, F(3)),
        (-(10**60), F(-(10**60))),
        (0.1, F(0.1)),
        (5e-324, F(5e-324)),
        (F(3, 8), F(3, 8)),
        (Decimal("0.5"), F(1, 2)),
        ("-1.25e2", F(-125)),
        ("1_000", F(1000)),
        ("3/4", F(3, 4)),
        (np.float64(0.1), F(0.1)),
        (np.float32(0.1), F(float(np.float32(0.1)))),
        (np.int64(-7), F(-7)),
        (np.float16(0.1), F(float(np.float16(0.1)))),
        (np.uint8(255), F(255)),
        (BigInt(10) ** 30, F(10**30)),
        (BigFixed(3, 1), F(3, 2)),
        (True, F(1)),
        (np.longdouble("1.5"), F(3, 2)),
    ],
)
def test_exact_construction(x: object, value: Fraction) -> None:
    ball = Ball(x)  # type: ignore[arg-type]
    assert ball.is_exact and ball.as_fraction() == value and ball == value and hash(ball) == hash(value)


@pytest.mark.parametrize("x", ["0.1", F(1, 3), Decimal("0.1"), "1/3", "-2.7e-30"])
def test_what_is_not_dyadic_is_enclosed(x: object) -> None:
    ball = Ball(x, bits=100)  # type: ignore[arg-type]
    assert not ball.is_exact and 98 <= ball.accuracy_bits <= 102
    assert ball.contains(F(x))  # type: ignore[arg-type]
    assert not ball.contains(F(x) + F(1, 2**90))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "x", ["", "abc", "1.2.3", "0x10", "1/0", "[2, 1]", "--1", "1e", ".", math.nan, math.inf, "nan"]
)
def test_what_is_no_number(x: object) -> None:
    with pytest.raises(DomainError):
        Ball(x)  # type: ignore[arg-type]


def test_types_that_are_no_reals() -> None:
    for x in (1j, None, [1], np.array([1.0, 2.0])):
        with pytest.raises(TypeError):
            Ball(x)  # type: ignore[arg-type]


def test_intervals_and_radii() -> None:
    for ball in (Ball("[1, 2]"), Ball("1.5 ± 0.5"), Ball("[1.5 +/- 0.5]"), Ball("1.5", "0.5"), Ball.between(1, 2)):
        assert ball.contains(1) and ball.contains(2) and not ball.contains("2.001") and not ball.contains("0.999")
    assert Ball("[+/- 3]").contains(-3)
    with pytest.raises(DomainError, match="radius"):
        Ball(1, -1)


@given(rationals, rationals, st.sampled_from([24, 53, 128, 400]))
def test_arithmetic_encloses(x: Fraction, y: Fraction, bits: int) -> None:
    with precision(bits):
        a, b = Ball(x), Ball(y)
        assert (a + b).contains(x + y) and (a - b).contains(x - y) and (a * b).contains(x * y)
        assert (a + y).contains(x + y) and (x - b).contains(x - y) and (-a).contains(-x) and abs(a).contains(abs(x))
        assert (a**3).contains(x**3)
        if y:
            assert (a / b).contains(x / y) and (x / b).contains(x / y)


@given(finite, finite)
def test_order_of_exact_balls_is_the_order_of_floats(x: float, y: float) -> None:
    a, b = Ball(x), Ball(y)
    assert (a < b, a <= b, a == b, a != b, a >= b, a > b) == (x < y, x <= y, x == y, x != y, x >= y, x > y)
    assert (a < y, a == y, x < b, x == b) == (x < y, x == y, x < y, x == y)
    assert float(a) == x and a.nearest_float() == x


def test_comparisons_never_guess() -> None:
    third, wide = Ball(F(1, 3)), Ball(1, "0.5")
    assert third < F(34, 100) and third > "0.33" and third != 1
    for question in (
        lambda: third == F(1, 3),
        lambda: third != third,
        lambda: wide < 1,
        lambda: wide >= "1.2",
        lambda: bool(Ball(0, 1)),
        lambda: wide.__floor__(),
        lambda: round(wide),
        lambda: wide.nearest_float(),
        lambda: wide.as_fraction(),
        lambda: 1 / Ball(0, 1),
    ):
        with pytest.raises(UndecidableError, match=r"\+/-"):
            question()
    with pytest.raises(TypeError, match="unhashable"):
        hash(third)
    assert Ball(2) == 2 and 2 in {Ball(2)} and Ball("0.5") == F(1, 2)


def test_floor_mod_and_rounding() -> None:
    x = Ball("7.3")
    assert (math.floor(x), math.ceil(x), int(x), round(x), int(-x), math.floor(-x)) == (7, 8, 7, 7, -7, -8)
    assert x // 2 == 3 and (x % 2).contains(F(13, 10)) and 7 // Ball(2) == 3 and (7.5 % Ball(2)).contains(F(3, 2))
    assert round(Ball("2.676"), 2) == F(268, 100) and int(Ball(0, "0.5")) == 0
    with pytest.raises(ZeroDivisionError):
        x / 0
    with pytest.raises(DomainError):
        Ball(0) ** -1


def test_powers() -> None:
    assert Ball(2) ** 10 == 1024 and Ball(2) ** -2 == F(1, 4) and 2 ** Ball(3) == 8 and Ball(0) ** 0 == 1
    assert (Ball(2) ** F(1, 2)).overlaps(sqrt(2)) and (Ball(-2) ** 3) == -8 and (Ball(-2) ** Ball(3)) == -8
    assert (Ball(10) ** (10**9)).digits(3) == "1.00e+1000000000"
    assert (Ball(2) ** pi).digits(20) == "8.8249778270762876239"
    assert (Ball.from_mantissa_exponent(1, -1, 1, -1) ** F(1, 2)).contains(1)  # [0, 1]
    assert (Ball(2) ** (2**80)).is_exact and (Ball(F(-1, 4)) ** -3) == -64 and Ball(-1) ** (10**30 + 1) == -1
    with pytest.raises(UndecidableError):
        Ball(-2) ** Ball(3, "0.1")
    with pytest.raises(UndecidableError):
        Ball("[-1, 1]") ** F(1, 2)


@given(rationals.filter(bool), st.integers(1, 60), st.sampled_from([53, 128, 256]))
def test_digits_are_the_correct_rounding(x: Fraction, n: int, bits: int) -> None:
    """Every digit printed is proven: the decimal is within half a unit of its last place of the exact value."""
    text = Ball(x, bits=bits).digits(n)
    mantissa, _, exponent = text.partition("e")
    places = len(mantissa.partition(".")[2]) - int(exponent or 0)
    assert abs(F(text) - x) <= F(10) ** -places / 2
    shown = mantissa.replace(".", "").replace("-", "").lstrip("0")
    assert len(shown) <= n or set(shown) == {"0"}
    assert len(shown) >= min(n, int(bits * 0.301) - 3)


@given(st.one_of(rationals, finite.map(F)), st.integers(1, 40))
def test_bounds_enclose_tightly(x: Fraction, n: int) -> None:
    low, high = (F(t) for t in Ball(x, bits=200).bounds(n))
    assert low <= x <= high
    if x:
        assert high - low <= abs(x) * F(10) ** (1 - n) * F(21, 10)  # two units: x may be a decimal itself


@given(finite, st.integers(0, 3))
def test_text_contains_the_ball(x: float, size: int) -> None:
    ball = Ball(x) if size == 0 else Ball(x, F(1, 10 ** (10 * size)))
    assert Ball(str(ball), bits=2000).contains(ball)
    assert eval(repr(ball), {"Ball": Ball}).overlaps(ball)


def test_text() -> None:
    assert str(Ball(3)) == "3" and str(Ball("0.25")) == "0.25" and str(Ball("[1, 2]")) == "[1.500 +/- 5.01e-1]"
    assert f"{sqrt(2):.30f}" == "1.414213562373095048801688724210" and f"{Ball(1234567.5):>15,.2f}" == "   1,234,567.50"
    assert f"{exp(100):.5e}" == "2.68812e+43" and f"{Ball(2):.3g}" == "2.00" and f"{-Ball(2):08.2f}" == "-0002.00"
    assert Ball(0).digits() == "0" and Ball(100).digits(5) == "100.00" and Ball(10**30).digits(5) == "1.0000e+30"
    assert Ball(2.5).digits(1) == "2" and Ball(3.5).digits(1) == "4"  # ties to even
    assert Ball("0.001234").digits(3) == "0.00123" and (exp(exp(50))).digits(6) == "2.73727e+2251689001358648043629"
    assert Ball(2**-5).digits() == "0.03125" and Ball(1200).digits() == "1200"
    with pytest.raises(UndecidableError):
        Ball("1 ± 0.5").digits(3)
    with pytest.raises(UndecidableError):
        format(Ball("1 ± 0.01"), ".5f")
    with pytest.raises(ValueError, match="Invalid format"):
        format(Ball(1), "d")
    with pytest.raises(DomainError):
        Ball(1).digits(0)


def test_parts_and_sets() -> None:
    ball = Ball("1 ± 0.25")
    assert ball.middle == 1 and ball.radius >= F(1, 4) and ball.lower <= F(3, 4) and ball.upper >= F(5, 4)
    assert 1 in ball and ball.contains(Ball("1 ± 0.1")) and not Ball("1 ± 0.1").contains(ball)
    assert ball.overlaps(F(5, 4)) and not ball.overlaps(2)
    assert ball.union(3).contains(2) and ball.intersection("[1.1, 9]").contains("1.2")
    with pytest.raises(UndecidableError, match="disjoint"):
        ball.intersection(7)


@given(st.integers(-(2**300), 2**300), st.integers(-500, 500), st.integers(0, 2**30 - 1), st.integers(-500, 500))
def test_pickling_keeps_every_bit(m: int, e: int, r: int, f: int) -> None:
    ball = Ball.from_mantissa_exponent(m, e, r, f)
    assert pickle.loads(pickle.dumps(ball)).is_identical(ball) and copy.deepcopy(ball) is ball
    again = Ball.from_mantissa_exponent(*ball.mantissa_exponent())
    assert again.is_identical(ball)
    assert ball.contains(F(m) * F(2) ** e + F(r) * F(2) ** f)
    assert pickle.loads(pickle.dumps([pi, sin])) == [pi, sin]


def test_precision_is_a_context_not_a_global() -> None:
    assert current_bits() == 128
    with precision(64):
        assert current_bits() == 64 and sqrt(2).accuracy_bits < 90
        with precision(1000):
            assert sqrt(2).accuracy_bits >= 1000
        assert current_bits() == 64
    assert current_bits() == 128 and sqrt(2, bits=500).accuracy_bits >= 500

    @precision(300)
    def inside() -> int:
        return current_bits()

    assert inside() == 300 and current_bits() == 128
    with pytest.raises(LimitError):
        precision(10**10).__enter__()


def test_threads_do_not_see_each_others_precision() -> None:
    import flint

    before, failures = flint.ctx.prec, []

    def work(bits: int) -> None:
        with precision(bits):
            for _ in range(200):
                got = (sqrt(2) * 3).accuracy_bits
                if not bits - 4 <= got <= bits + 24:
                    failures.append((bits, got))

    threads = [threading.Thread(target=work, args=(bits,)) for bits in (64, 200, 1000, 3000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and flint.ctx.prec == before


def test_flint_precision_is_restored_after_an_error() -> None:
    import flint

    before = flint.ctx.prec
    with pytest.raises(DomainError), precision(777):
        sqrt(-1)
    assert flint.ctx.prec == before and current_bits() == 128


def test_lending_flints_precision_is_exclusive_and_ends() -> None:
    """While one thread computes at its precision, no other can set its own; afterwards the old one is back."""
    import time

    import flint

    before, wrong = flint.ctx.prec, []

    def slow(bits: int) -> None:
        for _ in range(5):
            seen = at(bits, lambda: (time.sleep(0.002), flint.ctx.prec)[1])  # sleeping lets the others run
            with flint_precision(bits + 1):
                time.sleep(0.002)
                if (seen, flint.ctx.prec) != (bits, bits + 1):
                    wrong.append((seen, flint.ctx.prec, bits))

    threads = [threading.Thread(target=slow, args=(bits,)) for bits in (100, 200, 300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and flint.ctx.prec == before
    with pytest.raises(ValueError, match="inside"), flint_precision(999):
        raise ValueError("inside")
    assert flint.ctx.prec == before


def test_messages_about_numbers_of_very_many_digits() -> None:
    """Python refuses to write an int of more than 4300 digits; our messages must not fail for that."""
    huge = 10**6000
    for call in (
        lambda: BigInt(F(huge, 3)),
        lambda: tower_mod([huge], -huge),
        lambda: modinv(2 * huge, 4 * huge),
        lambda: crt([0, 1], [huge, 2 * huge]),
        lambda: factorial(-huge),
        lambda: sqrt(-huge),
        lambda: BigFixed(F(huge, 3), 0),  # type: ignore[arg-type]
    ):
        with pytest.raises(DomainError) as caught:
            call()
        assert len(str(caught.value)) < 400
    with pytest.raises(UndecidableError):
        math.floor(Ball(huge, 3))
    assert len(str(BigInt(huge))) == 6001 and Ball(huge).digits(5) == "1.0000e+6000"
