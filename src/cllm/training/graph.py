"""The whole optimiser step as work for the device alone, and on CUDA as one graph that is launched again and again.

`OnDevice.run` is forward, backward, global norm, clipping, AdamW and the moving average, over tensors that keep their
places. What differs from step to step (tokens, the rate, the number of the step) is read from tensors, and nothing in
it waits for the device: so it can be captured as a CUDA graph, and a whole step is one launch. It is the same step as
`training/optimiser.py` makes, op for op; where that decides on the host, this decides on the device:

- a loss or norm that is not finite makes the update, and every later one, into nothing until `release`;
- the figures of a step are copied to the host behind it; `Pending.result` waits for them, nothing before does.

Without CUDA `Graphed` runs the same work eagerly, which is how it is tested.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cllm.config import Config
from cllm.engine.adamw import factors
from cllm.engine.buffers import Flat
from cllm.engine.dropout import Key
from cllm.errors import RunError
from cllm.model.batch import Batch, derive, pad_rows
from cllm.model.step import Step
from cllm.training.groups import Rule, runs
from cllm.training.optimiser import Norm, buffers
from cllm.training.state import State

VARIABLE = "CLLM_CUDA_GRAPH"  # "off": steps on CUDA are made op by op, as elsewhere
WARM_UP = 3  # runs before the capture, in which kernels are compiled and libraries make their workspaces
SLOTS = 2  # steps under way: while one runs, the next one's rows are on their way


def why_not(config: Config) -> str:
    """Why a step of this configuration cannot be one graph; "" when it can."""
    m, o = config.model, config.optim
    reasons = {
        "memory = standard keeps all gradients and weights whole": config.memory != "standard",
        "optim.name = adamw has its numbers on the device": o.name != "adamw",
        "guard.spikes = off needs no judgement before the update": config.guard.spikes != "off",
        "log.noise_scale = false looks at no micro-batch by itself": config.log.noise_scale,
        "model.positions other than mix have their weights on the device": m.positions == "mix",
        "model.symmetry_bias that is not trained is a number of the host": m.symmetry_bias_trainable,
    }
    found = [reason for reason, holds in reasons.items() if holds]
    return f"one CUDA graph only where {'; '.join(found)}" if found else ""


@dataclass(frozen=True)
class Figures:
    """Of one step: sum of the losses in nats, valid targets, the norm, and whether the update was made."""

    loss: float
    valid: int
    norm: Norm
    updated: bool

    @property
    def mean(self) -> float:
        """Nats a token."""
        return self.loss / max(self.valid, 1)


class OnDevice:
    """The step of a state over tensors with fixed places.

    state: its weights, moments and moving average are updated; its counters are not.  step: `make_step` of it.
    Raises ValueError where `why_not` gives a reason.
    """

    def __init__(self, state: State, step: Step) -> None:
        if reason := why_not(state.config):
            raise ValueError(reason)
        self.state, self.step = state, step
        device, t = state.model.device, state.config.train
        shape = t.accumulate, step.batch, step.sequence + 1
        self.tokens_ABT1 = torch.zeros(shape, dtype=torch.int64, device=device)
        self.documents_ABT1 = torch.zeros(shape, dtype=torch.int64, device=device)
        self.rate = torch.zeros((), dtype=torch.float64, device=device)
        self.number = torch.zeros((), dtype=torch.int64, device=device)
        """Optimiser steps done before this one."""
        self.stopped = torch.zeros((), dtype=torch.bool, device=device)
        self.figures = torch.zeros(5, dtype=torch.float64, device=device)
        """Loss sum, valid targets, norm, clip factor, whether the update was made."""
        m = state.config.model
        self._drops = bool(m.dropout or m.attention_dropout)

    def run(self) -> None:
        """One step, from `tokens_ABT1`, `documents_ABT1`, `rate` and `number` to weights and `figures`."""
        c, step = self.state.config, self.step
        step.grads.zero_()
        loss, valid = torch.zeros_like(self.rate), torch.zeros_like(self.number)
        for i in range(c.train.accumulate):
            rows = Batch(self.tokens_ABT1[i], self.documents_ABT1[i])
            d = derive(rows, step.document_mask, self.rate.device, count=False)
            key = Key(c.seed, self.number, i * step.batch) if self._drops else None
            loss += step.passes(d, key).sum(dtype=torch.float64)
            valid += (d.targets_BT >= 0).sum()
        count = valid.clamp_min(1).double()
        squares = [step.kernels.squares_on_device(part.data) for part in buffers(step.grads)]
        norm = torch.stack(squares).sum().sqrt() / count
        clip = torch.ones_like(norm)
        if c.optim.clip:
            clip = torch.where(norm > 0, (c.optim.clip / norm).clamp_max(1.0), clip)
        finite = torch.isfinite(loss) & torch.isfinite(norm)
        go = finite & ~self.stopped
        self.stopped.copy_(~go)
        self._update(clip / count, go)
        self.figures.copy_(torch.stack((loss, valid.double(), norm, clip, go.double())))

    def _update(self, scale: Tensor, go: Tensor) -> None:
        state, step = self.state, self.step
        c, w, g = state.config.optim, state.model.params, step.grads
        assert isinstance(w, Flat)
        assert isinstance(g, Flat)
        if c.clip_value:
            g.data.mul_(scale).clamp_(-c.clip_value, c.clip_value)
            scale = torch.ones_like(scale)
        m, v = state.moments["m"], state.moments["v"]
        assert isinstance(m, Flat)
        assert isinstance(v, Flat)
        shadows = state.model.operands if state.model.operand != state.model.dtype else None
        assert shadows is None or isinstance(shadows, Flat)
        others = (m.layout, v.layout) if shadows is None else (m.layout, v.layout, shadows.layout)
        known: dict[Rule, Tensor] = {}
        for run in runs(state.config, w.layout, others):
            rule, ends = run.rule, (run.names[0], run.names[-1])
            if rule not in known:
                known[rule] = factors(scale, self.rate * rule.lr, self.number + 1, rule.decay, rule.betas, go)
            shadow = shadows.between(*ends) if shadows is not None and all(name in shadows for name in ends) else None
            step.kernels.adamw_on_device(
                w.between(*ends), g.between(*ends), m.between(*ends), v.between(*ends), known[rule],
                betas=rule.betas, eps=rule.eps, shadow=shadow,
            )  # fmt: skip
        if shadows is not None:
            state.model.rounded()
        if state.ema is not None:
            assert isinstance(state.ema, Flat)
            weight = 1.0 - ((1 + self.number) / (10 + self.number.double())).clamp_max(c.ema)
            torch.where(go, state.ema.data.lerp(w.data, weight.to(w.dtype)), state.ema.data, out=state.ema.data)


def captured(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """A call that launches on a CUDA device all that `work` does there; elsewhere `work` itself.

    `work` is run a few times first, and must make no difference then. Raises RunError where CUDA refuses.
    """
    if device.type != "cuda":
        return work
    try:
        return _captured(work, device)
    except RuntimeError as error:
        raise RunError(
            f"the step could not be captured as a CUDA graph: {error}\n{VARIABLE}=off makes it op by op"
        ) from error


def _captured(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    beside = torch.cuda.Stream(device)
    beside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(beside):
        for _ in range(WARM_UP):
            work()
    torch.cuda.current_stream(device).wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # a checkpoint's thread may copy meanwhile
        work()
    return graph.replay


class Slot:
    """Memory of the host for one step under way: its rows and numbers on the way in, its figures on the way out."""

    def __init__(self, work: OnDevice) -> None:
        cuda = work.rate.is_cuda
        self.tokens = torch.zeros(work.tokens_ABT1.shape, dtype=torch.int64, pin_memory=cuda)
        self.documents = torch.zeros(work.documents_ABT1.shape, dtype=torch.int64, pin_memory=cuda)
        self.rate = torch.zeros((), dtype=torch.float64, pin_memory=cuda)
        self.number = torch.zeros((), dtype=torch.int64, pin_memory=cuda)
        self.figures = torch.zeros(work.figures.shape, dtype=torch.float64, pin_memory=cuda)
        self._event = torch.cuda.Event() if cuda else None
        self._waits = False
        self.uses = 0

    def wait(self) -> None:
        """Until the device is through with the step that was launched from here."""
        if self._event is not None and self._waits:
            self._event.synchronize()
        self._waits = False

    def launched(self) -> None:
        """The step and all its copies are on their way."""
        if self._event is not None:
            self._event.record()
        self._waits, self.uses = True, self.uses + 1


class Pending:
    """A step that was launched."""

    def __init__(self, slot: Slot) -> None:
        self._slot, self._use = slot, slot.uses

    def result(self) -> Figures:
        """Its figures, as soon as the device has them. At most SLOTS − 1 more steps may have been launched since."""
        if self._slot.uses != self._use:
            raise ValueError(f"the figures of a step are kept until {SLOTS} more are launched")
        self._slot.wait()
        loss, valid, norm, clip, go = self._slot.figures.tolist()
        return Figures(loss, round(valid), Norm(norm, clip if math.isfinite(norm) else 1.0), bool(go))


class Graphed:
    """Whole steps of a state, each one launch.

    >>> from cllm.config import load
    >>> from cllm.training.plan import make_step
    >>> state = State.fresh(load(preset="nano", overrides={"train.batch": 2, "train.sequence": 8}))
    >>> steps = Graphed(state, make_step(state))
    >>> steps.launch([Batch.of(torch.arange(18).view(2, 9))], number=0, lr=1e-3).result().valid
    16
    """

    def __init__(self, state: State, step: Step) -> None:
        self.work = OnDevice(state, step)
        self._slots = [Slot(self.work) for _ in range(SLOTS)]
        self._next = 0
        device = state.model.device
        if device.type == "cuda":
            self._refresh()
            self.work.stopped.fill_(True)  # the runs before the capture must not change a weight
        self._replay = captured(self.work.run, device)
        self.release()

    def launch(self, batches: Sequence[Batch], *, number: int, lr: float) -> Pending:
        """Start one step. number: optimiser steps done before.  lr: the scheduled rate."""
        work, slot = self.work, self._slots[self._next]
        self._next = (self._next + 1) % SLOTS
        slot.wait()
        if len(batches) != len(slot.tokens):
            raise ValueError(f"{len(batches)} micro-batches; this step takes {len(slot.tokens)}")
        for i, batch in enumerate(batches):
            if batch.first_row != i * work.step.batch:
                raise ValueError(f"micro-batch {i} begins at row {batch.first_row}, not {i * work.step.batch}")
            rows = pad_rows(batch, work.step.batch)
            slot.tokens[i].copy_(rows.tokens_BT1)
            slot.documents[i].copy_(rows.documents_BT1)
        slot.rate.fill_(lr)
        slot.number.fill_(number)
        self._refresh()
        for there, here in (
            (work.tokens_ABT1, slot.tokens),
            (work.documents_ABT1, slot.documents),
            (work.rate, slot.rate),
            (work.number, slot.number),
        ):
            there.copy_(here, non_blocking=True)
        self._replay()
        slot.figures.copy_(work.figures, non_blocking=True)
        slot.launched()
        return Pending(slot)

    def release(self) -> None:
        """Allow updates again, behind a step that was not finite."""
        self.work.stopped.fill_(False)

    def _refresh(self) -> None:
        """The rounded copies of the matrices, where something else has written to the weights since."""
        _ = self.work.state.model.operands


def wanted(config: Config, device: torch.device) -> bool:
    """Whether steps of this configuration are made as graphs."""
    return device.type == "cuda" and os.environ.get(VARIABLE, "") != "off" and not why_not(config)


def graphed(state: State, step: Step) -> Graphed | None:
    """The steps of a state as graphs, where they are wanted."""
    return Graphed(state, step) if wanted(state.config, state.model.device) else None
