"""What runs there are below a folder, from their run files and events."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cllm.config import load
from cllm.errors import CllmError
from cllm.training.events import current, number, read_events
from cllm.training.run import EVENTS_FILE, RUN_FILE


@dataclass(frozen=True)
class Summary:
    """One run: steps done and planned, tokens seen, lowest validation loss (nats a token), newest bits per byte, tokens
    a second and model FLOPs utilisation of the last step (None: not logged), how it ended ("running or killed" without
    a last word), validation losses in order."""

    path: str
    preset: str
    step: int
    steps: int | None
    tokens: int
    best_loss: float | None
    bits_per_byte: float | None
    tokens_per_s: float | None
    ended: str
    losses: tuple[float, ...]
    mfu: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def find_runs(folder: Path) -> list[Summary]:
    """Every run in `folder` (itself, or up to three levels below), by path; unreadable ones are listed as such."""
    files = {path for depth in range(4) for path in folder.glob("*/" * depth + RUN_FILE)}
    return [summary(path.parent) for path in sorted(files)]


def summary(run_dir: Path) -> Summary:
    """One run's figures; `ended` tells what is wrong with a run that cannot be read."""
    try:
        config = load(run_dir / RUN_FILE)
        events = current(read_events(run_dir / EVENTS_FILE)) if (run_dir / EVENTS_FILE).exists() else []
    except CllmError as error:
        return Summary(str(run_dir), "?", 0, None, 0, None, None, None, f"unreadable: {error}", ())
    steps = [event for event in events if event["event"] == "step"]
    scores = [event for event in events if event["event"] == "eval"]
    losses = tuple(
        loss for event in scores if not event.get("whole") and (loss := number(event.get("loss"))) is not None
    )
    last = steps[-1] if steps else {}
    stopped = events[-1].get("reason") if events and events[-1]["event"] == "stop" else None
    return Summary(
        path=str(run_dir),
        preset=config.preset,
        step=last.get("step", 0),
        steps=config.train.steps,
        tokens=last.get("tokens", 0),
        best_loss=min(losses) if losses else None,
        bits_per_byte=number(scores[-1].get("bits_per_byte")) if scores else None,
        tokens_per_s=number(last.get("tokens_per_s")),
        ended=str(stopped) if stopped else "running or killed",
        losses=losses,
        mfu=number(last.get("mfu")),
    )


def sparkline(values: tuple[float, ...], width: int = 16) -> str:
    """Values as a row of blocks, resampled to `width`, the lowest lowest."""
    if not values:
        return ""
    picked = [values[i * len(values) // width] for i in range(width)] if len(values) > width else list(values)
    low, high = min(picked), max(picked)
    return "".join("▁▂▃▄▅▆▇█"[round(7 * (v - low) / (high - low)) if high > low else 0] for v in picked)
