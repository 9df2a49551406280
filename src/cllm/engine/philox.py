"""Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011).

A random word is a pure function of a key and a counter: there is no state to carry, split or restore. Words are
32-bit unsigned integers held in int64 tensors, so one piece of code serves every device.
"""

from __future__ import annotations

import torch
from torch import Tensor

_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_MASK = 0xFFFFFFFF
_BLOCK = 1 << 15


def philox(key: tuple[int, int | Tensor], counters: tuple[Tensor, Tensor, Tensor, Tensor]) -> list[Tensor]:
    """Four tensors of random words for broadcastable int64 counter tensors (values below 2³²)."""
    c0, c1, c2, c3 = torch.broadcast_tensors(*counters)
    k0: int | Tensor
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * _M0, c2 * _M1  # wraps modulo 2⁶⁴, whose bits are those of the unsigned product
        c0 = ((p1 >> 32) & _MASK) ^ c1 ^ k0
        c2 = ((p0 >> 32) & _MASK) ^ c3 ^ k1
        c1, c3 = p1 & _MASK, p0 & _MASK
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return [c0, c1, c2, c3]


def words(key: tuple[int, int | Tensor], channels: int, c1: Tensor, c2: Tensor, c3: int) -> Tensor:
    """Random words [..., channels]: channel c is output word c % 4 of counter word c0 = c // 4.

    c1, c2: int64 tensors that broadcast against each other to the leading shape.
    """
    lanes = torch.arange(-(-channels // 4), dtype=torch.int64, device=c1.device)
    out = philox(key, (lanes, c1.unsqueeze(-1), c2.unsqueeze(-1), torch.full_like(lanes, c3)))
    return torch.stack(out, dim=-1).flatten(-2)[..., :channels]


def normal(key: tuple[int, int], stream: int, count: int) -> Tensor:
    """`count` float64 values of N(0, 1) by Box–Muller; a pure function of key and stream number.

    Value 2i and 2i+1 come from counter (i mod 2³², i div 2³², stream, 0).
    """
    out = torch.empty(count + count % 2, dtype=torch.float64)
    c2 = torch.tensor([stream])
    c3 = torch.tensor([0])
    for start in range(0, out.numel() // 2, _BLOCK):
        part = out[2 * start : 2 * (start + _BLOCK)].view(-1, 2)
        lanes = torch.arange(start, start + part.shape[0])
        a, b, c, d = philox(key, (lanes & _MASK, lanes >> 32, c2, c3))
        u = (((a << 21) | (b >> 11)).double() + 1.0) * 2.0**-53  # 53 bits, in (0, 1]
        angle = ((c << 21) | (d >> 11)).double() * (2.0**-52 * torch.pi)
        radius = (-2.0 * u.log()).sqrt()
        part[:, 0] = radius * angle.cos()
        part[:, 1] = radius * angle.sin()
    return out[:count]
