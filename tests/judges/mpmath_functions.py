"""mpmath as a judge of the elementary functions: its value of each, and arguments worth asking.

Arguments are exact dyadic rationals (mantissa, exponent), so that both sides see the same number. mpmath proves
nothing about its errors, therefore it works at twice the precision and more, where the argument itself is long.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import mpmath
from mpmath.libmp import from_man_exp

Dyadic = tuple[int, int]
Sampler = Callable[[random.Random, int], tuple[Dyadic, ...]]


def to_mpf(x: Dyadic) -> Any:
    """m·2^e exactly, whatever the working precision."""
    return mpmath.mp.make_mpf(from_man_exp(*x))


def to_fraction(x: Dyadic) -> Fraction:
    return Fraction(x[0]) * Fraction(2) ** x[1]


def mpf_to_dyadic(x: Any) -> Dyadic:
    sign, man, exp, _ = x._mpf_
    return (-int(man) if sign else int(man)), int(exp)


def _lgamma(x: Any) -> Any:
    return mpmath.log(abs(mpmath.gamma(x)))


def _root(x: Any, n: Any) -> Any:
    return -mpmath.root(-x, int(n)) if x < 0 else mpmath.root(x, int(n))


def _tower(b: Any) -> Any:
    return mpmath.mpf(1) if b == 1 else mpmath.exp(-mpmath.lambertw(-mpmath.log(b)).real)


VALUES: dict[str, Callable[..., Any]] = {
    "exp": mpmath.exp, "expm1": mpmath.expm1, "log": lambda x, b=None: mpmath.log(x) / (mpmath.log(b) if b else 1),
    "log1p": mpmath.log1p, "log2": lambda x: mpmath.log(x) / mpmath.log(2), "log10": mpmath.log10,
    "sqrt": mpmath.sqrt, "cbrt": lambda x: _root(x, 3), "root": _root, "power": mpmath.power, "hypot": mpmath.hypot,
    "sin": mpmath.sin, "cos": mpmath.cos, "tan": mpmath.tan, "cot": mpmath.cot, "sec": mpmath.sec, "csc": mpmath.csc,
    "sinpi": mpmath.sinpi, "cospi": mpmath.cospi, "tanpi": lambda x: mpmath.sinpi(x) / mpmath.cospi(x),
    "asin": mpmath.asin, "acos": mpmath.acos, "atan": mpmath.atan, "atan2": mpmath.atan2,
    "sinh": mpmath.sinh, "cosh": mpmath.cosh, "tanh": mpmath.tanh, "coth": mpmath.coth,
    "asinh": mpmath.asinh, "acosh": mpmath.acosh, "atanh": mpmath.atanh,
    "erf": mpmath.erf, "erfc": mpmath.erfc, "gamma": mpmath.gamma, "lgamma": _lgamma, "digamma": mpmath.digamma,
    "zeta": mpmath.zeta, "lambertw": lambda x, k=0: mpmath.lambertw(x, int(k)).real, "agm": mpmath.agm,
    "infinite_tower": _tower,
}  # fmt: skip


# arguments ------------------------------------------------------------------------------------------------------------
def sized(rng: random.Random, bits: int, low: int, high: int, signed: bool = True) -> Dyadic:
    """A number with 2^low ≤ |x| < 2^high and up to `bits` random mantissa bits."""
    length = rng.randint(1, bits)
    mantissa = rng.getrandbits(length) | 1 << (length - 1)
    if signed and rng.random() < 0.5:
        mantissa = -mantissa
    return mantissa, rng.randint(low, high - 1) - length + 1


def near(rng: random.Random, bits: int, point: Fraction, side: int = 0) -> Dyadic:
    """A dyadic within 2^-10 … 2^-bits of `point`, on the side asked for (0: either)."""
    k = rng.randint(10, max(11, bits))
    base = point.numerator * (1 << k) // point.denominator
    offset = rng.randint(1, 3) * (side or rng.choice((-1, 1)))
    return base + offset + (1 if side > 0 else 0), -k


def _pi_fraction(bits: int) -> Fraction:
    with mpmath.workprec(bits + 32):
        return to_fraction(mpf_to_dyadic(+mpmath.pi))


def _edge(bits: int) -> Fraction:
    """−1/e."""
    with mpmath.workprec(bits + 32):
        return to_fraction(mpf_to_dyadic(-mpmath.exp(-1)))


def _mix(*samplers: Sampler) -> Sampler:
    return lambda rng, bits: rng.choice(samplers)(rng, bits)


def _range(low: int, high: int, signed: bool = True) -> Sampler:
    return lambda rng, bits: (sized(rng, bits, low, high, signed),)


def _near(*points: Fraction | int, side: int = 0) -> Sampler:
    return lambda rng, bits: (near(rng, bits, Fraction(rng.choice(points)), side),)


def _near_pi(halves: bool) -> Sampler:
    """Close to a multiple of π (or an odd multiple of π/2), where sin, cos or tan vanish or blow up."""

    def sample(rng: random.Random, bits: int) -> tuple[Dyadic, ...]:
        k = rng.randint(1, 1000)
        return (near(rng, bits, _pi_fraction(bits + 12) * (Fraction(2 * k - 1, 2) if halves else k)),)

    return sample


def _two(first: Sampler, second: Sampler) -> Sampler:
    return lambda rng, bits: (*first(rng, bits), *second(rng, bits))


def _integers(low: int, high: int) -> Sampler:
    return lambda rng, bits: ((rng.randint(low, high), 0),)


_ANY, _TINY, _HUGE = _range(-4, 7), _range(-300, -10), _range(7, 300)
_POSITIVE = _mix(_range(-4, 7, False), _range(-300, -10, False), _range(7, 300, False))
_REAL = _mix(_ANY, _TINY, _HUGE)
_MODERATE = _mix(_ANY, _TINY, _range(7, 30))
_INSIDE = _mix(_range(-4, 0), _TINY, _near(Fraction(1), side=-1), _near(Fraction(-1), side=1))
_POLES = _near(0, -1, -2, -3, -10, -50)


def _lambert_near(rng: random.Random, bits: int) -> tuple[Dyadic, ...]:
    return (near(rng, bits // 2 + 8, _edge(bits), 1),)


def _lambert(rng: random.Random, bits: int) -> tuple[Dyadic, ...]:
    if rng.random() < 0.3:  # the branch −1: −1/e < x < 0
        return (*(_lambert_near if rng.random() < 0.4 else _range(-40, -2))(rng, bits)[:1], (-1, 0))
    return _mix(_POSITIVE, _range(-40, -2), _lambert_near)(rng, bits)


def _negative_lambert(sample: Sampler) -> Sampler:
    def fixed(rng: random.Random, bits: int) -> tuple[Dyadic, ...]:
        (m, e), *branch = sample(rng, bits)
        return ((-abs(m) if branch else m), e), *branch

    return fixed


def _zeta(rng: random.Random, bits: int) -> tuple[Dyadic, ...]:
    """Above 512 bits integers only: elsewhere the judge takes minutes."""
    if bits > 512:
        return ((rng.choice((2, 3, 4, 5, 7, 30, 61, -1, -5, -12, -31)), 0),)
    return _mix(_range(-4, 5), _TINY, _near(1, 0, -2, 2))(rng, bits)


SAMPLES: dict[str, Sampler] = {
    "exp": _MODERATE, "expm1": _MODERATE,
    "log": _mix(_POSITIVE, _near(1), _two(_POSITIVE, _mix(_range(1, 20, False), _near(1)))),
    "log1p": _mix(_range(-300, -10), _range(-10, 0), _range(0, 300, False), _near(-1, side=1)),
    "log2": _mix(_POSITIVE, _near(1, 2, 8)), "log10": _mix(_POSITIVE, _near(1, 10, 1000)),
    "sqrt": _POSITIVE, "cbrt": _REAL, "root": _two(_POSITIVE, _integers(1, 60)),
    "power": _mix(_two(_range(-4, 7, False), _range(-4, 5)), _two(_REAL, _integers(-40, 40)), _two(_near(1), _ANY)),
    "hypot": _two(_REAL, _REAL),
    "sin": _mix(_REAL, _near_pi(False)), "cos": _mix(_REAL, _near_pi(True)), "tan": _mix(_REAL, _near_pi(True)),
    "cot": _mix(_REAL, _near_pi(False)), "sec": _mix(_REAL, _near_pi(True)), "csc": _mix(_REAL, _near_pi(False)),
    "sinpi": _mix(_ANY, _TINY, _near(1, 2, 77)), "cospi": _mix(_ANY, _TINY, _near(Fraction(1, 2), Fraction(77, 2))),
    "tanpi": _mix(_range(-8, -2), _TINY, _near(Fraction(1, 2), 1, Fraction(77, 2))),
    "asin": _INSIDE, "acos": _INSIDE, "atan": _REAL, "atan2": _two(_REAL, _REAL),
    "sinh": _MODERATE, "cosh": _MODERATE, "tanh": _mix(_TINY, _range(-4, 7)), "coth": _mix(_TINY, _range(-4, 7)),
    "asinh": _REAL, "acosh": _mix(_range(1, 300, False), _near(1, side=1)), "atanh": _INSIDE,
    "erf": _mix(_TINY, _range(-8, 4)), "erfc": _mix(_TINY, _range(-8, 5)),
    "gamma": _mix(_ANY, _TINY, _POLES, _range(7, 14, False)), "lgamma": _mix(_ANY, _TINY, _POLES, _near(1, 2)),
    "digamma": _mix(_ANY, _TINY, _POLES, _range(7, 40, False)),
    "zeta": _zeta,
    "lambertw": _negative_lambert(_lambert), "agm": _two(_POSITIVE, _POSITIVE),
    "infinite_tower": _mix(_near(1), lambda rng, bits: ((rng.randint(70, 1479) * 2**bits // 1024 + 1, -bits),)),
}  # fmt: skip

# a judge that takes long is asked mostly at low precision
SLOW = {"gamma", "lgamma", "digamma", "zeta", "lambertw", "infinite_tower", "erf", "erfc", "agm"}


def precisions(rng: random.Random, count: int, slow: bool) -> Iterator[int]:
    """`count` precisions from 64 to 10,000 bits, mostly short: the judge's time, not ours, sets the mixture."""
    if slow:
        top = [10_000 if count > 5_000 else 1_000]
    else:
        top = [10_000, 5_000, 3_000] * (5 if count > 5_000 else 1)
    middle = max(1, count // (200 if slow else 10))
    for index in range(count):
        if index < len(top):
            yield top[index]
        elif index < middle:
            yield rng.choice((512, 1000) if slow else (512, 1024, 2048))
        else:
            yield rng.choice((64, 64, 64, 100, 128, 256))


def value(name: str, args: tuple[Dyadic, ...], bits: int) -> Any:
    """mpmath's value at twice the precision and more where the argument is long, tiny, huge or near a special point."""
    length = max(abs(e) + abs(m).bit_length() for m, e in args)
    tail = 1600 if name in ("erf", "erfc") else 0  # exp(−x²) away from 0, 1 or 2
    with mpmath.workprec(2 * bits + 64 + 2 * min(length, 1000) + tail):
        return VALUES[name](*map(to_mpf, args))
