"""Linear maps by cuBLAS: bfloat16 operands on tensor cores, summed in float32; formulas as in engine/linear.py.

A result in the precision of sums (logits, residual stream, gradients of parameters) is what cuBLAS summed, never a
bfloat16 in between: torch's products with `out_dtype`. A bfloat16 result with a bias is rounded once, by a kernel that
adds the bias to those sums. float32 and float64 operands go to the torch ops.

Only CUDA has `out_dtype`; on a CPU (in tests) the operands are widened first, which gives the same sums.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from cllm.engine import linear
from cllm.engine.cuda.arithmetic import narrowed
from cllm.engine.cuda.launch import contiguous, launch, rows_of, warps
from cllm.engine.precision import accumulation, widened

COLUMNS = 1024


def exact_sums() -> None:
    """Tell torch that sums of bfloat16 products stay in float32 when cuBLAS splits them, too. For the process."""
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False


def wide_product(a_NK: Tensor, b_KM: Tensor) -> Tensor:
    """A·B in the precision of sums, freshly allocated."""
    if a_NK.dtype == torch.bfloat16 and a_NK.device.type != "cpu":
        return torch.mm(a_NK, b_KM, out_dtype=torch.float32)
    return torch.mm(widened(a_NK), widened(b_KM))


def write_product(a_NK: Tensor, b_KM: Tensor, out_NM: Tensor) -> None:
    """out = A·B; `out` in the precision of sums."""
    if a_NK.dtype == torch.bfloat16 and a_NK.device.type != "cpu":
        torch.mm(a_NK, b_KM, out_dtype=torch.float32, out=out_NM)
    else:
        torch.mm(widened(a_NK), widened(b_KM), out=out_NM)


def add_product(start_NM: Tensor, a_NK: Tensor, b_KM: Tensor, out_NM: Tensor) -> None:
    """out = start + A·B, all but A and B in the precision of sums. start may be a row, and may be `out` itself."""
    if a_NK.dtype == torch.bfloat16 and a_NK.device.type != "cpu":
        torch.addmm(start_NM, a_NK, b_KM, out_dtype=torch.float32, out=out_NM)
    else:
        torch.addmm(start_NM, widened(a_NK), widened(b_KM), out=out_NM)


@triton.jit
def _rounded(wide, bias, y, width, wide_row, y_row, COLUMNS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    x = tl.load(wide + row * wide_row + column, mask=inside) + tl.load(bias + column, mask=inside)
    tl.store(y + row * y_row + column, narrowed(x, y.dtype.element_ty), mask=inside)


def linear_forward(
    x_NI: Tensor, w_OI: Tensor, b_O: Tensor | None, y_NO: Tensor, residual_NO: Tensor | None = None
) -> None:
    """Write Y = [R +] X·Wᵀ + b into `y_NO`, which may be the residual itself."""
    if x_NI.dtype != torch.bfloat16:
        linear.linear_forward(x_NI, w_OI, b_O, y_NO, residual_NO)
        return
    n, o = y_NO.shape
    if y_NO.dtype == torch.bfloat16:
        if b_O is None and residual_NO is None:
            torch.mm(x_NI, w_OI.t(), out=y_NO)
            return
        if b_O is None or residual_NO is not None:
            raise ValueError("linear: a residual stream is kept in the precision of sums")
        wide = wide_product(x_NI, w_OI.t())
        launch(
            _rounded, (n, triton.cdiv(o, COLUMNS)), wide, contiguous(b_O, (o,), wide.dtype), y_NO, o,
            rows_of(wide, (n, o), wide.dtype), rows_of(y_NO, (n, o), y_NO.dtype), COLUMNS=COLUMNS,
            num_warps=warps(COLUMNS),
        )  # fmt: skip
        return
    start = residual_NO if residual_NO is not None else b_O
    if start is None:
        write_product(x_NI, w_OI.t(), y_NO)
        return
    add_product(start if start.ndim == 2 else start.expand(n, o), x_NI, w_OI.t(), y_NO)
    if residual_NO is not None and b_O is not None:
        y_NO.add_(b_O)


def linear_backward_input(dy_NO: Tensor, w_OI: Tensor, dx_NI: Tensor) -> None:
    """Write dX = dY·W into `dx_NI`."""
    if dx_NI.dtype == dy_NO.dtype:
        torch.mm(dy_NO, w_OI, out=dx_NI)
    else:
        dx_NI.copy_(wide_product(dy_NO, w_OI))


def linear_backward_weight(
    dy_NO: Tensor, x_NI: Tensor, dw_OI: Tensor, db_O: Tensor | None, *, add: bool = True
) -> None:
    """Accumulate dW += dYᵀ·X and db += Σ_rows dY. add=False: dW holds nothing yet and is written."""
    if add:
        add_product(dw_OI, dy_NO.t(), x_NI, dw_OI)
    else:
        write_product(dy_NO.t(), x_NI, dw_OI)
    if db_O is not None:
        db_O.add_(torch.sum(dy_NO, dim=0, dtype=accumulation(dy_NO.dtype)))
