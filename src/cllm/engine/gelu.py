"""GELU (Hendrycks & Gimpel 2016), tanh form (the default) and erf form, at the pre-activation x.

tanh form: y = ½x(1 + tanh u), u = √(2/π)(x + 0.044715x³). Since ½(1 + tanh u) = 1/(1 + e^(−2u)) = σ(2u),
           y = x·s with s = σ(2u),  dy/dx = s·(1 + x·(2u)′·(1 − s)),  (2u)′ = 2√(2/π)(1 + 0.134145x²).
           The logistic form is the same function, without the cancellation in 1 + tanh u for negative u.
erf form:  y = x·Φ(x),  dy/dx = Φ(x) + x·φ(x),  Φ(x) = ½(1 + erf(x/√2)), φ(x) = e^(−x²/2)/√(2π)
(docs/derivations/gelu.md). Flat blocks of a few megabytes, near the caches.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LINEAR = 2 * math.sqrt(2 / math.pi)  # 2u = LINEAR·x + CUBIC·x³
CUBIC = 0.044715 * LINEAR
BLOCK = 1 << 19
SATURATED = 64.0  # beyond it s is exactly 0 or 1, also in float64; x³ must not overflow before (∞·0)


def gelu_tanh_forward(x: Tensor, y: Tensor) -> None:
    """Write y = GELU(x), elementwise; any shape, contiguous."""
    for xs, ys in zip(x.view(-1).split(BLOCK), y.view(-1).split(BLOCK), strict=True):
        torch.mul(xs, xs, out=ys)
        ys.mul_(CUBIC).add_(LINEAR).mul_(xs).sigmoid_().mul_(xs)


def gelu_tanh_backward(x: Tensor, dy: Tensor) -> None:
    """Overwrite dy with dx = dy·GELU'(x)."""
    for xs, ds in zip(x.view(-1).split(BLOCK), dy.view(-1).split(BLOCK), strict=True):
        xs = xs.clamp(-SATURATED, SATURATED)
        square = xs * xs
        s = (square * CUBIC).add_(LINEAR).mul_(xs).sigmoid_()
        slope = square.mul_(3 * CUBIC).add_(LINEAR).mul_(xs)  # x·(2u)′
        slope.mul_(1.0 - s).add_(1.0).mul_(s)
        ds.mul_(slope)


def gelu_erf_forward(x: Tensor, y: Tensor) -> None:
    """Write y = x·Φ(x), elementwise; any shape, contiguous."""
    for xs, ys in zip(x.view(-1).split(BLOCK), y.view(-1).split(BLOCK), strict=True):
        torch.mul(xs, math.sqrt(0.5), out=ys)
        ys.erf_().add_(1.0).mul_(xs).mul_(0.5)


def gelu_erf_backward(x: Tensor, dy: Tensor) -> None:
    """Overwrite dy with dx = dy·(Φ(x) + x·φ(x))."""
    for xs, ds in zip(x.view(-1).split(BLOCK), dy.view(-1).split(BLOCK), strict=True):
        density = (xs * xs).mul_(-0.5).exp_().mul_(1 / math.sqrt(2 * math.pi))
        slope = (xs * math.sqrt(0.5)).erf_().add_(1.0).mul_(0.5)
        ds.mul_(slope.addcmul_(xs, density))
