"""Other people's logs, fed from the events: TensorBoard, trackio, Weights & Biases.

`events.jsonl` is always written and stays the truth; a tracker gets each event behind it, and one that fails is named
once and left alone: a log is no reason to lose a training. All three are optional packages, imported when asked for.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from cllm import config as settings
from cllm.config import Config, LogConfig
from cllm.errors import CllmError, MissingExtraError
from cllm.training.events import Event, EventLog, number, read_events

FOLDER = "tensorboard"
_EXTRAS = {
    "tensorboard": ("tensorboardX", "tensorboardX"),
    "trackio": ("trackio", "trackio"),
    "wandb": ("wandb", "wandb"),
}
_NOT_FIGURES = {"step", "time", "steps", "parameters", "threads", "at_step", "rolled_back_from"}


class Tracker(Protocol):
    """Takes events as they are logged."""

    def event(self, event: Event) -> None: ...

    def close(self) -> None: ...


def asked_for(log: LogConfig) -> list[str]:
    """The names of the trackers that are switched on."""
    return [name for name in _EXTRAS if getattr(log, name)]


def check_installed(log: LogConfig) -> None:
    """Import what the settings ask for, before any work. Raises MissingExtraError."""
    for name in asked_for(log):
        module, what = _EXTRAS[name]
        try:
            importlib.import_module(module)
        except ImportError:
            raise MissingExtraError(f"log.{name}: {what}", f"pip install 'cllm[{name}]'") from None


def scalars(event: Event) -> dict[str, float]:
    """The figures of an event by name: `train/loss`, `eval/perplexity`, `eval_whole/loss`; none of other events."""
    kind = event["event"]
    if kind not in ("step", "eval"):
        return {}
    group = "train" if kind == "step" else "eval_whole" if event.get("whole") else "eval"
    found = {key: number(value) for key, value in event.items() if key not in _NOT_FIGURES}
    return {f"{group}/{key}": value for key, value in found.items() if value is not None}


def words(event: Event) -> tuple[str, str] | None:
    """(name, text) of an event that is read rather than plotted: samples and alerts."""
    if event["event"] == "sample":
        return "sample", str(event.get("text"))
    if event["event"] == "alert":
        return f"alert/{event.get('kind')}", str(event.get("what"))
    return None


class Feed:
    """The event log, and the trackers behind it. Offers what the loop needs of an `EventLog`: emit and sync.

    say: told once about each tracker that fails.
    """

    def __init__(self, log: EventLog, config: Config, run_dir: Path, say: Callable[[str], None]) -> None:
        self._log, self._config, self._run_dir, self._say = log, config, run_dir, say
        self._trackers: dict[str, Tracker] | None = None

    def emit(self, event: str, step: int, **fields: Any) -> Event:
        """As `EventLog.emit`; the trackers are made at the first event."""
        made = self._log.emit(event, step, **fields)
        if self._trackers is None:
            self._trackers = {}
            names = asked_for(self._config.log)
            name = f"{self._run_dir.resolve().name}-{_identity(self._run_dir)}" if names else ""
            for kind in names:
                self._guarded(kind, partial(self._make, kind, name))
        for kind, tracker in list(self._trackers.items()):
            self._guarded(kind, partial(tracker.event, made))
        return made

    def sync(self) -> None:
        """As `EventLog.sync`."""
        self._log.sync()

    def close(self) -> None:
        """Let the trackers finish; the log itself is the caller's."""
        for kind, tracker in list((self._trackers or {}).items()):
            self._guarded(kind, tracker.close)

    def _make(self, kind: str, name: str) -> None:
        makers: dict[str, Callable[[str, Config, Path], Tracker]]
        makers = {"tensorboard": TensorBoard, "trackio": Trackio, "wandb": Wandb}
        assert self._trackers is not None
        self._trackers[kind] = makers[kind](name, self._config, self._run_dir)

    def _guarded(self, kind: str, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # anything: other people's code, and possibly their server
            assert self._trackers is not None
            self._trackers.pop(kind, None)
            self._say(f"log.{kind} failed and is left out from here on: {type(error).__name__}: {error}")


class TensorBoard:
    """Writes RUN/tensorboard; show it with `tensorboard --logdir RUN/tensorboard`."""

    def __init__(self, name: str, config: Config, run_dir: Path) -> None:
        self._folder, self._config = run_dir / FOLDER, config
        self._writer: Any = None

    def event(self, event: Event) -> None:
        if self._writer is None or event["event"] == "resume":  # steps beyond this one are made again
            self._open(event)
        at = {"global_step": event["step"], "walltime": event["time"]}
        for name, value in scalars(event).items():
            self._writer.add_scalar(name, value, **at)
        if (said := words(event)) is not None:
            self._writer.add_text(said[0], said[1], **at)
        if event["event"] in ("checkpoint", "eval", "stop"):
            self._writer.flush()

    def _open(self, event: Event) -> None:
        self.close()
        writer: Any = importlib.import_module("tensorboardX").SummaryWriter
        again = event["event"] == "resume"
        self._writer = writer(logdir=str(self._folder), purge_step=event["step"] + 1 if again else None)
        if not again:
            self._writer.add_text("run.toml", f"```\n{settings.to_toml(self._config)}\n```", 0)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class Trackio:
    """trackio (local first, from Hugging Face); show it with `trackio show`. A resumed run goes on in its own."""

    def __init__(self, name: str, config: Config, run_dir: Path) -> None:
        self._module: Any = importlib.import_module("trackio")
        self._module.init(
            project=config.log.project, name=name, config=settings.to_dict(config), resume="allow", embed=False
        )

    def event(self, event: Event) -> None:
        if found := scalars(event):
            self._module.log(found, step=event["step"])

    def close(self) -> None:
        self._module.finish()


class Wandb:
    """Weights & Biases; its own environment variables decide where to (WANDB_MODE=offline keeps it here)."""

    def __init__(self, name: str, config: Config, run_dir: Path) -> None:
        wandb: Any = importlib.import_module("wandb")
        self._run: Any = wandb.init(
            project=config.log.project,
            name=run_dir.resolve().name,
            id=name.rpartition("-")[2],
            dir=str(run_dir),
            config=settings.to_dict(config),
            resume="allow",
        )
        self._run.define_metric("step")  # after a resume steps come again, which wandb's own counter cannot
        self._run.define_metric("*", step_metric="step")

    def event(self, event: Event) -> None:
        if found := scalars(event):
            self._run.log({"step": event["step"], **found})

    def close(self) -> None:
        self._run.finish()


def _identity(run_dir: Path) -> str:
    """A name for this run that a resume gives again: made of the moment at which it started."""
    try:
        starts = [e["time"] for e in read_events(run_dir / "events.jsonl") if e["event"] == "start"]
    except CllmError:
        starts = []
    return hashlib.sha256(f"{run_dir.resolve()} {starts[-1:]}".encode()).hexdigest()[:12]
