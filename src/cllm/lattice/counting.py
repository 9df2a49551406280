"""π(x) and the n-th prime, exact.

Below 10⁶ by sieve; above, a combinatorial count in numpy that needs about x^{3/4}/ln x steps and √x
memory (Meissel's idea in the form of Lucy_Hedgehog and of Min_25's "rough numbers").  The n-th prime starts from the
inverse of Riemann's R, whose error is of the order √x, counts up to there exactly, and sieves the rest.
"""

from __future__ import annotations

from math import ceil, isqrt, log
from typing import Literal

import numpy as np

from cllm.errors import DomainError, LimitError
from cllm.lattice.sieve import IntArray, count_between, primes_below, primes_between

MAX_COUNT = 10**15  # π above this would need minutes and gigabytes
MAX_INDEX = 29_844_570_422_669  # π(10¹⁵): the largest index that nth_prime takes

Method = Literal["auto", "sieve", "combinatorial"]


def prime_count(x: int, method: Method = "auto") -> int:
    """π(x), the number of primes p ≤ x, exact for x ≤ 10¹⁵ ("sieve": x ≤ 10¹⁴).

    "auto" sieves up to 10⁶ and counts combinatorially above; the two are independent and tests compare them.
    """
    if method not in ("auto", "sieve", "combinatorial"):
        raise DomainError(f'prime_count: method is "auto", "sieve" or "combinatorial", got {method!r}')
    x = int(x)
    if x > MAX_COUNT:
        raise LimitError(f"prime_count: counts up to x = 10^15, got {x}")
    if x < 2:
        return 0
    if method == "sieve" or (method == "auto" and x <= 10**6):
        return count_between(0, x + 1)
    return _count_rough(x)


def _count_rough(n: int) -> int:
    """π(n) for n ≥ 2 through the numbers ≤ √n free of small primes.

    smalls[i]: odd-number count of survivors ≤ 2i+1, less one (so at the end π(2i+1) − 1); larges[k]: the same for
    n // roughs[k].  Each prime p ≤ n^{1/4} is struck out of both tables; what then remains above is counted by pairs.
    """
    root = isqrt(n)
    if n < 100:
        return count_between(0, n + 1)
    half = (root + 1) // 2
    smalls = np.arange(half, dtype=np.int64)
    roughs = 2 * np.arange(half, dtype=np.int64) + 1
    # n < 2⁵²: a float quotient never rounds up to the next integer, because n/d is at least 1/d away from it
    larges = ((np.float64(n) / roughs).astype(np.int64) - 1) // 2
    alive = np.ones(root + 1, dtype=np.bool_)
    struck = 0
    for p in primes_below(isqrt(root) + 1)[1:].tolist():
        alive[p :: 2 * p] = False
        keep = alive[roughs]
        d = roughs[keep] * p
        inside = d <= root
        split = int(np.count_nonzero(inside))  # roughs ascend, so the small d come first
        rest = np.empty(d.size, dtype=np.int64)
        rest[:split] = larges[smalls[d[:split] >> 1] - struck]
        rest[split:] = smalls[((np.float64(n) / d[split:]).astype(np.int64) - 1) >> 1]
        larges = larges[keep] - rest + struck
        roughs = roughs[keep]
        # smalls[i] −= smalls[index of (2i+1)/p] − struck, for 2i+1 ≥ p²; the right side reads values not yet changed
        low = (p * p) >> 1
        first = p >> 1
        last = ((2 * half - 1) // p - 1) >> 1
        values = smalls[first : last + 1] - struck
        smalls[low:] -= np.repeat(values, p)[: half - low]
        struck += 1
    count = int(larges[0]) + (roughs.size + 2 * (struck - 1)) * (roughs.size - 1) // 2 - int(larges[1:].sum())
    for j in range(1, roughs.size):
        q = int(roughs[j])
        m = n // q
        e = int(smalls[(m // q - 1) >> 1]) - struck
        if e < j + 1:
            break
        pairs = smalls[((np.float64(m) / roughs[j + 1 : e + 1]).astype(np.int64) - 1) >> 1]
        count += int(pairs.sum()) - (e - j) * (struck + j - 1)
    return count + 1


def _riemann_r(x: float) -> float:
    """Riemann's R(x) by Gram's series, in float64."""
    t = log(x)
    term, total = 1.0, 1.0
    for k in range(1, 400):
        term *= t / k
        zeta = 1 + 2.0 ** -(k + 1) + sum(m ** -(k + 1.0) for m in range(3, 40)) if k < 12 else 1 + 2.0 ** -(k + 1)
        step = term / (k * zeta)
        total += step
        if step < 1e-17 * total:
            break
    return total


def _estimate(n: int) -> int:
    """A number near p_n: Newton on R(x) = n."""
    x = n * (log(n) + log(log(n)) - 1)
    for _ in range(20):
        step = (n - _riemann_r(x)) * log(x)
        x += step
        if abs(step) < 1e-9 * x:
            break
    return int(x)


def nth_prime(n: int) -> int:
    """p_n with p_1 = 2; 1 ≤ n ≤ π(10¹⁵) = 29844570422669."""
    n = int(n)
    if n < 1:
        raise DomainError(f"nth_prime: n counts from 1 (p_1 = 2), got n={n}")
    if n > MAX_INDEX:
        raise LimitError(f"nth_prime: n is at most π(10^15) = {MAX_INDEX}, got {n}")
    if n <= 200_000:
        return int(first_primes(n)[-1])
    guess = min(_estimate(n), MAX_COUNT)
    before = prime_count(guess)  # primes ≤ guess
    width = 1 << 16
    low = guess + 1
    if before < n:
        while True:
            found = primes_between(low, low + width)
            if before + found.size >= n:
                return int(found[n - before - 1])
            before += found.size
            low += width
            width *= 2
    while True:
        found = primes_between(low - width, low)
        before -= found.size  # primes below low − width
        if before < n:
            return int(found[n - before - 1])
        low -= width
        width *= 2


def first_primes(count: int) -> IntArray:
    """p_1 … p_count as an int64 array; count ≤ 10⁸."""
    count = int(count)
    if count < 0:
        raise DomainError(f"first_primes: count is at least 0, got {count}")
    if count > 10**8:
        raise LimitError(f"first_primes: at most 10^8 primes in one array, got {count}")
    if count == 0:
        return np.empty(0, dtype=np.int64)
    # p_n < n (ln n + ln ln n) for n ≥ 6 (Rosser)
    bound = 15 if count < 6 else ceil(count * (log(count) + log(log(count)))) + 1
    return primes_below(bound)[:count]


def prime_index(p: int) -> int:
    """n with p_n = p; DomainError when p is not prime."""
    from cllm.lattice.primality import is_prime

    if not is_prime(p):
        raise DomainError(f"prime_index: expected a prime, got {p}")
    return prime_count(p)
