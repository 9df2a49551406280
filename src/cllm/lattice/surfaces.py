"""Integers on surfaces: the torus of two angles and the Fibonacci sphere."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cllm.errors import DomainError
from cllm.lattice.angles import GOLDEN, GOLDEN_ANGLE, TAU, FloatArray, angle, as_int64
from cllm.lattice.sieve import IntArray


def torus(n: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """The two angles of n on the torus: (nG mod 2π, 2π(n mod 12)/12)."""
    m = as_int64("torus", n)
    return angle(m, GOLDEN), np.asarray((m % 12) * (TAU / 12), dtype=np.float64)


def torus_point(n: ArrayLike, *, major: float = 2.0, minor: float = 1.0) -> FloatArray:
    """The torus in space: nG runs round the axis (radius `major`), n·2π/12 round the tube (`minor`); [..., 3]."""
    if not 0 < minor < major:
        raise DomainError(f"torus_point: expected 0 < minor < major, got minor={minor}, major={major}")
    m = as_int64("torus_point", n)
    around, hour = angle(m, GOLDEN), m % 12
    tube = np.arange(12) * (TAU / 12)
    r = (major + minor * np.cos(tube))[hour]
    return np.stack((r * np.cos(around), r * np.sin(around), (minor * np.sin(tube))[hour]), axis=-1)


def fibonacci_sphere(i: ArrayLike, count: int) -> FloatArray:
    """Point i of `count` on the unit sphere: z = 1 − (2i+1)/count, longitude i times the golden angle; [..., 3]."""
    if count < 1:
        raise DomainError(f"fibonacci_sphere: count is at least 1, got {count}")
    m = as_int64("fibonacci_sphere", i, low=0, high=count - 1)
    z = 1 - (2 * m + 1) / count
    # 1 − z² without cancellation at the poles
    r = np.sqrt((2 * m + 1) / count * ((2 * (count - m) - 1) / count))
    theta = angle(m, GOLDEN_ANGLE)
    return np.stack((r * np.cos(theta), r * np.sin(theta), z), axis=-1)


def fibonacci_sphere_inverse(points: ArrayLike, count: int) -> IntArray:
    """The index of each point [..., 3], from its height; exact for count < 2⁵⁰."""
    xyz: Any = np.asarray(points, dtype=np.float64)
    if xyz.ndim == 0 or xyz.shape[-1] != 3:
        raise DomainError(f"fibonacci_sphere_inverse: expected points [..., 3], got shape {xyz.shape}")
    index = np.rint(((1 - xyz[..., 2]) * count - 1) / 2).astype(np.int64)
    return as_int64("fibonacci_sphere_inverse", index, low=0, high=count - 1)
