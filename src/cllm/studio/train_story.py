"""What happened in a run: samples, checkpoints, and alerts in words, the log's own and those that the curves show.

Runs in the reading process (see train_curves.py).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from cllm.studio.store import EVENTS_FILE, whole_lines
from cllm.studio.train_curves import LOCK, Log, half_life_for, log_of
from cllm.training.events import Event, current, number

SAMPLES, ALERTS = 40, 40  # newest that are sent


def story(folder: str) -> dict[str, Any]:
    """Samples, alerts, checkpoints (those still on the disk are marked), evaluations, newest last; how it began."""
    path = Path(folder)
    try:
        data = (path / EVENTS_FILE).read_bytes()
    except OSError:
        data = b""
    with LOCK:
        log = log_of(folder)
        seen = seen_in(log)
    events = current(whole_lines(data[: data.rfind(b"\n") + 1]))
    pick = {kind: [event for event in events if event["event"] == kind] for kind in ("sample", "alert", "eval")}
    head = next((event for event in events if event["event"] in ("start", "resume")), None)
    return {
        "samples": [_only(event, "step", "time", "text") for event in pick["sample"][-SAMPLES:]],
        "alerts": ([_logged(event) for event in pick["alert"]] + seen)[-ALERTS:],
        "evaluations": [_clean(event) for event in pick["eval"]][-200:],
        "checkpoints": _checkpoints(path, events),
        "start": _clean(head) if head else None,
        "stop": next((str(event.get("reason")) for event in events[-1:] if event["event"] == "stop"), None),
    }


def _only(event: Event, *keys: str) -> dict[str, Any]:
    return {key: event.get(key) for key in keys}


def _clean(event: Event) -> dict[str, Any]:
    return {
        key: (number(value) if isinstance(value, str) and number(value) is not None else value)
        for key, value in event.items()
    }


def _checkpoints(path: Path, events: list[Event]) -> list[dict[str, Any]]:
    """By step. `there`: complete on the disk.  names that `latest` and `best` hold are marked."""
    named = {}
    for pointer in ("latest", "best"):
        try:
            named[pointer] = (path / pointer).read_text().strip()
        except (OSError, UnicodeDecodeError):
            named[pointer] = ""
    told = {event["name"]: event for event in events if event["event"] == "checkpoint" and "name" in event}
    names = set(told) | {found.parent.name for found in path.glob("checkpoints/step-*/DONE")}
    losses = {event["step"]: number(event.get("loss")) for event in events if event["event"] == "eval"}
    found = []
    for name in names:
        digits = name.removeprefix("step-")
        step = int(digits) if digits.isdecimal() else told.get(name, {}).get("step", 0)
        found.append(
            {
                "name": name,
                "step": step,
                "time": told.get(name, {}).get("time"),
                "loss": losses.get(step),
                "latest": name == named["latest"],
                "best": name == named["best"],
                "there": (path / "checkpoints" / name / "DONE").is_file(),
            }
        )
    return sorted(found, key=lambda one: one["step"])


def _logged(event: Event) -> dict[str, Any]:
    """An alert of the training itself."""
    kind, step = str(event.get("kind")), event["step"]
    what = str(event.get("what", "")).strip()
    if kind == "non-finite":
        where = event.get("where")
        born = f", first seen in {where}" if where and where != "None" else ""
        text = (
            f"Step {step + 1:,} was refused: {what}{born}. Nothing was updated: the state before it is saved, "
            f"and so is its batch, in {event.get('batch')}. The usual cure is a lower rate (optim.lr) or a longer "
            "warm-up (schedule.warmup), in a new run."
        )
        return {"kind": "non-finite", "level": "bad", "step": step, "text": text}
    if kind == "save":
        return {"kind": kind, "level": "bad", "step": step, "text": f"A checkpoint could not be saved: {what}"}
    return {"kind": kind, "level": "note", "step": step, "text": what or kind}


def seen_in(log: Log) -> list[dict[str, Any]]:
    """What the curves show: divergence, a plateau, overfitting, a slow machine. Each rule says its figures."""
    found = [_divergence(log), _plateau(log), _overfitting(log), _slow(log)]
    return [alert for alert in found if alert is not None]


def _alert(kind: str, level: str, step: int, text: str) -> dict[str, Any]:
    return {"kind": kind, "level": level, "step": step, "text": text}


def _divergence(log: Log) -> dict[str, Any] | None:
    """The moving average stands above its minimum by more than a fifth of all that was won, and by more than four
    deviations of the loss around it."""
    kind = log.kinds["step"]
    y = np.array(kind.values.get("loss", []))
    if np.isfinite(y).sum() < 30:
        return None
    ema = log.smooth("step.loss", half_life_for(len(y)))
    place = int(np.nanargmin(ema))
    rise, won = float(ema[-1] - ema[place]), float(np.nanmax(ema[: place + 1]) - ema[place])
    noise = float(np.nanstd(np.where(np.isfinite(y), y - ema, np.nan)[max(0, len(y) - 200) :]))
    if not (rise > 0.2 * won and rise > 4 * noise / math.sqrt(10) and rise > 0.05):
        return None
    return _alert(
        "divergence",
        "bad",
        kind.steps[-1],
        f"The loss climbs: smoothed it is {ema[-1]:.3f}, {rise:.3f} above its lowest at step {kind.steps[place]:,}. "
        "If it does not turn, stop and start a run with a lower rate (optim.lr) or a longer warm-up.",
    )


def _plateau(log: Log) -> dict[str, Any] | None:
    """A third of the evaluations, at least five, have not gone below the best."""
    kind = log.kinds["eval"]
    y = np.array(kind.values.get("loss", []))
    if len(y) < 8 or not np.isfinite(y).any():
        return None
    place = int(np.nanargmin(y))
    since = len(y) - 1 - place
    if since < max(5, len(y) // 3):
        return None
    return _alert(
        "plateau",
        "note",
        kind.steps[-1],
        f"No progress in the last {since} evaluations: the lowest validation loss, {y[place]:.3f}, is that of step "
        f"{kind.steps[place]:,}. That checkpoint is kept as the best; stopping here loses nothing.",
    )


def _overfitting(log: Log) -> dict[str, Any] | None:
    """The validation loss has risen since its minimum while the training loss went on falling."""
    scores, steps = log.kinds["eval"], log.kinds["step"]
    y, train = np.array(scores.values.get("loss", [])), np.array(steps.values.get("loss", []))
    if len(y) < 5 or len(train) < 30 or not np.isfinite(y).any():
        return None
    place = int(np.nanargmin(y))
    if len(y) - 1 - place < 3 or not y[-1] > y[place] + 0.02:
        return None
    ema = log.smooth("step.loss", half_life_for(len(train)))
    then = int(np.searchsorted(np.array(steps.steps), scores.steps[place], side="right")) - 1
    fallen = float(ema[max(0, then)] - ema[-1])
    if fallen < 0.02:
        return None
    return _alert(
        "overfitting",
        "note",
        scores.steps[-1],
        f"The model learns its training text by heart: since step {scores.steps[place]:,} the training loss fell by "
        f"{fallen:.3f} while the validation loss rose by {y[-1] - y[place]:.3f}. More text, a smaller model or dropout "
        "help.",
    )


def _slow(log: Log) -> dict[str, Any] | None:
    """The last twenty steps ran at less than 60 % of the run's median speed."""
    kind = log.kinds["step"]
    rate = np.array(kind.values.get("tokens_per_s", []))
    if len(rate) < 60:
        return None
    whole, now = float(np.nanmedian(rate)), float(np.nanmedian(rate[-20:]))
    if not now < 0.6 * whole:
        return None
    return _alert(
        "slow",
        "note",
        kind.steps[-1],
        f"It runs at {now:,.0f} tokens a second; most of this run had {whole:,.0f}. "
        "Something else uses the machine, or it is hot.",
    )
