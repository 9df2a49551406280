"""AdamW (Loshchilov & Hutter 2019) on flat buffers, with exact bias correction and decoupled decay; t = 1, 2, …

    g ← scale·g        m ← β₁m + (1−β₁)g        v ← β₂v + (1−β₂)g²
    w ← w − lr·λ·w − lr·(m/(1−β₁ᵗ)) / (√(v/(1−β₂ᵗ)) + ε)

Blocks of a few megabytes stay near the caches. Where g is exactly 0 from the start, m, v and the update are exactly 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BLOCK = 1 << 19


def adamw(
    w: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    *,
    t: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    decay: float,
    scale: float = 1.0,
) -> None:
    """Update w, m, v in place (flat, same length); g is only read. `scale`: 1/valid targets, times the clip factor."""
    b1, b2 = betas
    rate = lr / (1.0 - b1**t)
    root = 1.0 / math.sqrt(1.0 - b2**t)
    for ws, gs, ms, vs in zip(*(x.split(BLOCK) for x in (w, g, m, v)), strict=True):
        scaled = gs * scale
        ms.mul_(b1).add_(scaled, alpha=1.0 - b1)
        vs.mul_(b2).addcmul_(scaled, scaled, value=1.0 - b2)
        denominator = torch.sqrt(vs, out=scaled).mul_(root).add_(eps)
        if decay:
            ws.mul_(1.0 - lr * decay)
        ws.addcdiv_(ms, denominator, value=-rate)


def sgd(
    w: Tensor,
    g: Tensor,
    m: Tensor,
    *,
    lr: float,
    momentum: float,
    nesterov: bool,
    decay: float,
    scale: float = 1.0,
) -> None:
    """SGD with momentum: m ← μm + g; w ← w − lr·λ·w − lr·(m, or g + μm with Nesterov)."""
    for ws, gs, ms in zip(*(x.split(BLOCK) for x in (w, g, m)), strict=True):
        scaled = gs * scale
        ms.mul_(momentum).add_(scaled)
        if decay:
            ws.mul_(1.0 - lr * decay)
        ws.add_(scaled.add_(ms, alpha=momentum) if nesterov else ms, alpha=-lr)


def sum_of_squares(g: Tensor) -> float:
    """Σ g² in float64, for the global norm."""
    norms = (float(torch.linalg.vector_norm(part, dtype=torch.float64)) for part in g.split(1 << 20))
    return math.fsum(norm * norm for norm in norms)
