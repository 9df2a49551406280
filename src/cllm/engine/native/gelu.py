"""GELU of a matrix whose rows may lie apart; formulas as in engine/gelu.py."""

from __future__ import annotations

from torch import Tensor

from cllm.engine.native import INT, POINTER, SUFFIX, function, rows_of


def gelu_forward(x_NF: Tensor, y_NF: Tensor, *, form: str = "gelu_tanh") -> None:
    """Write y = GELU(x), elementwise. form: gelu_tanh or gelu_erf."""
    n, f = x_NF.shape
    function(f"gelu_forward_{SUFFIX[x_NF.dtype]}", INT, INT, *[POINTER, INT] * 2, INT)(
        n, f, *rows_of(x_NF, (n, f), x_NF.dtype), *rows_of(y_NF, (n, f), x_NF.dtype), int(form == "gelu_erf")
    )
