"""Linear map: Y = X·Wᵀ + b, with W stored out×in, optionally joined to a residual stream: Y = R + X·Wᵀ + b.

Backward, for a loss ℓ and dY = ∂ℓ/∂Y (docs/derivations/linear.md):
    dX = dY·W        dW += dYᵀ·X        db += Σ_rows dY        dR = dY

Operands may be bfloat16: their products are exact in float32 and summed there, and a result that is an operand again
is rounded once, when it is stored.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cllm.engine.precision import widened


def linear_forward(
    x_NI: Tensor, w_OI: Tensor, b_O: Tensor | None, y_NO: Tensor, residual_NO: Tensor | None = None
) -> None:
    """Write Y = [R +] X·Wᵀ + b into `y_NO`, which may be the residual itself."""
    start = residual_NO if residual_NO is not None else b_O
    x, w = widened(x_NI), widened(w_OI).t()
    y = y_NO if y_NO.dtype == x.dtype else None
    if start is None:
        y = torch.mm(x, w, out=y) if y is not None else torch.mm(x, w)
    else:
        y = torch.addmm(start, x, w, out=y) if y is not None else torch.addmm(start, x, w)
    if residual_NO is not None and b_O is not None:
        y.add_(b_O)
    if y is not y_NO:
        y_NO.copy_(y)


def linear_backward_input(dy_NO: Tensor, w_OI: Tensor, dx_NI: Tensor) -> None:
    """Write dX = dY·W into `dx_NI`."""
    if dx_NI.dtype == dy_NO.dtype != torch.bfloat16:
        torch.mm(dy_NO, w_OI, out=dx_NI)
    else:
        dx_NI.copy_(widened(dy_NO) @ widened(w_OI))


def linear_backward_weight(
    dy_NO: Tensor, x_NI: Tensor, dw_OI: Tensor, db_O: Tensor | None, *, add: bool = True
) -> None:
    """Accumulate dW += dYᵀ·X and db += Σ_rows dY. add=False: dW holds nothing yet and is written."""
    dy = widened(dy_NO)
    if add:
        dw_OI.addmm_(dy.t(), widened(x_NI))
    else:
        torch.mm(dy.t(), widened(x_NI), out=dw_OI)
    if db_O is not None:
        db_O.add_(dy.sum(dim=0))
