"""Correct rounding by Ziv's strategy: compute an enclosure, round both ends, and work harder while they differ.

Ziv, "Fast evaluation of elementary mathematical functions with correctly rounded last bit", ACM TOMS 17 (1991). Exact
and half-way cases, on which that loop would never end, are settled beforehand (`exact_cases`).
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any

from flint import arb, fmpz

from cllm.errors import DomainError, LimitError
from cllm.numbers.context import at
from cllm.numbers.convert import dyadic, endpoints, exact_rational
from cllm.numbers.exact_cases import Range, Verdict, strict_range, verdict
from cllm.numbers.limits import brief, check_integer_bits, check_precision
from cllm.numbers.operators import undecided
from cllm.numbers.round_modes import resolve_rounding, round_dyadic, round_ratio

if TYPE_CHECKING:
    from cllm.numbers.elementary import Elementary
    from cllm.numbers.fixed import BigFixed

UNPROVEN_GUARD_BITS = 1 << 13  # how far the loop looks where no theorem says that it ends


def exact_arguments(name: str, args: tuple[Any, ...]) -> tuple[Fraction, ...]:
    """The arguments as Fractions.

    Raises:
        DomainError: one is not exact (a Ball, a constant, text that is no number).
    """
    found = []
    for x in args:
        value = exact_rational(x)
        if value is None:
            raise DomainError(
                f"{name}: correct rounding needs exact arguments (BigFixed, int, Fraction, Decimal, float); "
                f"got {brief(x)}"
            )
        found.append(value)
    return tuple(found)


def correctly_rounded(
    function: Elementary, args: tuple[Any, ...], scale_bits: int, rounding: str | None = None
) -> BigFixed:
    """function(*args) rounded to a multiple of 2^-scale_bits; see `Elementary.rounded`."""
    from cllm.numbers.fixed import BigFixed

    mode = resolve_rounding(rounding)
    exact = exact_arguments(function.name, args)
    first = function.enclose(exact, 64)  # decides the domain and shows the size
    top = _top(first)
    check_integer_bits(top, function.name)
    case = verdict(function.name, exact, scale_bits + 1)
    if case.value is not None:
        return BigFixed(round_ratio(case.value, scale_bits, mode), scale_bits)
    limits = strict_range(function.name, exact)
    enclose = partial(function.enclose, exact)
    n = rounded_enclosure(enclose, top, scale_bits, mode, case, function.name, limits)
    return BigFixed(n, scale_bits)


def rounded_enclosure(
    enclose: Callable[[int], arb],
    top: int,
    scale_bits: int,
    mode: str,
    case: Verdict,
    what: str,
    limits: Range = (None, None),
) -> fmpz:
    """The integer nearest to y·2^scale_bits (by `mode`), where `enclose(bits)` encloses y and |y| < 2^top."""
    guard = 32
    while True:
        work = max(32, scale_bits + top) + guard
        y = enclose(check_precision(work, f"{what}: correct rounding at {scale_bits} bits"))
        low, high = (_round_end(end, scale_bits, mode) for end in _strictly_inside(*endpoints(y), limits, scale_bits))
        if low == high:
            return low
        guard *= 2
        if not case.settled and guard > UNPROVEN_GUARD_BITS + scale_bits:
            raise undecided(
                f"{what}: the rounding at {scale_bits} bits (no theorem excludes an exact or half-way case, "
                f"and {work} bits do not decide it)",
                y,
            )


def _strictly_inside(low: arb, high: arb, limits: Range, scale_bits: int) -> tuple[arb, arb]:
    """Ends no further out than the open interval: a point just inside rounds like every point still closer."""
    inside = arb((1, -scale_bits - 3))
    bits = scale_bits + 64
    if limits[0] is not None and low <= limits[0]:
        low = at(bits, arb.__add__, arb(limits[0]), inside)
    if limits[1] is not None and high >= limits[1]:
        high = at(bits, arb.__sub__, arb(limits[1]), inside)
    return low, high


def _round_end(end: arb, scale_bits: int, mode: str) -> fmpz:
    mantissa, exponent = dyadic(end)
    return round_dyadic(mantissa, exponent + scale_bits, mode)


def _top(x: arb) -> int:
    """t with |x| < 2^t, clipped to t ≥ −2³⁰."""
    mantissa, exponent = at(32, x.abs_upper).man_exp()
    if mantissa == 0:
        return 0
    size = mantissa.bit_length() + int(exponent)
    if size > 1 << 62:
        raise LimitError(f"the result has an integer part of more than 2^62 bits: {x.str(5)}")
    return max(size, -(1 << 30))
