"""Curves of runs for the screen: every logged point counts, also where a pixel column holds thousands.

Runs in a process of its own (`studio.reader`), which keeps the logs it has read and reads on where they grew. Of the
points that share a pixel column the least and the largest are sent, so that no spike is lost; where there are few, all
are. The moving average is over all points, not over the columns.
"""

from __future__ import annotations

import bisect
import math
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cllm.errors import UsageError
from cllm.studio.store import EVENTS_FILE, whole_lines
from cllm.studio.summary import numbers
from cllm.training.events import Event

Floats = npt.NDArray[np.float64]
KEPT = 64  # runs whose logs are kept
BAD = 200  # non-finite values that are named one by one
CELLS = 20_000  # points of a metric over a metric: above, one a pixel


class Kind:
    """The events of one kind: step, seconds of training, tokens seen, and the metrics (NaN where one is missing)."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.seconds: list[float] = []
        self.tokens: list[float] = []
        self.values: dict[str, list[float]] = {}

    def add(self, step: int, seconds: float, tokens: float, found: list[tuple[str, float]]) -> None:
        if self.steps and self.steps[-1] >= step:
            self.cut(step - 1)
        count = len(self.steps)
        self.steps.append(step)
        self.seconds.append(seconds)
        self.tokens.append(tokens)
        for key, value in found:
            self.values.setdefault(key, [math.nan] * count).append(value)
        for values in self.values.values():
            if len(values) == count:
                values.append(math.nan)

    def cut(self, step: int) -> None:
        """Forget what belongs to steps after this one."""
        count = bisect.bisect_right(self.steps, step)
        del self.steps[count:]
        for values in (self.seconds, self.tokens, *self.values.values()):
            del values[count:]


class Log:
    """One run's log as columns, read on from where it was read before."""

    def __init__(self, path: Path) -> None:
        self.path, self._inode = path, -1
        self._clear()

    def _clear(self) -> None:
        self.cursor, self.kinds = 0, {"step": Kind(), "eval": Kind(), "final": Kind()}
        self._gone, self._last, self._tokens = 0.0, None, 0.0
        self._smooth: dict[tuple[str, float], tuple[list[float], float, float]] = {}

    _last: float | None

    def refresh(self) -> None:
        """Read what is new. A log that is shorter, or another file, is read from its beginning."""
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self.cursor:
                    self._clear()
                    self._inode = status.st_ino
                file.seek(self.cursor)
                data = file.read()
        except OSError:
            self._clear()
            return
        end = data.rfind(b"\n") + 1
        for event in whole_lines(data[:end]):
            self._take(event)
        self.cursor += end

    def _take(self, event: Event) -> None:
        kind, step, time = event["event"], event["step"], event.get("time")
        if kind == "start":
            cursor = self.cursor
            self._clear()
            self.cursor = cursor
        elif kind == "resume":
            for each in self.kinds.values():
                each.cut(step)
            self._smooth.clear()
            self._tokens = self.kinds["step"].tokens[-1] if self.kinds["step"].tokens else 0.0
            if isinstance(time, int | float) and self._last is not None and self.kinds["step"].seconds:
                # the time between is not training time, nor is that of the steps that are made again
                self._gone = time - self.kinds["step"].seconds[-1]
        if not isinstance(time, int | float):
            time = self._last or 0.0
        if self._last is None or kind == "start":
            self._gone = time
        self._last = time
        if kind in ("step", "eval"):
            if isinstance(tokens := event.get("tokens"), int | float) and kind == "step":
                self._tokens = float(tokens)
            name = "final" if event.get("whole") else kind
            self.kinds[name].add(step, max(0.0, time - self._gone), self._tokens, numbers(event))

    def smooth(self, metric: str, half_life: float) -> Floats:
        """The moving average of a metric at each of its kind's points (training/curve.py has the definition)."""
        kind, _, key = metric.partition(".")
        values = self.kinds[kind].values[key]
        done, total, weight = self._smooth.get((metric, half_life), ([], 0.0, 0.0))
        if len(done) > len(values):
            done, total, weight = [], 0.0, 0.0
        for point in range(len(done), len(values)):
            value = values[point]
            if math.isfinite(value):
                keep = 0.5 ** (1 / min(half_life, 1 + point / 10))
                total = keep * total + (1 - keep) * value
                weight = keep * weight + (1 - keep)
            done.append(total / weight if weight else math.nan)
        if len(self._smooth) > 64:
            self._smooth.clear()
        self._smooth[metric, half_life] = (done, total, weight)
        return np.array(done)

    def weights(self, metric: str, half_life: float) -> tuple[float, float]:
        """Where the moving average stands, to go on with it: its sum and its weight."""
        _, total, weight = self._smooth[metric, half_life]
        return total, weight


LOCK = threading.Lock()  # the process answers several calls at a time
_logs: OrderedDict[str, Log] = OrderedDict()


def half_life_for(points: int) -> float:
    """Of the moving average when none is asked for: shorter than in `loss.svg`, since one can zoom in here."""
    return min(50.0, max(2.0, points / 150))


def log_of(folder: str) -> Log:
    """The log of a run's folder, up to date (call it with LOCK held)."""
    log = _logs.pop(folder, None) or Log(Path(folder) / EVENTS_FILE)
    _logs[folder] = log
    while len(_logs) > KEPT:
        _logs.popitem(last=False)
    log.refresh()
    return log


