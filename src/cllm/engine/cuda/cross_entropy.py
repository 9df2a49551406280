"""Cross-entropy in two passes over a row of logits, dz in their place; formulas as in engine/cross_entropy.py.

One program a row. A bfloat16 dz may lie in the front half of the logits' own row: block k of it goes where logits of
block k/2 were, which have been read by then; the barrier keeps a program's threads together where the two overlap.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from cllm.engine.cuda.arithmetic import exponential, narrowed
from cllm.engine.cuda.launch import block, contiguous, launch, rows_of, warps
from cllm.engine.precision import accumulation

COLUMNS = 4096


@triton.jit
def _rows(
    z, targets, loss, lse, dz, z_row, dz_row, VOCAB: tl.constexpr, SMOOTHING: tl.constexpr,
    BACKWARD: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    z += row * z_row
    dz += row * dz_row
    target = tl.load(targets + row)
    column = tl.arange(0, COLUMNS)
    found = tl.load(z + column, mask=column < VOCAB, other=float("-inf"))
    top = tl.max(found, 0)
    total = tl.sum(exponential(found - top), 0)
    plain = tl.sum(tl.where(column < VOCAB, found, 0.0), 0)
    for start in range(COLUMNS, VOCAB, COLUMNS):
        inside = start + column < VOCAB
        found = tl.load(z + start + column, mask=inside, other=float("-inf"))
        higher = tl.maximum(top, tl.max(found, 0))
        total = total * exponential(top - higher) + tl.sum(exponential(found - higher), 0)
        top = higher
        plain += tl.sum(tl.where(inside, found, 0.0), 0)
    logsum = top + tl.log(total)
    hit = tl.load(z + tl.where(target < 0, 0, target))
    if SMOOTHING > 0.0:
        hit = hit * (1.0 - SMOOTHING) + plain * (1.0 / VOCAB) * SMOOTHING
    tl.store(lse + row, logsum)
    tl.store(loss + row, tl.where(target < 0, 0.0, logsum - hit))
    if BACKWARD:
        for start in range(0, VOCAB, COLUMNS):
            inside = start + column < VOCAB
            d = exponential(tl.load(z + start + column, mask=inside, other=0.0) - logsum)
            if SMOOTHING > 0.0:
                d -= SMOOTHING / VOCAB
            d = tl.where(start + column == target, d - (1.0 - SMOOTHING), d)
            tl.debug_barrier()
            kept = narrowed(tl.where(target < 0, 0.0, d), dz.dtype.element_ty)
            tl.store(dz + start + column, kept, mask=inside)
            tl.debug_barrier()


def cross_entropy(
    z_RV: Tensor, targets_R: Tensor, smoothing: float, loss_R: Tensor, lse_R: Tensor, dz_RV: Tensor | None
) -> None:
    """Write per row the logsumexp and the loss (0 for ignored rows) and, if asked, dz = softmax(z) − q.

    dz_RV: None, the logits themselves, or the front part of their rows (`engine.cross_entropy.in_place`).
    """
    (r, v), operand = z_RV.shape, z_RV.dtype if dz_RV is None else dz_RV.dtype
    sums, columns = accumulation(operand), block(v, COLUMNS)
    dz = z_RV if dz_RV is None else dz_RV
    launch(
        _rows, (r,), z_RV, contiguous(targets_R, (r,), torch.int64), contiguous(loss_R, (r,), sums),
        contiguous(lse_R, (r,), sums), dz, rows_of(z_RV, (r, v), sums), rows_of(dz, (r, v), operand),
        VOCAB=v, SMOOTHING=float(smoothing), BACKWARD=dz_RV is not None, COLUMNS=columns, num_warps=warps(columns),
    )  # fmt: skip
