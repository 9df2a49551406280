"""One-to-one: token id i ↔ the prime p_{i+1} (0 ↔ 2, 1 ↔ 3, 2 ↔ 5, …)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cllm.errors import DomainError, LimitError
from cllm.lattice.counting import first_primes, nth_prime, prime_count, prime_index
from cllm.lattice.sieve import IntArray, primes_between

_TABLE_LIMIT = 1 << 22  # ids below are looked up in one shared table (32 MB)
_SPAN_LIMIT = 1 << 27


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
    return _table(size)


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
    low, high = int(array.min()), int(array.max())
    if high < _TABLE_LIMIT:
        return _table_for(high + 1)[array]
    if high - low > _SPAN_LIMIT:
        raise LimitError(
            f"token_prime: ids from {_TABLE_LIMIT} on must lie within 2^27 of each other, got {low} … {high}"
        )
    return primes_between(nth_prime(low + 1), nth_prime(high + 1) + 1)[array - low]


def prime_token(primes: ArrayLike) -> Any:
    """The token id of each prime, the inverse of `token_prime`; DomainError when a number is not prime."""
    array = np.asarray(primes)
    if array.dtype.kind not in "iu":
        raise DomainError(f"prime_token: expected integers, got {array.dtype}")
    if array.ndim == 0:
        return prime_index(int(array)) - 1
    if array.size == 0:
        return np.empty(array.shape, dtype=np.int64)
    low, high = int(array.min()), int(array.max())
    if low < 2:
        raise DomainError(f"prime_token: expected primes, got {low}")
    if high - low > (_SPAN_LIMIT if low > 1 << 20 else 1 << 31):
        raise LimitError(f"prime_token: the primes must lie within 2^27 of each other, got {low} … {high}")
    count = 1 << 12
    while count < _TABLE_LIMIT and _table_for(count)[-1] < high:
        count *= 2
    table, before = _table_for(count), 0
    if table[-1] < high:
        table, before = primes_between(low, high + 1), prime_count(low - 1)
    ids = np.searchsorted(table, array)
    wrong = table[np.minimum(ids, table.size - 1)] != array if table.size else np.ones(array.shape, dtype=np.bool_)
    if bool(np.any(wrong)):
        raise DomainError(f"prime_token: expected primes, got {int(array[wrong][0])}")
    return ids.astype(np.int64) + before
