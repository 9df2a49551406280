"""Layer norm in one pass over a row; formulas and arguments as in engine/layernorm.py.

The backward has two stages and no atomics: each of PROGRAMS programs sums dγ and dβ over its rows, in their order; a
second kernel sums those partial sums, in theirs. So the bits do not depend on timing, nor on the device's size.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from cllm.engine import layernorm
from cllm.engine.cuda.arithmetic import inverse, narrowed, square_root, widened
from cllm.engine.cuda.launch import block, contiguous, launch, warps
from cllm.engine.cuda.linear import wide_product
from cllm.engine.layernorm import EPS
from cllm.engine.precision import accumulation

WIDEST = 1 << 13  # a row is held in registers; wider ones would not fit and take the torch ops
PROGRAMS = 256
COLUMNS = 32  # of the second stage


@triton.jit
def _normalised(x, inside, WIDTH: tl.constexpr, EPS: tl.constexpr):
    mean = tl.sum(x, 0) * (1.0 / WIDTH)
    centred = tl.where(inside, x - mean, 0.0)
    variance = tl.sum(centred * centred, 0) * (1.0 / WIDTH) + EPS
    return centred, mean, inverse(square_root(variance))


@triton.jit
def _forward(x, g, b, y, mean, rstd, WIDTH: tl.constexpr, EPS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < WIDTH
    found = tl.load(x + row * WIDTH + column, mask=inside, other=0.0)
    centred, mu, r = _normalised(found, inside, WIDTH, EPS)
    gain, shift = tl.load(g + column, mask=inside), tl.load(b + column, mask=inside)
    tl.store(y + row * WIDTH + column, narrowed(centred * r * gain + shift, y.dtype.element_ty), mask=inside)
    tl.store(mean + row, mu)
    tl.store(rstd + row, r)


@triton.jit
def _joined_forward(
    x, branch, bias, out, g, b, y, mean, rstd, WIDTH: tl.constexpr, EPS: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < WIDTH
    at = row * WIDTH + column
    found = tl.load(x + at, mask=inside, other=0.0) + widened(tl.load(branch + at, mask=inside, other=0.0))
    found += tl.load(bias + column, mask=inside, other=0.0)
    tl.store(out + at, found, mask=inside)
    centred, mu, r = _normalised(found, inside, WIDTH, EPS)
    gain, shift = tl.load(g + column, mask=inside), tl.load(b + column, mask=inside)
    tl.store(y + at, narrowed(centred * r * gain + shift, y.dtype.element_ty), mask=inside)
    tl.store(mean + row, mu)
    tl.store(rstd + row, r)


@triton.jit
def _backward(
    dy, x, mean, rstd, g, dx, rounded, partial, rows, PROGRAMS: tl.constexpr, ROUNDED: tl.constexpr,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    inside = column < WIDTH
    gain = tl.load(g + column, mask=inside, other=0.0)
    dg = gain * 0.0
    db = gain * 0.0
    for row in range(program, rows, PROGRAMS):
        at = tl.cast(row, tl.int64) * WIDTH + column
        found = widened(tl.load(dy + at, mask=inside, other=0.0))
        r = tl.load(rstd + row)
        normal = tl.where(inside, (tl.load(x + at, mask=inside, other=0.0) - tl.load(mean + row)) * r, 0.0)
        dg += found * normal
        db += found
        hat = found * gain
        inner = tl.sum(hat * normal, 0) * (1.0 / WIDTH)
        d = (hat - tl.sum(hat, 0) * (1.0 / WIDTH) - normal * inner) * r
        total = tl.load(dx + at, mask=inside, other=0.0) + d
        tl.store(dx + at, total, mask=inside)
        if ROUNDED:
            tl.store(rounded + at, narrowed(total, rounded.dtype.element_ty), mask=inside)
    to = partial + program * (2 * WIDTH) + column
    tl.store(to, dg, mask=inside)
    tl.store(to + WIDTH, db, mask=inside)


@triton.jit
def _summed(partial, dg, db, count, WIDTH: tl.constexpr, COLUMNS: tl.constexpr):
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < WIDTH
    gain = tl.load(dg + column, mask=inside, other=0.0)
    shift = tl.load(db + column, mask=inside, other=0.0)
    more_gain = gain * 0.0
    more_shift = gain * 0.0
    for program in range(count):
        at = partial + program * (2 * WIDTH) + column
        more_gain += tl.load(at, mask=inside, other=0.0)
        more_shift += tl.load(at + WIDTH, mask=inside, other=0.0)
    tl.store(dg + column, gain + more_gain, mask=inside)
    tl.store(db + column, shift + more_shift, mask=inside)


def layernorm_forward(x_ND: Tensor, g_D: Tensor, b_D: Tensor, y_ND: Tensor, mean_N1: Tensor, rstd_N1: Tensor) -> None:
    """Write y (operand precision), and per row μ and 1/σ."""
    (n, d), sums = x_ND.shape, accumulation(y_ND.dtype)
    if d > WIDEST:
        layernorm.layernorm_forward(x_ND, g_D, b_D, y_ND, mean_N1, rstd_N1)
        return
    launch(
        _forward, (n,), contiguous(x_ND, (n, d), sums), contiguous(g_D, (d,), sums), contiguous(b_D, (d,), sums),
        contiguous(y_ND, (n, d), y_ND.dtype), contiguous(mean_N1, (n, 1), sums), contiguous(rstd_N1, (n, 1), sums),
        WIDTH=d, EPS=EPS, BLOCK=block(d), num_warps=warps(block(d)),
    )  # fmt: skip


def joined_layernorm_forward(
    x_ND: Tensor,
    branch_ND: Tensor,
    bias_D: Tensor,
    out_ND: Tensor,
    g_D: Tensor,
    b_D: Tensor,
    y_ND: Tensor,
    mean_N1: Tensor,
    rstd_N1: Tensor,
) -> None:
    """Write out = x + branch + bias, and the layer norm of it. branch: in operand precision, or in that of sums."""
    (n, d), sums = x_ND.shape, accumulation(y_ND.dtype)
    if d > WIDEST:
        torch.add(x_ND, branch_ND, out=out_ND).add_(bias_D)
        layernorm.layernorm_forward(out_ND, g_D, b_D, y_ND, mean_N1, rstd_N1)
        return
    launch(
        _joined_forward, (n,), contiguous(x_ND, (n, d), sums), contiguous(branch_ND, (n, d), branch_ND.dtype),
        contiguous(bias_D, (d,), sums), contiguous(out_ND, (n, d), sums),
        contiguous(g_D, (d,), sums), contiguous(b_D, (d,), sums),
        contiguous(y_ND, (n, d), y_ND.dtype), contiguous(mean_N1, (n, 1), sums), contiguous(rstd_N1, (n, 1), sums),
        WIDTH=d, EPS=EPS, BLOCK=block(d), num_warps=warps(block(d)),
    )  # fmt: skip


def linear_norm_forward(
    x_NI: Tensor,
    w_DI: Tensor,
    bias_D: Tensor,
    residual_ND: Tensor,
    out_ND: Tensor,
    g_D: Tensor,
    b_D: Tensor,
    y_ND: Tensor,
    mean_N1: Tensor,
    rstd_N1: Tensor,
) -> None:
    """out = residual + X·Wᵀ + bias (it may be the residual itself), and the layer norm of it."""
    branch = wide_product(x_NI, w_DI.t())
    joined_layernorm_forward(residual_ND, branch, bias_D, out_ND, g_D, b_D, y_ND, mean_N1, rstd_N1)


def layernorm_backward(
    dy_ND: Tensor,
    x_ND: Tensor,
    mean_N1: Tensor,
    rstd_N1: Tensor,
    g_D: Tensor,
    dx_ND: Tensor,
    rounded_ND: Tensor | None,
    dg_D: Tensor,
    db_D: Tensor,
) -> None:
    """Accumulate dx, dγ and dβ, and write the new dx into `rounded_ND` (if any)."""
    (n, d), operand = dy_ND.shape, dy_ND.dtype
    sums = accumulation(operand)
    if d > WIDEST:
        layernorm.layernorm_backward(dy_ND, x_ND, mean_N1, rstd_N1, g_D, dx_ND, rounded_ND, dg_D, db_D)
        return
    programs = min(n, PROGRAMS)
    partial = torch.empty((programs, 2, d), dtype=sums, device=x_ND.device)
    launch(
        _backward, (programs,), contiguous(dy_ND, (n, d), operand), contiguous(x_ND, (n, d), sums),
        contiguous(mean_N1, (n, 1), sums), contiguous(rstd_N1, (n, 1), sums), contiguous(g_D, (d,), sums),
        contiguous(dx_ND, (n, d), sums),
        dx_ND if rounded_ND is None else contiguous(rounded_ND, (n, d), operand), partial, n,
        PROGRAMS=programs, ROUNDED=rounded_ND is not None, WIDTH=d, BLOCK=block(d), num_warps=warps(block(d)),
    )  # fmt: skip
    launch(
        _summed, (triton.cdiv(d, COLUMNS),), partial, contiguous(dg_D, (d,), sums), contiguous(db_D, (d,), sums),
        programs, WIDTH=d, COLUMNS=COLUMNS, num_warps=1,
    )  # fmt: skip
