"""GELU (Hendrycks & Gimpel 2016), tanh form (the default) and erf form, at the pre-activation x.

tanh form: y = ½x(1 + tanh u), u = √(2/π)(x + 0.044715x³). Since ½(1 + tanh u) = 1/(1 + e^(−2u)) = σ(2u),
           y = x·s with s = σ(2u),  dy/dx = s·(1 + x·(2u)′·(1 − s)),  (2u)′ = 2√(2/π)(1 + 0.134145x²).
           The logistic form is the same function, without the cancellation in 1 + tanh u for negative u.
erf form:  y = x·Φ(x),  dy/dx = Φ(x) + x·φ(x),  Φ(x) = ½(1 + erf(x/√2)), φ(x) = e^(−x²/2)/√(2π)
(docs/derivations/gelu.md). Blocks of rows of a few megabytes, near the caches.

A step calls GELU together with the matrix product before it: `fused` makes that pair of ops from the two functions of
a form. The activation is that of the pre-activation as it is stored (in bfloat16: rounded), which is also where the
backward takes the slope.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from cllm.engine.linear import linear_forward
from cllm.engine.precision import widened

LINEAR = 2 * math.sqrt(2 / math.pi)  # 2u = LINEAR·x + CUBIC·x³
CUBIC = 0.044715 * LINEAR
BLOCK = 1 << 19
SATURATED = 64.0  # beyond it s is exactly 0 or 1, also in float64; x³ must not overflow before (∞·0)

Op = Callable[..., None]


def _blocks(a_NF: Tensor, b_NF: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of rows of both; the first one widened."""
    rows = max(1, BLOCK // a_NF.shape[-1])
    for a, b in zip(a_NF.split(rows), b_NF.split(rows), strict=True):
        yield widened(a), b


def _result(x: Tensor, y: Tensor) -> Tensor:
    """Where to compute: y itself, or room for wider numbers."""
    return y if y.dtype == x.dtype else torch.empty_like(x)


def _store(result: Tensor, y: Tensor) -> None:
    if result is not y:
        y.copy_(result)


def gelu_tanh_forward(x_NF: Tensor, y_NF: Tensor) -> None:
    """Write y = GELU(x), elementwise."""
    for xs, ys in _blocks(x_NF, y_NF):
        y = torch.mul(xs, xs, out=_result(xs, ys))
        y.mul_(CUBIC).add_(LINEAR).mul_(xs).sigmoid_().mul_(xs)
        _store(y, ys)


def gelu_tanh_backward(x_NF: Tensor, dy_NF: Tensor) -> None:
    """Overwrite dy with dx = dy·GELU'(x)."""
    for xs, ds in _blocks(x_NF, dy_NF):
        xs = xs.clamp(-SATURATED, SATURATED)
        square = xs * xs
        s = (square * CUBIC).add_(LINEAR).mul_(xs).sigmoid_()
        slope = square.mul_(3 * CUBIC).add_(LINEAR).mul_(xs)  # x·(2u)′
        slope.mul_(1.0 - s).add_(1.0).mul_(s)
        ds.mul_(slope)


def gelu_erf_forward(x_NF: Tensor, y_NF: Tensor) -> None:
    """Write y = x·Φ(x), elementwise."""
    for xs, ys in _blocks(x_NF, y_NF):
        y = torch.mul(xs, math.sqrt(0.5), out=_result(xs, ys))
        y.erf_().add_(1.0).mul_(xs).mul_(0.5)
        _store(y, ys)


def gelu_erf_backward(x_NF: Tensor, dy_NF: Tensor) -> None:
    """Overwrite dy with dx = dy·(Φ(x) + x·φ(x))."""
    for xs, ds in _blocks(x_NF, dy_NF):
        density = (xs * xs).mul_(-0.5).exp_().mul_(1 / math.sqrt(2 * math.pi))
        slope = (xs * math.sqrt(0.5)).erf_().add_(1.0).mul_(0.5)
        ds.mul_(slope.addcmul_(xs, density))


def fused_forward(forward: Op) -> Op:
    """(x_NI, w_FI, b_F, pre_NF, post_NF): pre = X·Wᵀ + b and post = GELU(pre)."""

    def linear_gelu_forward(x_NI: Tensor, w_FI: Tensor, b_F: Tensor | None, pre_NF: Tensor, post_NF: Tensor) -> None:
        linear_forward(x_NI, w_FI, b_F, pre_NF)
        forward(pre_NF, post_NF)

    return linear_gelu_forward


def fused_backward(backward: Op) -> Op:
    """(dy_NO, w_OF, pre_NF, dpre_NF): dpre = (dY·W)∘GELU′(pre), W the matrix behind the activation."""

    def linear_gelu_backward_input(dy_NO: Tensor, w_OF: Tensor, pre_NF: Tensor, dpre_NF: Tensor) -> None:
        dy, w = widened(dy_NO), widened(w_OF)
        d = torch.mm(dy, w, out=dpre_NF) if dpre_NF.dtype == dy.dtype else torch.mm(dy, w)
        backward(pre_NF, d)
        _store(d, dpre_NF)

    return linear_gelu_backward_input
