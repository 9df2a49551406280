"""A run's figures from its events, taken in one after another, so that a log is read once, then only what is new."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec

from cllm.training.events import ONE_A_STEP, Event, number

CURVE = 48  # points of the small curve in the list
RATE = 20  # steps: half-life of the speed that is shown
RATE_KEPT = 0.5 ** (1 / RATE)


class Figure(msgspec.Struct):
    """One metric: how many values; the last (None when it was not finite), the least and the largest finite one."""

    count: int = 0
    last: float | None = None
    low: float | None = None
    high: float | None = None
    low_step: int = 0

    def add(self, step: int, value: float) -> None:
        self.count += 1
        self.last = value if math.isfinite(value) else None
        if self.last is None:
            return
        if self.low is None or value < self.low:
            self.low, self.low_step = value, step
        if self.high is None or value > self.high:
            self.high = value


class Summary(msgspec.Struct):
    """What the list of runs shows. metrics: by kind of event and key, as in "step.loss".  curve: the training loss,
    thinned to at most 2·CURVE points, `stride` steps apart.  rate: tokens a second, smoothed over RATE steps.  began,
    seen: seconds since 1970 of the first and last event.  newest: the last step of each kind that comes once a step."""

    steps: int | None = None
    step: int = 0
    tokens: int = 0
    parameters: int | None = None
    began: float | None = None
    seen: float | None = None
    stopped: str | None = None
    alerts: int = 0
    alert: str | None = None
    samples: int = 0
    checkpoints: int = 0
    curve: list[float] = []
    stride: int = 1
    points: int = 0
    rate: float | None = None
    metrics: dict[str, Figure] = {}
    newest: dict[str, int] = {}

    def take(self, events: Iterable[Event]) -> None:
        """Take in events in the order of the log, without any that a resume made void."""
        for event in events:
            self._take(event)

    def _take(self, event: Event) -> None:
        kind, step = event["event"], event["step"]
        time = event.get("time")
        if isinstance(time, int | float):
            self.began = time if self.began is None else self.began
            self.seen = time
        self.stopped = str(event.get("reason", "stopped")) if kind == "stop" else None
        if kind in ("start", "resume"):
            self.steps = event.get("steps", self.steps)
            self.parameters = event.get("parameters", self.parameters)
        elif kind == "step":
            self.step = step
            self.tokens = tokens if isinstance(tokens := event.get("tokens"), int) else self.tokens
            self._point(event)
            now = number(event.get("tokens_per_s"))
            if now is not None and math.isfinite(now):
                self.rate = now if self.rate is None else RATE_KEPT * self.rate + (1 - RATE_KEPT) * now
        elif kind == "alert":
            self.alerts += 1
            self.alert = str(event.get("what", event.get("kind")))
        elif kind == "sample":
            self.samples += 1
        elif kind == "checkpoint":
            self.checkpoints += 1
        if kind in ONE_A_STEP:
            self.newest[place_of(event)] = step
            prefix = "final." if event.get("whole") else f"{kind}."  # the whole validation part: another figure
            for key, found in numbers(event):
                self.metrics.setdefault(prefix + key, Figure()).add(step, found)

    def _point(self, event: Event) -> None:
        loss = number(event.get("loss"))
        if loss is None or not math.isfinite(loss):
            return
        if self.points % self.stride == 0:
            self.curve.append(loss)
            if len(self.curve) >= 2 * CURVE:
                self.curve, self.stride = self.curve[::2], self.stride * 2
        self.points += 1


def place_of(event: Event) -> str:
    """What comes once a step: a step, an evaluation, the last evaluation (of the whole validation part)."""
    return "final" if event.get("whole") else str(event["event"])


def repeats(summary: Summary, new: list[Event]) -> bool:
    """Whether `new` logs a step a second time, which makes the first void."""
    newest = dict(summary.newest)
    for event in new:
        if event["event"] in ONE_A_STEP:
            if event["step"] <= newest.get(place_of(event), -1):
                return True
            newest[place_of(event)] = event["step"]
    return False


def numbers(event: Event) -> list[tuple[str, float]]:
    """The metrics of a `step` or `eval` event: its numbers, those of nested objects as `outer.inner`."""
    found: list[tuple[str, float]] = []
    for key, value in event.items():
        if key in ("step", "time"):
            continue
        if isinstance(value, dict):
            found += [(f"{key}.{inner}", v) for inner, item in value.items() if (v := number(item)) is not None]
        elif (v := number(value)) is not None:
            found.append((key, v))
    return found


def summarise(events: Iterable[Event]) -> Summary:
    """Of a whole log."""
    summary = Summary()
    summary.take(events)
    return summary


def to_builtins(summary: Summary) -> dict[str, Any]:
    """As plain values."""
    found: dict[str, Any] = msgspec.to_builtins(summary)
    return found
