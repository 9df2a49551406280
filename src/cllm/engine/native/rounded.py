"""Adding to bfloat16 gradients; as in engine/rounded.py."""

from __future__ import annotations

import torch
from torch import Tensor

from cllm.engine.native import INT, POINTER, function, pointer


def add_rounded(total: Tensor, part: Tensor) -> None:
    """total ← bfloat16(total + part); the same shape, contiguous."""
    kernel = function("add_rounded", INT, POINTER, POINTER)
    kernel(total.numel(), pointer(total, total.shape, torch.bfloat16), pointer(part, total.shape, torch.float32))


def scatter_rounded(starts: Tensor, order: Tensor, target: Tensor, rows: Tensor, table: Tensor) -> None:
    """table[target[k]] ← bfloat16(table[target[k]] + Σ rows[order[i]]), i = starts[k] … starts[k + 1] − 1, summed in
    float32 in that order."""
    count, width = len(target), rows.shape[1]
    if len(starts) != count + 1 or table.shape[1] != width:
        raise ValueError(f"native kernel: {count} targets, {len(starts)} starts, rows of {width} and {table.shape[1]}")
    kernel = function("scatter_rounded", INT, INT, *[POINTER] * 5)
    kernel(
        count,
        width,
        pointer(starts, starts.shape, torch.int64),
        pointer(order, (len(rows),), torch.int64),
        pointer(target, target.shape, torch.int64),
        pointer(rows, rows.shape, torch.float32),
        pointer(table, table.shape, torch.bfloat16),
    )
