"""The kernels of a CUDA device: Triton for what torch lacks, cuBLAS products and flash attention through torch.

Nothing here imports Triton before `kernels` is called. A wrapper has the signature of the torch op beside it
(engine/<op>.py) and takes CUDA tensors; where Triton was imported with TRITON_INTERPRET=1 its interpreter runs the
same kernels on CPU tensors, which is how they are tested without a GPU (docs/gpu.md).
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from cllm.engine.dispatch import Kernels


def available() -> bool:
    """Whether Triton is installed; it comes with PyTorch's CUDA packages, and with the extra cllm[cuda]."""
    return find_spec("triton") is not None


def why_not() -> str:
    """Why a CUDA device runs on torch ops alone; "" when it does not."""
    return "" if available() else "Triton is not installed: pip install 'cllm[cuda]'"


def kernels(operand: torch.dtype, activation: str = "gelu_tanh") -> Kernels:
    """The ops of a step on a CUDA device: those of `dispatch.torch_kernels`, with faster ones where there are any."""
    from cllm.engine.cuda.table import kernels as table

    return table(operand, activation)
