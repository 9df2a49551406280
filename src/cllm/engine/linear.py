"""Linear map: Y = X·Wᵀ + b, with W stored out×in.

Backward, for a loss ℓ and dY = ∂ℓ/∂Y (docs/derivations/linear.md):
    dX = dY·W        dW += dYᵀ·X        db += Σ_rows dY
"""

from __future__ import annotations

import torch
from torch import Tensor


def linear_forward(x_NI: Tensor, w_OI: Tensor, b_O: Tensor | None, y_NO: Tensor) -> None:
    """Write Y = X·Wᵀ + b into `y_NO`."""
    if b_O is None:
        torch.mm(x_NI, w_OI.t(), out=y_NO)
    else:
        torch.addmm(b_O, x_NI, w_OI.t(), out=y_NO)


def linear_backward_input(dy_NO: Tensor, w_OI: Tensor, dx_NI: Tensor) -> None:
    """Write dX = dY·W into `dx_NI`."""
    torch.mm(dy_NO, w_OI, out=dx_NI)


def linear_backward_weight(dy_NO: Tensor, x_NI: Tensor, dw_OI: Tensor, db_O: Tensor | None) -> None:
    """Accumulate dW += dYᵀ·X and db += Σ_rows dY."""
    dw_OI.addmm_(dy_NO.t(), x_NI)
    if db_O is not None:
        db_O.add_(dy_NO.sum(dim=0))
