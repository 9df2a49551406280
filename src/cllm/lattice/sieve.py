"""Primes by a segmented sieve of Eratosthenes over the odd numbers.

A segment of 2²⁰ odd numbers is one byte array that stays in the cache.  It starts as a copy of the periodic pattern of
3, 5, 7, 11, 13 (period 15015 odd numbers); then primes that hit the segment often are struck by strided slices and
primes that hit it rarely all together by index arrays, so that a segment near 10¹² costs two dozen numpy calls for its
70,000 large primes instead of 70,000.

Above 10¹⁴ the base primes up to √n would dominate.  There the sieve only removes multiples of small primes and each
survivor is proved or refuted on its own, so every range has an exact answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cllm.errors import DomainError, LimitError
from cllm.numbers.theory import is_prime

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

WHEEL30 = (1, 7, 11, 13, 17, 19, 23, 29)
"""The residues mod 30 in which every prime above 5 lies."""

SEGMENT = 1 << 20  # odd numbers in one segment; 1 MiB
MAX_WIDTH = 1 << 31  # widest range returned as one array (about 10⁸ primes, 800 MB)
_SIEVE_TO = 10**14  # above this, survivors of a partial sieve are tested one by one
_PRESIEVED = (3, 5, 7, 11, 13)
_PERIOD = 15015


@lru_cache(maxsize=1)
def _pattern() -> NDArray[np.uint8]:
    """1 where an odd number 2i+1 is free of 3, 5, 7, 11, 13, long enough to cut any segment from any phase."""
    period = np.ones(_PERIOD, dtype=np.uint8)
    for p in _PRESIEVED:
        period[p >> 1 :: p] = 0
    return np.tile(period, SEGMENT // _PERIOD + 2)


@lru_cache(maxsize=4)
def _base_primes(limit: int) -> IntArray:
    """The primes p with 13 < p ≤ limit."""
    if limit < 17:
        return np.empty(0, dtype=np.int64)
    found = primes_below(limit + 1)
    found = found[found > 13]
    found.setflags(write=False)
    return found


def _odd_segment(first: int, count: int, base: IntArray) -> NDArray[np.uint8]:
    """Marks of the odd numbers 2i+1, first ≤ i < first+count: 1 unless 3…13 or a base prime divides it properly.

    A base prime p strikes from max(p², first multiple); so p itself stays marked if it lies in the segment.
    """
    phase = first % _PERIOD
    marks = _pattern()[phase : phase + count].copy()
    if first < 7:
        for p in (1, *_PRESIEVED):  # the pattern struck the primes themselves, and left 1
            if first <= p >> 1 < first + count:
                marks[(p >> 1) - first] = p != 1
    end = first + count
    # keep p with p² ≤ last odd number of the segment, exactly
    use = base[: int(np.searchsorted(base, isqrt(2 * (end - 1) + 1), side="right"))]
    if use.size == 0:
        return marks
    start = (use * use) >> 1
    # index i of a multiple satisfies i ≡ (p−1)/2 mod p
    shift = (use >> 1) - first % use
    shift += (shift < 0) * use
    offset = np.where(start >= first, start - first, shift)
    often = int(np.searchsorted(use, count // 24))
    for p, x in zip(use[:often].tolist(), offset[:often].tolist(), strict=True):
        marks[x::p] = 0
    rare, where = use[often:], offset[often:]
    while True:
        inside = where < count
        rare, where = rare[inside], where[inside]
        if rare.size == 0:
            return marks
        marks[where] = 0
        where = where + rare


def _check_range(name: str, start: int, stop: int) -> tuple[int, int]:
    start, stop = int(start), int(stop)
    if stop - start > MAX_WIDTH:
        raise LimitError(
            f"{name}: the range [{start}, {stop}) is {stop - start} wide; one array holds at most {MAX_WIDTH}. "
            "Take it in pieces (iter_primes, prime_count)"
        )
    return max(start, 0), max(stop, 0)


def _segments(start: int, stop: int, size: int = SEGMENT) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield (i, marks): marks[j] says whether the odd number 2(i+j)+1 in [start, stop) is prime."""
    first, end = start // 2, stop // 2  # odd numbers 2i+1 in [start, stop)
    if first >= end:
        return
    base = _base_primes(isqrt(stop))
    for low in range(first, end, size):
        yield low, _odd_segment(low, min(size, end - low), base)


def primes_below(n: int) -> IntArray:
    """All primes p < n in ascending order, int64."""
    return np.asarray(primes_between(0, n), dtype=np.int64)


def primes_between(start: int, stop: int) -> Any:
    """All primes p with start ≤ p < stop, ascending; int64, or object (Python ints) when stop > 2⁶³."""
    start, stop = _check_range("primes_between", start, stop)
    if stop > _SIEVE_TO:
        return _primes_far(start, stop)
    parts = [np.array([2], dtype=np.int64)] if start <= 2 < stop else []
    for low, marks in _segments(start, stop):
        found = np.flatnonzero(marks.view(np.bool_))
        found += low
        found <<= 1
        found += 1
        parts.append(found)
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


def _primes_far(start: int, stop: int) -> Any:
    """The same far out: sieve by primes below 10⁶ or so, prove the survivors one by one."""
    width = stop - start
    dtype: Any = np.int64 if stop < 1 << 63 else object
    low = start | 1
    count = (stop - low + 1) // 2
    if width > 1 << 27:
        raise LimitError(f"primes_between: above {_SIEVE_TO} a range holds at most 2^27 numbers, got {width}")
    if count <= 0:
        return np.empty(0, dtype=dtype)
    marks = np.ones(count, dtype=np.bool_)
    for p in primes_below(min(10**6, max(1000, 4 * width)))[1:].tolist():
        # low + 2j ≡ 0 (mod p)  ⇔  j ≡ −low·2⁻¹
        marks[(-low * ((p + 1) // 2)) % p :: p] = False
    found = [n for n in (low + 2 * int(j) for j in np.flatnonzero(marks)) if is_prime(n)]
    return np.array(found, dtype=dtype)


def prime_mask(start: int, stop: int) -> BoolArray:
    """Boolean array of length stop − start: element j says whether start + j is prime (start ≥ 0)."""
    start, stop = int(start), int(stop)
    if start < 0 or stop < start:
        raise DomainError(f"prime_mask: expected 0 ≤ start ≤ stop, got start={start}, stop={stop}")
    _check_range("prime_mask", start, stop)
    mask = np.zeros(stop - start, dtype=np.bool_)
    found = primes_between(start, stop)
    mask[(found - start).astype(np.int64)] = True
    return mask


def count_between(start: int, stop: int) -> int:
    """The number of primes p with start ≤ p < stop, by sieve, without keeping them; stop ≤ 10¹⁴."""
    start, stop = max(int(start), 0), max(int(stop), 0)
    if stop > _SIEVE_TO:
        raise LimitError(f"count_between: sieves up to {_SIEVE_TO}, got stop={stop}; use prime_count")
    total = 1 if start <= 2 < stop else 0
    for _, marks in _segments(start, stop):
        total += int(np.count_nonzero(marks))
    return total


def iter_primes(start: int = 2) -> Iterator[int]:
    """Every prime p ≥ start, without end, as Python ints, from a start of any size."""
    low = max(int(start), 2)
    width = 1 << 12
    while low >> 64 == 0:
        yield from (int(p) for p in primes_between(low, low + width))
        low += width
        if low < _SIEVE_TO:
            width = min(2 * width, 2 * SEGMENT)
    low |= 1  # proofs cost most out here: one candidate at a time
    while True:
        if is_prime(low):
            yield low
        low += 2
