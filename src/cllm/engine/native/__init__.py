"""The native CPU kernels: C++ sources in src/, libraries in lib/ (built by native_build.py), one wrapper module an op.

A wrapper has the signature of the torch op beside it (engine/<op>.py), checks what the C ABI cannot (dtype, shape,
strides, device) and passes pointers. `engine/dispatch.select` decides which of the two a step calls.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import torch
from torch import Tensor

from cllm import native

INT, REAL, POINTER = ctypes.c_int64, ctypes.c_double, ctypes.c_void_p
SUFFIX = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16"}


def available() -> bool:
    """Whether the library is there; `cllm.native.why_not("engine", "engine")` says why not."""
    return native.load("engine", "engine") is not None


def level() -> str:
    """The instruction level in use: baseline, avx2, avx512, avx512bf16, or off."""
    return native.level("engine", "engine")


def function(name: str, *arguments: Any) -> Any:
    """The C function `name` with these argument types (INT, REAL, POINTER); it returns nothing."""
    library = native.load("engine", "engine")
    if library is None:
        raise RuntimeError(f"no native kernels: {native.why_not('engine', 'engine')}")
    return _function(library, name, *arguments)


@cache  # by library, so that another level chosen by the environment is another function
def _function(library: ctypes.CDLL, name: str, *arguments: Any) -> Any:
    found = getattr(library, name)
    found.argtypes, found.restype = arguments, None
    return found


def pointer(x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """The address of a contiguous CPU tensor, after checking that it is what the kernel will take it for."""
    if x.dtype != dtype or x.shape != shape or not x.is_contiguous() or x.device.type != "cpu":
        raise ValueError(
            f"native kernel: expected a contiguous {dtype} CPU tensor of shape {tuple(shape)}, "
            f"got {x.dtype} {tuple(x.shape)} with strides {x.stride()} on {x.device}"
        )
    return x.data_ptr()


def rows_of(x: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> tuple[int, int]:
    """The address of a CPU matrix with contiguous rows, and the distance between its rows in elements."""
    row, column = x.stride() if x.ndim == 2 else (0, 0)
    apart = row >= shape[1] or shape[0] == 1
    if x.dtype != dtype or x.shape != shape or not apart or (column != 1 and shape[1] > 1) or x.device.type != "cpu":
        raise ValueError(
            f"native kernel: expected a {dtype} CPU matrix of shape {shape} with contiguous rows, "
            f"got {x.dtype} {tuple(x.shape)} with strides {x.stride()} on {x.device}"
        )
    return x.data_ptr(), row
