"""Token and position embedding; formulas and arguments as in engine/embedding.py."""

from __future__ import annotations

import torch
from torch import Tensor

from cllm.engine.native import INT, POINTER, SUFFIX, function, pointer
from cllm.engine.precision import accumulation

_ARGUMENTS = [INT] * 3 + [POINTER] * 5


def embedding_forward(
    tokens_BT: Tensor, positions_BT: Tensor | None, e_VD: Tensor, p_SD: Tensor | None, x_ND: Tensor
) -> None:
    """Write x = E[tokens] + P[positions]. `positions_BT` None: the column number, for every row."""
    (n, d), sums = x_ND.shape, accumulation(e_VD.dtype)
    places = _places(tokens_BT, positions_BT, n, len(e_VD), p_SD)
    function(f"embedding_forward_{SUFFIX[e_VD.dtype]}", *_ARGUMENTS)(
        n, d, tokens_BT.shape[1], *(_address(x) for x in places),
        pointer(e_VD, (len(e_VD), d), e_VD.dtype), _table(p_SD, d, sums), pointer(x_ND, (n, d), sums),
    )  # fmt: skip


def embedding_backward(
    dx_ND: Tensor, tokens_BT: Tensor, positions_BT: Tensor | None, de_VD: Tensor, dp_SD: Tensor | None
) -> None:
    """Accumulate dE and dP; repeated tokens add up in the order of the rows."""
    (n, d), dtype = dx_ND.shape, dx_ND.dtype
    places = _places(tokens_BT, positions_BT, n, len(de_VD), dp_SD)
    function(f"embedding_backward_{SUFFIX[dtype]}", *_ARGUMENTS)(
        n, d, tokens_BT.shape[1], *(_address(x) for x in places),
        pointer(dx_ND, (n, d), dtype), pointer(de_VD, (len(de_VD), d), dtype), _table(dp_SD, d, dtype),
    )  # fmt: skip


def _places(
    tokens_BT: Tensor, positions_BT: Tensor | None, n: int, vocab: int, table: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Both index tensors, contiguous, after checking that every row that they name exists."""
    tokens = _checked(tokens_BT, n, vocab)
    if table is None:
        return tokens, None
    if positions_BT is not None:
        return tokens, _checked(positions_BT, n, len(table))
    if tokens_BT.shape[1] > len(table):
        raise IndexError(f"embedding: {tokens_BT.shape[1]} positions, the table has {len(table)}")
    return tokens, None


def _checked(index: Tensor, n: int, rows: int) -> Tensor:
    low, high = (int(x) for x in torch.aminmax(index))
    if low < 0 or high >= rows or index.numel() != n:
        raise IndexError(f"embedding: {index.numel()} rows {low} … {high} of a table of {rows}, for {n} results")
    return index.contiguous()


def _table(table: Tensor | None, d: int, dtype: torch.dtype) -> int | None:
    return None if table is None else pointer(table, (len(table), d), dtype)


def _address(index: Tensor | None) -> int | None:
    return None if index is None else pointer(index, index.shape, torch.int64)
