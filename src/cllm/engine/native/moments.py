"""AdamW with 8-bit moments in one pass; formulas, arguments and bits as in engine/moments.py."""

from __future__ import annotations

import torch
from torch import Tensor

from cllm.engine.moments import Coded, blocks
from cllm.engine.native import INT, POINTER, REAL, SUFFIX, function, pointer
from cllm.engine.split import Halves


def adamw8(
    w: Tensor | Halves,
    g: Tensor,
    m: Coded,
    v: Coded,
    *,
    t: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    decay: float,
    scale: float = 1.0,
    first: int = 0,
) -> None:
    """Update the weights of one tensor and its coded moments in place; g (float32 or bfloat16) is only read."""
    b1, b2 = betas
    shape, scales = g.shape, (blocks(g.numel()),)
    weights = (
        (None, pointer(w.high, shape, torch.bfloat16), pointer(w.low, shape, torch.int16))
        if isinstance(w, Halves)
        else (pointer(w, shape, torch.float32), None, None)
    )
    kernel = function(f"adamw8_{SUFFIX[g.dtype]}", INT, *[POINTER] * 8, INT, INT, *[REAL] * 8)
    kernel(
        g.numel(),
        *weights,
        pointer(g, shape, g.dtype),
        pointer(m.codes, shape, torch.int8),
        pointer(m.scales, scales, torch.float32),
        pointer(v.codes, shape, torch.uint8),
        pointer(v.scales, scales, torch.float32),
        first,
        t,
        scale,
        lr,
        b1,
        b2,
        eps,
        decay,
        1.0 - b1**t,
        1.0 - b2**t,
    )
