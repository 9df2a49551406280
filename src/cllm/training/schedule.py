"""The learning rate as a pure function of the step.

Steps count from 0; `total` steps are made, so the last one is `total − 1`.

* Warm-up: with W = `warmup`, step s < W has rate lr·(s+1)/W. So step 0 has lr/W, never 0, and the peak
  k = max(W, 1) − 1 is the first step at the full rate.
* After the peak: the progress is p = (s − k)/(total − 1 − k), clamped to [0, 1]: 0 at the peak and 1 at the
  last step and for ever after. The rate is lr·(f + (1 − f)·g(p)) with the floor ratio f and

  ============  ====================================================================================
  cosine        g = ½(1 + cos πp)        (Loshchilov & Hutter 2017, without restarts)
  linear        g = 1 − p
  polynomial    g = (1 − p)^power
  constant      g = 1; the floor is not used
  step          rate lr·max(f, γ^⌊(s − k)/every⌋)
  exponential   rate lr·max(f, γ^(s − k)); without γ: lr·f^p, which needs f > 0
  wsd           warm-up, stable, decay (Hu et al. 2024): lr until the last round(decay·total) steps, at
                least one; over those, q = 1/n … n/n and g = 1 − q (linear), ½(1 + cos πq) (cosine) or
                1 − √q (sqrt; Hägele et al. 2024)
  ============  ====================================================================================

cosine, linear, polynomial and wsd, and exponential without γ, end exactly on lr·f at step total − 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from cllm.errors import ConfigError, closest

SHAPES = ("linear", "cosine", "sqrt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The settings of `lr_at`; checked when made (ConfigError).

    lr: the peak rate; warmup, total: in steps; floor: the end rate as a fraction of the peak, in [0, 1];
    gamma: factor in (0, 1] (step: each `every` steps; exponential: each step); power: polynomial, > 0;
    decay: the fraction of `total` that wsd decays over, in (0, 1]; shape: of wsd's decay.
    """

    name: str = "cosine"
    lr: float
    warmup: int = 0
    total: int
    floor: float = 0.1
    gamma: float | None = None
    every: int | None = None
    power: float = 1.0
    decay: float = 0.2
    shape: str = "linear"

    def __post_init__(self) -> None:
        def need(ok: bool, key: str, got: object, expected: str, hint: str = "") -> None:
            if not ok:
                raise ConfigError(f"{key}: expected {expected}, got {got!r}{hint}")

        need(
            self.name in SCHEDULES,
            "schedule.name",
            self.name,
            "one of " + ", ".join(SCHEDULES),
            closest(self.name, SCHEDULES),
        )
        need(math.isfinite(self.lr) and self.lr >= 0, "optim.lr", self.lr, "a finite number ≥ 0")
        need(self.total >= 1, "train.steps", self.total, "at least 1")
        need(self.warmup >= 0, "schedule.warmup", self.warmup, "a number of steps ≥ 0")
        need(0 <= self.floor <= 1, "schedule.floor", self.floor, "a fraction of the peak rate in [0, 1]")
        need(self.gamma is None or 0 < self.gamma <= 1, "schedule.gamma", self.gamma, "a factor in (0, 1]")
        need(self.every is None or self.every >= 1, "schedule.every", self.every, "a number of steps ≥ 1")
        need(math.isfinite(self.power) and self.power > 0, "schedule.power", self.power, "a number > 0")
        need(0 < self.decay <= 1, "schedule.decay", self.decay, "a fraction of the steps in (0, 1]")
        need(self.shape in SHAPES, "schedule.shape", self.shape, "one of " + ", ".join(SHAPES))
        if self.name == "step":
            need(
                self.gamma is not None and self.every is not None,
                "schedule.gamma, schedule.every",
                (self.gamma, self.every),
                "both, for the step schedule",
            )
        if self.name == "exponential":
            need(
                self.gamma is not None or self.floor > 0,
                "schedule.gamma",
                self.gamma,
                "a factor, or schedule.floor > 0 to decay to",
            )

    @property
    def peak(self) -> int:
        """The first step at the full rate."""
        return max(self.warmup, 1) - 1


def lr_at(schedule: Schedule, step: int) -> float:
    """The rate of optimiser step `step` ≥ 0 (float64 arithmetic; beyond the last step: the last rate)."""
    if step < schedule.peak:
        return schedule.lr * ((step + 1) / schedule.warmup)
    return schedule.lr * SCHEDULES[schedule.name](schedule, step)


def rates(schedule: Schedule) -> list[float]:
    """The rates of all `total` steps."""
    return [lr_at(schedule, step) for step in range(schedule.total)]


def _progress(schedule: Schedule, step: int) -> float:
    after, span = step - schedule.peak, schedule.total - 1 - schedule.peak
    return min(1.0, after / span) if span > 0 else float(after > 0)


def _between(floor: float, part: float) -> float:
    """floor + (1 − floor)·part, and exactly 1 where the rounded sum might miss it."""
    return 1.0 if part == 1 else min(1.0, floor + (1 - floor) * part)


def _half_cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def _cosine(schedule: Schedule, step: int) -> float:
    return _between(schedule.floor, _half_cosine(_progress(schedule, step)))


def _linear(schedule: Schedule, step: int) -> float:
    return _between(schedule.floor, 1 - _progress(schedule, step))


def _polynomial(schedule: Schedule, step: int) -> float:
    return _between(schedule.floor, float((1 - _progress(schedule, step)) ** schedule.power))


def _constant(schedule: Schedule, step: int) -> float:
    return 1.0


def _step(schedule: Schedule, step: int) -> float:
    assert schedule.gamma is not None
    assert schedule.every is not None
    return max(schedule.floor, float(schedule.gamma ** ((step - schedule.peak) // schedule.every)))


def _exponential(schedule: Schedule, step: int) -> float:
    if schedule.gamma is None:
        return float(schedule.floor ** _progress(schedule, step))
    return max(schedule.floor, float(schedule.gamma ** (step - schedule.peak)))


def _wsd(schedule: Schedule, step: int) -> float:
    length = max(1, round(schedule.decay * schedule.total))
    # A warm-up that reaches into the decay shortens the decay; the floor is still met at the last step.
    start = max(schedule.total - 1 - length, schedule.peak)
    span = schedule.total - 1 - start
    if step <= start:
        return 1.0
    done = min(1.0, (step - start) / span) if span > 0 else 1.0
    part = {"linear": 1 - done, "cosine": _half_cosine(done), "sqrt": 1 - math.sqrt(done)}[schedule.shape]
    return _between(schedule.floor, part)


SCHEDULES: dict[str, Callable[[Schedule, int], float]] = {
    "cosine": _cosine,
    "linear": _linear,
    "constant": _constant,
    "step": _step,
    "exponential": _exponential,
    "polynomial": _polynomial,
    "wsd": _wsd,
}
