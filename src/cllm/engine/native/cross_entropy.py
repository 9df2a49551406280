"""Cross-entropy and its gradient, a row at a time; formulas and arguments as in engine/cross_entropy.py."""

from __future__ import annotations

import torch
from torch import Tensor

from cllm.engine.native import INT, POINTER, REAL, SUFFIX, function, pointer, rows_of
from cllm.engine.precision import accumulation


def cross_entropy(
    z_RV: Tensor, targets_R: Tensor, smoothing: float, loss_R: Tensor, lse_R: Tensor, dz_RV: Tensor | None
) -> None:
    """Write per row the logsumexp and the loss (0 for ignored rows) and, if asked, dz = softmax(z) − q."""
    (r, v), operand = z_RV.shape, z_RV.dtype if dz_RV is None else dz_RV.dtype
    sums = accumulation(operand)
    if int(targets_R.max()) >= v:
        raise ValueError(f"cross-entropy: target {int(targets_R.max())} of {v} logits")
    function(f"cross_entropy_{SUFFIX[operand]}", INT, INT, POINTER, INT, POINTER, REAL, *[POINTER] * 3, INT)(
        r, v, *rows_of(z_RV, (r, v), sums), pointer(targets_R, (r,), torch.int64), smoothing,
        pointer(loss_R, (r,), sums), pointer(lse_R, (r,), sums),
        *((None, 0) if dz_RV is None else rows_of(dz_RV, (r, v), operand)),
    )  # fmt: skip
