"""The two precisions of a step: that of its operands and the one in which it accumulates.

Operands (what enters a matrix product: matrices, normed activations, gradients on their way to a product) are float32,
float64 or bfloat16. Sums, the residual stream, statistics, losses, master weights and their gradients are in
`accumulation(operand)`: float32 for bfloat16, the operands' own precision otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor

LABELS = {torch.float32: "fp32", torch.float64: "fp64", torch.bfloat16: "bf16"}


def accumulation(operand: torch.dtype) -> torch.dtype:
    """The precision in which operands of this type are multiplied and summed."""
    return torch.float32 if operand == torch.bfloat16 else operand


def widened(x: Tensor) -> Tensor:
    """`x` in the precision of its sums: a copy for bfloat16, `x` itself otherwise."""
    return x.to(accumulation(x.dtype))
