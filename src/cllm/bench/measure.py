"""Fair timings: candidates run in turn within one process, medians, spreads and paired ratios.

Machines drift: clocks change, neighbours come and go. So candidates are never timed one after the other
but *interleaved*: each round times every candidate once, in an order that rotates from round to round,
and ratios are taken between samples of the same round, which the same disturbance has met.
"""

from __future__ import annotations

import datetime
import gc
import importlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cllm.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

Figure = float | int | str | bool | None
FORMAT = "cllm-bench-1"


@dataclass(frozen=True, slots=True)
class Timing:
    """The timed samples of one candidate.

    median_s: median of the samples, seconds a call; spread: the interquartile range divided by the median
    (0 for a single sample); samples: seconds a call, one entry a round, in the order of the rounds.
    """

    median_s: float
    spread: float
    samples: tuple[float, ...]

    @classmethod
    def of(cls, samples: list[float] | tuple[float, ...]) -> Timing:
        """From seconds a call, at least one of them."""
        if not samples:
            raise UsageError("a timing needs at least one sample, got none")
        median = statistics.median(samples)
        return cls(median, _relative_iqr(samples, median), tuple(samples))

    @property
    def ms(self) -> float:
        """Median, milliseconds."""
        return 1e3 * self.median_s


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times faster: median over the rounds of slow/fast; spread as in `Timing`."""

    median: float
    spread: float
    samples: tuple[float, ...]


def ratio(slow: Timing, fast: Timing) -> Ratio:
    """`slow` over `fast`, paired by round: above 1 when `fast` takes less time.

    Both must come from the same `interleave` call (the same number of rounds).
    """
    if len(slow.samples) != len(fast.samples):
        raise UsageError(
            f"ratio: timings of one interleaved run are expected, got {len(slow.samples)} and "
            f"{len(fast.samples)} samples"
        )
    pairs = tuple(s / f for s, f in zip(slow.samples, fast.samples, strict=True))
    median = statistics.median(pairs)
    return Ratio(median, _relative_iqr(pairs, median), pairs)


def interleave(
    candidates: Mapping[str, Callable[[], object]],
    rounds: int = 5,
    warmup: int = 1,
    *,
    sync: Callable[[], object] | None = None,
    least_s: float = 0.0,
) -> dict[str, Timing]:
    """Times every candidate once a round, `rounds` times, after `warmup` untimed calls of each.

    `sync` is called before the clock starts and before it stops (a GPU's queue must be drained).
    A candidate shorter than `least_s` seconds is called several times a sample, the number fixed after the
    warm-up; samples are always seconds a *call*. Garbage is collected between samples and never during one.
    The order rotates by one each round, so that no candidate always follows the same neighbour's cache.
    """
    if not candidates or rounds < 1 or warmup < 0:
        raise UsageError(
            f"interleave: expected at least one candidate, rounds ≥ 1 and warmup ≥ 0, got "
            f"{len(candidates)} candidates, rounds={rounds}, warmup={warmup}"
        )
    names = list(candidates)
    calls = dict.fromkeys(names, 1)
    with _no_collection():
        for name in names:
            for _ in range(warmup):
                candidates[name]()
            if least_s > 0:
                once = _sample(candidates[name], 1, sync)
                calls[name] = max(1, min(1_000_000, int(least_s / max(once, 1e-9) + 0.5)))
        samples: dict[str, list[float]] = {name: [] for name in names}
        for number in range(rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                gc.collect()
                samples[name].append(_sample(candidates[name], calls[name], sync))
    return {name: Timing.of(samples[name]) for name in names}


def _sample(call: Callable[[], object], calls: int, sync: Callable[[], object] | None) -> float:
    if sync is not None:
        sync()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    if sync is not None:
        sync()
    return (time.perf_counter() - start) / calls


@contextmanager
def _no_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _relative_iqr(samples: list[float] | tuple[float, ...], median: float) -> float:
    if len(samples) < 2 or median == 0:
        return 0.0
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return (high - low) / abs(median)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: a name and its figures by column."""

    name: str
    figures: Mapping[str, Figure]


@dataclass(slots=True)
class Table:
    """A benchmark's result: `name` (a file name), `title` for people, rows, and what was measured where.

    `notes` are sentences printed below; `facts` are single figures of the whole table (sizes, peaks).
    """

    name: str
    title: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Figure] = field(default_factory=dict)

    def add(self, name: str, **figures: Figure) -> Row:
        """Appends a row; columns appear in the order in which rows first name them."""
        row = Row(name, figures)
        self.rows.append(row)
        return row

    def add_timing(self, name: str, timing: Timing, **figures: Figure) -> Row:
        """Appends a row that starts with `ms` and `spread` of a timing."""
        return self.add(name, ms=timing.ms, spread=timing.spread, **figures)

    def add_beside(self, name: str, timings: Mapping[str, Timing], target_s: float | None = None) -> Row:
        """Appends the timing of "cllm", each peer's ratio over it (`NAME_ratio`), and whether it is within a target."""
        ours = timings["cllm"]
        ratios = {f"{peer}_ratio": ratio(t, ours).median for peer, t in timings.items() if peer != "cllm"}
        within = None if target_s is None else ours.median_s <= target_s
        return self.add_timing(name, ours, within_target=within, **ratios)

    def peer(self, module: str) -> Any:
        """An optional package to measure against; None, and a note, where it is not installed."""
        try:
            return importlib.import_module(module)
        except ImportError:
            self.notes.append(f"{module} is not installed; its column is missing.")
            return None

    @property
    def columns(self) -> list[str]:
        """Every figure's name, in the order of first appearance."""
        return list(dict.fromkeys(column for row in self.rows for column in row.figures))

    def render(self, console: Console | None = None) -> None:
        """Prints the table, by default on stderr."""
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table as RichTable

        console = console or Console(file=sys.stderr)
        shown = RichTable(title=escape(self.title), title_justify="left", title_style="bold")
        shown.add_column("")
        for column in self.columns:
            shown.add_column(escape(column), justify="right")
        for row in self.rows:
            cells = [figure_text(column, row.figures.get(column)) for column in self.columns]
            shown.add_row(escape(row.name), *map(escape, cells))
        console.print(shown)
        for key, value in self.facts.items():
            console.print(f"{escape(key)}: {escape(figure_text(key, value))}", highlight=False)
        for note in self.notes:
            console.print(escape(note), highlight=False)

    def to_dict(self, machine: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """JSON-able: format, name, title, date (UTC), commit when known, machine, facts, rows, notes."""
        return {
            "format": FORMAT,
            "name": self.name,
            "title": self.title,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "commit": commit(),
            "machine": dict(machine) if machine is not None else None,
            "facts": self.facts,
            "rows": [{"name": row.name, **row.figures} for row in self.rows],
            "notes": self.notes,
        }

    def save(self, folder: str | Path, machine: Mapping[str, Any] | None = None) -> Path:
        """Writes `folder/<name>.json` (replaced whole, never half written) and returns its path."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        text = json.dumps(self.to_dict(machine), indent=1, ensure_ascii=False, allow_nan=False)
        with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".tmp", delete=False, encoding="utf-8") as file:
            file.write(text + "\n")
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)
        return path


def figure_text(column: str, value: Figure) -> str:
    """A figure for people: `spread`, `*_fraction` and `peak` columns as percent, others to four digits."""
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if column == "spread" or column.endswith("_fraction"):
        return f"{100 * value:.1f} %"
    if isinstance(value, int):
        return f"{value:,}"
    if value != 0 and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3e}"
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 10 else 3
    return f"{value:,.{digits}f}"


def commit() -> str | None:
    """The commit of the source tree that runs, with `+` when tracked files differ; None outside one."""
    import subprocess

    def git(*words: str) -> str | None:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # In site-packages of someone's own repository git would name *their* commit.
    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    head = git("rev-parse", "--short=12", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no")
    return head and head + ("+" if changed else "")
