"""A priori bounds of torch's fused attention kernels, which differ from the engine's own in three places.

Their exp may be off by more roundings (20 ulp of the CPU's vectorised one, and 2⁻¹³ of its polynomial beside bfloat16
operands, of which bfloat16 keeps nothing; the GPU's multiplies by log₂e first, an error that grows with the exponent),
their probabilities are divided by the row sum only behind the product with V, and the row sums Σ dA∘A of the backward
are taken as Σ dO∘O, with O as it was stored.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from judges import bounds
from judges.bounds import Bounded

EXP = 40.0  # roundings, beyond those of bounds.FUNCTION
EXP_BESIDE_BF16 = 2.0**11  # on a CPU


def _more(x: Bounded, extra: Tensor) -> Bounded:
    return Bounded(x.v, x.u, x.e + extra)


def attention_forward(
    q: Bounded, k: Bounded, v: Bounded, allowed: Tensor, *, operand: float | None, exp: float = EXP
) -> tuple[Bounded, Bounded]:
    """O and the logsumexp; operand: as in `bounds.attention_forward`."""
    o, lse = bounds.attention_forward(q, k, v, allowed, None, 0.0, operand=operand)
    s = bounds._masked_scores(q, k, allowed)
    off = q.u * (exp + 2 * torch.where(allowed, (s.v - lse.v).abs(), 0.0).amax(-1, keepdim=True))
    a = torch.where(allowed, (s.v - lse.v).exp(), 0.0)
    return _more(o, 2 * off * (a @ v.v.abs()) * (1.0 + (operand or 0.0))), _more(lse, 2 * off)


def attention_gradients(
    do: Bounded, q: Bounded, k: Bounded, v: Bounded, o: Bounded, lse: Bounded, allowed: Tensor, *,
    operand: float | None, exp: float = EXP,
) -> tuple[Bounded, Bounded, Bounded]:  # fmt: skip
    """dQ, dK, dV. A query that sees one key gives rounding noise to the keys that others see, too."""
    shifted = bounds._masked_scores(q, k, allowed) - lse
    a = bounds._only(shifted.exp(), allowed)
    a = _more(a, q.u * (exp + 2 * shifted.v.abs()) * a.v)
    ds = bounds._only((do @ v.mT - (do * o).sum(-1, keepdim=True)) * a, allowed)
    scaled = (ds * (1.0 / math.sqrt(q.v.shape[-1]))).narrowed(operand)
    dq, dk, dv = scaled @ k, scaled.mT @ q, a.narrowed(operand).mT @ do
    return dq.narrowed(operand), dk.narrowed(operand), dv.narrowed(operand)
