"""Weight gradients in bfloat16: each contribution is summed in float32 and rounded once when it is added.

Half the memory of a float32 buffer. A tensor that receives its gradient in one piece is rounded once; the embedding
receives one contribution for each block of logits and one from the input side. Not for accumulation over many
micro-batches: there a small contribution would vanish beside a large sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from cllm.engine.dispatch import Kernels

SLAB = 1 << 17  # float32 numbers of the sum in the making: half a megabyte stays in the second-level cache


def add_rounded(total: Tensor, part: Tensor) -> None:
    """total ← bfloat16(total + part); the same shape."""
    total.copy_(total.float().add_(part))


def scatter_rounded(starts: Tensor, order: Tensor, target: Tensor, rows: Tensor, table: Tensor) -> None:
    """table[target[k]] ← bfloat16(table[target[k]] + Σ rows[order[i]]), i = starts[k] … starts[k + 1] − 1, summed in
    float32 in that order. table [V, D] bfloat16, rows [N, D] float32; the targets differ from each other."""
    group = torch.repeat_interleave(torch.arange(len(target), device=rows.device), starts.diff())
    sums = torch.zeros(len(target), rows.shape[1], dtype=torch.float32, device=rows.device)
    sums.index_add_(0, group, rows[order])
    table[target] = (table[target].float() + sums).to(torch.bfloat16)


class InSlabs:
    """`linear_backward_weight` that also takes a bfloat16 dw, made from one that writes float32.

    linear_backward_weight, add: as in a `Kernels` table.  scratch: float32, at least as long as a row of any gradient;
    what it holds is lost.
    """

    def __init__(
        self, linear_backward_weight: Callable[..., None], add: Callable[[Tensor, Tensor], None], scratch: Tensor
    ) -> None:
        self._linear, self._add, self._scratch = linear_backward_weight, add, scratch.view(-1)

    def linear_backward_weight(
        self, dy_NM: Tensor, x_NK: Tensor, dw_MK: Tensor, db_M: Tensor | None, *, add: bool = True
    ) -> None:
        """dw += dyᵀ·x (add=False: dw is written), db += Σ dy. A bfloat16 dw a slab of rows at a time."""
        if dw_MK.dtype != torch.bfloat16:
            self._linear(dy_NM, x_NK, dw_MK, db_M, add=add)
            return
        rows, k = dw_MK.shape
        step = max(1, min(rows, self._scratch.numel() // k))
        for at in range(0, rows, step):
            part = slice(at, min(rows, at + step))
            slab = self._scratch[: (part.stop - at) * k].view(-1, k)
            self._linear(dy_NM[:, part], x_NK, slab, None if db_M is None else db_M[part], add=False)
            if add:
                self._add(dw_MK[part], slab)
            else:
                dw_MK[part].copy_(slab)


def embedding_backward(
    plain: Callable[..., None],
    scatter: Callable[..., None],
    dx_ND: Tensor,
    tokens_BT: Tensor,
    positions_BT: Tensor | None,
    dtok: Tensor,
    dpos: Tensor | None,
) -> None:
    """dtok[token] += dx, dpos[position] += dx; a float32 dtok by `plain`. plain, scatter: as in a `Kernels` table."""
    if dtok.dtype != torch.bfloat16:
        plain(dx_ND, tokens_BT, positions_BT, dtok, dpos)
        return
    target, starts, order = groups(tokens_BT.reshape(-1))
    scatter(starts, order, target, dx_ND, dtok)
    if dpos is not None:
        batch, length = tokens_BT.shape
        if positions_BT is None:
            dpos[:length].add_(dx_ND.view(batch, length, -1).sum(0))
        else:
            dpos.index_add_(0, positions_BT.reshape(-1), dx_ND)


def groups(index_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(the different values, where each one's entries start (and the end), the entries ordered by value)."""
    order = torch.argsort(index_N, stable=True)
    values, counts = torch.unique_consecutive(index_N[order], return_counts=True)
    starts = torch.zeros(len(values) + 1, dtype=torch.int64, device=index_N.device)
    torch.cumsum(counts, 0, out=starts[1:])
    return values, starts, order


def rounding(kernels: Kernels, scratch: Tensor | None) -> Kernels:
    """The same kernels, which now also take bfloat16 gradients. scratch: None where those of matrices are taken already
    (`narrow_gradients`)."""
    linear = kernels.linear_backward_weight
    return replace(
        kernels,
        linear_backward_weight=partial(linear, soon=True)
        if scratch is None
        else InSlabs(linear, kernels.add_rounded, scratch).linear_backward_weight,
        embedding_backward=partial(embedding_backward, kernels.embedding_backward, kernels.scatter_rounded),
    )
