"""The kissing-sphere test: do equal spheres at these centres all touch the sphere at the origin, and none overlap?

In three dimensions at most 12 can (Schütte & van der Waerden 1953); the FCC lattice attains it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from cllm.errors import DomainError, LimitError


class KissingTest(NamedTuple):
    """holds: all spheres touch, no two overlap; spheres: how many; smallest_angle: degrees, between two centres."""

    holds: bool
    spheres: int
    smallest_angle: float


def kissing_test(centres: ArrayLike, tolerance: float = 1e-9) -> KissingTest:
    """Test spheres of equal radius r at `centres` [count, dim] against one of radius r at the origin.

    They touch when all centres have one norm (2r)² = N, and do not overlap when no inner product exceeds N/2.  Integer
    centres are decided exactly; float centres within the relative `tolerance`.
    """
    points = np.asarray(centres)
    if points.ndim != 2 or len(points) == 0 or points.dtype.kind not in "iuf":
        raise DomainError(f"kissing_test: expected centres [count, dim], got {points.dtype} of shape {points.shape}")
    if len(points) > 20_000:
        raise LimitError(f"kissing_test: at most 20000 spheres, got {len(points)}")
    if points.dtype.kind in "iu":
        if int(np.abs(points).max()) ** 2 * points.shape[1] >= 1 << 61:
            raise LimitError("kissing_test: integer coordinates this large overflow; scale them down")
        points = points.astype(np.int64)
        slack = 0.0
    else:
        slack = tolerance
    inner = points @ points.T
    norms = np.diag(inner).copy()
    norm = norms[0]
    if norm <= 0:
        raise DomainError("kissing_test: a centre at the origin coincides with the middle sphere")
    np.fill_diagonal(inner, -norm)
    largest = inner.max() if len(points) > 1 else -norm
    touching = bool(np.all(np.abs(norms - norm) <= slack * norm))
    apart = bool(2 * largest <= norm * (1 + slack))
    angle = float(np.degrees(np.arccos(np.clip(largest / norm, -1.0, 1.0))))
    return KissingTest(touching and apart, len(points), angle)
