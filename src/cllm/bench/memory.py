"""`cllm bench memory`: what each memory mode takes, as planned, as allocated and as the system sees it; and its time.

Each configuration is measured in a process of its own. planned: `cllm plan`'s figure. allocated: the storages that are
reachable from the state and its step. resident: growth of the resident memory from a process that has made the same
kind of step at the smallest size (so that libraries and thread stacks are there) to one that trains.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cllm import config as settings
from cllm.bench.machine import peak_rss_bytes, rss_bytes
from cllm.bench.measure import Table, interleave, ratio
from cllm.model.batch import Batch
from cllm.training.optimiser import gradient_norm, update
from cllm.training.plan import make_step, return_memory, size
from cllm.training.state import State

STATE = ("weights", "moments", "gradients", "gradients in the making")  # what a memory mode is about
LR = 1e-4
STEPS = 4

ROWS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "bf16": {"precision": "bf16"},
    "bf16, lean": {"precision": "bf16", "memory": "lean"},
    "bf16, lean, accumulating": {"precision": "bf16", "memory": "lean", "train.accumulate": 2},
    "bf16, fused": {"precision": "bf16", "memory": "fused", "optim.clip": 0.0},
    "bf16, lean, recompute": {"precision": "bf16", "memory": "lean", "train.recompute": "norms"},
    "bf16, lean, moving average": {"precision": "bf16", "memory": "lean", "optim.ema": 0.999},
}


def configuration(row: str, preset: str, batch: int, sequence: int) -> settings.Config:
    """One row's settings. Nothing is saved here, so no copy for a checkpoint is counted."""
    common = {"train.batch": batch, "train.sequence": sequence, "checkpoint.background": False}
    return settings.load(preset=preset, overrides=common | ROWS[row])


def one_step(config: settings.Config) -> tuple[State, Callable[[], float]]:
    """A whole training step in the configuration's memory mode, as a callable that returns the mean loss."""
    state = State.fresh(config)
    step = make_step(state, fused=True)
    generator = torch.Generator().manual_seed(0)
    shape = config.train.batch, step.sequence + 1
    batches = [
        Batch.of(torch.randint(config.model.vocab, shape, generator=generator), first_row=part * config.train.batch)
        for part in range(config.train.accumulate)
    ]

    def one() -> float:
        if step.sink is not None:
            step.sink.arm(LR)
        step.zero()
        for batch in batches:
            step.accumulate(batch)
        update(state, step, step.kernels, LR, gradient_norm(step, config.optim.clip))
        return step.sums.mean

    return state, one


def allocated_bytes(*roots: object) -> int:
    """Bytes of every tensor storage that is reachable from `roots`."""
    found: dict[int, int] = {}
    seen: set[int] = set()
    open_: list[object] = list(roots)
    while open_:
        item = open_.pop()
        if id(item) in seen or isinstance(item, type(sys)):
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            storage = item.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        elif not isinstance(item, type):
            open_ += gc.get_referents(item) if not callable(item) else _held(item)
    return sum(found.values())


def _held(item: Any) -> list[object]:
    """What a function closes over, a method belongs to, or an object that can be called holds."""
    cells = [cell.cell_contents for cell in getattr(item, "__closure__", None) or ()]
    return [*cells, getattr(item, "__self__", None), getattr(item, "__dict__", None)]


def measured(config: settings.Config) -> dict[str, float]:
    """Planned, allocated and resident bytes, in a process of its own."""
    code = (
        "import json, sys; from cllm.bench.memory import _measured; "
        "print(json.dumps(_measured(json.loads(sys.argv[1]))))"
    )
    told = json.dumps(settings.to_dict(config))
    done = subprocess.run([sys.executable, "-c", code, told], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measured(values: dict[str, Any]) -> dict[str, float]:
    config = settings.load(base=values)
    small = {"width": 64, "heads": 2, "ff": 256, "vocab": 64, "layers": 1, "context": 32}
    tiny = {f"model.{key}": value for key, value in small.items()} | {"train.batch": 1, "train.sequence": 32}
    _, warm = one_step(settings.replace(config, tiny))
    warm()
    del warm
    gc.collect()
    before = rss_bytes() or 0
    state, one = one_step(config)
    for i in range(STEPS):
        one()
        if i == 0:
            return_memory()  # as training does
    gc.collect()
    resident = (rss_bytes() or 0) - before
    planned = size(config)
    parts = planned.bytes_by_part
    return {
        "state": sum(parts.get(key, 0) for key in STATE),
        "planned": planned.total_bytes,
        "allocated": allocated_bytes(state, one),
        "resident": resident,
        "peak": peak_rss_bytes() or 0,
    }


def run(preset: str = "seed", *, batch: int = 8, sequence: int = 256, rounds: int = 7, timed: bool = True) -> Table:
    """One row a configuration: megabytes, and the time of a step beside bf16 with whole gradients."""
    table = Table("memory", f"memory of a training step: {preset}, batch {batch}, T = {sequence}")
    configs = {row: configuration(row, preset, batch, sequence) for row in ROWS}
    found = {row: measured(config) for row, config in configs.items()}
    times: dict[str, float] = {}
    if timed:
        names = ["bf16", "bf16, lean", "bf16, fused"]
        timings = interleave({name: one_step(configs[name])[1] for name in names}, rounds=rounds, warmup=2)
        times = {name: ratio(timings[name], timings["bf16"]).median for name in names}
        table.facts["bf16, ms a step"] = timings["bf16"].ms
    for row, figures in found.items():
        table.add(
            row,
            state_mb=figures["state"] / 1e6,
            planned_mb=figures["planned"] / 1e6,
            allocated_mb=figures["allocated"] / 1e6,
            resident_mb=figures["resident"] / 1e6,
            off_fraction=disagreement(figures),
            peak_rss_mb=figures["peak"] / 1e6,
            times_bf16=times.get(row),
        )
    worst = max(disagreement(figures) for figures in found.values())
    table.facts["largest disagreement of planned, allocated and resident"] = worst
    table.notes.append(
        "state: weights, gradients and the optimiser's state. off: largest difference between two of planned, "
        "allocated and resident. times_bf16: time of a step over that of bf16 with standard memory, paired by round."
    )
    return table


def disagreement(figures: dict[str, float]) -> float:
    """The largest difference between two of the three figures, over the planned one."""
    three = [figures[key] for key in ("planned", "allocated", "resident")]
    return (max(three) - min(three)) / figures["planned"]
