"""Narrow weights for inference: bf16, or int8 with one scale a row.

int8: row r of W is scale_r·q_r with q_r whole numbers in −127 … 127 and scale_r = max|W_r|/127, rounded up to 17
significant bits: then scale_r·q_r is exact in float32, an entry is off by at most scale_r/2, and quantising the result
again changes nothing. Activations and sums stay float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

KINDS = ("fp32", "bf16", "int8")


def quantise_rows(w_MK: Tensor) -> tuple[Tensor, Tensor]:
    """q int8 [M, K] and scale [M] (float32); a row of zeros has scale 0."""
    scale = w_MK.float().abs().amax(dim=1) / 127.0
    scale = (scale.view(torch.int32) + 127).bitwise_and_(~127).view(torch.float32)
    safe = torch.where(scale > 0, scale, 1.0)
    return torch.round(w_MK.float() / safe.unsqueeze(1)).clamp_(-127, 127).to(torch.int8), scale


def narrowed(w_MK: Tensor, kind: str) -> Tensor:
    """The values that weights of this kind stand for, in w's own type."""
    if kind == "bf16":
        return w_MK.to(torch.bfloat16).to(w_MK.dtype)
    if kind == "int8":
        q, scale = quantise_rows(w_MK)
        return (q * scale.unsqueeze(1)).to(w_MK.dtype)
    return w_MK
