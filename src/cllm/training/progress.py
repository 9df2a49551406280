"""What a training shows while it runs, all on stderr: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from cllm.training.curve import MovingAverage, half_life_for

if TYPE_CHECKING:
    from cllm.config import Config
    from cllm.training.loop import Outcome

EVERY_S = 10.0
# A model may write anything: control characters must not reach the terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Figures:
    """The running figures of one training and their text.

    Pieces in the order of what to give up last: loss, ETA, tokens a second, moving average, rate, gradient norm.
    """

    def __init__(self, first: int, total: int, clock: Callable[[], float]) -> None:
        self.first, self.total, self.done, self._clock = first, total, first, clock
        self._began = clock()
        self._average = MovingAverage(half_life_for(total))
        self._speed = MovingAverage(5)
        self.ema = self.loss = self.lr = self.grad_norm = self.speed = math.nan

    def step(self, step: int, loss: float, lr: float, grad_norm: float, tokens_per_s: float) -> None:
        """Takes in step number `step` (steps finished)."""
        self.done, self.loss, self.lr, self.grad_norm = step, loss, lr, grad_norm
        self.ema, self.speed = self._average.add(loss), self._speed.add(tokens_per_s)

    @property
    def eta_s(self) -> float:
        """Seconds still to go, by the mean over this session, evaluations included; NaN before its first step."""
        made = self.done - self.first
        return (self._clock() - self._began) / made * (self.total - self.done) if made else math.nan

    @property
    def elapsed_s(self) -> float:
        """Seconds since the training began or resumed."""
        return self._clock() - self._began

    def counter(self) -> str:
        """`step 120/1,000`"""
        return f"step {self.done:,}/{self.total:,}"

    def text(self, width: int | None = None) -> str:
        """As many of the figures as fit."""
        pieces = [
            (0, f"loss {self.loss:.4f}"),
            (3, f"ema {self.ema:.4f}"),
            (4, f"lr {self.lr:.2e}"),
            (5, f"grad {self.grad_norm:.3g}"),
            (2, f"{self.speed:,.0f} tokens/s"),
            (1, f"eta {duration(self.eta_s)}"),
        ]
        most = len(pieces)
        while most > 1 and width is not None and len("  ".join(t for p, t in pieces if p < most)) > width:
            most -= 1
        return "  ".join(text for priority, text in pieces if priority < most)


def duration(seconds: float) -> str:
    """`0:03:21`, `2 d 04:10:00`; `?` when unknown."""
    if not math.isfinite(seconds):
        return "?"
    whole = round(max(0.0, seconds))
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    clock = f"{rest // 60:02}:{rest % 60:02}"
    return f"{days} d {hours:02}:{clock}" if days else f"{hours}:{clock}"


class Silent:
    """Shows nothing; also the base of the others."""

    quiet = True

    def __init__(self, run_dir: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.run_dir, self._clock = run_dir, clock
        self.figures: Figures | None = None

    def begin(self, config: Config, step: int, rows_per_epoch: int) -> None:
        """Training starts behind step `step`; the configuration is complete."""
        t = config.train
        self.figures = Figures(step, t.steps or 0, self._clock)
        rows, sequence = t.batch * t.accumulate, t.sequence or config.model.context
        epochs = (t.steps or 0) * rows / max(rows_per_epoch, 1)
        self.message(
            f"{t.steps or 0:,} steps of {rows} × {sequence} tokens, {epochs:.2g} passes over the training text"
        )

    def preparing(self, stage: str, done: int, total: int) -> None:
        """Work before the training: `done` of `total` (0: unknown) of a stage."""

    def step(self, step: int, loss: float, lr: float, grad_norm: float, tokens_per_s: float) -> None:
        """Step number `step` is finished; loss in nats per token."""
        if self.figures is not None:
            self.figures.step(step, loss, lr, grad_norm, tokens_per_s)

    def message(self, text: str) -> None:
        """A sentence, or several lines, for the user."""

    def end(self, outcome: Outcome) -> None:
        """The training is over: says what to do next."""
        run = shlex.quote(str(self.run_dir))
        took = f" in {duration(self.figures.elapsed_s)}" if self.figures else ""
        if outcome.reason != "interrupted":
            self.message(
                f"{outcome.reason}: {outcome.step:,} steps{took}. Curve: {run}/loss.svg. Try: cllm generate {run}"
            )
        else:
            self.message(
                f"stopped behind step {outcome.step:,} of {outcome.steps:,}{took}; everything is saved. "
                f"Continue with: cllm train --out {run} --resume"
            )

    def close(self) -> None:
        """Leaves the terminal as it should be."""


class Plain(Silent):
    """Lines, one every `every_s` seconds, and messages as they come. A reader that went away silences it."""

    quiet = False

    def __init__(
        self,
        run_dir: Path,
        stream: TextIO | None = None,
        *,
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(run_dir, clock)
        self._stream, self._every_s, self._next = stream, every_s, -math.inf
        self._stage = ""

    def preparing(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage or self._clock() >= self._next:
            self._stage, self._next = stage, self._clock() + self._every_s
            self.message(f"{stage}: {done:,} of {total:,}" if total else f"{stage}: {done:,}")

    def begin(self, config: Config, step: int, rows_per_epoch: int) -> None:
        super().begin(config, step, rows_per_epoch)
        self._next = -math.inf

    def step(self, step: int, loss: float, lr: float, grad_norm: float, tokens_per_s: float) -> None:
        super().step(step, loss, lr, grad_norm, tokens_per_s)
        figures = self.figures
        if figures is not None and (self._clock() >= self._next or step >= figures.total):
            self._next = self._clock() + self._every_s
            self.message(f"{figures.counter()}  {figures.text()}")

    def message(self, text: str) -> None:
        stream = self._stream or sys.stderr
        try:
            print(_CONTROL.sub("\ufffd", text), file=stream, flush=True)
        except (OSError, ValueError):  # a closed pipe or stream is no reason to lose a training
            self.message = lambda text: None  # type: ignore[method-assign]


class Live(Silent):
    """A bar that moves, figures beside it as the width allows, messages above it."""

    quiet = False

    def __init__(
        self, run_dir: Path, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(run_dir, clock)
        self._console = console or Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[figures]}", markup=False),
            console=self._console,
            expand=True,
        )
        self._progress.start()
        self._stages: dict[str, TaskID] = {}
        self._task: TaskID | None = None

    def preparing(self, stage: str, done: int, total: int) -> None:
        if stage not in self._stages:
            self._stages[stage] = self._progress.add_task(stage, total=total or None, figures="")
        figures = f"{done:,} of {total:,}" if total else f"{done:,}"
        self._progress.update(self._stages[stage], completed=done, total=total or None, figures=figures)

    def begin(self, config: Config, step: int, rows_per_epoch: int) -> None:
        for stage in self._stages.values():
            self._progress.remove_task(stage)
        self._stages.clear()
        super().begin(config, step, rows_per_epoch)
        assert self.figures is not None
        self._task = self._progress.add_task(
            self.figures.counter(), completed=step, total=max(self.figures.total, 1), figures=""
        )

    def step(self, step: int, loss: float, lr: float, grad_norm: float, tokens_per_s: float) -> None:
        super().step(step, loss, lr, grad_norm, tokens_per_s)
        if self.figures is None or self._task is None:
            return
        counter = self.figures.counter()
        room = self._console.width - len(counter) - 16  # at least a short bar stays
        self._progress.update(
            self._task,
            completed=step,
            description=counter,
            figures=self.figures.text(max(room, 0)),
        )

    def message(self, text: str) -> None:
        self._progress.console.print(_CONTROL.sub("\ufffd", text), markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._progress.stop()


@contextmanager
def display_for(run_dir: str | Path, *, quiet: bool = False) -> Iterator[Silent]:
    """The display that fits: none when quiet, a live bar on a terminal, plain lines otherwise."""
    run_dir = Path(run_dir)
    display = Silent(run_dir) if quiet else Live(run_dir) if _on_terminal() else Plain(run_dir)
    try:
        yield display
    finally:
        display.close()


@contextmanager
def bar_for(label: str) -> Iterator[Callable[[int, int], None]]:
    """A passing bar for work of known length: yields a function of (done, total). Nothing without a terminal."""
    if not _on_terminal():
        yield lambda done, total: None
        return
    columns = TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.completed}/{task.total}")
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _on_terminal() -> bool:
    console = Console(stderr=True)
    return sys.stderr is not None and sys.stderr.isatty() and not console.is_dumb_terminal
