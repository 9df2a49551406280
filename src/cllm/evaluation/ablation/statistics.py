"""Paired comparison over seeds: mean difference, its confidence interval, and what may be said of it.

Two cells trained with the same seeds see the same text in the same order, so their losses are compared pair by pair:
d_s = loss(cell, s) − loss(baseline, s). With n pairs, mean d̄ and standard deviation sd, the interval
d̄ ± t(1 − α/2m, n − 1)·sd/√n holds the true difference with confidence 1 − α for all m comparisons of the study together
(Student 1908; the α/m is Bonferroni's). It assumes that the differences of the pairs are independent and near
normal, which n of 5 can hardly check: the pairs themselves are in the results.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from cllm.errors import DomainError


@dataclass(frozen=True)
class Comparison:
    """A cell against the baseline, in the unit of the losses. n: pairs; low, high: the interval (nan for n < 2)."""

    name: str
    n: int
    mean: float
    low: float
    high: float
    differences: tuple[float, ...]

    @property
    def verdict(self) -> str:
        """ "lower", "higher", or "no difference shown"."""
        if self.high < 0:
            return "lower"
        if self.low > 0:
            return "higher"
        return "no difference shown"

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "pairs": self.n,
            "mean_difference": self.mean,
            "low": self.low,
            "high": self.high,
            "differences": list(self.differences),
            "verdict": self.verdict,
        }


def compare(
    name: str, cell: Mapping[int, float], baseline: Mapping[int, float], *, alpha: float = 0.05, comparisons: int = 1
) -> Comparison:
    """Losses by seed of a cell and of the baseline; seeds that only one of them has are left out.

    alpha: chance of a wrong "difference shown" anywhere among the `comparisons` of the study.
    """
    seeds = sorted(cell.keys() & baseline.keys())
    d = tuple(cell[s] - baseline[s] for s in seeds)
    if not d:
        return Comparison(name, 0, math.nan, math.nan, math.nan, d)
    if len(d) < 2:
        return Comparison(name, 1, d[0], math.nan, math.nan, d)
    half = student_quantile(1 - alpha / (2 * comparisons), len(d) - 1) * stdev(d) / math.sqrt(len(d))
    return Comparison(name, len(d), mean(d), mean(d) - half, mean(d) + half, d)


def interval(values: Sequence[float], alpha: float = 0.05) -> tuple[float, float]:
    """Mean and half width of its (1 − α) confidence interval (nan for one value)."""
    if len(values) < 2:
        return (mean(values) if values else math.nan), math.nan
    return mean(values), student_quantile(1 - alpha / 2, len(values) - 1) * stdev(values) / math.sqrt(len(values))


def student_quantile(p: float, degrees: int) -> float:
    """The t with P(T ≤ t) = p for Student's distribution with `degrees` ≥ 1 degrees of freedom, 1/2 ≤ p < 1.

    P(T > t) = ½·I_x(ν/2, ½) with x = ν/(ν + t²), I the regularised incomplete beta function, which FLINT encloses; the
    quantile is bracketed and halved until the bracket is at most a few last digits wide.
    """
    if not 0.5 <= p < 1 or degrees < 1:
        raise DomainError(f"student_quantile: got p = {p}, degrees = {degrees}; expected 1/2 <= p < 1 and degrees >= 1")
    from flint import arb

    if p == 0.5:
        return 0.0  # the distribution is symmetric
    nu, tail = arb(degrees), 1 - arb(p)

    def above(t: float) -> bool:
        """Whether more than 1 − p of the distribution lies above t."""
        x = nu / (nu + arb(t) ** 2)
        return bool((x.beta_lower(nu / 2, arb(1) / 2, regularized=True) / 2 - tail).mid() > 0)

    low, high = 0.0, 1.0
    while above(high):
        low, high = high, 2 * high
    while high - low > 1e-13 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if above(middle) else (low, middle)
    return (low + high) / 2
