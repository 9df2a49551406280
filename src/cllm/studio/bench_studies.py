"""The studies of a workspace: study files, what is trained of them, results. Without torch.

Study files are TOML with a [grid] or [[cell]] (docs/ablation.md); a study's folder holds `runs/CELL/seed-N` and, when
it is finished or was stopped, `results.json` and `report.md`.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import tomllib
from pathlib import Path
from statistics import mean
from typing import Any

import msgspec

from cllm.errors import CorruptError
from cllm.studio.workspace import Workspace

FORMAT = b'"cllm-ablation-1"'
HEAD = 200
LARGEST = 16 << 20  # bytes of results
STUDY_LIMIT = 256 << 10  # bytes of a study file
RESULTS, REPORT = "results.json", "report.md"
_GRID = re.compile(rb"^\s*\[(?:grid|\[cell\])\]", re.MULTILINE)
_seen: dict[str, tuple[tuple[int, int], dict[str, Any] | None]] = {}


class Run(msgspec.Struct):
    """What a page shows of a run's result.json."""

    cell: str
    seed: int
    loss: float | None
    parameters: int = 0
    steps: int = 0
    tokens: int = 0
    bits_per_byte: float | None = None
    curve: list[tuple[int, float]] = []
    lengths: dict[str, float | None] = {}
    seconds: float = 0.0


class Comparison(msgspec.Struct):
    name: str
    pairs: int
    verdict: str
    differences: list[float]
    mean_difference: float | None = None
    low: float | None = None
    high: float | None = None


class Cell(msgspec.Struct):
    name: str
    set: dict[str, Any] = {}
    folder: str | None = None


class Results(msgspec.Struct):
    """results.json, or the same of what is finished so far (then with folder of each cell, steps, conclusion)."""

    title: str
    baseline: str
    seeds: list[int]
    cells: list[Cell]
    runs: list[Run]
    comparisons: list[Comparison]
    study: str = ""
    steps: int | None = None
    conclusion: list[str] = []


# ------------------------------------------------------------------------------------------------------------- to list


def listing(root: str) -> list[dict[str, Any]]:
    """Every study: title, file (or None), folder (or None when nothing is trained), cells, seeds, done, changed.

    A folder belongs to the file of its name beside it, or, below `studies`, to any file of that name: where
    `cllm ablate` writes. A file that has no folder is a study of its own.
    """
    workspace = Workspace(root)
    files: dict[str, dict[str, Any]] = {}
    folders: dict[str, dict[str, Any]] = {}
    for folder, entries in workspace.walk():
        names = {entry.name: entry for entry in entries if entry.is_file(follow_symlinks=False)}
        for name, entry in names.items():
            if name.endswith(".toml") and (said := _study(Path(entry.path), entry.stat(follow_symlinks=False))):
                files[workspace.name(folder / name)] = said | {"changed": entry.stat().st_mtime}
        if RESULTS in names and (results := _head(Path(names[RESULTS].path))) is not None:
            folders[workspace.name(folder)] = results | {"changed": names[RESULTS].stat().st_mtime}
    for name in files:  # under way for the first time: no results yet
        place = f"studies/{Path(name).stem}"
        if place not in folders and (workspace.root / place / "runs").is_dir():
            folders[place] = dict(files[name])
    found, used = [], set()
    for folder_name, said in folders.items():
        file = _file_of(folder_name, files)
        used.add(file)
        done = len(finished(workspace.root / folder_name)) or said.get("done", 0)
        found.append(said | {"folder": folder_name, "file": file, "done": done})
    found += [said | {"folder": None, "file": name, "done": 0} for name, said in files.items() if name not in used]
    return sorted(found, key=lambda one: -float(one["changed"]))


def _file_of(folder: str, files: dict[str, dict[str, Any]]) -> str | None:
    beside = f"{folder}.toml"
    if beside in files:
        return beside
    parent, _, name = folder.rpartition("/")
    if parent != "studies":
        return None
    return next((file for file in sorted(files) if Path(file).stem == name), None)


def _study(path: Path, status: os.stat_result) -> dict[str, Any] | None:
    """Title, cells and seeds of a study file; None where a TOML file is something else."""
    mark = (status.st_mtime_ns, status.st_size)
    known = _seen.get(str(path))
    if known is not None and known[0] == mark:
        return known[1]
    found = None
    if status.st_size <= STUDY_LIMIT:
        with contextlib.suppress(OSError, ValueError, RecursionError):
            data = path.read_bytes()
            if _GRID.search(data):
                found = _summary(tomllib.loads(data.decode()), path.stem)
    _seen[str(path)] = (mark, found)
    return found


def _summary(said: dict[str, Any], stem: str) -> dict[str, Any]:
    grid, cells, seeds = said.get("grid", {}), said.get("cell", []), said.get("seeds")
    sizes = [len(values) for values in grid.values() if isinstance(values, list)] if isinstance(grid, dict) else []
    count = (math.prod(sizes) if sizes else 0) + (len(cells) if isinstance(cells, list) else 0)
    title = said.get("title")
    return {
        "title": title if isinstance(title, str) else stem,
        "cells": count,
        "seeds": len(seeds) if isinstance(seeds, list) else 5,
    }


