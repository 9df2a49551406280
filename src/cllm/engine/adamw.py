"""AdamW (Loshchilov & Hutter 2019) on flat buffers, with exact bias correction and decoupled decay; t = 1, 2, …

    g ← scale·g        m ← β₁m + (1−β₁)g        v ← β₂v + (1−β₂)g²
    w ← w − lr·λ·w − lr·(m/(1−β₁ᵗ)) / (√(v/(1−β₂ᵗ)) + ε)

Blocks of a few megabytes stay near the caches. Where g is exactly 0 from the start, m, v and the update are exactly 0.
The native kernels (native/src/adamw.cpp) do the same operations in the same order, each rounded once: the same bits.
"""

from __future__ import annotations

import math

import numpy as np
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
    shadow: Tensor | None = None,
) -> None:
    """Update w, m, v in place (flat, same length, float32 or float64); g is only read.

    scale: 1/valid targets, times the clip factor.  shadow: receives the new weights as bfloat16.
    """
    b1, b2 = betas
    rate, root = lr / (1.0 - b1**t), 1.0 / math.sqrt(1.0 - b2**t)
    for at in range(0, w.numel(), BLOCK):
        part = slice(at, at + BLOCK)
        ws, ms, vs = w[part], m[part], v[part]
        scaled = g[part] * scale
        other = scaled * (1.0 - b1)
        ms.mul_(b1).add_(other)
        vs.mul_(b2).add_(torch.mul(scaled, 1.0 - b2, out=other).mul_(scaled))
        denominator = square_root(vs, scaled).mul_(root).add_(eps)
        ws.mul_(1.0 - lr * decay).sub_(torch.mul(ms, rate, out=other).div_(denominator))
        if shadow is not None:
            shadow[part].copy_(ws)


def factors(scale: Tensor, lr: Tensor, t: Tensor, decay: float, betas: tuple[float, float], go: Tensor) -> Tensor:
    """What `adamw_on_device` needs of a step, float64 [5], computed where its arguments are; the host does not wait.

    scale, lr: float64 scalars.  t: the number of this step, from 1.  go: whether the update is to be made.
    """
    b1, b2 = (torch.pow(torch.full_like(scale, beta), t) for beta in betas)
    return torch.stack((scale, 1.0 - lr * decay, lr / (1.0 - b1), 1.0 / (1.0 - b2).sqrt(), go.double()))


def adamw_on_device(
    w: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    factors: Tensor,
    *,
    betas: tuple[float, float],
    eps: float,
    shadow: Tensor | None = None,
) -> None:
    """The same update with the step's numbers in a tensor; where its last one is 0, nothing changes."""
    (scale, keep, rate, root), go = factors[:4].to(w.dtype), factors[4] != 0
    b1, b2 = betas
    for at in range(0, w.numel(), BLOCK):
        part = slice(at, at + BLOCK)
        ws, ms, vs = w[part], m[part], v[part]
        x = g[part] * scale
        first = (ms * b1).add_(x * (1.0 - b1))
        second = (vs * b2).add_((x * (1.0 - b2)).mul_(x))
        weight = (ws * keep).sub_((first * rate).div_(square_root(second).mul_(root).add_(eps)))
        for old, new in ((ws, weight), (ms, first), (vs, second)):
            torch.where(go, new, old, out=old)
        if shadow is not None:
            shadow[part].copy_(ws)


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
    shadow: Tensor | None = None,
) -> None:
    """SGD with momentum: m ← μm + g; w ← w − lr·λ·w − lr·(m, or g + μm with Nesterov). shadow: as for AdamW."""
    for at in range(0, w.numel(), BLOCK):
        part = slice(at, at + BLOCK)
        ws, ms = w[part], m[part]
        scaled = g[part] * scale
        ms.mul_(momentum).add_(scaled)
        direction = scaled.add_(ms * momentum) if nesterov else scaled.copy_(ms)
        ws.mul_(1.0 - lr * decay).sub_(direction.mul_(lr))
        if shadow is not None:
            shadow[part].copy_(ws)


def square_root(x: Tensor, out: Tensor | None = None) -> Tensor:
    """√x, correctly rounded on the CPU: torch's own is off by one in the last place for every fifth float32."""
    out = torch.empty_like(x) if out is None else out
    if x.device.type != "cpu":
        return torch.sqrt(x, out=out)
    np.sqrt(x.numpy(), out=out.numpy())
    return out


def squares_on_device(g: Tensor) -> Tensor:
    """Σ g² in float64, a scalar where g is; the host does not wait for it."""
    norm: Tensor = torch.linalg.vector_norm(g, dtype=torch.float64)
    return norm.square()


def sum_of_squares(g: Tensor) -> float:
    """Σ g² in float64, for the global norm; g: flat, float32, float64 or bfloat16."""
    norms = (float(torch.linalg.vector_norm(part, dtype=torch.float64)) for part in g.split(1 << 20))
    return math.fsum(norm * norm for norm in norms)
