"""Arithmetic functions of every n in a range, by sieve: least prime factor, Ω, ω, Möbius μ."""

from __future__ import annotations

from math import isqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cllm.errors import DomainError, LimitError
from cllm.lattice.sieve import IntArray, primes_below

MAX_TABLE = 1 << 26  # numbers in one table (about 1.5 GB while it is made)
MAX_VALUE = 10**14


class FactorTable(NamedTuple):
    """Arrays over n = start … stop−1.

    n: the numbers; least: smallest prime factor (1 for n = 1); big_omega: Ω, prime factors with multiplicity;
    omega: ω, distinct ones; mobius: μ.
    """

    n: IntArray
    least: IntArray
    big_omega: NDArray[np.int8]
    omega: NDArray[np.int8]
    mobius: NDArray[np.int8]


def factor_table(start: int, stop: int) -> FactorTable:
    """Sieve the arithmetic functions of start ≤ n < stop; 1 ≤ start ≤ stop ≤ 10¹⁴, at most 2²⁶ numbers."""
    start, stop = int(start), int(stop)
    if start < 1 or stop < start:
        raise DomainError(f"factor_table: expected 1 ≤ start ≤ stop, got start={start}, stop={stop}")
    if stop > MAX_VALUE:
        raise LimitError(f"factor_table: numbers up to {MAX_VALUE}, got stop={stop}")
    size = stop - start
    if size > MAX_TABLE:
        raise LimitError(f"factor_table: at most {MAX_TABLE} numbers, got {size}")
    n = np.arange(start, stop, dtype=np.int64)
    least = np.zeros(size, dtype=np.int64)
    big = np.zeros(size, dtype=np.int8)
    distinct = np.zeros(size, dtype=np.int8)
    rest = n.copy()  # what is left of n after dividing out the sieving primes
    for p in primes_below(isqrt(max(stop - 1, 0)) + 1).tolist():
        first = -start % p
        if first >= size:
            continue
        view = least[first::p]
        view[view == 0] = p
        distinct[first::p] += 1
        power = p
        while power < stop:
            first = -start % power
            if first < size:
                big[first::power] += 1
                rest[first::power] //= p
            power *= p
    prime_left = rest > 1
    big += prime_left
    distinct += prime_left
    np.copyto(least, rest, where=least == 0)
    mobius = np.where(big == distinct, 1 - 2 * (distinct & 1), 0).astype(np.int8)
    return FactorTable(n, least, big, distinct, mobius)
