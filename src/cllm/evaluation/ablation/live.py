"""What `cllm ablate` shows while it trains: on a terminal a table that moves, elsewhere a line a run."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table

from cllm.evaluation.ablation.runner import Result, Runner
from cllm.evaluation.ablation.study import Cell
from cllm.training.progress import duration


class Watch:
    """Progress of a study as lines on stderr."""

    def __init__(self, runner: Runner) -> None:
        self.runner, self.total = runner, len(runner.study.cells) * len(runner.study.seeds)
        self.now: tuple[str, int] | None = None
        self.step, self.steps = 0, 0
        self._began, self._before = time.monotonic(), len(runner.results)

    def started(self, cell: Cell, seed: int) -> None:
        self.now, self.step, self.steps = (cell.name, seed), 0, cell.config.train.steps or 0
        self.show()

    def stepped(self, step: int, steps: int, loss: float) -> None:
        self.step, self.steps = step, steps

    def finished(self, result: Result) -> None:
        print(
            f"{len(self.runner.results)} of {self.total}: {result.cell}, seed {result.seed}: "
            f"loss {result.loss:.4f} in {duration(result.seconds)}; {self.left()}",
            file=sys.stderr,
            flush=True,
        )

    def left(self) -> str:
        """Time left, from the runs finished and the steps of the one under way."""
        part = self.step / self.steps if self.steps else 0.0
        done = len(self.runner.results) - self._before + part
        rest = self.total - len(self.runner.results) - part
        if rest <= 0:
            return "done"
        return f"{duration((time.monotonic() - self._began) / done * rest)} left" if done > 0 else "no estimate yet"

    def show(self) -> None:
        """Nothing between the lines."""


class LiveWatch(Watch):
    """The same as a table: a row a cell, a column a seed."""

    def __init__(self, runner: Runner, live: Live) -> None:
        super().__init__(runner)
        self._live, self._shown = live, 0.0

    def stepped(self, step: int, steps: int, loss: float) -> None:
        super().stepped(step, steps, loss)
        if time.monotonic() - self._shown > 0.2:
            self.show()

    def finished(self, result: Result) -> None:
        self.now = None
        self.show()

    def show(self) -> None:
        self._shown = time.monotonic()
        self._live.update(self.table())

    def table(self) -> Table:
        study, results = self.runner.study, self.runner.results
        table = Table(title=study.title, caption=f"{len(results)} of {self.total} runs; {self.left()}")
        table.add_column("final validation loss")
        for seed in study.seeds:
            table.add_column(f"seed {seed}", justify="right")
        for cell in study.cells:
            row = []
            for seed in study.seeds:
                found = results.get((cell.name, seed))
                running = self.now == (cell.name, seed)
                row.append(f"{found.loss:.4f}" if found else f"[bold]{self.step}/{self.steps}[/]" if running else "·")
            table.add_row(cell.name, *row)
        return table


@contextmanager
def watching(runner: Runner) -> Iterator[Watch]:
    """The watch that suits stderr."""
    if not sys.stderr.isatty():
        yield Watch(runner)
        return
    with Live(console=Console(stderr=True), refresh_per_second=5) as live:
        yield LiveWatch(runner, live)
