"""AdamW in one pass over memory; formulas and arguments as in engine/adamw.py."""

from __future__ import annotations

from torch import Tensor

from cllm.engine.native import INT, POINTER, REAL, SUFFIX, function, pointer


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
) -> None:
    """Update w, m, v in place (flat, same length, float32 or float64); g is only read."""
    b1, b2 = betas
    kernel = function(f"adamw_{SUFFIX[w.dtype]}", INT, *[POINTER] * 4, *[REAL] * 8)
    kernel(
        w.numel(),
        *(pointer(x, w.shape, w.dtype) for x in (w, g, m, v)),
        scale,
        lr,
        b1,
        b2,
        eps,
        decay,
        1.0 - b1**t,
        1.0 - b2**t,
    )
