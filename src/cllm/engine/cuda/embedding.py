"""Token and position embedding; formulas and arguments as in engine/embedding.py.

The backward sums the rows of each token in their order, without atomics: the rows are sorted by token (stably), and
each run of equal tokens is cut into pieces of PIECE rows. One program sums a piece; where a run has more than one, a
second kernel sums its pieces. Every shape is fixed beforehand, so the step can be captured as a graph.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from cllm.engine.cuda.arithmetic import widened
from cllm.engine.cuda.launch import block, contiguous, launch, warps
from cllm.engine.precision import accumulation

PIECE = 32
COLUMNS = 1024


@triton.jit
def _gathered(
    tokens, positions, e, p, x, SEQUENCE: tl.constexpr, POSITIONS: tl.constexpr, GIVEN: tl.constexpr,
    WIDTH: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < WIDTH
    found = widened(tl.load(e + tl.load(tokens + n) * WIDTH + column, mask=inside))
    if POSITIONS:
        if GIVEN:
            at = tl.load(positions + n)
        else:
            at = n % SEQUENCE
        found += tl.load(p + at * WIDTH + column, mask=inside)
    tl.store(x + n * WIDTH + column, found, mask=inside)


@triton.jit
def _place(i, start, PIECE: tl.constexpr):
    """Where the sum of the piece that starts at i is kept. Of PIECE neighbouring rows at most two start a piece of a
    run that has several: the last one of a run, and the first one of the next."""
    return (i // PIECE) * 2 + (i == start).to(tl.int64)


@triton.jit
def _pieces(
    dx, order, index, first, last, table, partial, PIECE: tl.constexpr, WIDTH: tl.constexpr, COLUMNS: tl.constexpr
):
    i = tl.program_id(0).to(tl.int64)
    start, stop = tl.load(first + i), tl.load(last + i)
    if (i - start) % PIECE == 0:
        column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
        inside = column < WIDTH
        total = tl.load(dx + tl.load(order + i) * WIDTH + column, mask=inside, other=0.0)
        end = tl.minimum(i + PIECE, stop)
        for j in range(i + 1, end):
            total += tl.load(dx + tl.load(order + j) * WIDTH + column, mask=inside, other=0.0)
        if stop - start <= PIECE:
            to = table + tl.load(index + i) * WIDTH + column
            tl.store(to, tl.load(to, mask=inside, other=0.0) + total, mask=inside)
        else:
            tl.store(partial + _place(i, start, PIECE) * WIDTH + column, total, mask=inside)


@triton.jit
def _runs(index, first, last, table, partial, PIECE: tl.constexpr, WIDTH: tl.constexpr, COLUMNS: tl.constexpr):
    i = tl.program_id(0).to(tl.int64)
    start, stop = tl.load(first + i), tl.load(last + i)
    if (i == start) & (stop - start > PIECE):
        column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
        inside = column < WIDTH
        total = tl.load(partial + _place(i, start, PIECE) * WIDTH + column, mask=inside, other=0.0)
        for j in range(i + PIECE, stop, PIECE):
            total += tl.load(partial + _place(j, start, PIECE) * WIDTH + column, mask=inside, other=0.0)
        to = table + tl.load(index + i) * WIDTH + column
        tl.store(to, tl.load(to, mask=inside, other=0.0) + total, mask=inside)


def embedding_forward(
    tokens_BT: Tensor, positions_BT: Tensor | None, e_VD: Tensor, p_SD: Tensor | None, x_ND: Tensor
) -> None:
    """Write x = E[tokens] + P[positions]. `positions_BT` None: the column number, for every row.

    That the tokens are rows of E is for the caller to see to: looking would make the host wait for the device.
    """
    (n, d), sums = x_ND.shape, accumulation(e_VD.dtype)
    columns = block(d, COLUMNS)
    tokens = _checked(tokens_BT, n)
    positions = tokens if positions_BT is None else _checked(positions_BT, n)
    table = x_ND if p_SD is None else contiguous(p_SD, (len(p_SD), d), sums)
    if p_SD is not None and positions_BT is None and tokens_BT.shape[1] > len(p_SD):
        raise IndexError(f"embedding: {tokens_BT.shape[1]} positions, the table has {len(p_SD)}")
    launch(
        _gathered, (n, triton.cdiv(d, columns)), tokens, positions, contiguous(e_VD, (len(e_VD), d), e_VD.dtype), table,
        contiguous(x_ND, (n, d), sums), SEQUENCE=tokens_BT.shape[1], POSITIONS=p_SD is not None,
        GIVEN=positions_BT is not None, WIDTH=d, COLUMNS=columns, num_warps=warps(columns),
    )  # fmt: skip


def embedding_backward(
    dx_ND: Tensor, tokens_BT: Tensor, positions_BT: Tensor | None, de_VD: Tensor, dp_SD: Tensor | None
) -> None:
    """Accumulate dE and dP; repeated tokens add up in a fixed order."""
    scatter(dx_ND, tokens_BT.reshape(-1), de_VD)
    if dp_SD is None:
        return
    if positions_BT is None:
        dp_SD[: tokens_BT.shape[1]].add_(dx_ND.view(*tokens_BT.shape, -1).sum(dim=0))
    else:
        scatter(dx_ND, positions_BT.reshape(-1), dp_SD)


def scatter(dx_ND: Tensor, index_N: Tensor, table: Tensor) -> None:
    """table[index[n]] += dx[n]."""
    (n, d), columns = dx_ND.shape, block(dx_ND.shape[1], COLUMNS)
    contiguous(dx_ND, (n, d), dx_ND.dtype)
    contiguous(table, (len(table), d), dx_ND.dtype)
    index, order = torch.sort(_checked(index_N, n), stable=True)
    first, last = torch.searchsorted(index, index), torch.searchsorted(index, index, right=True)
    partial = torch.empty((2 * triton.cdiv(n, PIECE), d), dtype=dx_ND.dtype, device=dx_ND.device)
    grid, sizes = (n, triton.cdiv(d, columns)), {"PIECE": PIECE, "WIDTH": d, "COLUMNS": columns}
    launch(_pieces, grid, dx_ND, order, index, first, last, table, partial, **sizes, num_warps=warps(columns))
    launch(_runs, grid, index, first, last, table, partial, **sizes, num_warps=warps(columns))


def _checked(index: Tensor, n: int) -> Tensor:
    if index.dtype != torch.int64 or index.numel() != n:
        raise IndexError(f"embedding: expected {n} int64 indices, got {index.numel()} of {index.dtype}")
    return index.contiguous()
