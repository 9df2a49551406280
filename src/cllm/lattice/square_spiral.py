"""Ulam's square spiral, exact, with an O(1) inverse.

1 stands at (0, 0), 2 at (1, 0), and the spiral turns counter-clockwise: ring k is the square max(|x|, |y|) = k with the
numbers (2k−1)²+1 … (2k+1)²; (2k+1)² ends it at (k, −k).
"""

from __future__ import annotations

from math import isqrt
from typing import Any

import numpy as np

from cllm.errors import DomainError
from cllm.lattice.angles import as_int64, floor_sqrt

_FAST = 1 << 62  # int64 arithmetic is safe below


def _point(n: int) -> tuple[int, int]:
    k = (isqrt(n - 1) + 1) // 2 if n > 1 else 0
    back = (2 * k + 1) ** 2 - n  # steps back from the ring's last number
    side, along = divmod(back, 2 * k) if k else (0, 0)
    if side == 0:
        return k - along, -k
    if side == 1:
        return -k, along - k
    if side == 2:
        return along - k, k
    return k, k - along


def _number(x: int, y: int) -> int:
    k = max(abs(x), abs(y))
    last = (2 * k + 1) ** 2
    if y == -k:
        return last - (k - x)
    if x == -k:
        return last - 3 * k - y
    if y == k:
        return last - 5 * k - x
    return last - 7 * k + y


def ulam(n: Any) -> tuple[Any, Any]:
    """The lattice point (x, y) of each n ≥ 1.

    An int gives ints of any size; an int64 array gives int64 arrays (n ≤ 2⁶²), an object array of ints object arrays.
    """
    if isinstance(n, int):
        if n < 1:
            raise DomainError(f"ulam: n counts from 1, got {n}")
        return _point(n)
    array = np.asarray(n)
    if array.dtype == object or (array.size and array.dtype.kind in "iu" and int(array.max()) > _FAST):
        points = [ulam(int(v)) for v in array.ravel()]
        xs, ys = zip(*points, strict=True)
        return (np.array(xs, dtype=object).reshape(array.shape), np.array(ys, dtype=object).reshape(array.shape))
    m = as_int64("ulam", array, low=1)
    k = (floor_sqrt(m - 1) + 1) >> 1
    t = 2 * k
    back = (t + 1) ** 2 - m
    side = (back >= t).view(np.int8) + (back >= 2 * t) + (back >= 3 * t)
    along = back - side * t
    x = np.where(side == 0, k - along, np.where(side == 1, -k, np.where(side == 2, along - k, k)))
    y = np.where(side == 0, -k, np.where(side == 1, along - k, np.where(side == 2, k, k - along)))
    if bool(np.any(k == 0)):  # n = 1, where all sides meet
        x, y = np.where(k == 0, 0, x), np.where(k == 0, 0, y)
    return x, y


def ulam_inverse(x: Any, y: Any) -> Any:
    """The number n ≥ 1 at each lattice point: the exact inverse of `ulam`, for coordinates of any size."""
    if isinstance(x, int) and isinstance(y, int):
        return _number(x, y)
    xs, ys = np.broadcast_arrays(np.asarray(x), np.asarray(y))
    big = 1 << 30
    if xs.dtype == object or ys.dtype == object or (xs.size and max(np.abs(xs).max(), np.abs(ys).max()) > big):
        numbers = [_number(int(a), int(b)) for a, b in zip(xs.ravel(), ys.ravel(), strict=True)]
        return np.array(numbers, dtype=object).reshape(xs.shape)
    a, b = as_int64("ulam_inverse", xs), as_int64("ulam_inverse", ys)
    k = np.maximum(np.abs(a), np.abs(b))
    offset = np.where(b == -k, a - k, np.where(a == -k, -3 * k - b, np.where(b == k, -5 * k - a, -7 * k + b)))
    return (2 * k + 1) ** 2 + offset
