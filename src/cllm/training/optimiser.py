"""The update: the step's one division, clipping, and AdamW, SGD or Muon on every tensor, by the rule of its group."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from cllm.engine.buffers import Flat
from cllm.engine.compact import EightBit, Mixed, Split
from cllm.engine.dispatch import Kernels
from cllm.engine.muon import muon
from cllm.model.step import Step
from cllm.training.groups import Rule, rules, runs
from cllm.training.state import State


@dataclass(frozen=True)
class Norm:
    """Global norm of the mean gradient, before clipping, and the factor that clipping multiplies with."""

    value: float
    clip: float

    @property
    def finite(self) -> bool:
        return math.isfinite(self.value)


def gradient_norm(step: Step, clip: float, squares: float | None = None) -> Norm:
    """‖Σ g‖ / valid over all tensors, summed in float64; `clip` 0 means no clipping. squares: Σ g², where not all of
    the gradients are here."""
    if squares is None:
        squares = sum_of_squares(step)
    norm = math.sqrt(squares) / max(step.sums.valid, 1)
    return Norm(norm, min(1.0, clip / norm) if clip and norm > 0 else 1.0)


def sum_of_squares(step: Step) -> float:
    """Σ g² over all tensors; with a sink, those that it has taken are counted there."""
    if step.sink is None:
        return math.fsum(step.kernels.sum_of_squares(part.data) for part in buffers(step.grads))
    left = (view for name, view in step.grads.items() if name not in step.sink.takes)
    return math.fsum([step.sink.squares, *(step.kernels.sum_of_squares(view.view(-1)) for view in left)])


def buffers(gradients: Mapping[str, Tensor]) -> tuple[Flat, ...]:
    """The flat buffers that hold the gradients."""
    if isinstance(gradients, Flat):
        return (gradients,)
    assert isinstance(gradients, Mixed)
    return gradients.parts


def update(state: State, step: Step, kernels: Kernels, lr: float, norm: Norm) -> None:
    """One optimiser step in place; advances `state.step`. The gradient sums are divided by the valid targets here,
    and nowhere else. Weight decay acts on the matrices only, unless a group says otherwise.

    `clip_value` bounds each entry of the mean gradient (then the sums are overwritten by the clipped mean).
    """
    c = state.config.optim
    scale = norm.clip / max(step.sums.valid, 1)
    if c.clip_value:
        for part in buffers(step.grads):
            part.data.mul_(scale).clamp_(-c.clip_value, c.clip_value)
        scale = 1.0
    if isinstance(state.model.params, Split):
        done = step.sink.done if step.sink is not None else ()
        for name, rule in rules(state.config, state.model.layout).items():
            if name not in done:
                update_tensor(state, kernels, name, rule, step.grads[name], lr, scale)
    else:
        _update_runs(state, step, kernels, lr, scale)
    finish(state, step.sums.valid)


def finish(state: State, valid: int) -> None:
    """The moving average and the counters, when every tensor has been updated."""
    c = state.config.optim
    if state.ema is not None:
        # a short memory at first: otherwise the average would long be that of the initial weights
        weight = 1.0 - min(c.ema, (1 + state.step) / (10 + state.step))
        if isinstance(state.ema, Split):
            assert isinstance(state.model.params, Split)
            state.ema.lerp_(state.model.params, weight)
        else:
            assert isinstance(state.model.params, Flat)
            state.ema.lerp_(state.model.params, weight)
    state.step += 1
    state.tokens += valid


def _update_runs(state: State, step: Step, kernels: Kernels, lr: float, scale: float) -> None:
    """Neighbours of the same rule as one stretch of the flat buffers."""
    c, w, g, moments = state.config.optim, state.model.params, step.grads, state.moments
    assert isinstance(w, Flat)
    assert isinstance(g, Flat)
    flats = {name: moment for name, moment in moments.items() if isinstance(moment, Flat)}
    shadows = state.model.operands if state.model.operand != state.model.dtype else None
    assert not isinstance(shadows, Mixed)
    others = tuple(flat.layout for flat in flats.values())
    for run in runs(state.config, w.layout, others if shadows is None else (*others, shadows.layout)):
        rule, first, last = run.rule, run.names[0], run.names[-1]
        rate, ends = lr * rule.lr, (first, last)
        shadow = shadows.between(*ends) if shadows is not None and last in shadows and first in shadows else None
        if rule.algorithm == "muon":
            muon(
                w[first], g[first], flats["m"][first],
                lr=rate, momentum=c.muon_momentum, decay=rule.decay, scale=scale,
                shadow=None if shadows is None else shadows[first],
            )  # fmt: skip
        elif rule.algorithm == "adamw":
            kernels.adamw(
                w.between(*ends), g.between(*ends), flats["m"].between(*ends), flats["v"].between(*ends),
                t=state.step + 1, lr=rate, betas=rule.betas, eps=rule.eps, decay=rule.decay, scale=scale,
                **({} if shadow is None else {"shadow": shadow}),
            )  # fmt: skip
        else:
            kernels.sgd(
                w.between(*ends), g.between(*ends), flats["m"].between(*ends),
                lr=rate, momentum=c.momentum, nesterov=c.nesterov, decay=rule.decay, scale=scale,
                **({} if shadow is None else {"shadow": shadow}),
            )  # fmt: skip
    if shadows is not None:
        state.model.rounded()


def update_tensor(
    state: State, kernels: Kernels, name: str, rule: Rule, gradient: Tensor, lr: float, scale: float
) -> None:
    """AdamW on one tensor of a split master with 8-bit moments; vectors keep float32 weights and moments."""
    weights, m, v = state.model.params, state.moments["m"], state.moments["v"]
    assert isinstance(weights, Split)
    assert isinstance(m, EightBit)
    assert isinstance(v, EightBit)
    settings = {
        "t": state.step + 1, "lr": lr * rule.lr, "betas": rule.betas, "eps": rule.eps, "decay": rule.decay,
        "scale": scale,
    }  # fmt: skip
    if name not in m.codes:
        kernels.adamw(weights.plain[name], gradient, m.plain[name], v.plain[name], **settings)
        return
    halves = weights.halves(name) if name in weights.high else None
    kernels.adamw8(
        weights.plain[name].view(-1) if halves is None else type(halves)(halves.high.view(-1), halves.low.view(-1)),
        gradient.view(-1), m.coded(name), v.coded(name), first=weights.layout.offsets[name], **settings,
    )  # fmt: skip
