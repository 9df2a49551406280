"""Loss spikes: a step whose loss or gradient norm lies far above its moving average.

Two policies. `skip`: the update is left out (the step counts, its rows are used up). `rollback`: back to the newest
checkpoint of the regular cadence, and on from there with the rows *behind* the spike (Chowdhery et al., "PaLM", 2022,
section 5.1). The judgement is a pure function of the state, whose `statistics` hold the moving averages, so a resumed
run decides as an uninterrupted one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from cllm.config import GuardConfig
from cllm.errors import CorruptError
from cllm.training import checkpoint
from cllm.training.checkpoint import Checkpoint
from cllm.training.state import State

NAME = "spikes"
_FIGURES = ("loss", "grad_norm")


@dataclass(frozen=True)
class Spike:
    """A leap. by: "loss" or "grad_norm"; value, mean and deviation of it; z = (value − mean)/deviation.

    level: it is the last of too many in a row, so it is taken for a new level and not for a spike.
    """

    by: str
    value: float
    mean: float
    deviation: float
    z: float
    in_row: int
    level: bool

    def to_dict(self) -> dict[str, float | str | int]:
        """For the log."""
        return {
            "by": self.by,
            "value": self.value,
            "mean": self.mean,
            "deviation": self.deviation,
            "z": round(self.z, 2),
            "in_row": self.in_row,
        }

    def __str__(self) -> str:
        name = self.by.replace("grad_norm", "gradient norm")
        return f"{name} {self.value:.4g} is {self.z:.1f} standard deviations above its average {self.mean:.4g}"


def judge(state: State, loss: float, grad_norm: float) -> Spike | None:
    """Whether the step behind `state.step` is a spike; its figures join the statistics when it is not.

    Both figures are finite. Nothing is judged before `guard.window` steps are in the statistics.
    """
    policy = state.config.guard
    if policy.spikes == "off":
        return None
    figures = {"loss": loss, "grad_norm": grad_norm}
    s = state.statistics.setdefault(NAME, _start())
    worst: Spike | None = None
    if s["seen"] >= policy.window:
        for name in _watched(policy):
            deviation = math.sqrt(s[f"{name}_variance"])
            z = (figures[name] - s[f"{name}_mean"]) / deviation if deviation > 0 else 0.0
            if z > policy.z and (worst is None or z > worst.z):
                row = int(s["in_row"]) + 1
                worst = Spike(name, figures[name], s[f"{name}_mean"], deviation, z, row, row > policy.most)
    if worst is not None and not worst.level:
        s["in_row"] += 1
        s["spikes"] += 1
        s["last"] = max(s["last"], state.step)
        return worst
    if worst is not None:
        state.statistics[NAME] = s = _start() | {"spikes": s["spikes"]}
    _take(s, figures, policy.window)
    if state.step > s["last"]:
        s["in_row"] = 0
    return worst


def _watched(policy: GuardConfig) -> tuple[str, ...]:
    return _FIGURES if policy.by == "either" else (policy.by,)


def _start() -> dict[str, float]:
    zero = {f"{name}_{part}": 0.0 for name in _FIGURES for part in ("mean", "variance")}
    return {"seen": 0, "in_row": 0, "spikes": 0, "last": -1, **zero}


def _take(s: dict[str, float], figures: dict[str, float], window: int) -> None:
    """Exponentially weighted mean and variance (West 1979), with the plain ones until `window` values are in."""
    s["seen"] = min(s["seen"] + 1, window)
    weight = 1.0 / s["seen"]
    for name, value in figures.items():
        step = value - s[f"{name}_mean"]
        s[f"{name}_mean"] += weight * step
        s[f"{name}_variance"] = (1.0 - weight) * (s[f"{name}_variance"] + weight * step * step)


def rollback_step(step: int, every: int) -> int:
    """The step of the checkpoint to go back to: the newest of the regular cadence. (Those saved for a better validation
    loss or at an interruption do not count: an interruption must not change the course.)"""
    return step - step % every if every else 0


def rollback_checkpoint(run_dir: Path, target: int) -> Checkpoint:
    """The checkpoint of that step; the newest before it when it is gone or damaged. Raises RunError, CorruptError."""
    names = [name for name in checkpoint.list_checkpoints(run_dir) if name <= checkpoint.checkpoint_name(target)]
    for name in reversed(names[1:]):
        try:
            return checkpoint.load(run_dir, name)
        except CorruptError:
            continue
    return checkpoint.load(run_dir, names[0] if names else checkpoint.checkpoint_name(target))
