"""From a configuration to the numbers that must be known before step 0: sizes, steps, cadence."""

from __future__ import annotations

import contextlib
import ctypes
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from cllm import config as settings
from cllm.config import Config
from cllm.engine.buffers import Flat
from cllm.engine.compact import Mixed, Split
from cllm.engine.dispatch import select
from cllm.engine.precision import accumulation
from cllm.engine.rounded import SLAB, rounding
from cllm.errors import ConfigError
from cllm.model.batch import Batch
from cllm.model.layout import MATRIX, flops_per_token
from cllm.model.step import FEW_HEAD_ROWS, HEAD_ROWS, Step
from cllm.training.fused import Fused
from cllm.training.optimiser import gradient_norm, update
from cllm.training.schedule import Schedule
from cllm.training.state import DTYPES, State

DEFAULT_MINUTES = 5.0
EVALUATIONS = 20  # of a run, by default
RESERVE = 0.04  # of the time, for checkpoints, samples and a machine that slows down
M_MMAP_THRESHOLD, LARGE = -3, 4 << 20  # of mallopt(3): bytes; fixed, so that it does not grow to 32 MB by itself
TIMED_STEPS, TIMED_SECONDS = 12, 6.0


@dataclass(frozen=True)
class Size:
    """Parameters, bytes by part, and floating-point operations of a training token (forward and backward)."""

    parameters: int
    bytes_by_part: dict[str, int]
    flops_per_token: int

    @property
    def total_bytes(self) -> int:
        return sum(self.bytes_by_part.values())


def size(config: Config) -> Size:
    """What training this configuration allocates, without allocating it (the same code on the "meta" device)."""
    state = State.fresh(config, "meta")
    step = make_step(state, fused=True)
    parts = state.bytes_by_part | step.bytes_by_part
    if config.log.noise_scale:
        parts["noise scale"] = parts["gradients"]
    if config.checkpoint.background:
        parts["checkpoint copy"] = sum(state.bytes_by_part.values())  # while one is being written
    sequence = config.train.sequence or config.model.context
    return Size(state.model.layout.parameters, parts, flops_per_token(config.model, sequence))


@dataclass(frozen=True)
class Speed:
    """Measured on throw-away steps of random tokens: seconds a step (median), tokens a second."""

    seconds: float
    tokens_per_s: float


def measure(config: Config, steps: int = 3) -> Speed:
    """Time whole training steps (forward, backward, clip, update), the first one not counted."""
    state = State.fresh(config, device_of(config))
    step = make_step(state, fused=True)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(config.model.vocab, (config.train.batch, step.sequence + 1), generator=generator)
    times: list[float] = []
    for _ in range(steps + 1):
        begin = time.perf_counter()
        if step.sink is not None:
            step.sink.arm(0.0)
        step.zero()
        for part in range(config.train.accumulate):
            step.accumulate(Batch.of(rows, first_row=part * config.train.batch))
        update(state, step, step.kernels, 0.0, gradient_norm(step, config.optim.clip))
        times.append(time.perf_counter() - begin)
    median = statistics.median(times[1:])
    return Speed(median, step.sums.valid / median)


