"""Muon: momentum, orthogonalised (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/), for one matrix.

    m ← μm + g        d = g + μm        X₀ = d/(‖d‖_F + ε)
    Xₖ₊₁ = a·Xₖ + (b·A + c·A²)·Xₖ,  A = Xₖ·Xₖᵀ        five times
    w ← w − lr·λ·w − lr·√max(1, out/in)·X₅

Each round maps every singular value σ of X to aσ + bσ³ + cσ⁵ and leaves the singular vectors, so X₅ ≈ U·Vᵀ of
d = U·Σ·Vᵀ, with singular values within about 0.7 … 1.2 (docs/derivations/muon.md). A tall matrix is worked on
transposed: A is then the smaller square. A zero gradient with a zero momentum gives a zero step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

ROUNDS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
EPSILON = 1e-7  # beside the norm


def look_ahead(g: Tensor, m: Tensor, momentum: float, scale: float) -> Tensor:
    """Updates m in place; returns d = g + μm, freshly allocated (g here is the scaled one)."""
    d = g * scale
    m.mul_(momentum).add_(d)
    return d.add_(m, alpha=momentum)


def iterates(d: Tensor) -> Iterator[Tensor]:
    """X₀ … X₅ of d, [out, in], each one computed from the one before."""
    a, b, c = COEFFICIENTS
    tall = d.shape[0] > d.shape[1]
    norm = float(torch.linalg.vector_norm(d, dtype=torch.float64))
    x: Tensor = d / (norm + EPSILON)
    yield x
    x = x.mT.contiguous() if tall else x
    for _ in range(ROUNDS):
        square = x @ x.mT
        polynomial = torch.addmm(square, square, square, beta=b, alpha=c)
        x = torch.addmm(x, polynomial, x, beta=a)
        yield x.mT if tall else x


def orthogonalise(d: Tensor) -> Tensor:
    """X₅ of d, [out, in]."""
    *_, last = iterates(d)
    return last


def muon(
    w: Tensor,
    g: Tensor,
    m: Tensor,
    *,
    lr: float,
    momentum: float,
    decay: float,
    scale: float = 1.0,
    shadow: Tensor | None = None,
) -> None:
    """Update one matrix w and its momentum m in place, [out, in]; g is only read. scale, shadow: as for AdamW."""
    d = look_ahead(g, m, momentum, scale)
    stretch = math.sqrt(max(1.0, w.shape[0] / w.shape[1]))
    w.mul_(1.0 - lr * decay).sub_(orthogonalise(d), alpha=lr * stretch)
    if shadow is not None:
        shadow.copy_(w)
