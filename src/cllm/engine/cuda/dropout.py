"""Dropout masks by Philox4x32-10, the definition of engine/dropout.py: the same bits as on every other backend."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from cllm.engine.cuda.launch import block, contiguous, launch, warps
from cllm.engine.dropout import Key

LANES = 256  # of four words each


@triton.jit
def _mask(
    mask, step, seed, first_row, third, threshold, SEQUENCE: tl.constexpr, CHANNELS: tl.constexpr, LANES: tl.constexpr
):
    n = tl.program_id(0)
    lane = (tl.program_id(1) * LANES + tl.arange(0, LANES)).to(tl.uint32)
    zero = lane * 0
    column = (n % SEQUENCE).to(tl.uint32) + zero
    row = (n // SEQUENCE + first_row).to(tl.uint32) + zero
    key = (tl.load(step).to(tl.uint64) << 32) | tl.cast(seed, tl.uint64)
    w0, w1, w2, w3 = tl.philox(key, lane, column, row, zero + third)
    words = tl.interleave(tl.interleave(w0, w2), tl.interleave(w1, w3))
    channel = tl.program_id(1) * (4 * LANES) + tl.arange(0, 4 * LANES)
    kept = words.to(tl.int64) >= threshold
    tl.store(mask + n.to(tl.int64) * CHANNELS + channel, kept.to(tl.uint8), mask=channel < CHANNELS)


def dropout_mask(key: Key, p: float, layer: int, site: int, mask_BTD: Tensor) -> None:
    """Write the keep mask (bool) of a hidden site: True where the element is kept. key.step may be a device tensor."""
    (batch, sequence, channels), device = mask_BTD.shape, mask_BTD.device
    step = key.step if isinstance(key.step, Tensor) else torch.full((), key.step, dtype=torch.int64, device=device)
    lanes = block(triton.cdiv(channels, 4), LANES)
    launch(
        _mask, (batch * sequence, triton.cdiv(channels, 4 * lanes)),
        contiguous(mask_BTD, mask_BTD.shape, torch.bool).view(torch.uint8), step, key.seed, key.first_row,
        layer << 8 | site, math.floor(p * 2**32), SEQUENCE=sequence, CHANNELS=channels, LANES=lanes,
        num_warps=warps(4 * lanes),
    )  # fmt: skip
