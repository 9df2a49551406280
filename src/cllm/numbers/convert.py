"""Everything that is a real number → a flint ball that contains it, exactly where a binary number can be exact."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from numbers import Integral, Rational
from typing import Any

from flint import arb, fmpq, fmpz

from cllm.errors import DomainError
from cllm.numbers.context import at
from cllm.numbers.limits import MAX_PRECISION_BITS, brief

EXACT_EXPONENT = 100_000  # decimal exponents up to here become exact rationals; beyond, a ball

_DECIMAL = re.compile(r"([+-]?)(\d(?:_?\d)*)?(?:\.((?:\d(?:_?\d)*)?))?(?:[eE]([+-]?\d{1,40}))?")
_RATIO = re.compile(r"([+-]?\d+)\s*/\s*(\d+)")
_AROUND = re.compile(r"\[?\s*([^\[\],±]+?)\s*(?:±|\+/-)\s*([^\[\],±]+?)\s*\]?")
_MARGIN = re.compile(r"\[\s*(?:±|\+/-)\s*([^\[\],±]+?)\s*\]")
_INTERVAL = re.compile(r"\[\s*([^\[\],±]+?)\s*,\s*([^\[\],±]+?)\s*\]")


def parse_decimal(text: str) -> tuple[int, int] | None:
    """`"-1.25e3"` → (−125, 1): an exact integer times a power of ten; None when `text` is no decimal number."""
    match = _DECIMAL.fullmatch(text.strip())
    if match is None or not ((match[2] or "") + (match[3] or "")):
        return None
    sign, whole, part, exponent = match[1], match[2] or "", (match[3] or "").replace("_", ""), match[4] or "0"
    mantissa = int(fmpz(whole.replace("_", "") + part))  # fmpz: no limit on the number of digits
    return (-mantissa if sign == "-" else mantissa), int(exponent) - len(part)


def _ratio(text: str) -> Fraction | None:
    match = _RATIO.fullmatch(text.strip())
    if match is None:
        return None
    denominator = int(fmpz(match[2]))
    if denominator == 0:
        raise DomainError(f"the fraction {text!r} has denominator 0; expected a nonzero denominator")
    return Fraction(int(fmpz(match[1])), denominator)


def exact_rational(x: object) -> Fraction | None:
    """The value of `x` as an exact Fraction when its type is exact (not a string's huge exponent, not a Ball)."""
    if isinstance(x, Rational):  # int, Fraction, numpy integers, BigInt, BigFixed
        return x if isinstance(x, Fraction) else Fraction(int(x.numerator), int(x.denominator))
    if isinstance(x, str):
        decimal = parse_decimal(x)
        return _ratio(x) if decimal is None else _power_of_ten(*decimal)
    if isinstance(x, Decimal) and x.is_finite():
        sign, digits, exponent = x.as_tuple()
        mantissa = int(fmpz("".join(map(str, digits)))) if digits else 0
        return _power_of_ten(-mantissa if sign else mantissa, int(exponent))
    if isinstance(x, fmpz):
        return Fraction(int(x))
    if isinstance(x, fmpq):
        return Fraction(int(x.p), int(x.q))
    as_ratio: Callable[[], tuple[int, int]] | None = getattr(x, "as_integer_ratio", None)
    if as_ratio is None:
        return None
    try:
        numerator, denominator = as_ratio()
    except (ValueError, OverflowError):
        raise DomainError(f"{x!r} is not a finite number; expected a finite real number") from None
    return Fraction(int(numerator), int(denominator))


def _power_of_ten(mantissa: int, exponent: int) -> Fraction | None:
    if mantissa == 0:
        return Fraction(0)
    if abs(exponent) > EXACT_EXPONENT:
        return None
    return Fraction(mantissa * 10**exponent) if exponent >= 0 else Fraction(mantissa, 10**-exponent)


def fraction_to_arb(x: Fraction, bits: int) -> arb:
    """Exact when the denominator is a power of two, else the enclosure at `bits` bits."""
    denominator = x.denominator
    if denominator & (denominator - 1) == 0:
        return arb((x.numerator, 1 - denominator.bit_length()))
    return at(bits, arb, fmpq(x.numerator, denominator))


def _decimal_to_arb(mantissa: int, exponent: int, bits: int) -> arb:
    exact = _power_of_ten(mantissa, exponent)
    if exact is not None:
        return fraction_to_arb(exact, bits)
    work = bits + exponent.bit_length() + 16
    return at(work, lambda: arb(mantissa) * arb(10) ** exponent)


def _text_to_arb(text: str, bits: int) -> arb:
    decimal = parse_decimal(text)
    if decimal is not None:
        return _decimal_to_arb(*decimal, bits)
    ratio = _ratio(text)
    if ratio is not None:
        return fraction_to_arb(ratio, bits)
    if match := _MARGIN.fullmatch(text.strip()):
        return with_radius(arb(0), _text_to_arb(match[1], bits))
    if match := _AROUND.fullmatch(text.strip()):
        return with_radius(_text_to_arb(match[1], bits), _text_to_arb(match[2], bits))
    if match := _INTERVAL.fullmatch(text.strip()):
        low, high = _text_to_arb(match[1], bits), _text_to_arb(match[2], bits)
        if not low <= high:
            raise DomainError(f"the interval {text!r} is empty; expected [lower, upper] with lower <= upper")
        return at(bits, arb.union, low, high)
    raise DomainError(
        f"{text!r} is not a number; expected a decimal (1.5, -2e-30), a fraction (3/7), "
        "m ± r, or an interval [lower, upper]"
    )


def with_radius(middle: arb, radius: arb) -> arb:
    """The ball of all m + r with m in `middle` and |r| in `radius`; the radius must not be negative."""
    if not radius.is_finite() or radius < 0:
        raise DomainError(f"radius: got {radius}; expected a finite number >= 0")
    margin = arb(0, abs(radius).upper())
    mantissa = middle.mid().man_exp()[0]
    return at(max(int(mantissa).bit_length(), 64) + 8, lambda: middle + margin)


def to_arb(x: Any, bits: int) -> arb:
    """A ball that contains `x`: exact for integers, floats, dyadic fractions and balls, else enclosed at `bits` bits.

    Raises:
        DomainError: nan, infinities and text that is no number.
        TypeError: not a real number.
    """
    if isinstance(x, arb):
        return _finite(x)
    hook: Callable[[int], arb] | None = getattr(x, "_enclosure", None)  # Ball, Constant, BigInt, BigFixed
    if hook is not None:
        return hook(bits)
    if isinstance(x, Integral):
        return arb(int(x))
    if isinstance(x, float):
        if not math.isfinite(x):
            raise DomainError(f"{x!r} is not a finite number; expected a finite real number")
        return arb(float(x))
    if isinstance(x, fmpz):
        return arb(x)
    if isinstance(x, str):
        return _text_to_arb(x, bits)
    if isinstance(x, Decimal):
        if not x.is_finite():
            raise DomainError(f"{x!r} is not a finite number; expected a finite real number")
        sign, digits, exponent = x.as_tuple()
        mantissa = int(fmpz("".join(map(str, digits))))
        return _decimal_to_arb(-mantissa if sign else mantissa, int(exponent), bits)
    rational = None if isinstance(x, complex) else exact_rational(x)
    if rational is None:
        raise TypeError(f"expected a real number, got {type(x).__name__}: {brief(x)}")
    return fraction_to_arb(rational, bits)


def _finite(x: arb) -> arb:
    if not x.is_finite():
        raise DomainError(f"{x} is not a finite ball; expected finite midpoint and radius")
    return x


def dyadic(x: arb) -> tuple[int, int]:
    """An exact ball as (mantissa, exponent): x = mantissa · 2^exponent, mantissa odd or 0."""
    mantissa, exponent = x.man_exp()
    return int(mantissa), int(exponent)


def endpoints(x: arb) -> tuple[arb, arb]:
    """Exact lower and upper bounds of a ball (rounded outward where the exact end needs very many bits)."""
    if x.is_exact():
        return x, x
    mantissa, exponent = x.mid().man_exp()
    gap = mantissa.bit_length() + int(exponent) - int(x.rad().man_exp()[1])  # down to the last bit of the radius
    bits = max(mantissa.bit_length() + 64, min(gap + 4, MAX_PRECISION_BITS))
    return at(bits, x.lower), at(bits, x.upper)


def restore(m: int, e: int, r: int = 0, f: int = 0) -> arb:
    """The ball m·2^e ± r·2^f with exactly this radius, as `dyadic` of its midpoint and radius gave them."""
    if r == 0:
        return arb((m, e))
    ball = arb((m, e), (r, f))
    if r.bit_length() <= 30 and dyadic(ball.rad()) != (
        r,
        f,
    ):
        shift = 31 - r.bit_length()  # Arb rounded it up by a unit of its 30 bits: start half a unit below
        ball = arb((m, e), ((r << shift) - 1, f - shift))
    return ball
