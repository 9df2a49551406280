"""GELU (Hendrycks & Gimpel 2016), tanh form (the default) and erf form, at the pre-activation x.

tanh form: y = ½x(1 + t), t = tanh u, u = √(2/π)(x + 0.044715x³)
           dy/dx = ½(1 + t) + ½x(1 − t²)·√(2/π)(1 + 0.134145x²)
erf form:  y = x·Φ(x),  dy/dx = Φ(x) + x·φ(x),  Φ(x) = ½(1 + erf(x/√2)), φ(x) = e^(−x²/2)/√(2π)
(docs/derivations/gelu.md). Flat blocks that fit the second-level cache.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ROOT = math.sqrt(2 / math.pi)
CUBIC = 0.044715
BLOCK = 1 << 16


def gelu_tanh_forward(x: Tensor, y: Tensor) -> None:
    """Write y = GELU(x), elementwise; any shape, contiguous."""
    for xs, ys in zip(x.view(-1).split(BLOCK), y.view(-1).split(BLOCK), strict=True):
        torch.mul(xs, xs, out=ys)
        ys.mul_(ROOT * CUBIC).add_(ROOT).mul_(xs).tanh_().add_(1.0).mul_(xs).mul_(0.5)


def gelu_tanh_backward(x: Tensor, dy: Tensor) -> None:
    """Overwrite dy with dx = dy·GELU'(x)."""
    for xs, ds in zip(x.view(-1).split(BLOCK), dy.view(-1).split(BLOCK), strict=True):
        square = xs * xs
        t = (square * (ROOT * CUBIC)).add_(ROOT).mul_(xs).tanh_()
        slope = square.mul_(3 * CUBIC * ROOT).add_(ROOT).mul_(xs)  # x·du/dx
        slope.mul_(1.0 - t * t).add_(t).add_(1.0).mul_(0.5)
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
