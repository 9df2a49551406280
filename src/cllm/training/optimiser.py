"""The update: the step's one division, clipping, and AdamW or SGD on every tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cllm.engine.adamw import sum_of_squares
from cllm.engine.dispatch import Kernels
from cllm.model.layout import MATRIX
from cllm.model.step import Step
from cllm.training.state import State


@dataclass(frozen=True)
class Norm:
    """Global norm of the mean gradient, before clipping, and the factor that clipping multiplies with."""

    value: float
    clip: float

    @property
    def finite(self) -> bool:
        return math.isfinite(self.value)


def gradient_norm(step: Step, clip: float) -> Norm:
    """‖Σ g‖ / valid over all tensors, summed in float64; `clip` 0 means no clipping."""
    norm = math.sqrt(sum_of_squares(step.grads.data)) / max(step.sums.valid, 1)
    return Norm(norm, min(1.0, clip / norm) if clip and norm > 0 else 1.0)


def update(state: State, step: Step, kernels: Kernels, lr: float, norm: Norm) -> None:
    """One optimiser step in place; advances `state.step`. The gradient sums are divided by the valid targets here,
    and nowhere else. Weight decay acts on the matrices only.

    `clip_value` bounds each entry of the mean gradient (then the sums are overwritten by the clipped mean).
    """
    c = state.config.optim
    scale = norm.clip / max(step.sums.valid, 1)
    if c.clip_value:
        step.grads.data.mul_(scale).clamp_(-c.clip_value, c.clip_value)
        scale = 1.0
    params = state.model.params
    for group in params.layout.segments:
        decay = c.weight_decay if group == MATRIX else 0.0
        w, g = params.segment(group), step.grads.segment(group)
        m = state.moments["m"].segment(group)
        if c.name == "adamw":
            kernels.adamw(
                w,
                g,
                m,
                state.moments["v"].segment(group),
                t=state.step + 1,
                lr=lr,
                betas=c.betas,
                eps=c.eps,
                decay=decay,
                scale=scale,
            )
        else:
            kernels.sgd(w, g, m, lr=lr, momentum=c.momentum, nesterov=c.nesterov, decay=decay, scale=scale)
    if state.ema is not None:
        # a short memory at first: otherwise the average would long be that of the initial weights
        state.ema.data.lerp_(params.data, 1.0 - min(c.ema, (1 + state.step) / (10 + state.step)))
    state.step += 1
    state.tokens += step.sums.valid
