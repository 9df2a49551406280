"""The gradient noise scale: how large a batch still pays, measured on the way.

S. McCandlish, J. Kaplan, D. Amodei, "An Empirical Model of Large-Batch Training", 2018, appendix A.1. With a mean
gradient over n targets, E|g_n|² = |G|² + tr Σ / n. A step of several micro-batches has |g|² at two sizes, so both
unknowns can be had: B = tr Σ / |G|², in targets. Below B tokens a step, doubling the batch nearly halves the steps.

The estimates of one step are unbiased but wild; B is the quotient of their moving averages, kept in the state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cllm.model.step import Step
from cllm.training.optimiser import buffers
from cllm.training.state import State

NAME = "noise"
KEEP = 0.98
"""Of the moving averages, per step: a memory of some 50 steps."""


def estimate(squares: Sequence[float], targets: Sequence[int], whole: float) -> tuple[float, float]:
    """(tr Σ, |G|²) from |mean gradient|² and targets of each micro-batch, and |mean gradient|² of the whole step.

    Unbiased also for unequal micro-batches. At least two of them, each with targets.
    """
    total, count = sum(targets), len(targets)
    small = math.fsum(squares) / count
    inverse = math.fsum(1 / n for n in targets) / count
    trace = (small - whole) / (inverse - 1 / total)
    return trace, whole - trace / total


def note(state: State, trace: float, square: float) -> float | None:
    """Take one step's estimates into the state's averages; the noise scale in targets, None where it is unknown."""
    s = state.statistics.setdefault(NAME, {"trace": 0.0, "square": 0.0})
    if not (math.isfinite(trace) and math.isfinite(square)):
        return None
    s["trace"] = KEEP * s["trace"] + (1 - KEEP) * trace
    s["square"] = KEEP * s["square"] + (1 - KEEP) * square
    return s["trace"] / s["square"] if s["square"] > 0 and s["trace"] > 0 else None


@dataclass
class Parts:
    """Watches a step's micro-batches: what each added to the gradient sums. Costs one buffer like the gradients'."""

    step: Step
    _before: list[Tensor] = field(default_factory=list)
    _valid: int = 0
    squares: list[float] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)

    def begin(self) -> None:
        """A step begins; its sums are zero."""
        if not self._before:
            self._before = [torch.zeros_like(part.data) for part in buffers(self.step.grads)]
        for before in self._before:
            before.zero_()
        self._valid, self.squares, self.targets = 0, [], []

    def behind_micro_batch(self) -> None:
        """The difference to the sums before is this micro-batch's. (Its rounding is the sums', far below the noise.)"""
        count, self._valid = self.step.sums.valid - self._valid, self.step.sums.valid
        square = 0.0
        for before, part in zip(self._before, buffers(self.step.grads), strict=True):
            before.sub_(part.data)
            square += self.step.kernels.sum_of_squares(before)
            before.copy_(part.data)
        if count:
            self.squares.append(square / count**2)
            self.targets.append(count)

    def estimate(self, norm: float) -> tuple[float, float] | None:
        """(tr Σ, |G|²) of the step whose gradient norm is `norm`; None with fewer than two micro-batches that count."""
        return estimate(self.squares, self.targets, norm**2) if len(self.targets) > 1 else None