def largest_batch(config: Config, memory: int) -> int:
    """The largest micro-batch whose training fits `memory` bytes (0: not even one row does)."""

    def fits(batch: int) -> bool:
        return size(settings.replace(config, {"train.batch": batch})).total_bytes <= memory

    if not fits(1):
        return 0
    low, high = 1, 2
    while high <= 2**14 and fits(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def checkpoint_bytes(config: Config) -> int:
    """About the size of one checkpoint: weights, moments, moving average, without padding and headers."""
    each = size(config).parameters * accumulation(DTYPES[config.precision]).itemsize
    copies = 1 + (2 if config.optim.name == "adamw" else 1) + (1 if config.optim.ema else 0)
    return each * copies


def memory_of(device: torch.device) -> int:
    """Bytes of memory that the device has in all."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def device_of(config: Config) -> torch.device:
    """The device asked for; "auto" takes CUDA where there is one."""
    if config.device == "cuda" and not torch.cuda.is_available():
        why = "sees no CUDA device" if torch.version.cuda else "is built without CUDA (pytorch.org has one with it)"
        raise ConfigError(f"device: got cuda, but this PyTorch ({torch.__version__}) {why}; use device=cpu or auto")
    return torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")


def make_step(
    state: State,
    *,
    fused: bool = False,
    rows: int | None = None,
    several: bool = False,
    grads: Flat | Mixed | None = None,
) -> Step:
    """The step of a state's configuration, with the gradient buffers of its memory mode.

    fused: with that mode's updates inside the backward, when the configuration asks for them. Without, such a step
    keeps its gradients like a lean one: to look at them, not to train.  rows: of the largest micro-batch (default:
    `train.batch`).  several: its gradients are summed with others: of further micro-batches, or of other ranks.  grads:
    the buffers to use for them, float32 or float64.
    """
    c, model = state.config, state.model
    kernels = select(model.operand, c.model.activation, model.device)
    sink, scratch = None, None
    if isinstance(model.params, Split) and grads is None:
        if fused and c.memory == "fused":
            sink = Fused(state, kernels)
        else:
            wide = torch.float32 if several or c.train.accumulate > 1 else torch.bfloat16
            matrices = Flat(model.layout.only(lambda entry: entry.group == MATRIX), wide, model.device)
            vectors = Flat(model.layout.only(lambda entry: entry.group != MATRIX), torch.float32, model.device)
            grads = Mixed(model.layout, (matrices, vectors))
        if sink is not None or wide == torch.bfloat16:
            if not kernels.narrow_gradients:
                matrix = max(
                    (entry for entry in model.layout.entries if entry.group == MATRIX), key=lambda entry: entry.size
                )
                scratch = torch.empty(
                    min(max(SLAB, matrix.shape[1]), matrix.size), dtype=torch.float32, device=model.device
                )
            kernels = rounding(kernels, scratch)
    step = Step(
        model,
        rows or c.train.batch,
        c.train.sequence or c.model.context,
        label_smoothing=c.train.label_smoothing,
        document_mask=c.data.document_mask,
        recompute=c.train.recompute,
        kernels=kernels,
        grads=grads,
        sink=sink,
        head_rows=HEAD_ROWS if c.memory == "standard" else FEW_HEAD_ROWS,
    )
    if model.device.type != "meta":
        return_memory()
    if scratch is not None:
        step.acts.arena.bytes_by_part["gradients in the making"] = scratch.numel() * scratch.element_size()
    return step


def return_memory() -> None:
    """Give the heap's free pages back to the system: drawing or loading weights leaves tens of megabytes behind that
    training would otherwise carry along. From now on, large blocks come from the system and go back to it at once.
    Where the C library is not glibc, nothing happens."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):
            libc = ctypes.CDLL(None)
            libc.mallopt(M_MMAP_THRESHOLD, LARGE)
            libc.malloc_trim(0)


def steps_for(
    minutes: float,
    one_step: Callable[[], None],
    one_evaluation: Callable[[], None],
    evaluations: float,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """How many steps fit into `minutes`: steps and one evaluation are timed, so many evaluations and some reserve are
    taken off. clock: the same on all ranks that make the steps together.

    The first step is not counted (first calls are slow); the median of the others is.
    """
    one_step()
    times: list[float] = []
    begin = start = clock()
    while len(times) < 3 or (len(times) < TIMED_STEPS and start - begin < TIMED_SECONDS):
        one_step()
        end = clock()
        times.append(end - start)
        start = end
    one_evaluation()
    end = clock()
    evaluation = (end - start) * evaluations
    seconds = minutes * 60 * (1 - RESERVE) - evaluation - (end - begin)
    return max(1, int(seconds / sorted(times)[len(times) // 2]))


def evaluation_rows(config: Config) -> int:
    """Validation rows scored on the way: `train.eval_rows`, or four micro-batches."""
    return config.train.eval_rows or 4 * config.train.batch


def settle(config: Config, steps: int) -> Config:
    """Fix `train.steps` and every cadence that was left open, so that nothing depends on the clock any more."""

    def some(value: int | None, default: int) -> int:
        return default if value is None else value

    t, every = config.train, max(10, -(-steps // EVALUATIONS))
    return settings.replace(
        config,
        {
            "train.steps": steps,
            "train.eval_every": some(t.eval_every, every),
            "train.sample_every": some(t.sample_every, max(10, steps // 5)),
            "train.eval_rows": evaluation_rows(config),
            "schedule.warmup": some(config.schedule.warmup, min(500, steps // 20)),
            "checkpoint.every": some(config.checkpoint.every, max(10, steps // 10)),
        },
    )


def schedule_of(config: Config) -> Schedule:
    """The learning-rate schedule of a settled configuration."""
    s = config.schedule
    return Schedule(
        name=s.name,
        lr=config.optim.lr,
        warmup=s.warmup or 0,
        total=max(1, config.train.steps or 1),
        floor=s.floor,
        gamma=s.gamma,
        every=s.every,
        power=s.power,
        decay=s.decay,
        shape=s.shape,
    )
