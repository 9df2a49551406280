"""Folding the circle to its first quadrant by reflections, and unfolding it again, without any loss.

Quadrant q = 0, 1, 2, 3 holds θ in [qπ/2, (q+1)π/2); the fold is θ, π − θ, θ − π, 2π − θ, in [0, π/2]; the polarity is
+ − + −.  By Sterbenz's lemma each of these differences is exact in float64, so unfold(fold(θ)) is θ to the last bit.
"""

from __future__ import annotations

from math import pi
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from cllm.errors import DomainError
from cllm.lattice.angles import TAU, FloatArray, as_int64


class Folded(NamedTuple):
    """angle (or tick) in the first quadrant, quadrant 0…3, polarity +1 or −1."""

    value: Any
    quadrant: Any
    polarity: Any


def fold(theta: ArrayLike) -> Folded:
    """Fold angles in radians; outside [0, 2π) they are first reduced mod 2π (in float64)."""
    t = np.asarray(theta, dtype=np.float64)
    if t.size and not bool(np.all(np.isfinite(t))):
        raise DomainError("fold: expected finite angles")
    t = np.where((t >= 0) & (t < TAU), t, np.mod(t, TAU))
    t = np.where(t >= TAU, 0.0, t)  # a tiny negative angle is rounded up to 2π by mod
    quadrant = (t >= pi / 2).astype(np.int64) + (t >= pi) + (t >= 3 * (pi / 2))
    centre = np.array([0.0, pi, pi, TAU])[quadrant]
    polarity = 1 - 2 * (quadrant & 1)
    return Folded(polarity * (t - centre), quadrant, polarity)


def unfold(value: ArrayLike, quadrant: ArrayLike) -> FloatArray:
    """The angle in [0, 2π) whose fold is `value` in `quadrant`: the exact inverse of `fold`."""
    v = np.asarray(value, dtype=np.float64)
    q = as_int64("unfold", quadrant, low=0, high=3)
    if v.size and not bool(np.all((v >= 0) & (v <= pi / 2))):
        raise DomainError("unfold: a folded angle lies in [0, π/2]")
    return np.asarray(np.array([0.0, pi, pi, TAU])[q] + (1 - 2 * (q & 1)) * v)


def fold_ticks(tick: ArrayLike, ticks: int) -> Folded:
    """The same in integers: tick/ticks of a turn, folded to 0 … ticks/4; ticks divisible by 4 (12, 60, 100 are)."""
    quarter = _quarter("fold_ticks", ticks)
    t = as_int64("fold_ticks", tick) % (4 * quarter)
    quadrant = t // quarter
    centre = np.array([0, 2, 2, 4])[quadrant] * quarter
    polarity = 1 - 2 * (quadrant & 1)
    return Folded(polarity * (t - centre), quadrant, polarity)


def unfold_ticks(value: ArrayLike, quadrant: ArrayLike, ticks: int) -> Any:
    """The tick in 0 … ticks−1: the exact inverse of `fold_ticks`."""
    quarter = _quarter("unfold_ticks", ticks)
    v = as_int64("unfold_ticks", value, low=0, high=quarter)
    q = as_int64("unfold_ticks", quadrant, low=0, high=3)
    return np.array([0, 2, 2, 4])[q] * quarter + (1 - 2 * (q & 1)) * v


def fold_point(x: ArrayLike, y: ArrayLike) -> tuple[Any, Any, Any]:
    """Reflect points into the first quadrant: (|x|, |y|, quadrant), exact for integers and floats."""
    a, b = np.broadcast_arrays(np.asarray(x), np.asarray(y))
    quadrant = np.where(a >= 0, np.where(b >= 0, 0, 3), np.where(b > 0, 1, 2))
    # the axes belong to the quadrant that starts there, as in `fold`
    quadrant = np.where((a == 0) & (b > 0), 1, np.where((a == 0) & (b < 0), 3, quadrant))
    return np.abs(a), np.abs(b), quadrant


def unfold_point(x: ArrayLike, y: ArrayLike, quadrant: ArrayLike) -> tuple[Any, Any]:
    """The inverse of `fold_point`."""
    q = as_int64("unfold_point", quadrant, low=0, high=3)
    sign_x, sign_y = np.array([1, -1, -1, 1])[q], np.array([1, 1, -1, -1])[q]
    return np.asarray(x) * sign_x, np.asarray(y) * sign_y


def _quarter(name: str, ticks: int) -> int:
    if ticks < 4 or ticks % 4:
        raise DomainError(f"{name}: ticks a turn must be a positive multiple of 4, got {ticks}")
    return ticks // 4
