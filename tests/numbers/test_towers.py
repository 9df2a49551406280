"""Towers: modulo m against exact powers, damped against its recursion, infinite against its equation."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cllm.errors import DomainError, LimitError, UndecidableError
from cllm.numbers import (
    Ball,
    damped_tower,
    e,
    exp,
    infinite_tower,
    log,
    precision,
    sqrt2,
    tower_lower,
    tower_mod,
    tower_upper,
)


def exact_tower(levels: list[int]) -> int | None:
    """The number itself, when it has fewer than 20,000 bits."""
    value = 1
    for base in reversed(levels):
        if base > 1 and value * base.bit_length() > 20_000:
            return None
        value = base**value
    return value


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.integers(1, 2000))
def test_small_towers_exactly(levels: list[int], modulus: int) -> None:
    value = exact_tower(levels)
    if value is not None:
        assert tower_mod(levels, modulus) == value % modulus


def test_every_small_case() -> None:
    for a in range(7):
        for b in range(7):
            for c in range(5):
                value = exact_tower([a, b, c])
                assert value is not None
                for m in range(1, 65):
                    assert tower_mod((a, b, c), m) == value % m, (a, b, c, m)


def test_the_page_and_large_towers() -> None:
    assert tower_mod((2, 3, 2), 11) == 6 and tower_mod((2, 2, 2), 8) == 0 and tower_mod((2, 2, 2, 2), 12) == 4
    assert tower_mod([2] * 5, 10**30) == pow(2, 65536, 10**30)
    # Graham's number ends in …2464195387 (stable digits of 3↑↑n)
    assert tower_mod([3] * 1000, 10**10) == 2464195387
    for m in range(1, 300):  # a stable tower satisfies its own recursion a^x ≡ x
        x = int(tower_mod([7] * 400, m))
        assert tower_mod([7] * 401, m) == x


def test_bad_towers() -> None:
    for levels, modulus in (((), 5), ((2, -1), 5), ((2, 2), 0)):
        with pytest.raises(DomainError, match="tower_mod"):
            tower_mod(levels, modulus)
    with pytest.raises(LimitError):
        tower_mod([2] * 200_000, 7)
    with pytest.raises(LimitError, match="factor"):
        tower_mod([3] * 6, (2**521 - 1) * (2**607 - 1))


@pytest.mark.parametrize("base", [2, 10, "0.5", Fraction(1, 3), "1.4"])
def test_damped_tower_follows_its_recursion(base: object) -> None:
    with mpmath.workprec(400):
        b = (
            mpmath.mpf(base)
            if isinstance(base, str)
            else mpmath.mpf(Fraction(base).numerator) / Fraction(base).denominator
        )  # type: ignore[arg-type]
        value = mpmath.mpf(1)
        for h in range(12):
            ball = damped_tower(base, h, bits=200)  # type: ignore[arg-type]
            text = mpmath.nstr(value, 50)
            assert ball.overlaps(Ball(text) * Ball(1, "1e-45")) and (h == 0 or ball.accuracy_bits >= 200)
            if value > 10**6:
                break  # the next level is beyond the judge
            value = b ** (value * mpmath.phi ** (-(h + 1)))


def test_damped_tower_domain() -> None:
    assert damped_tower(5, 0) == 1
    for base, height in ((0, 3), (-2, 3), (2, -1)):
        with pytest.raises(DomainError, match="damped_tower"):
            damped_tower(base, height)
    with pytest.raises(LimitError):
        damped_tower(2, 10**9)
    with pytest.raises(LimitError):
        damped_tower(Ball(10) ** 50, 20)


def test_infinite_tower_satisfies_its_equation() -> None:
    assert infinite_tower(1) == 1 and infinite_tower(sqrt2).overlaps(2)
    for b in ("0.066", "0.5", "0.999999999999999999999", "1.000000000000000000001", "1.2", "1.4446"):
        y = infinite_tower(b, bits=200)
        with precision(220):
            assert exp(y * log(b)).overlaps(y) and y.accuracy_bits >= 200
    assert infinite_tower("0.5").digits(20) == "0.64118574450498598449"
    assert infinite_tower(tower_upper).overlaps(e()) and infinite_tower(tower_lower).overlaps(1 / e)
    with pytest.raises(UndecidableError):
        infinite_tower(tower_upper())  # a ball around the end lies partly outside
    with pytest.raises(DomainError, match=r"e\^-e"):
        infinite_tower("1.4447")
