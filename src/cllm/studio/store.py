"""The index of the workspace's runs: what there is to list, in SQLite, so that the logs are not read again.

The logs are the truth; the index can be deleted at any time. A log that grew is read from where it was read before; one
that a resume or a start made partly void, or that is shorter or another file, is read anew.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

import msgspec

from cllm import config as settings
from cllm.errors import CllmError
from cllm.studio.summary import Summary, repeats, summarise
from cllm.studio.workspace import RUN_FILE, RUN_PARTS, Workspace
from cllm.training.events import Event, current

VERSION = 2
EVENTS_FILE = "events.jsonl"
_TABLE = """
create table if not exists run (
  name text primary key, inode integer, read integer, seen integer, run_file integer,
  preset text, problem text, settings text, summary text)
"""


class Listed(msgspec.Struct):
    """One run of the list. problem: what is wrong with it, when it cannot be read.  settings: dotted keys.  changed:
    nanoseconds since 1970 of its newest file."""

    name: str
    preset: str
    problem: str | None
    settings: dict[str, Any]
    summary: Summary
    changed: int


class Store:
    """Use from several threads; one at a time is inside."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace, self._lock = workspace, threading.Lock()
        self._path = workspace.own / "index.sqlite"
        self._base = self._open()

    def _open(self) -> sqlite3.Connection:
        try:
            base = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
            base.execute("pragma journal_mode = wal")
            base.execute("pragma synchronous = off")  # made again when lost
            if base.execute("pragma user_version").fetchone()[0] != VERSION:
                base.execute("drop table if exists run")
                base.execute(f"pragma user_version = {VERSION}")
            base.execute(_TABLE)
        except sqlite3.DatabaseError:  # damaged: the logs have everything
            with contextlib.suppress(UnboundLocalError):
                base.close()
            for suffix in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            return self._open()
        return base

    def runs(self) -> list[Listed]:
        """Every run of the workspace by name, brought up to date."""
        with self._lock:
            known = {row[0]: row[1:] for row in self._base.execute("select * from run")}
            found: dict[str, Listed] = {}
            for folder, entries in self._workspace.walk():
                names = {entry.name for entry in entries}
                if any(entry.name in RUN_PARTS and entry.is_symlink() for entry in entries):
                    continue  # it may lead out of the workspace, and no run that was trained here has one
                if RUN_FILE in names or (EVENTS_FILE in names and "run.lock" in names):
                    name = self._workspace.name(folder)
                    with contextlib.suppress(OSError):
                        found[name] = self._listed(name, folder, known.get(name))
            gone = known.keys() - found.keys()
            if gone:
                self._base.executemany("delete from run where name = ?", [(name,) for name in gone])
            return [found[name] for name in sorted(found)]

    def one(self, name: str) -> Listed:
        """One run, brought up to date. Raises Missing."""
        folder = self._workspace.run(name)
        with self._lock:
            row = self._base.execute("select * from run where name = ?", (name,)).fetchone()
            return self._listed(name, folder, row[1:] if row else None)

    def close(self) -> None:
        """Give the file back."""
        with self._lock:
            self._base.close()

    def _listed(self, name: str, folder: Path, row: tuple[Any, ...] | None) -> Listed:
        events, run_file = folder / EVENTS_FILE, folder / RUN_FILE
        log, said = _status(events), _status(run_file)
        size, inode = (log.st_size, log.st_ino) if log else (0, 0)
        stamp = said.st_mtime_ns if said else 0
        changed = max([stamp, log.st_mtime_ns if log else 0])
        if row is not None:
            old_inode, read, seen, old_stamp, preset, problem, text, summary_text = row
            if (old_inode, seen, old_stamp) == (inode, size, stamp) and problem is None:
                return Listed(name, preset, problem, msgspec.json.decode(text), _summary(summary_text), changed)
        else:
            old_inode, read, old_stamp, preset, problem, text, summary_text = -1, 0, None, "", "", "{}", ""
        summary, read = self._read(events, inode, old_inode, read, summary_text) if log else (Summary(), 0)
        if old_stamp != stamp or problem is not None:
            preset, problem, values = _settings(run_file)
        else:
            values = msgspec.json.decode(text)
        self._base.execute(
            "insert or replace into run values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                name,
                inode,
                read,
                size,
                stamp,
                preset,
                problem,
                msgspec.json.encode(values).decode(),
                msgspec.json.encode(summary).decode(),
            ),
        )
        return Listed(name, preset, problem, values, summary, changed)

    @staticmethod
    def _read(events: Path, inode: int, old_inode: int, read: int, text: str) -> tuple[Summary, int]:
        """The summary and the bytes of the log that are in it."""
        if text and inode == old_inode:
            with events.open("rb") as file:
                file.seek(read)
                data = file.read()
            end = data.rfind(b"\n") + 1
            new = whole_lines(data[:end])
            summary = _summary(text)
            whole = os.path.getsize(events) >= read
            if whole and not any(event["event"] in ("start", "resume") for event in new) and not repeats(summary, new):
                summary.take(new)
                return summary, read + end
        data = events.read_bytes()
        end = data.rfind(b"\n") + 1
        return summarise(current(whole_lines(data[:end]))), end


def whole_lines(data: bytes) -> list[Event]:
    """The events of whole lines of a log; others are left out."""
    decoder = msgspec.json.Decoder()
    found: list[Event] = []
    for line in data.split(b"\n"):
        with contextlib.suppress(msgspec.DecodeError, RecursionError):
            event = decoder.decode(line) if line else None
            if isinstance(event, dict) and isinstance(event.get("event"), str) and isinstance(event.get("step"), int):
                found.append(event)
    return found


def _summary(text: str) -> Summary:
    return msgspec.json.decode(text, type=Summary)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _settings(run_file: Path) -> tuple[str, str | None, dict[str, Any]]:
    """Preset, problem, and the settings by dotted key."""
    try:
        values = settings.read_toml(run_file)
        config = settings.load(base=values)
    except CllmError as error:
        return "?", str(error) if run_file.exists() else "it has not begun: no run.toml yet", {}
    return config.preset, None, flat(settings.to_dict(config))


def flat(values: dict[str, Any]) -> dict[str, Any]:
    """Nested settings with dotted keys."""
    return {
        f"{key}.{inner}" if isinstance(value, dict) else key: item
        for key, value in values.items()
        for inner, item in (value.items() if isinstance(value, dict) else (("", value),))
    }
