"""AdamW in one pass over memory, with what changes from step to step in a tensor on the device.

So the launch is the same for every step, as a captured graph needs it; and a step whose gradient is not finite is made
into nothing by a number of that tensor, without the host looking. Formulas and order of operations: engine/adamw.py.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from cllm.engine.adamw import squares_on_device
from cllm.engine.cuda.arithmetic import divided, narrowed, square_root
from cllm.engine.cuda.launch import contiguous, launch

BLOCK = 1024


@triton.jit
def _update(
    w, g, m, v, shadow, factors, count, B1: tl.constexpr, B2: tl.constexpr, EPS: tl.constexpr,
    SHADOWED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    if tl.load(factors + 4) != 0.0:
        at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside = at < count
        weight = tl.load(w + at, mask=inside, other=0.0)
        kind = weight.dtype
        scale, keep = tl.load(factors).to(kind), tl.load(factors + 1).to(kind)
        rate, root = tl.load(factors + 2).to(kind), tl.load(factors + 3).to(kind)
        x = tl.load(g + at, mask=inside, other=0.0) * scale
        first = tl.load(m + at, mask=inside, other=0.0) * B1 + x * (1.0 - B1)
        second = tl.load(v + at, mask=inside, other=0.0) * B2 + x * (1.0 - B2) * x
        weight = weight * keep - divided(first * rate, square_root(second) * root + EPS)
        tl.store(m + at, first, mask=inside)
        tl.store(v + at, second, mask=inside)
        tl.store(w + at, weight, mask=inside)
        if SHADOWED:
            tl.store(shadow + at, narrowed(weight.to(tl.float32), shadow.dtype.element_ty), mask=inside)


def adamw_on_device(
    w: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    factors: Tensor,
    *,
    betas: tuple[float, float],
    eps: float,
    shadow: Tensor | None = None,
) -> None:
    """Update w, m, v in place (flat, float32 or float64), unless `factors` says no; g is only read."""
    (n,), kind = w.shape, w.dtype
    launch(
        _update, (triton.cdiv(n, BLOCK),), *(contiguous(x, (n,), kind) for x in (w, g, m, v)),
        w if shadow is None else contiguous(shadow, (n,), torch.bfloat16), contiguous(factors, (5,), torch.float64), n,
        B1=betas[0], B2=betas[1], EPS=eps, SHADOWED=shadow is not None, BLOCK=BLOCK, num_warps=4,
    )  # fmt: skip


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
    """The update with numbers of the host; arguments as in engine/adamw.py."""
    b1, b2 = betas
    values = (scale, 1.0 - lr * decay, lr / (1.0 - b1**t), 1.0 / math.sqrt(1.0 - b2**t), 1.0)
    on_device = torch.tensor(values, dtype=torch.float64).to(w.device, non_blocking=True)
    adamw_on_device(w, g, m, v, on_device, betas=betas, eps=eps, shadow=shadow)


def sum_of_squares(g: Tensor) -> float:
    """Σ g² in float64, for the global norm; the host waits for it."""
    return float(squares_on_device(g))
