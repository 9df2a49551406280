"""Layer norm in one pass over memory; formulas and arguments as in engine/layernorm.py."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from cllm.engine.layernorm import EPS
from cllm.engine.native import INT, POINTER, REAL, SUFFIX, function, pointer
from cllm.engine.precision import accumulation


def layernorm_forward(x_ND: Tensor, g_D: Tensor, b_D: Tensor, y_ND: Tensor, mean_N1: Tensor, rstd_N1: Tensor) -> None:
    """Write y (operand precision), and per row μ and 1/σ."""
    (n, d), sums = x_ND.shape, accumulation(y_ND.dtype)
    function(f"layernorm_forward_{SUFFIX[y_ND.dtype]}", INT, INT, *[POINTER] * 6, REAL)(
        n, d, pointer(x_ND, (n, d), sums), pointer(g_D, (d,), sums), pointer(b_D, (d,), sums),
        pointer(y_ND, (n, d), y_ND.dtype), pointer(mean_N1, (n, 1), sums), pointer(rstd_N1, (n, 1), sums), EPS,
    )  # fmt: skip


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
    blocks = ctypes.c_int64()
    function("layernorm_blocks", INT, POINTER)(n, ctypes.byref(blocks))
    partial = torch.empty((blocks.value, 2, d), dtype=sums)
    function(f"layernorm_backward_{SUFFIX[operand]}", INT, INT, *[POINTER] * 10)(
        n, d, pointer(dy_ND, (n, d), operand), pointer(x_ND, (n, d), sums), pointer(mean_N1, (n, 1), sums),
        pointer(rstd_N1, (n, 1), sums), pointer(g_D, (d,), sums), pointer(dx_ND, (n, d), sums),
        None if rounded_ND is None else pointer(rounded_ND, (n, d), operand),
        pointer(dg_D, (d,), sums), pointer(db_D, (d,), sums), partial.data_ptr(),
    )  # fmt: skip
