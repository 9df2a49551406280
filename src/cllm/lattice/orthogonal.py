"""The lattice transform T = G_{D−2} ⋯ G₁·G₀ of width D.

G_i is the Givens rotation of the plane (i, i+1) by the angle 2π·φ·(i+1)/D (φ the golden ratio), which turns e_i towards
e_{i+1}.  T is orthogonal, T⁻¹ = Tᵀ; placed before a trained matrix it therefore adds no expressiveness: W·T ranges over
all matrices exactly as W does.
"""

from __future__ import annotations

import numpy as np
from flint import arb, fmpq
from numpy.typing import ArrayLike

from cllm.errors import DomainError, LimitError
from cllm.lattice.angles import FloatArray
from cllm.numbers.context import flint_precision

MAX_WIDTH = 1 << 14  # a matrix of 2 GiB


def givens(width: int) -> tuple[FloatArray, FloatArray]:
    """(cos, sin) of the D−1 angles 2πφ(i+1)/D, each correctly rounded from an enclosure."""
    if width < 1:
        raise DomainError(f"givens: the width is at least 1, got {width}")
    if width > MAX_WIDTH:
        raise LimitError(f"givens: the width is at most {MAX_WIDTH}, got {width}")
    with flint_precision(160):
        golden = 1 + arb(5).sqrt()  # 2φ
        pairs = [(golden * fmpq(i + 1, width)).sin_cos_pi() for i in range(width - 1)]
        sin = np.array([float(s) for s, _ in pairs], dtype=np.float64)
        cos = np.array([float(c) for _, c in pairs], dtype=np.float64)
    return cos, sin


def apply_transform(x: ArrayLike, *, inverse: bool = False) -> FloatArray:
    """T·x (or Tᵀ·x) for vectors x along the last axis [..., D], in 3(D−1) multiplications a vector."""
    rows = np.array(x, dtype=np.float64)
    if rows.ndim == 0:
        raise DomainError("apply_transform: expected an array [..., D], got a number")
    width = rows.shape[-1]
    cos, sin = givens(width)
    order = range(width - 2, -1, -1) if inverse else range(width - 1)
    for i in order:
        c, s = cos[i], -sin[i] if inverse else sin[i]
        a, b = rows[..., i].copy(), rows[..., i + 1].copy()
        rows[..., i] = c * a - s * b
        rows[..., i + 1] = s * a + c * b
    return rows


def lattice_transform(width: int) -> FloatArray:
    """T as a D×D float64 matrix acting on columns."""
    if width > MAX_WIDTH:
        raise LimitError(f"lattice_transform: the width is at most {MAX_WIDTH}, got {width}")
    return np.ascontiguousarray(apply_transform(np.eye(width)).T)
