"""The measurements of a workspace: every file that `cllm bench --save` wrote, in any of its folders.

Runs in the reading process, which keeps what it has read until a file changes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from cllm.errors import CorruptError
from cllm.studio.workspace import Workspace

FORMAT = b'"cllm-bench-1"'
HEAD = 200  # bytes in which the format stands
LARGEST = 4 << 20  # bytes of a file
MOST = 5000  # files
_FIGURE = (float, int, str, bool, type(None))
_seen: dict[str, tuple[tuple[int, int, int], Measurement | str | None]] = {}


class Measurement(msgspec.Struct):
    """One saved table: what was measured, when, from which commit, on which machine."""

    name: str
    title: str
    date: str
    commit: str | None = None
    machine: dict[str, Any] | None = None
    facts: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    notes: list[str] = []


def found(root: str) -> dict[str, Any]:
    """All of them, newest first: file, name, title, date, commit, machine, rows (their number); and what is broken."""
    good, broken = _all(root)
    tables = [
        {"file": file, "name": one.name, "title": one.title, "date": one.date, "commit": one.commit}
        | {"machine": machine(one), "rows": len(one.rows)}
        for file, one in good
    ]
    return {"tables": tables, "broken": broken}


def history(root: str, name: str) -> list[dict[str, Any]]:
    """Every measurement of one table with its rows, oldest first."""
    good, _ = _all(root)
    return [
        {"file": file, "date": one.date, "commit": one.commit, "machine": machine(one), "title": one.title}
        | {"facts": _figures(one.facts), "rows": [_figures(row) for row in one.rows], "notes": one.notes}
        | {"versions": _versions(one)}
        for file, one in reversed(good)
        if one.name == name
    ]


def within(root: str, folder: str) -> list[dict[str, str]]:
    """Those in one folder: file and name of the table."""
    good, _ = _all(root, folder)
    return [{"file": file, "name": one.name, "title": one.title} for file, one in reversed(good)]


def machine(one: Measurement) -> dict[str, Any]:
    """Which machine: a key that tells machines apart, and how to call it. A machine that says nothing is one, too."""
    said = one.machine or {}
    cpu, cores, memory = said.get("cpu") or "unknown", said.get("cores"), said.get("memory_gb")
    gpus = [str(name) for name in said.get("gpus") or []]
    parts = [str(cpu)]
    if cores:
        parts.append(f"{cores} core{'s' * (cores != 1)}")
    if isinstance(memory, int | float):
        parts.append(f"{memory:.0f} GB")
    parts += gpus
    key = " · ".join([*parts, " ".join(map(str, said.get("instructions") or []))])
    return {"key": key, "name": ", ".join(parts), "system": said.get("system"), "threads": said.get("threads")}


def _versions(one: Measurement) -> dict[str, str]:
    said = (one.machine or {}).get("versions")
    return {str(key): str(value) for key, value in said.items()} if isinstance(said, dict) else {}


def _figures(row: dict[str, Any]) -> dict[str, Any]:
    """What a page can show: numbers, words, yes and no."""
    return {key: value for key, value in row.items() if isinstance(value, _FIGURE)}


def _all(root: str, under: str = "") -> tuple[list[tuple[str, Measurement]], list[dict[str, str]]]:
    workspace = Workspace(root)
    good: list[tuple[str, Measurement]] = []
    broken: list[dict[str, str]] = []
    for folder, entries in workspace.walk():
        if under and workspace.name(folder) != under:
            continue
        for entry in entries:
            if len(good) >= MOST or not entry.name.endswith(".json") or entry.name.startswith("."):
                continue
            if not entry.is_file(follow_symlinks=False):
                continue
            one = _read(Path(entry.path), entry.stat(follow_symlinks=False))
            name = workspace.name(folder / entry.name)
            if isinstance(one, str):
                broken.append({"file": name, "why": one})
            elif one is not None:
                good.append((name, one))
    good.sort(key=lambda pair: (pair[1].date, pair[0]), reverse=True)
    return good, broken


def _read(path: Path, status: os.stat_result) -> Measurement | str | None:
    """None where it is no measurement, a sentence where it is a broken one."""
    mark = (status.st_mtime_ns, status.st_size, status.st_ino)
    known = _seen.get(str(path))
    if known is not None and known[0] == mark:
        return known[1]
    one: Measurement | str | None
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
            if FORMAT not in head:
                one = None
            elif status.st_size > LARGEST:
                one = f"it has {status.st_size:,} bytes; at most {LARGEST:,} are read"
            else:
                one = _decoded(head + file.read())
    except OSError as error:
        return str(error.strerror)
    except CorruptError as error:
        one = str(error)
    _seen[str(path)] = (mark, one)
    return one


def _decoded(data: bytes) -> Measurement:
    try:
        one = msgspec.json.decode(data, type=Measurement)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptError(f"not a measurement: {error}") from None
    if not all(isinstance(row.get("name"), str) for row in one.rows):
        raise CorruptError("not a measurement: a row has no name")
    return one
