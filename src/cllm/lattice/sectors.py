"""The 12-sector histogram of the angles i·2πφ·φ_d, i = 1 … n, exact for every n.

With m = i·φ_d the sector is ⌊12·m·φ⌋ mod 12 = ⌊6m + √180·m⌋ mod 12, for an integer m (6m + isqrt(180m²)) mod 12.
Counting does not visit the i: √180 is replaced by a lower rational bound so close that no floor changes, and a sum of
floors of a rational line takes O(log n) steps (Graham, Knuth & Patashnik, Concrete Mathematics, 3.5).
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from math import isqrt

import numpy as np

from cllm.errors import DomainError
from cllm.lattice.angles import floor_sqrt
from cllm.lattice.sieve import IntArray
from cllm.numbers import Ball, log2

SECTORS = 12


def sector(i: int, phi: Fraction | int) -> int:
    """The sector 0…11 of the angle i·2πφ·φ_d, in integers."""
    m = Fraction(phi) * i
    root = isqrt(180 * m.numerator**2)
    return (6 * m.numerator + root) // m.denominator % SECTORS


def _floor_sum(n: int, m: int, a: int, b: int) -> int:
    """Σ_{i=0}^{n−1} ⌊(a·i + b)/m⌋ for a, b ≥ 0."""
    total = 0
    while n > 0:
        total += n * (n - 1) // 2 * (a // m) + n * (b // m)
        a, b = a % m, b % m
        top = a * n + b
        if top < m:
            break
        n, b = divmod(top, m)
        m, a = a, m
    return total


@lru_cache(maxsize=1024)
def sector_counts(n: int, phi: Fraction | int) -> tuple[int, ...]:
    """How many of i = 1 … n lie in each of the twelve sectors."""
    phi = Fraction(phi)
    if n < 0 or phi <= 0:
        raise DomainError(f"sector_counts: expected n ≥ 0 and a positive φ_d, got n={n}, φ_d={phi}")
    a, b = phi.numerator, phi.denominator
    # |√180·m − integer| > 1/(27m + 1) for every m ≤ a·n, since 180m² is never a square; 2⁻ˢ < 1/(28·(a·n)²)
    s = 2 * (a * n + 1).bit_length() + 6
    slope = a * ((6 << s) + isqrt(180 << (2 * s)))
    modulus = (SECTORS * b) << s
    # at_least[t]: how many have sector ≥ t
    whole = _floor_sum(n + 1, modulus, slope, 0)
    at_least = [n]
    for t in range(1, SECTORS):
        at_least.append(_floor_sum(n + 1, modulus, slope, ((SECTORS - t) * b) << s) - whole)
    at_least.append(0)
    return tuple(at_least[t] - at_least[t + 1] for t in range(SECTORS))


def sector_entropy(n: int, phi: Fraction | int) -> Ball:
    """H: the Shannon entropy of the histogram in bits, n ≥ 1, at the precision of the context."""
    if n < 1:
        raise DomainError(f"sector_entropy: n is at least 1, got {n}")
    counts = [c for c in sector_counts(n, phi) if c]
    if len(counts) == 1:
        return Ball(0)
    return sum((Fraction(c, n) * log2(Fraction(n, c)) for c in counts), Ball(0))


def entropies(n: IntArray, phi: Fraction | int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """H in float64 for an array of n ≥ 1."""
    phi = Fraction(phi)
    wanted, back = np.unique(n, return_inverse=True)
    if wanted.size == 0:
        return np.zeros(n.shape)
    last = int(wanted[-1])
    if last > 1 << 21 or last * phi.numerator >= 1 << 27 or last > 2000 * wanted.size:
        counts = np.array([sector_counts(int(v), phi) for v in wanted], dtype=np.float64)
    else:
        m = np.arange(1, last + 1, dtype=np.int64) * phi.numerator
        sectors = (6 * m + floor_sqrt(180 * m * m)) // phi.denominator % SECTORS
        stretch = np.searchsorted(wanted, np.arange(1, last + 1))
        each = np.bincount(stretch * SECTORS + sectors, minlength=wanted.size * SECTORS)
        counts = np.cumsum(each.reshape(wanted.size, SECTORS), axis=0).astype(np.float64)
    p = counts / wanted[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        h = -np.where(p > 0, p * np.log2(p), 0.0).sum(axis=1)
    return np.asarray(np.maximum(h, 0.0)[back].reshape(n.shape))
