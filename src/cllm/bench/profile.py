"""`cllm bench profile`: where the time of a training step goes, kernel by kernel, beside what the machine could do.

Each kernel of the step is timed where it is called, over many steps; a kernel's figure is the least sum over the calls
of one step. Its limit is the longer of two times: its floating-point operations at the register-loop peak of the
precision, and the bytes that it must read and write, once each, at the memory's copying speed. Data that is still in
a cache makes a kernel faster than the second; such a fraction is above 100 %.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cllm import config as settings
from cllm.bench.machine import limits, peak_gflops
from cllm.bench.measure import Table
from cllm.bench.train_step import CLIP, LR, tokens
from cllm.engine.dispatch import Kernels, select
from cllm.model.batch import Batch
from cllm.model.layout import flops_per_token
from cllm.model.step import Step
from cllm.training.optimiser import gradient_norm, update
from cllm.training.state import State

NOT_TIMED = {"name", "attention_scratch", "rope", "add_rounded", "scatter_rounded", "narrow_gradients"}


def _bytes(*tensors: Any) -> int:
    return sum(x.numel() * x.element_size() for x in tensors if isinstance(x, Tensor))


def cost(kernel: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, int]:
    """(floating-point operations of the products, bytes read and written) of one call."""
    if kernel.startswith("linear"):
        a, b = args[0], args[1]
        n = a.shape[0]
        inner, outer = (b.shape[1], a.shape[1]) if kernel == "linear_backward_weight" else (b.shape[0], b.shape[1])
        adds = kernel == "linear_backward_weight" and kwargs.get("add", True)
        twice = args[2:4] if adds else ()  # += reads them, too
        return 2 * n * inner * outer, _bytes(*args) + _bytes(*twice)
    if kernel in ("attention_forward", "attention_backward"):
        lse = args[2] if kernel == "attention_forward" else args[3]
        b, h, t = lse.shape
        width = (args[1] if kernel == "attention_forward" else args[0]).shape[1] // h
        pairs = b * h * t * (t + 1) // 2
        return (4 if kernel == "attention_forward" else 10) * pairs * width, _bytes(*args)
    if kernel == "layernorm_backward":
        return 0, _bytes(*args) + _bytes(args[5])
    if kernel == "embedding_forward":
        e, x = args[2], args[4]
        return 0, _bytes(args[0], args[3], x) + x.numel() * e.element_size()
    if kernel == "embedding_backward":
        return 0, 3 * _bytes(args[0]) + 2 * _bytes(args[4][: args[1].shape[1]])
    if kernel == "adamw":
        return 0, 2 * _bytes(args[0], args[2], args[3]) + _bytes(args[1], kwargs.get("shadow"))
    return 0, _bytes(*args)


class Clock:
    """Kernels that note each call's time and cost: `kernels` goes into a `Step`; `sums` per kernel of this step."""

    def __init__(self, plain: Kernels) -> None:
        self.sums: dict[str, list[float]] = {}  # seconds, calls, operations, bytes
        timed: dict[str, Any] = {
            field.name: self._timed(field.name, getattr(plain, field.name))
            for field in dataclasses.fields(plain)
            if field.name not in NOT_TIMED and getattr(plain, field.name) is not None
        }
        self.kernels = dataclasses.replace(plain, **timed)

    def _timed(self, name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = run(*args, **kwargs)
            self.note(name, time.perf_counter() - start, *cost(name, args, kwargs))
            return result

        return call

    def note(self, name: str, seconds: float, operations: int, moved: int) -> None:
        """Add one call."""
        entry = self.sums.setdefault(name, [0.0, 0, 0, 0])
        for i, value in enumerate((seconds, 1, operations, moved)):
            entry[i] += value


def run(preset: str, *, batch: int, sequence: int, precision: str, rounds: int) -> Table:
    """One row for each kernel of a whole step, the longest first."""
    asked = {"train.batch": batch, "train.sequence": sequence, "precision": precision}
    config = settings.load(preset=preset, overrides=asked)
    state = State.fresh(config)
    model = state.model
    clock = Clock(select(model.operand, config.model.activation, model.device))
    step = Step(model, batch, sequence, kernels=clock.kernels)
    rows = Batch.of(tokens(config))
    vectors = sum(g.nbytes for name, g in step.grads.items() if name not in step.products)
    least: dict[str, list[float]] = {}  # of the shortest step
    whole = float("inf")
    for number in range(rounds + 2):
        clock.sums.clear()
        begin = time.perf_counter()
        step.zero()
        clock.note("zero the gradients", time.perf_counter() - begin, 0, vectors)
        step.accumulate(rows)
        update(state, step, step.kernels, LR, gradient_norm(step, CLIP))
        took = time.perf_counter() - begin
        if number >= 2 and took < whole:  # first calls are slow
            whole, least = took, {name: list(entry) for name, entry in clock.sums.items()}
    measured = limits()
    peak, speed = peak_gflops(measured, precision) * 1e9, measured["copy_gb_s"] * 1e9
    table = Table(
        f"profile-{preset}-{precision}-b{batch}-t{sequence}",
        f"one training step of {preset}, batch {batch}, T = {sequence}, {step.kernels.name}, "
        f"{torch.get_num_threads()} threads: {1e3 * whole:.1f} ms",
        facts=dict(measured),
    )
    for name, (seconds, calls, operations, moved) in sorted(least.items(), key=lambda item: -item[1][0]):
        floor = max(operations / peak, moved / speed)
        table.add(
            name,
            ms=1e3 * seconds,
            step_fraction=seconds / whole,
            calls=int(calls),
            gflop=operations / 1e9,
            mb=moved / 1e6,
            limit_ms=1e3 * floor,
            limit_fraction=floor / seconds,
        )
    known = sum(entry[0] for entry in least.values())
    table.add("between the kernels", ms=1e3 * (whole - known), step_fraction=1 - known / whole)
    work = flops_per_token(config.model, sequence) * batch * sequence
    table.facts["the step"] = f"{1e3 * whole:.1f} ms, {100 * work / whole / peak:.1f} % of the {precision} peak"
    table.notes.append(
        "Times are those of the shortest step. The kernels' calls are timed in it, which lengthens it a little."
    )
    table.notes.append("limit: the longer of operations at the peak and bytes at the copying speed, each counted once.")
    return table
