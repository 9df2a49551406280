"""AdamW with 8-bit moments (after Dettmers et al. 2022, "8-bit optimizers via block-wise quantization").

Blocks of 256 entries have one float32 scale each, the largest magnitude in the block:

    m = ±M·(k/127)², k = 0 … 127        v = V·(k/255)⁴, k = 0 … 255, that is √v = √V·(k/255)²

Entries far below the largest keep their relative size, as in a floating-point format. Between the two codes around a
value one is drawn, with the probability that makes the expected value the value itself: with rounding to nearest, a v
that falls by less than half a code a step would never fall. The draw is a word made of the entry's number and
the step, so that a step repeats to the bit. A v that is not 0 never becomes 0: then m/√v would explode.
The update itself uses the moments of this step before they are coded (docs/derivations/moments.md).

The native kernel (native/src/moments.cpp) does the same operations in the same order: the same bits.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from cllm.engine.adamw import square_root
from cllm.engine.split import Halves, join, split

BLOCK = 256
SMALLEST = 2.0**-100  # a block whose scale is below has moments 0: the inverse of the scale must stay finite
M_CODES, V_CODES = 127.0, 255.0
ROWS = 2048  # blocks that are worked on at a time


class Coded(NamedTuple):
    """codes: int8 (m) or uint8 (v), flat.  scales: float32, one a block of 256 (the last block may be shorter)."""

    codes: Tensor
    scales: Tensor


def blocks(size: int) -> int:
    """How many blocks `size` entries have."""
    return -(-size // BLOCK)


def decode_m(m: Coded) -> Tensor:
    """m in float32, flat."""
    k = _rows(m.codes.float())
    return (m.scales.mul(_float(1.0 / M_CODES**2)).unsqueeze(1) * (k * k.abs())).reshape(-1)[: m.codes.numel()]


def decode_v(v: Coded) -> Tensor:
    """v in float32, flat."""
    k = _rows(v.codes.float())
    k.mul_(k)
    return (v.scales.mul(_float(1.0 / _float(V_CODES**4))).unsqueeze(1) * (k * k)).reshape(-1)[: v.codes.numel()]


def adamw8(
    w: Tensor | Halves,
    g: Tensor,
    m: Coded,
    v: Coded,
    *,
    t: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    decay: float,
    scale: float = 1.0,
    first: int = 0,
) -> None:
    """Update the weights of one tensor (flat; float32, or the halves of a split master) and its coded moments.

    g: flat, float32 or bfloat16, only read.  first: the number of the tensor's first entry in the model's layout.
    """
    b1, b2 = betas
    rate, root = lr / (1.0 - b1**t), 1.0 / math.sqrt(1.0 - b2**t)
    for row in range(0, blocks(g.numel()), ROWS):
        part, rows = slice(row * BLOCK, (row + ROWS) * BLOCK), slice(row, row + ROWS)
        halves = Halves(w.high[part], w.low[part]) if isinstance(w, Halves) else None
        ws = w[part] if isinstance(w, Tensor) else join(Halves(w.high[part], w.low[part]))
        coded_m, coded_v = Coded(m.codes[part], m.scales[rows]), Coded(v.codes[part], v.scales[rows])
        x = g[part].float() * scale
        ms = decode_m(coded_m).mul_(b1).add_(x * (1.0 - b1))
        vs = decode_v(coded_v).mul_(b2).add_((x * (1.0 - b2)).mul_(x))
        denominator = square_root(vs).mul_(root).add_(eps)
        ws.mul_(1.0 - lr * decay).sub_((ms * rate).div_(denominator))
        if halves is not None:
            split(ws, halves)
        word = words(x.numel(), first + part.start, t, x.device)
        _encode_m(ms, (word >> 16).float() * 2.0**-16, coded_m)
        _encode_v(vs, (word & 0xFFFF).float() * 2.0**-16, coded_v)


def words(n: int, first: int, t: int, device: torch.device | str = "cpu") -> Tensor:
    """The 32-bit words that round entries first … first + n − 1 at step t, int64 [n]: lowbias32 (Wellons 2018)."""
    numbers = (torch.arange(n, dtype=torch.int64, device=device) + first) & 0xFFFFFFFF
    return _mixed(numbers ^ _mixed(torch.tensor([t & 0xFFFFFFFF], device=device)))


def _mixed(x: Tensor) -> Tensor:
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = ((x ^ (x >> shift)) * factor) & 0xFFFFFFFF
    return x ^ (x >> 16)


def _encode_m(m: Tensor, u: Tensor, into: Coded) -> None:
    rows, u = _rows(m), _rows(u)
    top = _scale(rows.abs())
    x = rows.abs() * torch.where(top > 0, torch.full_like(top, M_CODES**2) / top, 0.0)
    k = square_root(x).floor_().clamp_max_(M_CODES)
    k += u * (k + k + 1.0) < x - k * k
    k.clamp_max_(M_CODES)
    into.scales.copy_(top.squeeze(1))
    into.codes.copy_(torch.where(rows < 0, -k, k).to(torch.int8).reshape(-1)[: m.numel()])


def _encode_v(v: Tensor, u: Tensor, into: Coded) -> None:
    rows, u = _rows(v), _rows(u)
    top = _scale(rows)
    x = rows * torch.where(top > 0, 1.0 / top, 0.0)
    k = square_root(square_root(x)).mul_(V_CODES).floor_().clamp_max_(V_CODES)
    below, above = (k * k).square_(), ((k + 1.0) * (k + 1.0)).square_()
    k += u * (above - below) < x * _float(V_CODES**4) - below
    k.clamp_max_(V_CODES)
    k = torch.where((x > 0) & (k < 1.0), 1.0, k)
    into.scales.copy_(top.squeeze(1))
    into.codes.copy_(k.to(torch.uint8).reshape(-1)[: v.numel()])


def _scale(rows: Tensor) -> Tensor:
    top = rows.amax(dim=1, keepdim=True)
    return torch.where(top < SMALLEST, 0.0, top)


def _rows(x: Tensor) -> Tensor:
    """[blocks, 256], the last block filled up with zeros."""
    missing = -x.numel() % BLOCK
    return (torch.nn.functional.pad(x, (0, missing)) if missing else x).view(-1, BLOCK)


def _float(x: float) -> float:
    """Rounded to float32, as the kernel's constants are."""
    return float(torch.tensor(x, dtype=torch.float32))
