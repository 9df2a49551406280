"""Where an elementary function of rational arguments is rational, and where a theorem says that it is not.

Ziv's loop (raise the precision until the rounding is decided) ends exactly when the value is not a rounding boundary,
and a rounding boundary is rational. So before the loop runs it is settled here whether the value is rational:

* Hermite–Lindemann: eᵃ, sin a, cos a, tan a, sinh a, … are transcendental at every algebraic a ≠ 0; so are the
  inverse functions (ln b at b ≠ 1, asin, atan, …), and w with w·eʷ = x.
* Gelfond–Schneider: log_b x is transcendental unless x^q = b^p for integers; then it is p/q.
* Niven: sin πr, cos πr, tan πr are rational only at multiples of 1/6 or 1/4; else algebraic irrational.
* Roots and rational powers of rationals are rational only when perfect powers; else algebraic irrational.
* Schneider: the ratio of a period to π is transcendental, so agm(a, b) is for rational a ≠ b, both positive.
* Γ(n) = (n−1)!; Γ is transcendental at half-integers (Γ(½) = √π) and at thirds, quarters and sixths (Chudnovsky 1976).
* y = b^b^b^… satisfies b = y^(1/y), and for rational y that is rational only at y = 1 and y = 1/2.
* ζ(−n) = (−1)ⁿ·B_{n+1}/(n+1); ζ(2n) ∈ ℚ·π²ⁿ; ζ(3) is irrational (Apéry 1978).

Everything else (erf, digamma, Γ and ζ elsewhere) is not known; there the loop is capped.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

from flint import arb, fmpq, fmpz

from cllm.numbers.context import at
from cllm.numbers.convert import fraction_to_arb
from cllm.numbers.limits import check_integer_bits
from cllm.numbers.theory import factorial

_CHEAP_BITS = 1 << 16
_MOST_BERNOULLI = 20_000


class Verdict(NamedTuple):
    """`value`: the rational value, if it is one and matters; `settled`: whether None means "on no boundary"."""

    value: Fraction | None
    settled: bool


Range = tuple[int | None, int | None]

IRRATIONAL = Verdict(None, True)
UNKNOWN = Verdict(None, False)


def _exactly(value: Fraction | int) -> Verdict:
    return Verdict(Fraction(value), True)


def exact_root(x: Fraction, n: int) -> Fraction | None:
    """The rational n-th root of x (of a negative x for odd n), or None."""
    if x < 0:
        below = exact_root(-x, n) if n % 2 else None
        return None if below is None else -below
    parts = []
    for part in (fmpz(x.numerator), fmpz(x.denominator)):
        if part <= 1:
            parts.append(int(part))
            continue
        if n >= part.bit_length():
            return None
        candidate = part.root(n)
        if candidate**n != part:
            return None
        parts.append(int(candidate))
    return Fraction(*parts)


def _primitive(x: Fraction) -> tuple[Fraction, int]:
    """x = t^k with the largest k; x > 0, x ≠ 1."""
    k, p = 1, 2
    while p < max(x.numerator.bit_length(), x.denominator.bit_length()):
        t = exact_root(x, p)
        if t is None:
            p += 1
        else:
            x, k = t, k * p
    return x, k


def exact_log(x: Fraction, base: Fraction) -> Fraction | None:
    """log_base x when it is rational."""
    if x == 1:
        return Fraction(0)
    t, k = _primitive(base)
    ratio = at(128, lambda: fraction_to_arb(x, 128).log() / fraction_to_arb(t, 128).log())
    candidate = (ratio + arb(0.5)).floor().unique_fmpz()
    if candidate is None or not ratio.contains(candidate):
        return None
    r = int(candidate)
    size = max(t.numerator.bit_length(), t.denominator.bit_length()) - 1
    if size * abs(r) > 2 * max(x.numerator.bit_length(), x.denominator.bit_length()):
        return None
    return Fraction(r, k) if t**r == x else None


def exact_power(x: Fraction, y: Fraction, scale: int) -> Verdict:
    """x^y; a rational too large to write is left out where it cannot be n/2^scale."""
    if x in (0, 1) or y == 0:
        return _exactly(1 if y == 0 or x == 1 else 0)
    t = exact_root(x, y.denominator) if y.denominator > 1 else x
    if t is None:
        return IRRATIONAL
    if y < 0:
        t = 1 / t
    p = abs(y.numerator)
    size = max(t.numerator.bit_length(), t.denominator.bit_length()) * p
    j = t.denominator.bit_length() - 1
    if size > _CHEAP_BITS and (t.denominator != 1 << j or j * p > scale):
        return IRRATIONAL  # rational, but on no boundary of this scale
    if t in (1, -1):
        return _exactly(t if p % 2 else 1)
    check_integer_bits((t.numerator.bit_length() - 1) * p, "power")
    return _exactly(Fraction(int(fmpz(t.numerator) ** p), int(fmpz(t.denominator) ** p)))


def _root_verdict(x: Fraction, n: int) -> Verdict:
    value = exact_root(x, n)
    return IRRATIONAL if value is None else _exactly(value)


def _log_verdict(x: Fraction, base: Fraction | None = None) -> Verdict:
    if base is None:
        return _exactly(0) if x == 1 else IRRATIONAL
    value = exact_log(x, base)
    return IRRATIONAL if value is None else _exactly(value)


def _sinpi(x: Fraction) -> Verdict:
    half = Fraction(1, 2)
    values: dict[int, Fraction | int] = {0: 0, 1: half, 3: 1, 5: half, 6: 0, 7: -half, 9: -1, 11: -half}
    sixths = x % 2 * 6
    value = values.get(sixths.numerator) if sixths.denominator == 1 else None
    return IRRATIONAL if value is None else _exactly(value)


def _tanpi(x: Fraction) -> Verdict:
    values: dict[Fraction, int] = {Fraction(0): 0, Fraction(1, 4): 1, Fraction(3, 4): -1}
    value = values.get(x % 1)
    return IRRATIONAL if value is None else _exactly(value)


def _gamma(x: Fraction) -> Verdict:
    if x.denominator == 1:
        n = x.numerator
        check_integer_bits(n * max(1, n.bit_length() - 2), "gamma")
        return _exactly(int(factorial(n - 1)))
    return IRRATIONAL if x.denominator in (2, 3, 4, 6) else UNKNOWN


def _lgamma(x: Fraction) -> Verdict:
    if x.denominator == 1:
        return _exactly(0) if x <= 2 else IRRATIONAL
    return UNKNOWN


def _zeta(x: Fraction) -> Verdict:
    if x.denominator != 1 or (x > 3 and x % 2):
        return UNKNOWN
    if x > 0:
        return IRRATIONAL
    n = -int(x)
    if n and n % 2 == 0:
        return _exactly(0)
    if n > _MOST_BERNOULLI:
        return UNKNOWN
    b = fmpq.bernoulli(n + 1) if n else fmpq(-1, 2)  # with B₁ = +1/2 the formula would give the wrong sign at 0
    return _exactly((-1) ** n * Fraction(int(b.p), int(b.q)) / (n + 1))


def _agm(x: Fraction, y: Fraction) -> Verdict:
    if x == y or 0 in (x, y):
        return _exactly(x if x == y else 0)
    return IRRATIONAL


def _infinite_tower(b: Fraction) -> Verdict:
    return _exactly(1) if b == 1 else _exactly(Fraction(1, 2)) if b == Fraction(1, 4) else IRRATIONAL


def _at(point: int, value: int, otherwise: Verdict = IRRATIONAL) -> Callable[[Fraction], Verdict]:
    return lambda x: _exactly(value) if x == point else otherwise


_CASES: dict[str, Callable[..., Verdict]] = {
    "exp": _at(0, 1), "expm1": _at(0, 0), "log": _log_verdict, "log1p": _at(0, 0),
    "log2": lambda x: _log_verdict(x, Fraction(2)), "log10": lambda x: _log_verdict(x, Fraction(10)),
    "sqrt": lambda x: _root_verdict(x, 2), "cbrt": lambda x: _root_verdict(x, 3),
    "root": lambda x, n: _root_verdict(x, int(n)), "hypot": lambda x, y: _root_verdict(x * x + y * y, 2),
    "sin": _at(0, 0), "cos": _at(0, 1), "tan": _at(0, 0), "sec": _at(0, 1),
    "cot": lambda _: IRRATIONAL, "csc": lambda _: IRRATIONAL, "coth": lambda _: IRRATIONAL,
    "sinpi": _sinpi, "cospi": lambda x: _sinpi(x + Fraction(1, 2)), "tanpi": _tanpi,
    "asin": _at(0, 0), "acos": _at(1, 0), "atan": _at(0, 0),
    "atan2": lambda y, x: _exactly(0) if y == 0 and x > 0 else IRRATIONAL,
    "sinh": _at(0, 0), "cosh": _at(0, 1), "tanh": _at(0, 0), "asinh": _at(0, 0), "acosh": _at(1, 0), "atanh": _at(0, 0),
    "erf": _at(0, 0, UNKNOWN), "erfc": _at(0, 1, UNKNOWN), "digamma": lambda _: UNKNOWN,
    "gamma": _gamma, "lgamma": _lgamma, "zeta": _zeta, "agm": _agm,
    "infinite_tower": _infinite_tower,
    "lambertw": lambda x, branch=0: _exactly(0) if x == 0 else IRRATIONAL,
}  # fmt: skip


def _exp_range(x: Fraction) -> Range:
    return (1, None) if x > 0 else (0, 1)


_RANGES: dict[str, Callable[..., Range]] = {
    "exp": _exp_range,
    "expm1": lambda x: (0, None) if x > 0 else (-1, 0),
    "cos": lambda _: (-1, 1),
    "sin": lambda _: (-1, 1),
    "cosh": lambda _: (1, None),
    "tanh": lambda _: (-1, 1),
    "coth": lambda x: (1, None) if x > 0 else (None, -1),
    "erf": lambda _: (-1, 1),
    "erfc": lambda _: (0, 2),
    "zeta": lambda s: (1, None) if s > 1 else (None, None),
}


def strict_range(name: str, args: tuple[Fraction, ...]) -> Range:
    """Integers (low, high) that the value lies strictly between, where `verdict` found it not rational or unknown.

    Close to such a limit (tanh 10⁹, ζ(10⁹), e^(2^−1000000)) directed rounding is settled by the theorem |tanh x| < 1
    instead of by a billion bits.
    """
    known = _RANGES.get(name)
    return (None, None) if known is None else known(*args)


def verdict(name: str, args: tuple[Fraction, ...], scale: int) -> Verdict:
    """Whether the function `name` at rational arguments inside its domain is rational.

    `scale`: boundaries of interest are n/2^scale (for rounding at s bits pass s + 1).
    """
    if name == "power":
        return exact_power(args[0], args[1], scale)
    case = _CASES.get(name)
    return UNKNOWN if case is None else case(*args)
