"""What the processor can do at most, by src/peak.cpp: multiply-adds in registers, reading and writing memory."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from cllm.engine.native import INT, POINTER, REAL, function, pointer

KINDS = {"fp32": "f32", "fp64": "f64", "bf16": "bf16", "int8": "i8"}


def multiply_adds(kind: str, steps: int) -> float:
    """Run `steps` rounds of independent multiply-adds in the registers of every thread.

    Returns their number of operations, a multiply-add counting two; 0 where the instruction level has none of this
    kind. fp32, fp64; bf16: pairs into float32 (without such instructions the float32 that bfloat16 is widened to);
    int8: bytes into 32-bit sums.
    """
    operations = ctypes.c_double()
    function(f"register_peak_{KINDS[kind]}", INT, POINTER)(steps, ctypes.byref(operations))
    return operations.value


def read(x: Tensor) -> None:
    """Read a float32 array once, on all threads."""
    sums = torch.empty(torch.get_num_threads(), dtype=torch.float32)
    function("memory_read", INT, POINTER, POINTER)(x.numel(), pointer(x, x.shape, torch.float32), sums.data_ptr())


def write(x: Tensor, value: float) -> None:
    """Write a float32 array once, on all threads."""
    function("memory_write", INT, POINTER, REAL)(x.numel(), pointer(x, x.shape, torch.float32), value)
