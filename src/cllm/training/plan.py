"""From a configuration to the numbers that must be known before step 0: sizes, steps, cadence."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from cllm import config as settings
from cllm.config import Config
from cllm.model.layout import flops_per_token
from cllm.model.step import Step
from cllm.training.schedule import Schedule
from cllm.training.state import State

DEFAULT_MINUTES = 5.0
RESERVE = 0.04  # of the time, for checkpoints, samples and a machine that slows down
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
    step = make_step(state)
    parts = state.bytes_by_part | step.bytes_by_part
    sequence = config.train.sequence or config.model.context
    return Size(state.model.layout.parameters, parts, flops_per_token(config.model, sequence))


def make_step(state: State) -> Step:
    """The step of a state's configuration."""
    c = state.config
    return Step(
        state.model,
        c.train.batch,
        c.train.sequence or c.model.context,
        label_smoothing=c.train.label_smoothing,
        document_mask=c.data.document_mask,
    )


def steps_for(minutes: float, one_step: Callable[[], None], one_evaluation: Callable[[], None]) -> int:
    """How many steps fit into `minutes`: steps and one evaluation are timed, some time is kept in reserve.

    The first step is not counted (first calls are slow); the median of the others is.
    """
    one_step()
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < 3 or (len(times) < TIMED_STEPS and time.perf_counter() - begin < TIMED_SECONDS):
        start = time.perf_counter()
        one_step()
        times.append(time.perf_counter() - start)
    start = time.perf_counter()
    one_evaluation()
    evaluation = (time.perf_counter() - start) * EVALUATIONS
    seconds = minutes * 60 * (1 - RESERVE) - evaluation - (time.perf_counter() - begin)
    return max(1, int(seconds / sorted(times)[len(times) // 2]))


EVALUATIONS = 20  # of a run, by default


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
            "train.eval_rows": some(t.eval_rows, 4 * t.batch),
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
