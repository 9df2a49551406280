"""Primality, factors, neighbours and special primes, for integers of any size (python-flint does the arithmetic)."""

from __future__ import annotations

from math import isqrt

import numpy as np
from flint import fmpz
from numpy.typing import ArrayLike

from cllm.errors import DomainError, LimitError
from cllm.lattice.sieve import BoolArray, iter_primes, prime_mask
from cllm.numbers.theory import is_prime as proved_prime

MAX_MERSENNE = 200_000  # exponents tested by Lucas–Lehmer; larger ones take minutes
MAX_FACTOR_BITS = 400  # composite inputs beyond this could run for days


def is_prime(n: int) -> bool:
    """Whether n is prime, proved (negative numbers, 0 and 1 are not).

    Composite numbers of any size are refuted; a Mersenne number is decided by Lucas–Lehmer; a proof for another number
    of more than 4096 bits is refused with LimitError (1024 bits take seconds).
    """
    n = int(n)
    if n.bit_length() > 64 and n & (n + 1) == 0 and n > 0:
        return is_mersenne_prime(n)
    return proved_prime(n)


def are_prime(values: ArrayLike) -> BoolArray:
    """Elementwise `is_prime` over an integer array of any shape; a compact range is sieved at once."""
    array = np.asarray(values)
    if array.size == 0:
        return np.zeros(array.shape, dtype=np.bool_)
    if array.dtype.kind not in "iuO":
        raise DomainError(f"are_prime: expected integers, got an array of {array.dtype}")
    low, high = max(int(array.min()), 0), int(array.max())
    if high < 2:
        return np.zeros(array.shape, dtype=np.bool_)
    if high <= 10**14 and high - low < max(10**6, 64 * array.size) and high - low < 1 << 31:
        mask = prime_mask(low, high + 1)
        inside = array >= low
        return np.asarray(inside & mask[np.where(inside, array - low, 0).astype(np.int64)])
    flat = [is_prime(n) for n in array.ravel().tolist()]
    return np.array(flat, dtype=np.bool_).reshape(array.shape)


def next_prime(n: int) -> int:
    """The smallest prime > n, proved."""
    return next(iter_primes(int(n) + 1))


def previous_prime(n: int) -> int:
    """The largest prime < n, proved; n > 2."""
    n = int(n)
    if n <= 2:
        raise DomainError(f"previous_prime: no prime below {n}; n must be at least 3")
    if n == 3:
        return 2
    candidate = n - 1 - n % 2
    while not is_prime(candidate):
        candidate -= 2
    return candidate


def factor(n: int) -> list[tuple[int, int]]:
    """The factorisation of n ≥ 1 as (prime, exponent) pairs, ascending; [] for 1; n below 2⁴⁰⁰."""
    n = int(n)
    if n < 1:
        raise DomainError(f"factor: expected n ≥ 1, got {n}")
    if n.bit_length() > MAX_FACTOR_BITS and not is_prime(n):
        raise LimitError(f"factor: composite numbers up to {MAX_FACTOR_BITS} bits, got {n.bit_length()} bits")
    return sorted((int(p), int(e)) for p, e in fmpz(n).factor())


def is_twin(p: int) -> bool:
    """Whether p is prime and p − 2 or p + 2 is prime too."""
    return is_prime(p) and (is_prime(p + 2) or is_prime(p - 2))


def is_sophie_germain(p: int) -> bool:
    """Whether p and 2p + 1 are both prime."""
    return is_prime(p) and is_prime(2 * p + 1)


def is_mersenne_exponent(p: int) -> bool:
    """Whether 2^p − 1 is prime, by the Lucas–Lehmer test: s₀ = 4, s → s² − 2, prime iff s_{p−2} ≡ 0 (p odd)."""
    p = int(p)
    if p == 2:
        return True
    if not is_prime(p):
        return False
    if p > MAX_MERSENNE:
        raise LimitError(f"is_mersenne_exponent: exponents up to {MAX_MERSENNE}, got {p}")
    mersenne = (fmpz(1) << p) - 1
    s = fmpz(4)
    for _ in range(p - 2):
        s = s * s - 2
        s = (s & mersenne) + (s >> p)  # 2^p ≡ 1
        if s >= mersenne:
            s -= mersenne
    return bool(s == 0)


def is_mersenne_prime(n: int) -> bool:
    """Whether n is a prime of the form 2^p − 1."""
    n = int(n)
    return n > 1 and n & (n + 1) == 0 and is_mersenne_exponent(n.bit_length())


def is_square(n: int) -> bool:
    """Whether n is the square of an integer."""
    return n >= 0 and isqrt(n) ** 2 == n
