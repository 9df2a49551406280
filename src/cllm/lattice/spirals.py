"""Spirals: integers to points of the plane, as polar float64 arrays (`.xy()` gives x and y).

| map            | radius             | angle                                  |
|----------------|--------------------|----------------------------------------|
| sacks          | √n                 | 2π√n                                   |
| vogel          | √n                 | n·2π/φ²                                |
| archimedes     | n·spacing          | n·step                                 |
| logarithmic    | e^{growth·n·step}  | n·step                                 |
| crystalline    | log₃ n             | nG, G = 2πφ                            |
| crystalline_prime | log₃ p_n        | nG                                     |

Angles are reduced in integer arithmetic (`phase`), so they are right to about 10⁻¹⁵ for n = 10¹² and beyond.
"""

from __future__ import annotations

from math import log, pi
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cllm.errors import DomainError
from cllm.lattice.angles import (
    GOLDEN,
    GOLDEN_ANGLE,
    TAU,
    FloatArray,
    Polar,
    angle,
    as_int64,
    floor_sqrt,
    rate_from_radians,
)
from cllm.lattice.sieve import IntArray

LN3 = log(3.0)
GOLDEN_GROWTH = log((1 + 5**0.5) / 2) / (pi / 2)
"""Growth of the golden spiral: the radius grows by φ in a quarter turn."""
_EXACT_ROOT = 1 << 50  # √n determines n when n is below this


def _nearest(name: str, values: Any, limit: float) -> IntArray:
    values = np.asarray(values, dtype=np.float64)
    if values.size and not bool(np.all((values >= 0) & (values < limit))):
        raise DomainError(f"{name}: the radius belongs to no n below {limit:.6g}")
    return np.asarray(np.rint(values), dtype=np.float64).astype(np.int64)


def sacks(n: ArrayLike) -> Polar:
    """Sacks' spiral, n ≥ 0: r = √n, θ = 2π√n; the squares lie on the positive x axis."""
    m = as_int64("sacks", n, low=0)
    root = floor_sqrt(m)
    r = np.sqrt(m.astype(np.float64))
    # frac √n = (n − ⌊√n⌋²)/(√n + ⌊√n⌋) keeps every digit
    fraction = (m - root * root) / np.maximum(r + root, 1.0)
    return Polar(r, fraction * TAU)


def sacks_inverse(radius: ArrayLike, angle: ArrayLike | None = None) -> IntArray:
    """n from the radius √n; exact for n < 2⁵⁰."""
    return _nearest("sacks_inverse", np.square(np.asarray(radius, dtype=np.float64)), _EXACT_ROOT)


def vogel(n: ArrayLike) -> Polar:
    """Vogel's (Fermat's) spiral, n ≥ 0: r = √n, θ = n times the golden angle 2π/φ² (the sunflower)."""
    m = as_int64("vogel", n, low=0)
    return Polar(np.sqrt(m.astype(np.float64)), angle(m, GOLDEN_ANGLE))


def vogel_inverse(radius: ArrayLike, angle: ArrayLike | None = None) -> IntArray:
    """n from the radius √n; exact for n < 2⁵⁰."""
    return _nearest("vogel_inverse", np.square(np.asarray(radius, dtype=np.float64)), _EXACT_ROOT)


def archimedes(n: ArrayLike, *, step: float = 1.0, spacing: float = 1.0) -> Polar:
    """Archimedes' spiral, n ≥ 0: r = n·spacing, θ = n·step radians (step 1 is the well-known polar plot of (n, n))."""
    if spacing <= 0:
        raise DomainError(f"archimedes: spacing must be positive, got {spacing}")
    m = as_int64("archimedes", n, low=0)
    return Polar(m * float(spacing), angle(m, rate_from_radians(float(step))))


def archimedes_inverse(radius: ArrayLike, angle: ArrayLike | None = None, *, spacing: float = 1.0) -> IntArray:
    """n from the radius n·spacing."""
    return _nearest("archimedes_inverse", np.asarray(radius, dtype=np.float64) / spacing, 2.0**52)


def logarithmic(n: ArrayLike, *, step: float = pi / 6, growth: float = GOLDEN_GROWTH) -> Polar:
    """Logarithmic spiral r = e^{growth·n·step}, θ = n·step; the defaults take twelve steps a turn on the golden spiral.

    DomainError where the radius would leave float64 (growth·step·|n| > 709).
    """
    m = as_int64("logarithmic", n)
    exponent = m * (float(growth) * float(step))
    if m.size and not float(np.max(np.abs(exponent))) <= 709:
        raise DomainError(
            f"logarithmic: growth·step·|n| must be at most 709 (float64), got {float(np.max(np.abs(exponent))):.6g}"
        )
    return Polar(np.exp(exponent), angle(m, rate_from_radians(float(step))))


def logarithmic_inverse(
    radius: ArrayLike, angle: ArrayLike | None = None, *, step: float = pi / 6, growth: float = GOLDEN_GROWTH
) -> IntArray:
    """n = ln r/(growth·step), rounded."""
    r = np.asarray(radius, dtype=np.float64)
    if r.size and not bool(np.all(r > 0)):
        raise DomainError("logarithmic_inverse: the radius must be positive")
    return np.rint(np.log(r) / (float(growth) * float(step))).astype(np.int64)


def log3(values: ArrayLike) -> FloatArray:
    """log₃ of positive numbers, float64."""
    x = np.asarray(values, dtype=np.float64)
    if x.size and not bool(np.all(x > 0)):
        raise DomainError(f"log3: expected positive numbers, got {float(np.min(x))}")
    return np.log(x) / LN3


def crystalline(n: ArrayLike) -> Polar:
    """The crystalline log map of the integers n ≥ 1: angle nG mod 2π, radius log₃ n."""
    m = as_int64("crystalline", n, low=1)
    return Polar(log3(m), angle(m, GOLDEN))


def crystalline_inverse(radius: ArrayLike, angle: ArrayLike | None = None) -> IntArray:
    """n = 3^r, rounded; exact for n ≤ 10¹³, where float64 still separates log₃ n from log₃(n+1) safely."""
    return _nearest("crystalline_inverse", np.power(3.0, np.asarray(radius, dtype=np.float64)), 1.0e13 + 1)


def crystalline_prime(n: ArrayLike) -> Polar:
    """The crystalline log map of the primes, n ≥ 1: angle nG mod 2π, radius log₃ p_n."""
    from cllm.lattice.tokens import token_prime

    m = as_int64("crystalline_prime", n, low=1)
    return Polar(log3(token_prime(m - 1)), angle(m, GOLDEN))


def crystalline_prime_inverse(radius: ArrayLike, angle: ArrayLike | None = None) -> Any:
    """n with log₃ p_n = radius; DomainError when 3^radius is not (within rounding) a prime."""
    from cllm.lattice.tokens import prime_token

    found = crystalline_inverse(radius)
    return prime_token(found if found.ndim else int(found)) + 1


def ring(p: Any) -> Any:
    """The ring of p ≥ 1: the largest j with 3^j ≤ p, decided by integers; any size for an int, int64 arrays."""
    if isinstance(p, int):
        if p < 1:
            raise DomainError(f"ring: expected p ≥ 1, got {p}")
        j, power = 0, 3
        while power <= p:
            j, power = j + 1, power * 3
        return j
    values = as_int64("ring", p, low=1)
    powers = np.array([3**j for j in range(40)], dtype=np.int64)  # 3³⁹ < 2⁶³ < 3⁴⁰
    return np.searchsorted(powers, values, side="right") - 1
