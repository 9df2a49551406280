"""The learning-rate range test: the rate rises from step to step, geometrically, until the loss runs away.

L. N. Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017. The steps are real ones (the same
stepper as training, on the same rows, from the same initial weights), so clipping, decay and precision count.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from cllm.data.prepare import Prepared
from cllm.errors import UsageError
from cllm.training.chart import Chart, Series
from cllm.training.curve import MovingAverage
from cllm.training.state import State
from cllm.training.stepper import Stepper

RUNAWAY = 1.5  # times the lowest smoothed loss, or times the first: it has run away
FEWEST = 10

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class RangeTest:
    """What a range test found.

    lr, loss, smoothed: per step, the rate of its update and the loss behind it (of the next step's rows, nats a
    token; infinite where the step was not finite).  ended: "range" (all rates were tried), "runaway", "interrupted".
    steepest: the rate at which the smoothed loss falls fastest per factor of the rate.  lowest: the rate where it is
    lowest.  suggested: see `suggestion`; None when the loss never fell, or was interrupted while it fell.
    """

    lr: tuple[float, ...]
    loss: tuple[float, ...]
    smoothed: tuple[float, ...]
    ended: str
    steepest: float | None
    lowest: float | None
    suggested: float | None

    @property
    def still_falling(self) -> bool:
        """Whether the loss was lowest at the last rates tried: where it turns is not known."""
        return self.lowest is not None and self.ended != "runaway" and self.lowest >= 0.9 * self.lr[-1]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: infinite losses become None."""
        found = asdict(self)
        for key in ("loss", "smoothed"):
            found[key] = [value if math.isfinite(value) else None for value in found[key]]
        return found

    def chart(self, title: str) -> Chart:
        """The loss against the rate, the suggested rate marked."""
        first = next((v for v in self.smoothed if math.isfinite(v)), 1.0)
        marks = [] if self.suggested is None else [(self.suggested, f"suggested {self.suggested:.2g}")]
        said = "" if self.lowest is None else f"lowest at {self.lowest:.2g}"
        said += "" if self.steepest is None else f" · steepest at {self.steepest:.2g}"
        return Chart(
            [Series("loss", self.lr, self.loss, faint=True), Series("smoothed loss", self.lr, self.smoothed)],
            title,
            "learning rate (log scale)",
            "loss, nats per token",
            said,
            log_x=True,
            marks=marks,
            top=RUNAWAY * first,
        )


def check_range(low: float, high: float, steps: int) -> None:
    """Raises UsageError for a range that cannot be tested."""
    if not (math.isfinite(low) and math.isfinite(high) and 0 < low < high):
        raise UsageError(f"find-lr: --low {low:g} --high {high:g}: expected 0 < low < high")
    if not FEWEST <= steps <= 100_000:
        raise UsageError(f"find-lr: --steps {steps}: expected {FEWEST} to 100,000")


def range_test(
    state: State,
    data: Prepared,
    *,
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 100,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> RangeTest:
    """Train `state` (used up by this) with the rate rising from `low` to `high` over `steps` steps.

    stop: asked before each step. Raises UsageError for an impossible range, DataError for too little text.
    """
    check_range(low, high, steps)
    stepper = Stepper(state, data.train, fused=False)  # the rate is decided behind the gradients
    average = MovingAverage(max(1.0, steps / 40))
    rates: list[float] = []
    losses: list[float] = []
    smooth: list[float] = []
    first, ended = math.nan, "range"
    for i in range(steps + 1):  # one more: the last update's loss is that of the step behind it
        if stop():
            ended = "interrupted"
            break
        rate = low * (high / low) ** (i / (steps - 1)) if i < steps else 0.0
        norm = stepper.gradients(stepper.batches(state.position), state.step, rate)
        fine = stepper.finite(norm)
        loss = stepper.loss if fine else math.inf
        if i:
            losses.append(loss)
            smooth.append(average.add(loss) if fine else math.inf)
        else:
            first = loss
            average.add(loss)
        if progress is not None:
            progress(i, steps)
        runaway = smooth and smooth[-1] > RUNAWAY * min(first, *smooth)
        if not fine or runaway:
            ended = "runaway"
            break
        if i < steps:
            rates.append(rate)
            stepper.update(rate, norm)
    rates = rates[: len(losses)]
    steepest, lowest, suggested = suggestion(rates, smooth, first, _noise(losses))
    if ended == "interrupted" and lowest is not None and lowest >= 0.9 * rates[-1]:
        suggested = None  # the loss was still falling: nothing is known about where it turns
    return RangeTest(tuple(rates), tuple(losses), tuple(smooth), ended, steepest, lowest, suggested)


def _noise(losses: list[float]) -> float:
    """The spread of the loss from batch to batch, from the first quarter's differences of neighbours: the rates there
    are so low that hardly anything moves."""
    part = [v for v in losses[: max(2, len(losses) // 4)] if math.isfinite(v)]
    steps = [b - a for a, b in pairwise(part)]
    return math.sqrt(sum(d * d for d in steps) / (2 * len(steps))) if steps else 0.0


def suggestion(
    rates: list[float], smoothed: list[float], first: float, noise: float = 0.0
) -> tuple[float | None, float | None, float | None]:
    """(steepest, lowest, suggested) of a finished test; None where the loss never fell from `first` by more than
    twice its noise from batch to batch.

    Suggested is half the geometric mean of the two, or the steepest if that is more: where the loss is still falling,
    with a margin to where it turns (docs/decisions/training.md has the trials).
    """
    usable = [(r, v) for r, v in zip(rates, smoothed, strict=True) if math.isfinite(v)]
    if len(usable) < FEWEST or min(v for _, v in usable) >= first - 2 * noise:
        return None, None, None
    end = min(range(len(usable)), key=lambda i: usable[i][1])
    lowest = usable[end][0]
    slopes = [(usable[i + 1][1] - usable[i - 1][1], usable[i][0]) for i in range(1, max(2, min(end, len(usable) - 1)))]
    steepest = min(slopes)[1]
    return steepest, lowest, max(steepest, math.sqrt(steepest * lowest) / 2)
