"""GELU and its slope, fused with the bias and the rounding of the product before it; formulas: engine/gelu.py.

The product itself is cuBLAS's, its sums in float32 (cuda/linear.py): `pre` is rounded once, when it is stored here.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from cllm.engine.cuda.arithmetic import exponential, logistic, narrowed, widened
from cllm.engine.cuda.launch import contiguous, launch, rows_of, warps
from cllm.engine.cuda.linear import wide_product
from cllm.engine.gelu import CUBIC, LINEAR, SATURATED
from cllm.engine.precision import accumulation

COLUMNS = 1024


@triton.jit
def _activation(x, TANH: tl.constexpr, LINEAR: tl.constexpr, CUBIC: tl.constexpr):
    if TANH:
        y = logistic((x * x * CUBIC + LINEAR) * x) * x
    else:
        y = (tl.erf(x * 0.7071067811865476) + 1.0) * x * 0.5
    return y


@triton.jit
def _slope(x, TANH: tl.constexpr, LINEAR: tl.constexpr, CUBIC: tl.constexpr, SATURATED: tl.constexpr):
    if TANH:
        x = tl.where(x > SATURATED, SATURATED, x)
        x = tl.where(x < -SATURATED, -SATURATED, x)
        square = x * x
        s = logistic((square * CUBIC + LINEAR) * x)
        slope = ((square * (3.0 * CUBIC) + LINEAR) * x * (1.0 - s) + 1.0) * s
    else:
        density = exponential(x * x * -0.5) * 0.3989422804014327
        slope = (tl.erf(x * 0.7071067811865476) + 1.0) * 0.5 + x * density
    return slope


@triton.jit
def _forward(
    wide, bias, pre, post, width, wide_row, pre_row, post_row, BIASED: tl.constexpr, STORED: tl.constexpr,
    TANH: tl.constexpr, LINEAR: tl.constexpr, CUBIC: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    x = widened(tl.load(wide + row * wide_row + column, mask=inside, other=0.0))
    if BIASED:
        x += tl.load(bias + column, mask=inside, other=0.0)
    if STORED:
        kept = narrowed(x, pre.dtype.element_ty)
        tl.store(pre + row * pre_row + column, kept, mask=inside)
        x = widened(kept)
    y = _activation(x, TANH, LINEAR, CUBIC)
    tl.store(post + row * post_row + column, narrowed(y, post.dtype.element_ty), mask=inside)


@triton.jit
def _backward(
    wide, pre, dpre, width, wide_row, pre_row, dpre_row, TANH: tl.constexpr, LINEAR: tl.constexpr,
    CUBIC: tl.constexpr, SATURATED: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    x = widened(tl.load(pre + row * pre_row + column, mask=inside, other=0.0))
    d = tl.load(wide + row * wide_row + column, mask=inside, other=0.0) * _slope(x, TANH, LINEAR, CUBIC, SATURATED)
    tl.store(dpre + row * dpre_row + column, narrowed(d, dpre.dtype.element_ty), mask=inside)


def linear_gelu_forward(
    x_NI: Tensor, w_FI: Tensor, b_F: Tensor | None, pre_NF: Tensor, post_NF: Tensor, *, form: str
) -> None:
    """pre = X·Wᵀ + b and post = GELU(pre). form: "gelu_tanh" or "gelu_erf"."""
    wide = wide_product(x_NI, w_FI.t())
    bias = wide if b_F is None else contiguous(b_F, pre_NF.shape[1:], wide.dtype)
    _run(wide, bias, pre_NF, post_NF, b_F is not None, True, form)


def gelu_forward(pre_NF: Tensor, post_NF: Tensor, *, form: str) -> None:
    """post = GELU(pre), to recompute an activation that was not kept."""
    _run(pre_NF, pre_NF, pre_NF, post_NF, False, False, form)


def _run(wide: Tensor, bias: Tensor, pre: Tensor, post: Tensor, biased: bool, stored: bool, form: str) -> None:
    n, f = pre.shape
    launch(
        _forward, (n, triton.cdiv(f, COLUMNS)), wide, bias, pre, post, f, rows_of(wide, (n, f), wide.dtype),
        rows_of(pre, (n, f), pre.dtype), rows_of(post, (n, f), pre.dtype), BIASED=biased, STORED=stored,
        TANH=form == "gelu_tanh", LINEAR=LINEAR, CUBIC=CUBIC, COLUMNS=COLUMNS, num_warps=warps(COLUMNS),
    )  # fmt: skip


def linear_gelu_backward_input(dy_NO: Tensor, w_OF: Tensor, pre_NF: Tensor, dpre_NF: Tensor, *, form: str) -> None:
    """dpre = (dY·W)∘GELU′(pre), W the matrix behind the activation."""
    n, f = pre_NF.shape
    wide = wide_product(dy_NO, w_OF)
    launch(
        _backward, (n, triton.cdiv(f, COLUMNS)), wide, pre_NF, dpre_NF, f,
        rows_of(wide, (n, f), accumulation(pre_NF.dtype)), rows_of(pre_NF, (n, f), pre_NF.dtype),
        rows_of(dpre_NF, (n, f), pre_NF.dtype), TANH=form == "gelu_tanh", LINEAR=LINEAR, CUBIC=CUBIC,
        SATURATED=SATURATED, COLUMNS=COLUMNS, num_warps=warps(COLUMNS),
    )  # fmt: skip
