"""One-to-one: token id i ↔ the prime p_{i+1} (0 ↔ 2, 1 ↔ 3, 2 ↔ 5, …)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cllm.errors import DomainError
from cllm.lattice.counting import first_primes, nth_prime, prime_index
from cllm.lattice.sieve import IntArray


@lru_cache(maxsize=2)
def _table(count: int) -> IntArray:
    table = first_primes(count)
    table.setflags(write=False)
    return table


def _table_for(count: int) -> IntArray:
    """A shared table of at least `count` primes; sizes are rounded up so that few are made."""
    size = 1 << 12
    while size < count:
        size *= 2
    return _table(min(size, 10**8))


def token_prime(ids: ArrayLike) -> Any:
    """The prime p_{i+1} of each token id i ≥ 0: an int for an int, an int64 array for an array."""
    array = np.asarray(ids)
    if array.dtype.kind not in "iu":
        raise DomainError(f"token_prime: expected integer token ids, got {array.dtype}")
    if array.size == 0:
        return np.empty(array.shape, dtype=np.int64)
    if int(array.min()) < 0:
        raise DomainError(f"token_prime: token ids are at least 0, got {int(array.min())}")
    if array.ndim == 0:
        return nth_prime(int(array) + 1)
    return _table_for(int(array.max()) + 1)[array]


def prime_token(primes: ArrayLike) -> Any:
    """The token id of each prime, the inverse of `token_prime`; DomainError when a number is not prime."""
    array = np.asarray(primes)
    if array.dtype.kind not in "iu":
        raise DomainError(f"prime_token: expected integers, got {array.dtype}")
    if array.ndim == 0:
        return prime_index(int(array)) - 1
    if array.size == 0:
        return np.empty(array.shape, dtype=np.int64)
    count = 1 << 12
    while (table := _table_for(count))[-1] < int(array.max()):
        count *= 2
    ids = np.searchsorted(table, array)
    wrong = table[np.minimum(ids, table.size - 1)] != array
    if bool(np.any(wrong)):
        raise DomainError(f"prime_token: expected primes, got {int(array[wrong][0])}")
    return ids.astype(np.int64)
