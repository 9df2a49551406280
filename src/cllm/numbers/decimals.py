"""Decimal digits of exact ratios, the text of a ball, and format specifications."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from flint import arb, fmpz

from cllm.errors import LimitError
from cllm.numbers.context import at
from cllm.numbers.convert import dyadic
from cllm.numbers.limits import MAX_PRECISION_BITS

Direction = Literal["nearest", "floor", "ceiling"]

LOG10_2 = 0.30102999566398120
PLAIN_EXPONENT = 1 << 20  # larger powers of two are first scaled by a power of ten, as a ball
_SPEC = re.compile(r"(?:(.)?([<>^=]))?([-+ ])?(0)?(\d+)?([,_])?(?:\.(\d+))?([efgEFG])?")


@dataclass(frozen=True)
class Decimal10:
    """sign · 0.d₁d₂d₃… · 10^(exponent+1): the digits d and the exponent of the first of them."""

    negative: bool
    digits: str
    exponent: int

    def text(self) -> str:
        """Positional where that shows no unproven zero, else scientific."""
        sign, d, k = "-" if self.negative else "", self.digits, self.exponent
        if 0 <= k < len(d):
            return sign + d[: k + 1] + ("." + d[k + 1 :] if k + 1 < len(d) else "")
        if -7 < k < 0:
            return f"{sign}0.{'0' * (-k - 1)}{d}"
        return self.scientific()

    def scientific(self) -> str:
        d = self.digits
        return f"{'-' if self.negative else ''}{d[0]}{'.' if len(d) > 1 else ''}{d[1:]}e{self.exponent:+d}"


def _divide(numerator: fmpz, denominator: fmpz, direction: Direction) -> fmpz:
    """The quotient rounded to an integer; nearest takes ties to even."""
    quotient, rest = divmod(numerator, denominator)
    if direction == "nearest":
        twice = 2 * rest
        up = twice > denominator or (twice == denominator and int(quotient & 1) == 1)
        return quotient + 1 if up else quotient
    return quotient + 1 if direction == "ceiling" and rest != 0 else quotient


def significant(numerator: fmpz, denominator: fmpz, n: int, direction: Direction = "nearest") -> tuple[fmpz, int]:
    """A positive ratio rounded to `n` significant decimal digits: (D, k) meaning D · 10^k, D of exactly n digits."""
    guess = int((numerator.bit_length() - denominator.bit_length()) * LOG10_2)
    k = guess - n
    limit = fmpz(10) ** n
    while True:
        scaled = numerator * fmpz(10) ** -k if k < 0 else numerator
        below = denominator * fmpz(10) ** k if k > 0 else denominator
        rounded_down = scaled // below
        if rounded_down * 10 < limit:
            k -= 1
        elif rounded_down >= limit:
            k += 1
        else:
            break
    d = _divide(scaled, below, direction)
    return (d // 10, k + 1) if d == limit else (d, k)


def rational_decimal(x: Fraction, n: int, direction: Direction = "nearest") -> Decimal10:
    """An exact ratio rounded to `n` significant digits."""
    return ratio_decimal(fmpz(x.numerator), fmpz(x.denominator), n, direction)


def ratio_decimal(numerator: fmpz, denominator: fmpz, n: int, direction: Direction, shift: int = 0) -> Decimal10:
    if numerator == 0:
        return Decimal10(False, "0", 0)
    negative = bool(numerator < 0)
    if negative and direction != "nearest":
        direction = "ceiling" if direction == "floor" else "floor"
    d, k = significant(abs(numerator), denominator, n, direction)
    return Decimal10(negative, str(d), k + n - 1 + shift)


def dyadic_ratio(x: arb) -> tuple[fmpz, fmpz]:
    m, e = x.man_exp()
    shift = int(e)
    return (m << shift, fmpz(1)) if shift >= 0 else (m, fmpz(1) << -shift)


def reduced(x: arb, n: int) -> tuple[arb, int]:
    """(y, k) with x ⊂ y·10^k and y of moderate size; y = x, k = 0 unless the exponent of x is enormous."""
    top = at(32, x.abs_upper)
    if top.is_zero():
        return x, 0
    exponent = dyadic(top)[1]
    if abs(exponent) < PLAIN_EXPONENT:
        return x, 0
    work = 64 + 2 * abs(exponent).bit_length()
    k = int(at(work, lambda: (top.log() / arb(10).log()).mid().floor()).fmpz())
    bits = n * 10 // 3 + 64 + 2 * abs(k).bit_length()
    return at(bits, lambda: x * arb(10) ** -k), k


def ball_text(x: arb) -> str:
    """`3.25` for a short exact ball, else `[midpoint +/- radius]`: decimals that contain the ball, hardly wider."""
    m, e = dyadic(x.mid())
    r, f = dyadic(x.rad())
    if max(abs(e), abs(f)) > PLAIN_EXPONENT:
        return str(at(64, x.str, max(6, int(min(m.bit_length(), x.rel_accuracy_bits() + 8) * LOG10_2) + 1)))
    if r == 0 and e >= -40 and m.bit_length() + max(e, 0) <= 128:
        return exact_text(m, e)
    middle, radius = Fraction(m) * Fraction(2) ** e, Fraction(r) * Fraction(2) ** f
    shown = 40 if r == 0 and m.bit_length() < 128 else int(m.bit_length() * LOG10_2)
    _, least = significant(fmpz(abs(middle).numerator), fmpz(middle.denominator), max(6, shown)) if m else (0, 0)
    _, unit = significant(fmpz(radius.numerator), fmpz(radius.denominator), 3) if r else (0, least)
    unit = max(unit, least) if r and m else unit
    decimals = max(0, -unit)
    rounded = Fraction(round(middle / Fraction(10) ** unit)) * Fraction(10) ** unit
    margin = radius + abs(middle - rounded)
    if margin == 0:
        return fixed_decimals(fmpz(rounded.numerator), fmpz(rounded.denominator), decimals)
    size = rational_decimal(margin, 3, "ceiling").scientific()
    if unit > 0 or (rounded and abs(rounded) < Fraction(1, 10**7)) or abs(rounded) >= 10**60:
        length = 1 if rounded == 0 else rational_decimal(abs(rounded), 1, "floor").exponent - unit + 1
        return f"[{rational_decimal(rounded, max(1, length)).scientific()} +/- {size}]"
    return f"[{fixed_decimals(fmpz(rounded.numerator), fmpz(rounded.denominator), decimals)} +/- {size}]"


def exact_text(m: int, e: int) -> str:
    """Every decimal of m·2^e."""
    return exact_decimal(m, e).text()


def exact_decimal(m: int, e: int) -> Decimal10:
    """m·2^e with all its decimals."""
    if m == 0:
        return Decimal10(False, "0", 0)
    text = str(fmpz(abs(m)) << e) if e >= 0 else str(fmpz(abs(m)) * fmpz(5) ** -e)
    exponent = len(text) - 1 + min(e, 0)
    digits = text.rstrip("0")
    return Decimal10(m < 0, digits.ljust(exponent + 1, "0") if exponent >= 0 else digits, exponent)


# format specifications -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Spec:
    """A parsed format specification: [[fill]align][sign][0][width][grouping][.precision][type]."""

    fill: str
    align: str
    sign: str
    width: int
    grouping: str
    precision: int
    kind: str

    def finish(self, text: str) -> str:
        """Sign, thousands separators, width."""
        negative, body = text.startswith("-"), text.lstrip("-")
        if self.grouping:
            whole, point, rest = body.partition(".")
            tail = ""
            if "e" in whole:
                whole, _, exponent = whole.partition("e")
                tail = "e" + exponent
            body = re.sub(r"(?<=\d)(?=(?:\d{3})+$)", self.grouping, whole) + tail + point + rest
        sign = "-" if negative else {"+": "+", " ": " "}.get(self.sign, "")
        if self.align == "=":
            return sign + body.rjust(self.width - len(sign), self.fill)
        return f"{sign + body:{self.fill}{self.align}{self.width}}" if self.width else sign + body


def parse_spec(spec: str, what: str) -> Spec:
    """Parse a format specification for reals.

    Raises:
        ValueError: not one of the supported form (what Python's own types raise).
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise ValueError(
            f"Invalid format specifier {spec!r} for {what}; expected [[fill]align][sign][width][,][.n][f|e|g]"
        )
    fill, align, sign, zero, width, grouping, precision, kind = match.groups()
    return Spec(
        fill or ("0" if zero and not align else " "), align or ("=" if zero else ">"), sign or "-",
        int(width or 0), grouping or "", 6 if precision is None else int(precision), (kind or "g").lower(),
    )  # fmt: skip


def format_between(low: tuple[fmpz, fmpz], high: tuple[fmpz, fmpz], spec: str, what: str) -> str | None:
    """Format a real known to lie between two ratios; None when they do not decide the text."""
    parsed = parse_spec(spec, what)
    texts = set()
    for numerator, denominator in (low, high):
        if parsed.kind == "f":
            texts.add(fixed_decimals(numerator, denominator, parsed.precision))
        else:
            n = parsed.precision + 1 if parsed.kind == "e" else max(1, parsed.precision)
            decimal = ratio_decimal(numerator, denominator, n, "nearest")
            texts.add(decimal.scientific() if parsed.kind == "e" else decimal.text())
    return parsed.finish(texts.pop()) if len(texts) == 1 else None


def fixed_decimals(numerator: fmpz, denominator: fmpz, n: int) -> str:
    """A ratio with exactly `n` decimals, rounded to nearest, ties to even; a negative zero keeps no sign."""
    if n > MAX_PRECISION_BITS:
        raise LimitError(f"{n} decimals is more than the limit of {MAX_PRECISION_BITS}")
    scaled = _divide(abs(numerator) * fmpz(10) ** n, denominator, "nearest")
    text = str(scaled).rjust(n + 1, "0")
    sign = "-" if numerator < 0 and scaled != 0 else ""
    return f"{sign}{text[: len(text) - n]}.{text[len(text) - n :]}" if n else sign + text
