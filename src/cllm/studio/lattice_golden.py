"""The nearest number to a point of a golden-angle map: n ↦ radius r(n), angle n·φ turns, with r increasing.

Near one point such a map is a plane lattice. Two consecutive Fibonacci numbers F_k, F_{k+1} are its short vectors,
since F_k·φ = F_{k+1} − (−1/φ)^k is nearly a whole turn; the k at which both are about equally long follows from the
pitch. Of the four corners of the basis cell that holds the pixel the nearest is taken (the method of Keinert, Innmann,
Sänger & Stamminger, "Spherical Fibonacci mapping", ACM TOG 34 (2015), in the plane).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cllm.lattice.angles import GOLDEN, TAU, turns

PHI = (1 + 5**0.5) / 2
_MOST = 80
_CURVED = 60  # numbers below are searched one by one
_FIBONACCI = [0, 1]
while len(_FIBONACCI) < _MOST:
    _FIBONACCI.append(_FIBONACCI[-1] + _FIBONACCI[-2])
_F = np.array(_FIBONACCI, dtype=np.int64)
# the signed remainder of F_k·φ after whole turns
_S = np.array([-((-1 / PHI) ** k) for k in range(_MOST)])


def nearest(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    number: Callable[[Any], Any],
    pitch: Callable[[Any], Any],
    place: Callable[[Any], tuple[Any, Any]],
    least: int,
    most: int,
    sign: int = 1,
) -> NDArray[np.int64]:
    """The n ≥ least whose point is nearest to (x, y); near the edge between two of them perhaps the other one.

    number: real n of a radius; pitch: dr/dn at n; place: the points of integers; most: the largest n near which is
    searched; sign: −1 where the angle runs clockwise (n·(1 − φ) turns and n·(−φ) turns are the same).
    """
    r = np.hypot(x, y)
    turn = sign * np.arctan2(y, x) / TAU
    base = np.clip(np.rint(np.minimum(number(r), 4e18)), least, most).astype(np.int64)
    a, around = pitch(base.astype(np.float64)), TAU * np.maximum(r, 1e-300)
    k = np.clip(np.rint(np.log(np.maximum(around * 5**0.5 / a, 1.0)) / (2 * np.log(PHI))), 1, _MOST - 2).astype(
        np.int64
    )
    f, g, s, t = _F[k], _F[k + 1], _S[k], _S[k + 1]
    bx, by = place(base)
    dr = (r - np.hypot(bx, by)) / a
    dt = turn - turns(base, GOLDEN)
    dt -= np.rint(dt)
    det = f * t - g * s
    u = np.floor((dr * t - dt * g) / det).astype(np.int64)
    v = np.floor((dt * f - dr * s) / det).astype(np.int64)
    # in the linear picture of the neighbourhood, whose error is far below a pitch once n is large
    best = np.zeros(x.shape, dtype=np.int64)
    distance = np.full(x.shape, np.inf)
    for i in (0, 1):
        for j in (0, 1):
            steps = (u + i) * f + (v + j) * g
            far = ((steps - dr) * a) ** 2 + (((u + i) * s + (v + j) * t - dt) * around) ** 2
            better = far < distance
            best[better], distance[better] = steps[better], far[better]
    found: NDArray[np.int64] = np.maximum(base + best, least)
    near = base < _CURVED
    if bool(near.any()):
        found[near] = _by_distance(x[near], y[near], place, least, int(base[near].max()))
    return found


def _by_distance(x: Any, y: Any, place: Callable[[Any], tuple[Any, Any]], least: int, most: int) -> Any:
    """The nearest by true distances to every candidate: where n is small the map is curved."""
    n = np.arange(least, 2 * most + 30, dtype=np.int64)
    px, py = place(n)
    found = np.empty(x.shape, dtype=np.int64)
    for first in range(0, x.size, 1 << 13):
        part = slice(first, first + (1 << 13))
        cross = np.subtract.outer(x[part], px) ** 2 + np.subtract.outer(y[part], py) ** 2
        found[part] = n[np.argmin(cross, axis=1)]
    return found
