"""Hilbert's curve of a given order: distance d ↔ cell (x, y) of the 2^order × 2^order square, exact.

The curve runs from (0, 0) to (2^order − 1, 0); it leaves (0, 0) upwards for odd orders, to the right for even ones, so
that the curve of order k + 2 begins with the curve of order k.  The four quarters of a square are visited in one of
four orientations; a table advances four levels at a time.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cllm.errors import DomainError
from cllm.lattice.angles import as_int64

MAX_ORDER = 31  # 4³¹ cells fit int64

# orientation → for d = 0..3 the quadrant (x, y) and the orientation inside it
_STATES: tuple[tuple[tuple[int, int, int], ...], ...] = (
    ((0, 0, 1), (0, 1, 0), (1, 1, 0), (1, 0, 3)),
    ((0, 0, 0), (1, 0, 1), (1, 1, 1), (0, 1, 2)),
    ((1, 1, 3), (1, 0, 2), (0, 0, 2), (0, 1, 1)),
    ((1, 1, 2), (0, 1, 3), (0, 0, 3), (1, 0, 0)),
)
_LEVELS = 4
_BLOCK = 1 << 15  # a block's arrays stay in the cache


@lru_cache(maxsize=2)
def _tables() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(forward, backward), each [4·256]: packed (x·16 + y)·4 + next, or d·4 + next, for state·256 + four levels."""
    forward = np.zeros(4 * 256, dtype=np.int64)
    backward = np.zeros(4 * 256, dtype=np.int64)
    for start in range(4):
        for d in range(256):
            state, x, y = start, 0, 0
            for level in range(_LEVELS - 1, -1, -1):
                qx, qy, state = _STATES[state][d >> 2 * level & 3]
                x, y = 2 * x + qx, 2 * y + qy
            forward[start * 256 + d] = (x * 16 + y) * 4 + state
            backward[start * 256 + x * 16 + y] = d * 4 + state
    return forward, backward


def _start(order: int) -> int:
    """Levels are padded to a multiple of four with leading zeros, each of which swaps the axes: state 0 or 1."""
    padding = -order % _LEVELS
    return padding & 1


def _check(name: str, order: int) -> None:
    if not 1 <= order <= MAX_ORDER:
        raise DomainError(f"{name}: order is from 1 to {MAX_ORDER}, got {order}")


def hilbert(d: ArrayLike, order: int) -> tuple[Any, Any]:
    """The cell (x, y) at distance d along the curve, 0 ≤ d < 4^order; int64 arrays."""
    _check("hilbert", order)
    m = as_int64("hilbert", d, low=0, high=4**order - 1)
    forward, _ = _tables()
    flat = m.reshape(-1)
    x, y = np.empty(flat.shape, dtype=np.int64), np.empty(flat.shape, dtype=np.int64)
    for low in range(0, flat.size, _BLOCK):
        part = flat[low : low + _BLOCK]
        state: Any = _start(order) << 8
        px, py = np.zeros_like(part), np.zeros_like(part)
        for shift in range(2 * (order + -order % _LEVELS) - 8, -1, -8):
            step = forward[state + (part >> shift & 255)]
            px, py = px << 4 | step >> 6, py << 4 | step >> 2 & 15
            state = (step & 3) << 8
        x[low : low + _BLOCK], y[low : low + _BLOCK] = px, py
    return x.reshape(m.shape), y.reshape(m.shape)


def hilbert_inverse(x: ArrayLike, y: ArrayLike, order: int) -> Any:
    """The distance d of each cell: the exact inverse of `hilbert`."""
    _check("hilbert_inverse", order)
    xs = as_int64("hilbert_inverse", x, low=0, high=2**order - 1)
    ys = as_int64("hilbert_inverse", y, low=0, high=2**order - 1)
    xs, ys = np.broadcast_arrays(xs, ys)
    _, backward = _tables()
    a, b = xs.reshape(-1), ys.reshape(-1)
    d = np.empty(a.shape, dtype=np.int64)
    for low in range(0, a.size, _BLOCK):
        px, py = a[low : low + _BLOCK], b[low : low + _BLOCK]
        state: Any = _start(order) << 8
        part = np.zeros_like(px)
        for shift in range(order + -order % _LEVELS - 4, -1, -4):
            step = backward[state + ((px >> shift & 15) << 4 | py >> shift & 15)]
            part = part << 8 | step >> 2
            state = (step & 3) << 8
        d[low : low + _BLOCK] = part
    return d.reshape(xs.shape)