def curves(
    folders: dict[str, str],
    metrics: list[str],
    x: str,
    low: float | None,
    high: float | None,
    width: int,
    log_x: bool,
    half_life: float | None,
) -> dict[str, Any]:
    """Curves of several runs.

    folders: run → folder.  metrics: as in "step.loss", "eval.loss", "final.loss".  x: step, tokens, time (seconds of
    training) or a metric.  low, high: the part of the axis that is shown, None for all.  width: pixel columns.
    half_life: of the moving average, in points; None: by the number of points.

    For each run and metric `{"points": n, "x": […], "y": […], "ema": […]}`, or with "low" and "high" in place of "y"
    where columns hold several points; "bad": places of values that are not finite; "state": to go on with the average.
    """
    with LOCK:
        return _curves(folders, metrics, x, low, high, width, log_x, half_life)


def _curves(
    folders: dict[str, str],
    metrics: list[str],
    x: str,
    low: float | None,
    high: float | None,
    width: int,
    log_x: bool,
    half_life: float | None,
) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    for run, folder in folders.items():
        log = log_of(folder)
        found: dict[str, Any] = {}
        for metric in metrics:
            kind, _, key = metric.partition(".")
            if kind not in log.kinds:
                raise UsageError(f"metric {metric}: expected step., eval. or final. and a name")
            if key in log.kinds[kind].values:
                found[metric] = _curve(log, metric, x, low, high, width, log_x, half_life)
        answer[run] = {
            "cursor": log.cursor,
            "metrics": found,
            "known": [f"{name}.{key}" for name, kind_ in log.kinds.items() for key in kind_.values],
        }
    return answer


def _curve(
    log: Log,
    metric: str,
    x: str,
    low: float | None,
    high: float | None,
    width: int,
    log_x: bool,
    half_life: float | None,
) -> dict[str, Any]:
    name, _, key = metric.partition(".")
    kind = log.kinds[name]
    y = np.array(kind.values[key])
    half = half_life if half_life is not None else half_life_for(len(y))
    ema = log.smooth(metric, half)
    total, weight = log.weights(metric, half)
    at = _places(log, kind, x)
    state = {"total": total, "weight": weight, "points": len(y), "half_life": half}
    bad = at[~np.isfinite(y) & np.isfinite(at)][:BAD]
    shown = np.isfinite(at) & np.isfinite(y)
    if log_x:
        shown &= at > 0
    if low is not None:
        shown &= at >= low
    if high is not None:
        shown &= at <= high
    rising = x in ("step", "tokens", "time")
    if rising and shown.any():  # one point more on either side, so that the line leaves the picture
        first, last = np.flatnonzero(shown)[[0, -1]]
        for side in (first - 1, last + 1):
            if 0 <= side < len(y) and np.isfinite(at[side]) and np.isfinite(y[side]) and (at[side] > 0 or not log_x):
                shown[side] = True
    at, y, ema = at[shown], y[shown], ema[shown]
    found: dict[str, Any] = {"points": len(y), "bad": bad.tolist(), "state": state}
    if not rising:
        keep = _cells(at, y, width) if len(y) > CELLS else slice(None)
        return found | {"x": at[keep].tolist(), "y": y[keep].tolist()}
    if len(y) <= 2 * width:
        return found | {"x": at.tolist(), "y": y.tolist(), "ema": ema.tolist()}
    return found | _columns(at, y, ema, width, log_x)


def _places(log: Log, kind: Kind, x: str) -> Floats:
    """Where each point of a kind stands on the x axis; NaN where that is not known."""
    if x == "step":
        return np.array(kind.steps, float)
    if x == "tokens":
        return np.array(kind.tokens)
    if x == "time":
        return np.array(kind.seconds)
    name, _, key = x.partition(".")
    if name not in log.kinds:
        raise UsageError(f"x axis {x}: expected step, tokens, time or a metric as in step.lr")
    other = log.kinds[name]
    if key not in other.values or not other.steps:
        return np.full(len(kind.steps), np.nan)
    # the metric's value at the same step, or the newest before it
    place = np.searchsorted(np.array(other.steps), np.array(kind.steps), side="right") - 1
    values = np.array(other.values[key])
    return np.where(place >= 0, values[np.maximum(place, 0)], np.nan)


def _columns(at: Floats, y: Floats, ema: Floats, width: int, log_x: bool) -> dict[str, Any]:
    """Least, largest and last average of the points of each pixel column (columns without a point are left out)."""
    scale = np.log(at) if log_x else at
    span = scale[-1] - scale[0]
    column = np.minimum((scale - scale[0]) / span * width, width - 1).astype(np.int64) if span > 0 else at * 0
    starts = np.flatnonzero(np.r_[True, np.diff(column) > 0])
    ends = np.r_[starts[1:], len(at)] - 1
    return {
        "x": at[ends].tolist(),
        "low": np.minimum.reduceat(y, starts).tolist(),
        "high": np.maximum.reduceat(y, starts).tolist(),
        "ema": ema[ends].tolist(),
    }


def _cells(at: Floats, y: Floats, width: int) -> npt.NDArray[np.int64]:
    """The first point of each pixel that holds one, in their order."""

    def pixel(values: Floats, count: int) -> npt.NDArray[np.int64]:
        low, high = float(values.min()), float(values.max())
        return ((values - low) / ((high - low) or 1.0) * (count - 1)).astype(np.int64)

    rows = max(1, width // 2)
    _, first = np.unique(pixel(at, width) * rows + pixel(y, rows), return_index=True)
    return np.sort(first)
