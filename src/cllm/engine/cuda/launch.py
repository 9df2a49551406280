"""Starting a Triton kernel: what the compiler cannot check (shapes, types, strides, devices) is checked here."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on tensors of the CPU."""
    return bool(triton.knobs.runtime.interpret)


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """Run `kernel` on a grid of programs, on the device of its tensors. An empty grid is nothing to do."""
    device = next(x for x in arguments if isinstance(x, Tensor)).device
    if device.type != "cuda" and not interpreted():
        raise ValueError(f"Triton kernel: expected CUDA tensors, got {device}")
    if 0 in grid:
        return
    with torch.cuda.device_of(next(x for x in arguments if isinstance(x, Tensor))):
        kernel[grid](*arguments, **options)


def contiguous(x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """`x`, after checking that it is what the kernel will take it for."""
    if x.dtype != dtype or x.shape != shape or not x.is_contiguous():
        raise ValueError(
            f"Triton kernel: expected a contiguous {dtype} tensor of shape {tuple(shape)}, "
            f"got {x.dtype} {tuple(x.shape)} with strides {x.stride()}"
        )
    return x


def rows_of(x: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> int:
    """The distance between the rows of a matrix with contiguous rows, in elements."""
    row, column = x.stride() if x.ndim == 2 else (0, 0)
    apart = row >= shape[1] or shape[0] == 1
    if x.dtype != dtype or x.shape != shape or not apart or (column != 1 and shape[1] > 1):
        raise ValueError(
            f"Triton kernel: expected a {dtype} matrix of shape {shape} with contiguous rows, "
            f"got {x.dtype} {tuple(x.shape)} with strides {x.stride()}"
        )
    return row


def block(width: int, most: int = 1 << 16) -> int:
    """The smallest power of two that holds `width` entries, at most `most`."""
    return min(int(triton.next_power_of_2(width)), most)


def warps(elements: int) -> int:
    """Warps of 32 threads for a program that works on so many entries at a time."""
    return max(1, min(16, elements // 256))
