"""The split master: a float32 weight kept as a bfloat16 (what matrix products read) and an int16 residual, exactly.

    high = (bits(w) + 2¹⁵) >> 16      low = bits(w) − (high << 16) ∈ [−2¹⁵, 2¹⁵ − 1]      w = bits⁻¹((high << 16) + low)

The bits are those of the float32 word as an integer; the sums are modulo 2³². Rounding is half *up* on the bit
pattern: to nearest even, the residual of a tie would be +2¹⁵, which an int16 does not hold. `high` is the
bfloat16 nearest to w, as with rounding to nearest even; the two differ only at exact ties.
Every float32 survives the journey, NaN and infinities included.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Halves(NamedTuple):
    """high: bfloat16, low: int16; the same shape."""

    high: Tensor
    low: Tensor


def split(w: Tensor, into: Halves) -> None:
    """Write float32 `w` into its halves."""
    bits = w.view(torch.int32)
    high = (bits + 0x8000) >> 16
    into.low.copy_((bits - (high << 16)).to(torch.int16))
    into.high.view(torch.int16).copy_(high.to(torch.int16))


def join(halves: Halves) -> Tensor:
    """The float32 tensor, freshly allocated."""
    bits = halves.high.view(torch.int16).to(torch.int32) << 16
    return bits.add_(halves.low).view(torch.float32)
