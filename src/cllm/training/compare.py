"""Runs beside each other: their curves in one picture, and the settings in which they differ."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from cllm import config as settings
from cllm.config import load
from cllm.errors import CllmError, UsageError
from cllm.training.chart import Chart, Series
from cllm.training.curve import half_life_for, smooth
from cllm.training.events import Event, current, number, read_events
from cllm.training.run import EVENTS_FILE, RUN_FILE

Figure = Literal["validation", "training", "bits"]
Across = Literal["step", "tokens"]
MOST = 24
LABELS = {
    "validation": "validation loss, nats per token",
    "training": "training loss (moving average), nats per token",
    "bits": "validation, bits per byte",
}


def differences(run_dirs: Sequence[Path]) -> dict[str, list[Any]]:
    """Settings that are not the same in all runs: dotted key → one value a run, None where a run does not have it.

    Raises ConfigError for a run file that cannot be read.
    """
    flat = [_flat(settings.to_dict(load(run_dir / RUN_FILE))) for run_dir in run_dirs]
    keys = dict.fromkeys(key for one in flat for key in one)
    found = {key: [one.get(key) for one in flat] for key in keys}
    return {key: values for key, values in found.items() if any(value != values[0] for value in values)}


def short_names(run_dirs: Sequence[Path]) -> list[str]:
    """The folders' names without the part that all share."""
    if len(run_dirs) < 2:
        return [run_dir.resolve().name for run_dir in run_dirs]
    shared = Path(os.path.commonpath([run_dir.resolve() for run_dir in run_dirs]))
    return [str(run_dir.resolve().relative_to(shared)) for run_dir in run_dirs]


def same_tokens(logs: Sequence[list[Event]]) -> bool:
    """Whether the runs share a tokenizer: only then are losses per token comparable."""
    tokenizers = {e.get("tokenizer") for events in logs for e in events if e["event"] in ("start", "resume")}
    return len(tokenizers - {None}) <= 1


def overlay(run_dirs: Sequence[Path], figure: Figure | None = None, across: Across = "step") -> tuple[Chart, list[str]]:
    """The curves of the runs in one chart, and sentences about what does not compare.

    figure: None takes the validation loss, bits per byte where tokenizers differ, or the training loss where fewer than
    two evaluations were made.  across: optimiser steps, or tokens seen. Raises UsageError for too many runs or none.
    """
    if not run_dirs:
        raise UsageError("no run to draw")
    if len(run_dirs) > MOST:
        raise UsageError(f"{len(run_dirs)} runs in one picture: expected at most {MOST}; name the ones to compare")
    logs, notes = [], []
    for run_dir in run_dirs:
        try:
            logs.append(current(read_events(run_dir / EVENTS_FILE)))
        except CllmError as error:
            logs.append([])
            notes.append(str(error))
    comparable = same_tokens(logs)
    chosen = figure or ("validation" if comparable else "bits")
    if figure is None and all(len(_points(events, chosen)) < 2 for events in logs):
        chosen = "training"
    if not comparable and chosen != "bits":
        notes.append("the runs have different tokenizers: their losses per token do not compare (bits per byte do)")
    names = short_names(run_dirs)
    lines = []
    for place, (name, events) in enumerate(zip(names, logs, strict=True)):
        points = _points(events, chosen)
        tokens = {e["step"]: number(e.get("tokens")) for e in events if e["event"] == "step"}
        kept = [(tokens.get(s) if across == "tokens" else float(s), v) for s, v in points]
        xs, ys = [x for x, _ in kept if x is not None], [v for x, v in kept if x is not None]
        if chosen == "training":
            ys = smooth(ys, half_life_for(len(ys)))
        lines.append(Series(name, xs, ys, colour=place))
    lowest = sorted((min(line.y), line.name) for line in lines if line.y)
    said = f"lowest: {lowest[0][1]} with {lowest[0][0]:.4f}" if lowest else ""
    x_label = "steps" if across == "step" else "tokens seen"
    return Chart(lines, f"{len(lines)} run{'s' * (len(lines) != 1)}", x_label, LABELS[chosen], said), notes


def _points(events: list[Event], figure: str) -> list[tuple[int, float]]:
    """(step, value) of one run, by step; the score of the whole validation part at the end is another figure."""
    kind = "step" if figure == "training" else "eval"
    key = "bits_per_byte" if figure == "bits" else "loss"
    found = {e["step"]: number(e.get(key)) for e in events if e["event"] == kind and not e.get("whole")}
    return [(step, value) for step, value in sorted(found.items()) if value is not None]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
