"""Dropout with counter-based masks: y = x∘m/(1−p), dx = dy∘m/(1−p), the same m forward and backward.

An element's mask depends only on (seed, step, layer, site, global row, column, channel), so it is identical on every
backend and for every split into micro-batches and ranks (definition: docs/formats.md, "Randomness").
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cllm.engine.philox import words

ATTENTION, ATTENTION_OUTPUT, FEED_FORWARD_OUTPUT = 1, 2, 3  # sites


@dataclass(frozen=True)
class Key:
    """What a step's dropout depends on: seed and 0-based optimiser step, and the global number of its first row.

    step: also an int64 scalar on a device, where a captured graph reads it (torch ops and CUDA kernels).
    """

    seed: int
    step: int | Tensor
    first_row: int = 0


def dropout_mask(key: Key, p: float, layer: int, site: int, mask_BTD: Tensor) -> None:
    """Write the keep mask (bool) of a hidden site: True where the element is kept."""
    batch, sequence, channels = mask_BTD.shape
    device = mask_BTD.device
    rows = torch.arange(key.first_row, key.first_row + batch, device=device).unsqueeze(1)
    columns = torch.arange(sequence, device=device).unsqueeze(0)
    drawn = words((key.seed, key.step), channels, columns, rows, layer << 8 | site)
    torch.ge(drawn, math.floor(p * 2**32), out=mask_BTD)


def attention_mask(
    key: Key, p: float, layer: int, rows: range, heads: int, queries: range, keys: int, device: torch.device
) -> Tensor:
    """The keep mask (bool) [rows, heads, queries, keys] of a block of attention probabilities."""
    row = torch.arange(key.first_row + rows.start, key.first_row + rows.stop, device=device).view(-1, 1, 1)
    head = torch.arange(heads, device=device).view(1, -1, 1)
    query = torch.arange(queries.start, queries.stop, device=device).view(1, 1, -1)
    drawn = words((key.seed, key.step), keys, query | (head << 20), row, layer << 8 | ATTENTION)
    return drawn >= math.floor(p * 2**32)


def dropout_apply(x: Tensor, mask: Tensor, p: float, y: Tensor) -> None:
    """Write y = x∘mask/(1−p); the backward is the same call on the gradient. `y` may be `x`, or a narrower operand."""
    wide = torch.mul(x, mask, out=y if y.dtype == x.dtype else None)
    wide.mul_(1.0 / (1.0 - p))
    if wide is not y:
        y.copy_(wide)
