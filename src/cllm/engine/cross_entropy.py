"""Cross-entropy with logsumexp, in nats, as sums: ℓ = Σ_valid (lse(z) − Σ_v q_v z_v), q = (1−s)·1[target] + s/V.

Backward: dz = softmax(z) − q for valid rows and exactly 0 for ignored ones (target −1); there is no division here:
the step divides once by its number of valid targets (docs/derivations/cross_entropy.md). Callers pass the logits of
a few hundred rows at a time, so the N×V matrix never exists.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cross_entropy_forward(z_RV: Tensor, targets_R: Tensor, smoothing: float, loss_R: Tensor, lse_R: Tensor) -> None:
    """Write per row the logsumexp and the loss (0 for ignored rows). `z_RV` is only read."""
    torch.logsumexp(z_RV, dim=1, out=lse_R)
    torch.gather(z_RV, 1, targets_R.clamp_min(0).unsqueeze(1), out=loss_R.unsqueeze(1))
    if smoothing:
        loss_R.mul_(1.0 - smoothing).add_(z_RV.mean(dim=1), alpha=smoothing)
    torch.sub(lse_R, loss_R, out=loss_R)
    loss_R.masked_fill_(targets_R < 0, 0.0)


def cross_entropy_backward(z_RV: Tensor, targets_R: Tensor, smoothing: float, lse_R: Tensor) -> None:
    """Overwrite the logits with dz = softmax(z) − q."""
    z_RV.sub_(lse_R.unsqueeze(1)).exp_()
    if smoothing:
        z_RV.sub_(smoothing / z_RV.shape[1])
    hit = torch.full_like(lse_R, smoothing - 1.0).unsqueeze(1)
    z_RV.scatter_add_(1, targets_R.clamp_min(0).unsqueeze(1), hit)
    z_RV.masked_fill_((targets_R < 0).unsqueeze(1), 0.0)