def _head(path: Path) -> dict[str, Any] | None:
    try:
        results = _read(path)
    except CorruptError as error:
        return {"title": path.parent.name, "cells": 0, "seeds": 0, "done": 0, "broken": str(error)}
    if results is None:
        return None
    return {
        "title": results.title,
        "cells": len(results.cells),
        "seeds": len(results.seeds),
        "done": len(results.runs),
    }


def _read(path: Path) -> Results | None:
    """None where it is something else. Raises CorruptError."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
            if FORMAT not in head:
                return None
            data = head + file.read(LARGEST)
    except OSError as error:
        raise CorruptError(f"{path.name}: {error.strerror}") from None
    if len(data) > LARGEST:
        raise CorruptError(f"{path.name}: longer than the {LARGEST:,} bytes that are read")
    try:
        return msgspec.json.decode(data, type=Results)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptError(f"{path.name}: not the results of a study: {error}") from None


# ------------------------------------------------------------------------------------------------------------- to show


def finished(folder: Path) -> set[tuple[str, int]]:
    """(folder of the cell, seed) of every run that is done."""
    found = set()
    for path in folder.glob("runs/*/seed-*/result.json"):
        with contextlib.suppress(ValueError):
            found.add((path.parent.parent.name, int(path.parent.name.removeprefix("seed-"))))
    return found


def progress(folder: Path) -> dict[str, Any]:
    """done: runs finished.  now: the run under way: folder of its cell, seed, step, loss (None when none is)."""
    newest: tuple[float, Path] | None = None
    for path in folder.glob("runs/*/seed-*/events.jsonl"):
        with contextlib.suppress(OSError):
            if not (path.parent / "result.json").exists():
                time = path.stat().st_mtime
                newest = max(newest, (time, path)) if newest else (time, path)
    return {"done": len(finished(folder)), "now": _under_way(newest[1]) if newest else None}


def _under_way(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 8192))
            lines = file.read().split(b"\n")[:-1]
        seed = int(path.parent.name.removeprefix("seed-"))
    except (OSError, ValueError):
        return None
    step, loss = 0, None
    for line in reversed(lines):
        with contextlib.suppress(msgspec.DecodeError):
            event = msgspec.json.decode(line)
            if isinstance(event, dict) and event.get("event") == "step":
                step, loss = event.get("step", 0), event.get("loss")
                break
    return {"cell": path.parent.parent.name, "seed": seed, "step": step, "loss": loss}


def stored(root: str, folder: str) -> dict[str, Any] | None:
    """What results.json of a study says, with the conclusion of its report; None where there is none."""
    place = Workspace(root).resolve(folder)
    path = Workspace(root).resolve(f"{folder}/{RESULTS}", exists=False)
    if not path.is_file():
        return None
    results = _read(path)
    if results is None:
        return None
    results.conclusion = _conclusion(Workspace(root).resolve(f"{folder}/{REPORT}", exists=False))
    return shown(results) | {"report": (place / REPORT).is_file()}


def _conclusion(path: Path) -> list[str]:
    """The sentences under "Conclusion" of a report."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    part = text.partition("\n## Conclusion\n")[2].partition("\n## ")[0]
    return [line.removeprefix("- ").strip() for line in part.splitlines() if line.startswith("- ")]


def shown(results: Results) -> dict[str, Any]:
    """A study as the page draws it: by cell the runs, the mean curve with its least and largest, the comparison."""
    by_name = {comparison.name: comparison for comparison in results.comparisons}
    cells = []
    for cell in results.cells:
        runs = [run for run in results.runs if run.cell == cell.name]
        losses = [run.loss for run in runs if run.loss is not None]
        cells.append(
            {
                "name": cell.name,
                "folder": cell.folder,
                "set": {key: _plain(value) for key, value in cell.set.items()},
                "parameters": runs[0].parameters if runs else None,
                "tokens": runs[0].tokens if runs else None,
                "losses": {str(run.seed): run.loss for run in runs},
                "seconds": {str(run.seed): run.seconds for run in runs},
                "mean": mean(losses) if losses else None,
                "curve": _curve(runs),
                "lengths": _lengths(runs),
                "comparison": by_name.get(cell.name),
            }
        )
    return {
        "title": results.title,
        "baseline": results.baseline,
        "seeds": results.seeds,
        "cells": cells,
        "done": len(results.runs),
        "steps": results.steps or max((run.steps for run in results.runs), default=None),
        "conclusion": results.conclusion,
        "study": results.study,
    }


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _curve(runs: list[Run]) -> dict[str, list[float]]:
    """Mean, least and largest over the seeds at the steps that all of them have."""
    lines = [dict(run.curve) for run in runs]
    steps = sorted(set.intersection(*(set(line) for line in lines))) if lines else []
    columns = [[line[step] for line in lines] for step in steps]
    return {
        "step": [float(step) for step in steps],
        "mean": [mean(column) for column in columns],
        "low": [min(column) for column in columns],
        "high": [max(column) for column in columns],
    }


def _lengths(runs: list[Run]) -> dict[str, float | None]:
    """Mean loss at each other length; None where the model has no position for it."""
    found: dict[str, float | None] = {}
    for length in sorted({name for run in runs for name in run.lengths}, key=int):
        values = [value for run in runs if (value := run.lengths.get(length)) is not None]
        found[length] = mean(values) if values else None
    return found
