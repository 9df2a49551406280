"""Cross-entropy with logsumexp, in nats, as sums: ℓ = Σ_valid (lse(z) − Σ_v q_v z_v), q = (1−s)·1[target] + s/V.

Backward: dz = softmax(z) − q for valid rows and exactly 0 for ignored ones (target −1); there is no division here:
the step divides once by its number of valid targets (docs/derivations/cross_entropy.md). Callers pass the logits of
a few hundred rows at a time, so the N×V matrix never exists.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cross_entropy(
    z_RV: Tensor, targets_R: Tensor, smoothing: float, loss_R: Tensor, lse_R: Tensor, dz_RV: Tensor | None
) -> None:
    """Write per row the logsumexp and the loss (0 for ignored rows) and, if asked, dz = softmax(z) − q.

    dz_RV: None (the logits are only read), or where dz goes: the logits themselves, or narrower operands, which may
    lie in the front half of each row of logits (`in_place`). The logits are overwritten then.
    """
    torch.logsumexp(z_RV, dim=1, out=lse_R)
    torch.gather(z_RV, 1, targets_R.clamp_min(0).unsqueeze(1), out=loss_R.unsqueeze(1))
    if smoothing:
        loss_R.mul_(1.0 - smoothing).add_(z_RV.mean(dim=1), alpha=smoothing)
    torch.sub(lse_R, loss_R, out=loss_R)
    loss_R.masked_fill_(targets_R < 0, 0.0)
    if dz_RV is None:
        return
    z_RV.sub_(lse_R.unsqueeze(1)).exp_()
    if smoothing:
        z_RV.sub_(smoothing / z_RV.shape[1])
    hit = torch.full_like(lse_R, smoothing - 1.0).unsqueeze(1)
    z_RV.scatter_add_(1, targets_R.clamp_min(0).unsqueeze(1), hit)
    z_RV.masked_fill_((targets_R < 0).unsqueeze(1), 0.0)
    if dz_RV.data_ptr() != z_RV.data_ptr() or dz_RV.dtype != z_RV.dtype:
        dz_RV.copy_(z_RV.to(dz_RV.dtype))  # through memory of its own: the two may overlap


def in_place(z_RV: Tensor, operand: torch.dtype) -> Tensor:
    """Where dz of this precision goes without more memory: the logits, or the front part of each of their rows."""
    return z_RV if operand == z_RV.dtype else z_RV.view(operand)[:, : z_RV.shape[1]]
