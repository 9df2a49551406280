"""The log of a run: one JSON object a line, only ever appended to (docs/formats.md).

Each line goes to the system in one write, so a killed process leaves at most one torn line, the last; on the
next opening it is ended there and readers skip it. Numbers that JSON has no word for are written as the
strings "NaN", "Infinity" and "-Infinity", which Python's float() and JavaScript's Number() both read back.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from cllm.errors import RunError, UsageError

Event = dict[str, Any]
NON_FINITE = {"NaN", "Infinity", "-Infinity"}
ONE_A_STEP = {"step", "eval"}


class EventLog:
    """Appends events to a file; made when missing. Safe to use from several threads of the one writer."""

    def __init__(self, path: str | Path, clock: Callable[[], float] = time.time) -> None:
        """clock: seconds since 1970, written as `time`. Raises RunError when the file cannot be opened."""
        self.path, self._clock, self._lock = Path(path), clock, threading.Lock()
        self._file = -1
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            self._end_torn_line()
        except OSError as error:
            self.close()
            raise self._refused(error) from error

    def _end_torn_line(self) -> None:
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")

    def emit(self, event: str, step: int, **fields: Any) -> Event:
        """Appends `{"event": …, "step": …, "time": …, **fields}` and returns it as written.

        step: optimiser steps finished so far. Fields are JSON-able; 0-dimensional tensors and numpy scalars
        become numbers. Raises UsageError for anything else and RunError when the disk refuses the line.
        """
        made = {"event": event, "step": step, "time": round(self._clock(), 3)}
        if clash := made.keys() & fields.keys():
            raise UsageError(f"event {event!r}: the names {', '.join(sorted(clash))} are taken")
        made.update({key: _plain(value, key) for key, value in fields.items()})
        try:
            line = msgspec.json.encode(made) + b"\n"
        except (UnicodeEncodeError, OverflowError, TypeError) as error:
            raise UsageError(f"event {event!r} cannot be written as JSON: {error}") from None
        with self._lock:
            if self._file < 0:
                raise UsageError(f"{self.path}: the log is closed")
            try:
                written = os.write(self._file, line)
                while written < len(line):  # a nearly full disk takes a part first, then says why
                    written += os.write(self._file, line[written:])
            except OSError as error:
                raise self._refused(error) from error
        return made

    def sync(self) -> None:
        """Makes all lines so far durable (worth it at checkpoints, not at every step)."""
        try:
            os.fsync(self._file)
        except OSError as error:
            raise self._refused(error) from error

    def close(self) -> None:
        """Closes the file; may be called twice."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _refused(self, error: OSError) -> RunError:
        return RunError(
            f"{self.path}: the log cannot be written: {error.strerror or error}. "
            f"Free some space or choose another --out; the checkpoints are intact."
        )


def _plain(value: Any, key: str) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _word(value)
    if isinstance(value, dict):
        return {str(name): _plain(item, key) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, key) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return _plain(value.item(), key)
    raise UsageError(f"event field {key!r}: expected numbers, text, lists and dicts, got {type(value).__name__}")


def _word(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def read_events(path: str | Path, notes: list[str] | None = None) -> list[Event]:
    """All events of a file, in the order written, repeated steps included (see `current`).

    A last line without its end is still being written, or torn: it is left out. Other lines that are not an
    event (torn by a kill and followed by a resume, or damaged) are left out and, when `notes` is given, named
    there. Raises RunError when there is no such file.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise RunError(f"{path}: no log to read: {error.strerror}") from error
    decoder = msgspec.json.Decoder()
    events: list[Event] = []
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        try:
            event = decoder.decode(line)
        except (msgspec.DecodeError, RecursionError):
            event = None
        if _is_event(event):
            events.append(event)
        elif notes is not None and line:
            notes.append(f"{path}: line {number} is not an event ({len(line)} bytes), left out")
    return events


def _is_event(event: object) -> bool:
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return False
    step = event.get("step")
    return isinstance(step, int) and not isinstance(step, bool)


def current(events: Iterable[Event]) -> list[Event]:
    """The run as it stands: what a resume went back behind is dropped, and repeated steps keep the last.

    A `start` event drops everything before it. A `resume` event at step n drops what was logged before it for steps
    beyond n (those steps are made again); of two `step` or `eval` events of one step only the last stays.
    """
    kept: list[Event] = []
    for event in events:
        if event["event"] == "start":
            kept = []
        elif event["event"] == "resume":
            kept = [old for old in kept if old["step"] <= event["step"]]
        kept.append(event)

    def place_of(e: Event) -> tuple[str, int, bool]:
        return e["event"], e["step"], bool(e.get("whole"))  # the last evaluation scores all rows: another figure

    last = {place_of(e): place for place, e in enumerate(kept)}
    return [e for place, e in enumerate(kept) if e["event"] not in ONE_A_STEP or last[place_of(e)] == place]


def series(source: str | Path | Iterable[Event], key: str, event: str = "step") -> tuple[list[int], list[float]]:
    """The current values of one number: steps (rising) and values, of events of the kind `event`.

    source: the file, or events already read. The evaluation of the whole validation part at the end is left out: its
    figure is not comparable with those of the usual rows. Events without the number are left out; "NaN" and the
    infinities come back as floats.
    """
    events = read_events(source) if isinstance(source, str | Path) else source
    pairs: dict[int, float] = {}
    for found in current(events):
        if found["event"] == event and not found.get("whole") and (value := number(found.get(key))) is not None:
            pairs[found["step"]] = value
    return sorted(pairs), [pairs[step] for step in sorted(pairs)]


def number(value: object) -> float | None:
    """A logged value as a float, or None when it is not a number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return float(value) if isinstance(value, str) and value in NON_FINITE else None
