"""Layer norm over the last axis: y = γ∘x̂ + β, x̂ = (x − μ)/σ, σ = √(var + ε), biased variance, ε = 1e-5.

Backward (docs/derivations/layernorm.md), with dx̂ = dy∘γ and means over the D channels of a row:
    dγ += Σ_rows dy∘x̂      dβ += Σ_rows dy      dx += (dx̂ − mean dx̂ − x̂·mean(dx̂∘x̂)) / σ
dx is added: it joins the gradient of the residual stream that runs past the norm; where the products that follow take
narrower operands, they get a rounded copy of the sum.
x, the statistics, γ, β and their gradients have the precision of sums; y and dy may be narrower operands.
Rows go in blocks of a few megabytes, near the caches, so the several passes over a block cost little.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cllm.engine.precision import widened

EPS = 1e-5
BLOCK = 1 << 19  # elements a block


def layernorm_forward(x_ND: Tensor, g_D: Tensor, b_D: Tensor, y_ND: Tensor, mean_N1: Tensor, rstd_N1: Tensor) -> None:
    """Write y, and per row μ and 1/σ (both kept for the backward)."""
    rows = max(1, BLOCK // x_ND.shape[1])
    for i in range(0, x_ND.shape[0], rows):
        block = slice(i, i + rows)
        x, y, mean, rstd = x_ND[block], y_ND[block], mean_N1[block], rstd_N1[block]
        torch.mean(x, dim=1, keepdim=True, out=mean)
        wide = torch.sub(x, mean, out=y if y.dtype == x.dtype else torch.empty_like(x))
        torch.linalg.vecdot(wide, wide, dim=1, out=rstd[:, 0])
        rstd.div_(x.shape[1]).add_(EPS).rsqrt_()
        wide.mul_(rstd).mul_(g_D).add_(b_D)
        if wide is not y:
            y.copy_(wide)


def layernorm_backward(
    dy_ND: Tensor,
    x_ND: Tensor,
    mean_N1: Tensor,
    rstd_N1: Tensor,
    g_D: Tensor,
    dx_ND: Tensor,
    rounded_ND: Tensor | None,
    dg_D: Tensor,
    db_D: Tensor,
) -> None:
    """Accumulate dx, dγ and dβ, and write the new dx into `rounded_ND` (if any). `dy_ND` may be overwritten."""
    width = x_ND.shape[1]
    rows = max(1, BLOCK // width)
    for i in range(0, x_ND.shape[0], rows):
        block = slice(i, i + rows)
        dy, rstd = widened(dy_ND[block]), rstd_N1[block]
        normal = x_ND[block] - mean_N1[block]
        normal.mul_(rstd)  # x̂
        dg_D.add_(torch.linalg.vecdot(dy, normal, dim=0))
        db_D.add_(dy.sum(dim=0))
        dy.mul_(g_D)  # dx̂
        inner = torch.linalg.vecdot(dy, normal, dim=1).div_(width).unsqueeze(1)
        dy.sub_(dy.mean(dim=1, keepdim=True))
        dy.addcmul_(normal, inner, value=-1.0)
        dx_ND[block].addcmul_(dy, rstd)
        if rounded_ND is not None:
            rounded_ND[block].copy_(dx_ND[block])
