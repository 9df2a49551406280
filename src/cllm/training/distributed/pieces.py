"""The pieces of a training step, measured: what cost.py calculates with.

The processes of a machine share its memory's bandwidth and its clock, so the pieces of a rank are measured while as
many processes compute as the machine has cores for: contention is in the figures, not in a factor.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import torch
from torch import Tensor

from cllm import config as settings
from cllm.config import Config
from cllm.errors import ConfigError
from cllm.model.batch import Batch
from cllm.model.step import Step
from cllm.training.distributed import squares
from cllm.training.distributed.arrange import arrange, refuse_fused
from cllm.training.distributed.cost import Bucket, Pieces
from cllm.training.distributed.group import Group
from cllm.training.distributed.together import together
from cllm.training.optimiser import gradient_norm, update
from cllm.training.plan import device_of, make_step
from cllm.training.state import State

STEPS = 3


class Watch:
    """Notes when the backward begins (as a probe) and when it has completed which tensors (as a reducer)."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.begun, self.at = 0.0, dict[str, float]()

    def __call__(self, layer: int | None, name: str, value: Tensor) -> None:
        if name == "head backward":
            self.begun = now(self._device)

    def complete(self, *names: str) -> None:
        self.at |= dict.fromkeys(names, now(self._device))


def now(device: torch.device) -> float:
    """Seconds, when the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def measure(
    config: Config, rows: int, *, group: Group | None = None, beside: int | None = None, steps: int = STEPS
) -> Pieces:
    """The pieces of a step with micro-batches of `rows` rows of random tokens; medians of `steps` steps, the first one
    not counted. group: processes that begin each step together.  beside: how many of them compute (default: all); the
    others `wait`."""
    refuse_fused(config)
    config = settings.replace(config, {"train.batch": rows, "train.accumulate": 1})
    group = group or Group.alone()
    state = State.fresh(config, device_of(config))
    step = make_step(state, several=True)
    watch = Watch(state.model.device)
    step.reducer = watch
    generator = torch.Generator().manual_seed(group.rank)
    batch = Batch.of(torch.randint(config.model.vocab, (rows, step.sequence + 1), generator=generator))
    found: list[dict[str, float]] = []
    ready: list[dict[str, float]] = []
    for _ in range(steps + 1):
        group.barrier()
        times, shares = _one(state, step, watch, batch, config.optim.clip)
        found.append(times)
        ready.append(shares)
    median = {name: statistics.median(times[name] for times in found[1:]) for name in found[0]}
    done = {name: statistics.median(shares[name] for shares in ready[1:]) for name in ready[0]}
    buckets = tuple(
        Bucket(max(done.get(name, 1.0) for name in bucket.names), bucket.size * step.grads[bucket.names[0]].itemsize)
        for bucket in arrange(config, Group.alone()).plan.buckets
    )
    return Pieces(rows, **median, buckets=buckets, threads=torch.get_num_threads(), beside=beside or group.size)


def wait(group: Group, steps: int = STEPS) -> None:
    """What a process of the group does while others measure."""
    for _ in range(steps + 1):
        group.barrier()


def slowest(found: Sequence[Pieces]) -> Pieces:
    """Of the processes that measured side by side: all wait for it."""
    return max(found, key=lambda one: one.forward_s + one.backward_s + one.update_s)


def _one(
    state: State, step: Step, watch: Watch, batch: Batch, clip: float
) -> tuple[dict[str, float], dict[str, float]]:
    """(seconds of each piece, when each tensor was complete as a part of the backward)"""
    device, at = state.model.device, [0.0] * 7
    watch.at = {}
    at[0] = now(device)
    step.zero()
    at[1] = now(device)
    step.accumulate(batch, probe=watch)
    at[2] = now(device)
    norm = gradient_norm(step, clip)
    at[3] = now(device)
    update(state, step, step.kernels, 0.0, norm)
    at[4] = now(device)
    squares.total(gradient.view(-1) for gradient in step.grads.values())
    at[5] = now(device)
    state.model.written()
    at[6] = now(device)
    clear, _, normed, updated, squared, written = (b - a for a, b in pairwise(at))
    backward = at[2] - watch.begun
    times = {
        "forward_s": watch.begun - at[1], "backward_s": backward, "clear_s": clear, "norm_s": normed,
        "update_s": updated, "squares_s": squared, "written_s": written,
    }  # fmt: skip
    return times, {name: (when - watch.begun) / backward for name, when in watch.at.items()}


def measure_beside(config: Config, rows: int, processes: int, threads: int, *, steps: int = STEPS) -> Pieces:
    """The pieces of the slowest of `processes` processes of `threads` threads that compute at the same time."""
    if device_of(config).type != "cpu":
        raise ConfigError("processes side by side share cores only on a CPU; on GPUs each has a device of its own")
    found = together(_measured, processes, settings.to_dict(config), rows, steps, threads=threads)
    return slowest([msgspec.convert(one, Pieces) for one in found])


def _measured(group: Group, config: dict[str, Any], rows: int, steps: int) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(measure(settings.load(base=config), rows, group=group, steps=steps))
    return found
