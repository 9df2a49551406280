"""Token and position embedding: x[n] = E[t_n] + P[pos_n].

Backward: dE[t_n] += dx[n], dP[pos_n] += dx[n] (repeated tokens add up). With a tied output, E also receives the
gradient of the head; both sides accumulate into the same buffer (docs/derivations/embedding.md).
P is None where positions are not added (rotary ones), dP where P is fixed. E may be bfloat16, as the matrix of the
tied head is; P, x and the gradients have the precision of sums.
"""

from __future__ import annotations

import torch
from torch import Tensor


def embedding_forward(
    tokens_BT: Tensor, positions_BT: Tensor | None, e_VD: Tensor, p_SD: Tensor | None, x_ND: Tensor
) -> None:
    """Write x = E[tokens] + P[positions]. `positions_BT` None: the column number, for every row."""
    if e_VD.dtype == x_ND.dtype:
        torch.index_select(e_VD, 0, tokens_BT.reshape(-1), out=x_ND)
    else:
        x_ND.copy_(e_VD.index_select(0, tokens_BT.reshape(-1)))
    if p_SD is None:
        return
    if positions_BT is None:
        x_ND.view(*tokens_BT.shape, -1).add_(p_SD[: tokens_BT.shape[1]])
    else:
        x_ND.add_(p_SD.index_select(0, positions_BT.reshape(-1)))


def embedding_backward(
    dx_ND: Tensor, tokens_BT: Tensor, positions_BT: Tensor | None, de_VD: Tensor, dp_SD: Tensor | None
) -> None:
    """Accumulate dE and dP."""
    de_VD.index_add_(0, tokens_BT.reshape(-1), dx_ND)
    if dp_SD is None:
        return
    if positions_BT is None:
        dp_SD[: tokens_BT.shape[1]].add_(dx_ND.view(*tokens_BT.shape, -1).sum(dim=0))
    else:
        dp_SD.index_add_(0, positions_BT.reshape(-1), dx_ND)
