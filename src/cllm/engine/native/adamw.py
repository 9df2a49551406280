"""AdamW, SGD and the sum of squares in one pass over memory; formulas and arguments as in engine/adamw.py."""

from __future__ import annotations

import torch
from torch import Tensor

from cllm.engine.native import INT, POINTER, REAL, SUFFIX, function, pointer

NORM_BLOCK = 4096  # as in norm.cpp


def adamw(
    w: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    *,
    t: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    decay: float,
    scale: float = 1.0,
    shadow: Tensor | None = None,
) -> None:
    """Update w, m, v in place (flat, same length, float32 or float64); g is only read."""
    b1, b2 = betas
    kernel = function(f"adamw_{SUFFIX[w.dtype]}", INT, *[POINTER] * 5, *[REAL] * 8)
    kernel(
        w.numel(),
        *(pointer(x, w.shape, w.dtype) for x in (w, g, m, v)),
        _shadow(shadow, w),
        scale,
        lr,
        b1,
        b2,
        eps,
        decay,
        1.0 - b1**t,
        1.0 - b2**t,
    )


def sgd(
    w: Tensor,
    g: Tensor,
    m: Tensor,
    *,
    lr: float,
    momentum: float,
    nesterov: bool,
    decay: float,
    scale: float = 1.0,
    shadow: Tensor | None = None,
) -> None:
    """Update w and m in place (flat, same length, float32 or float64); g is only read."""
    kernel = function(f"sgd_{SUFFIX[w.dtype]}", INT, *[POINTER] * 4, *[REAL] * 3, INT, REAL)
    pointers = (pointer(x, w.shape, w.dtype) for x in (w, g, m))
    kernel(w.numel(), *pointers, _shadow(shadow, w), scale, lr, momentum, nesterov, decay)


def sum_of_squares(g: Tensor) -> float:
    """Σ g² in float64, g flat in float32, float64 or bfloat16; the same bits for any number of threads."""
    partial = torch.empty(max(1, -(-g.numel() // NORM_BLOCK)), dtype=torch.float64)
    if not g.numel():
        return 0.0
    kernel = function(f"sum_of_squares_{SUFFIX[g.dtype]}", INT, POINTER, POINTER)
    kernel(g.numel(), pointer(g, g.shape, g.dtype), partial.data_ptr())
    return float(partial[0])


def _shadow(shadow: Tensor | None, w: Tensor) -> int | None:
    return None if shadow is None else pointer(shadow, w.shape, torch.bfloat16)
