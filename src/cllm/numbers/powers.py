"""x to the power y, for exact and enclosed bases and exponents."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from flint import arb, fmpz

from cllm.errors import DomainError
from cllm.numbers.context import at
from cllm.numbers.convert import dyadic, exact_rational, to_arb
from cllm.numbers.operators import DivisionByZeroError, show, undecided

_DOMAIN = "allowed: base > 0 with any exponent, base = 0 with exponent >= 0, base < 0 with an integer exponent"


def _exact_exponent(y: Any) -> Fraction | None:
    """The exponent as a Fraction where it is exact and small enough to be used as one."""
    if isinstance(y, str):
        return exact_rational(y)
    if not isinstance(y, arb):
        hook = getattr(y, "_enclosure", None)
        if hook is None:
            return exact_rational(y)
        y = hook(64)
    if not y.is_exact():
        return None
    mantissa, exponent = dyadic(y)
    if exponent > 4096 or exponent < -4096:
        return None
    return Fraction(mantissa) * Fraction(2) ** exponent


def power_arb(x: Any, y: Any, bits: int) -> arb:
    """An enclosure of x ** y.

    Integer exponents multiply (any base), rational exponents with a small denominator take a root, all others are
    exp(y · ln x).

    Raises:
        DomainError: see `_DOMAIN`.
        UndecidableError: the ball of the base does not decide its sign where that matters.
    """
    base = to_arb(x, bits)
    exponent = _exact_exponent(y)
    if exponent is not None and exponent.denominator == 1:
        return _integer_power(base, exponent.numerator, bits)
    enclosed = to_arb(y, bits)
    if base.is_zero():
        if enclosed > 0:
            return arb(0)
        raise undecided("power: whether the exponent of 0 is positive", enclosed) if not enclosed < 0 else _zero()
    if base < 0:
        if exponent is None and enclosed.contains_integer():
            raise undecided("power: whether the exponent of a negative base is an integer", enclosed)
        raise DomainError(f"power: base {show(base)}, exponent {show(enclosed)}; {_DOMAIN}")
    if not base > 0:
        if base >= 0 and enclosed > 0:
            return _from_zero(base, enclosed, bits)
        raise undecided("power: whether the base is positive", base)
    if exponent is not None and exponent.denominator <= 64 and abs(exponent.numerator) < 1 << 20:
        work = bits + exponent.numerator.bit_length() + 8
        return at(work, lambda: base.root(exponent.denominator) ** fmpz(exponent.numerator))
    work = bits + 16 + _log2_size(base) + _log2_size(enclosed)
    return at(work, lambda: (base.log() * enclosed).exp())


def _zero() -> DivisionByZeroError:
    return DivisionByZeroError(f"power: base 0, exponent < 0; {_DOMAIN}")


def _integer_power(base: arb, exponent: int, bits: int) -> arb:
    if exponent < 0 and base.contains(0):
        if base.is_zero():
            raise _zero()
        raise undecided("power: whether the base of a negative exponent is nonzero", base)
    if base.is_exact():
        mantissa, shift = dyadic(base)
        if abs(mantissa) == 1:  # a power of two stays exact whatever the exponent
            return arb((mantissa if exponent % 2 else 1, shift * exponent))
    work = bits + exponent.bit_length() + 4
    return at(work, arb.__pow__, base, fmpz(exponent))


def _from_zero(base: arb, exponent: arb, bits: int) -> arb:
    """[0, b] ** y with y > 0: between 0 and b ** y (the largest of the corners where y has a radius)."""
    upper = at(bits, base.upper)
    top = at(bits + 32, lambda: (upper.log() * exponent).exp()).upper()
    return at(bits, arb.union, arb(0), top)


def _log2_size(x: arb) -> int:
    """How many bits the magnitude of |x| (above or below one) takes: guard bits for exp(y ln x)."""
    mantissa, exponent = x.mid().man_exp()
    size = int(mantissa).bit_length() + int(exponent)
    return min(abs(size), 1 << 20) if abs(size) < 64 else min(abs(size).bit_length() + 64, 1 << 20)
