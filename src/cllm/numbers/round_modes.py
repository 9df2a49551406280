"""Rounding exact ratios to integers, in the modes of IEEE 754 and of the decimal module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from fractions import Fraction
from typing import Literal, get_args

from flint import fmpz

from cllm.errors import UsageError, closest

Rounding = Literal["nearest-even", "nearest-away", "floor", "ceiling", "toward-zero", "away-from-zero"]
MODES: tuple[str, ...] = get_args(Rounding)

_mode: ContextVar[str] = ContextVar("cllm.numbers.rounding", default="nearest-even")


def resolve_rounding(mode: str | None) -> str:
    """`mode` where given (checked), else the context's, which is "nearest-even" outside any `rounding` block."""
    if mode is None:
        return _mode.get()
    if mode not in MODES:
        raise UsageError(f"rounding: got {mode!r}; expected one of {', '.join(MODES)}{closest(mode, MODES)}")
    return mode


@contextmanager
def rounding(mode: Rounding) -> Iterator[str]:
    """The rounding mode of BigFixed operators inside a `with` block; a context variable, like `precision`.

    >>> from cllm.numbers import BigFixed, rounding
    >>> with rounding("floor"):
    ...     print(BigFixed(1, 2) / 3)
    0.0
    """
    token = _mode.set(resolve_rounding(mode))
    try:
        yield mode
    finally:
        _mode.reset(token)


def divide_rounded(numerator: fmpz, denominator: fmpz, mode: str) -> fmpz:
    """numerator/denominator (denominator > 0) as an integer, rounded as `mode` says."""
    quotient, rest = divmod(numerator, denominator)  # floor
    if rest == 0:
        return quotient
    if mode == "floor":
        return quotient
    if mode == "ceiling":
        return quotient + 1
    if mode == "toward-zero":
        return quotient + 1 if numerator < 0 else quotient
    if mode == "away-from-zero":
        return quotient if numerator < 0 else quotient + 1
    twice = 2 * rest
    if twice != denominator:
        return quotient + 1 if twice > denominator else quotient
    if mode == "nearest-away":
        return quotient if numerator < 0 else quotient + 1
    return quotient + (quotient & 1)


def round_ratio(x: Fraction, scale_bits: int, mode: str) -> fmpz:
    """x·2^scale_bits rounded to an integer."""
    return divide_rounded(fmpz(x.numerator) << scale_bits, fmpz(x.denominator), mode)


def round_dyadic(mantissa: int, exponent: int, mode: str) -> fmpz:
    """mantissa·2^exponent rounded to an integer, whatever the size of a negative exponent."""
    if exponent >= 0:
        return fmpz(mantissa) << exponent
    if -exponent > mantissa.bit_length() + 2:  # below a quarter: its sign alone decides
        mantissa, exponent = (mantissa > 0) - (mantissa < 0), -2
    return divide_rounded(fmpz(mantissa), fmpz(1) << -exponent, mode)
