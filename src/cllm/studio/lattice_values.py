"""Arithmetic of the numbers of a tile, which lie anywhere up to 10¹²: primality, factors, gaps, and the null model."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from flint import fmpz
from numpy.typing import NDArray

from cllm.lattice.factor_tables import factor_table
from cllm.lattice.sieve import primes_between

MAX_N = 10**12
"""The largest number that tiles show."""
_SIEVED = 1 << 25  # primes below are looked up
_TABLED = 1 << 21  # factors below are looked up
_TRIED = 400  # primes below are divided out of scattered numbers

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@lru_cache(maxsize=1)
def _prime_table() -> BoolArray:
    mask = np.zeros(_SIEVED, dtype=np.bool_)
    mask[primes_between(0, _SIEVED)] = True
    return mask


def are_prime(n: IntArray) -> BoolArray:
    """Whether each n ≥ 0 is prime, proved (below 2⁶⁴ FLINT's test is a proof)."""
    flat = n.ravel()
    if flat.size == 0 or int(flat.max()) < _SIEVED:
        return np.asarray(_prime_table()[n])
    left = (flat & 1 == 1) & (flat % 3 != 0) & (flat % 5 != 0) & (flat % 7 != 0) & (flat > 1)
    found = left.copy()
    found[left] = [fmpz(v).is_prime() for v in flat[left].tolist()]
    for p in (2, 3, 5, 7):
        found[flat == p] = True
    return np.asarray(found.reshape(n.shape))


class Factors(NamedTuple):
    """least: smallest prime factor (1 for n = 1, 0 for 0); big_omega: Ω; omega: ω; mobius: μ. int64, as n."""

    least: IntArray
    big_omega: IntArray
    omega: IntArray
    mobius: IntArray


@lru_cache(maxsize=1)
def _factor_table() -> Factors:
    table = factor_table(1, _TABLED)
    return Factors(*(np.concatenate(([0], part)) for part in table[1:]))


def factors(n: IntArray) -> Factors:
    """Least factor, Ω, ω and μ of each n ≥ 0."""
    if n.size == 0 or int(n.max()) < _TABLED:
        return Factors(*(np.asarray(part[n], dtype=np.int64) for part in _factor_table()))
    flat = n.ravel()
    low, high = max(int(flat.min()), 1), int(flat.max())
    if high - low < 4 * flat.size:
        table = factor_table(low, high + 1)
        zero = flat < low
        i = np.where(zero, 0, flat - low)
        parts = [np.where(zero, 0, part[i]).astype(np.int64).reshape(n.shape) for part in table[1:]]
        return Factors(*parts)
    return Factors(*(row.reshape(n.shape) for row in _scattered(flat)))


def _scattered(n: IntArray) -> Factors:
    """Small primes are divided out of all numbers at once; what is left is prime, or factored one by one."""
    rest = np.maximum(n, 1)
    least, big, distinct = np.zeros_like(rest), np.zeros_like(rest), np.zeros_like(rest)
    for p in primes_between(0, _TRIED).tolist():
        hit = np.flatnonzero(rest % p == 0)
        distinct[hit] += 1
        least[hit[least[hit] == 0]] = p
        while hit.size:
            rest[hit] //= p
            big[hit] += 1
            hit = hit[rest[hit] % p == 0]
    left = np.flatnonzero(rest > 1)
    prime = are_prime(rest[left])
    alone, several = left[prime], left[~prime]
    least[alone] = np.where(least[alone] == 0, rest[alone], least[alone])
    big[alone] += 1
    distinct[alone] += 1
    for i, v in zip(several.tolist(), rest[several].tolist(), strict=True):
        parts = fmpz(v).factor()
        distinct[i] += len(parts)
        big[i] += sum([e for _, e in parts])
        if not least[i]:
            least[i] = min([int(p) for p, _ in parts])
    least[n == 1] = 1
    least[n == 0] = 0
    mobius = np.where(big == distinct, 1 - 2 * (distinct & 1), 0)
    mobius[n == 0] = 0
    return Factors(least, big, distinct, mobius)


def prime_gaps(n: IntArray, prime: BoolArray) -> IntArray:
    """The distance to the next prime where n is prime, 0 elsewhere."""
    flat, gaps = n.ravel(), np.zeros(n.size, dtype=np.int64)
    open_ = np.flatnonzero(prime.ravel())
    two = open_[flat[open_] == 2]
    gaps[two] = 1
    open_ = open_[flat[open_] != 2]
    gap = 0
    while open_.size:
        gap += 2
        closed = are_prime(flat[open_] + gap)
        gaps[open_[closed]] = gap
        open_ = open_[~closed]
    return gaps.reshape(n.shape)


def totients(n: IntArray) -> IntArray:
    """Euler's φ(n), n ≥ 1 (0 for 0)."""
    found: IntArray = _by_flint(n, lambda v: int(fmpz(v).euler_phi()))
    return found


def divisor_sums(n: IntArray, power: int) -> Any:
    """σ_power(n) for n ≥ 1 (0 for 0), as float64 where it does not fit int64."""
    return _by_flint(n, lambda v: int(fmpz(v).divisor_sigma(power)))


def _by_flint(n: IntArray, function: Any) -> Any:
    values, back = np.unique(n, return_inverse=True)
    found = [function(v) if v > 0 else 0 for v in values.tolist()]
    array = np.array(found, dtype=object)
    kind: Any = np.int64 if not found or max(found) < 1 << 62 else np.float64
    return array.astype(kind)[back].reshape(n.shape)


def null_primes(n: IntArray, seed: int, odd: bool = False) -> BoolArray:
    """Cramér's random model: each n ≥ 3 on its own with probability 1/ln n (or, `odd`, odd n with 2/ln n), 2 always.

    A number's lot depends on n and the seed alone (SplitMix64's finaliser; Steele, Lea & Flood, OOPSLA 2014), so that
    tiles of every zoom agree.
    """
    with np.errstate(over="ignore", divide="ignore"):
        z = n.astype(np.uint64) + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % (1 << 64))
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        z = z ^ z >> np.uint64(31)
        lot = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
        density = 1 / np.log(np.maximum(n, 2).astype(np.float64))
    if odd:
        density = np.where(n % 2 == 1, 2 * density, 0.0)
    return np.asarray(((n >= 3) & (lot < density)) | (n == 2))
