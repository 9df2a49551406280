"""A run directory: making, opening and resuming it. One process at a time holds its lock."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from cllm import config as settings
from cllm.config import Config
from cllm.data.prepare import Prepared, is_prepared, open_prepared, prepare
from cllm.errors import ConfigError, LimitError, RunError
from cllm.text import Tokenizer
from cllm.training import checkpoint
from cllm.training.checkpoint import Checkpoint
from cllm.training.events import EventLog
from cllm.training.lock import RunLock
from cllm.training.loop import Loop, Outcome, Reporter
from cllm.training.plan import DEFAULT_MINUTES, device_of, memory_of, size
from cllm.training.state import State

RUN_FILE, TOKENIZER_FILE, EVENTS_FILE, DATA_FOLDER = "run.toml", "tokenizer.json", "events.jsonl", "data"

# what may differ on resume: it moves no number of the training itself
FREE_ON_RESUME = ("checkpoint.", "log.", "device", "train.max_minutes", "train.sample_", "data.path")


class Display(Reporter, Protocol):
    """What `train` shows besides the loop's steps."""

    def begin(self, config: Config, step: int, rows_per_epoch: int) -> None: ...

    def preparing(self, stage: str, done: int, total: int) -> None: ...


def train(config: Config, run_dir: Path, *, resume: bool, display: Display) -> Outcome:
    """Train `config` in `run_dir`, made when missing.

    resume: continue the newest good checkpoint; with nothing to resume, start afresh and say so. Without it a
    directory that already holds a run is refused. Raises RunError, ConfigError, DataError, NonFiniteError.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with RunLock(run_dir):
        found = _existing(run_dir, resume, display)
        if found is not None:
            config = _resumed(config, run_dir)
        device = device_of(config)
        if found is None:
            _clear_unstarted(run_dir)
        data = _data(config, run_dir, found is not None, display)
        if found is None:
            config = settings.replace(config, {"model.vocab": data.tokenizer.vocab_size})
            if config.train.steps is None and config.train.max_minutes is None:
                config = settings.replace(config, {"train.max_minutes": DEFAULT_MINUTES})
            _fits(config, device)
            data.tokenizer.save(run_dir / TOKENIZER_FILE)
            state = State.fresh(config, device)
            if config.start is not None:
                _start_from(state, Path(config.start), data.tokenizer, display)
        else:
            _same_tokenizer(found, data.tokenizer, run_dir)
            state = State.restore(config, found.weights, found.state, found.meta, device)
        loop = Loop(run_dir, state, data, display)
        if found is None:
            loop.fix_steps()
            write_run_file(run_dir, state.config)
        display.begin(state.config, state.step, loop.stream.rows_per_epoch)
        with EventLog(run_dir / EVENTS_FILE) as log:
            return loop.run(log, _notes(state, data, found, loop))


def write_run_file(run_dir: Path, config: Config) -> None:
    """`run.toml`, whole or not at all: everything resolved, enough to repeat the run."""
    text = "# Everything resolved; `cllm train --run run.toml --out NEW` repeats this run.\n" + settings.to_toml(config)
    temporary = run_dir / f".{RUN_FILE}.tmp"
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, run_dir / RUN_FILE)


def read_run_file(run_dir: Path) -> Config:
    """The configuration of an existing run. Raises RunError when there is none."""
    path = run_dir / RUN_FILE
    if not path.exists():
        what = "is not a run directory: it has no run.toml" if run_dir.is_dir() else "does not exist"
        raise RunError(f"{run_dir}: {what}. Train one with: cllm train YOUR_TEXT.txt --out {run_dir}")
    return settings.load(path)


def _clear_unstarted(run_dir: Path) -> None:
    """Remove data prepared by a start that came to nothing (it left no run.toml), perhaps of another text."""
    if not (run_dir / RUN_FILE).exists() and is_prepared(run_dir / DATA_FOLDER):
        shutil.rmtree(run_dir / DATA_FOLDER)


def _start_from(state: State, start: Path, tokenizer: Tokenizer, display: Display) -> None:
    """Take the weights (only those) of another run's newest checkpoint."""
    found = checkpoint.load(start, with_state=False)
    if found.meta.get("tokenizer") != tokenizer.sha256:
        raise RunError(
            f"{start}: its tokenizer is another one than this run's; leave data.tokenizer out to take its own"
        )
    try:
        state.model.load(found.weights)
    except ValueError as error:
        raise ConfigError(
            f"{start}: its weights do not fit this model: {error}; leave the [model] settings out"
        ) from None
    if state.ema is not None:
        state.ema.data.copy_(state.model.params.data)
    display.message(f"starting from the weights of {start} at {found.name}")


def starting_point(start: Path) -> dict[str, Any]:
    """Settings that a run started from another's weights takes over: its model and its tokenizer."""
    theirs = settings.to_dict(read_run_file(start))
    return {
        "start": str(start),
        "preset": theirs["preset"],
        "model": theirs["model"],
        "data": {"tokenizer": str(start / TOKENIZER_FILE)},
    }


def _fits(config: Config, device: torch.device) -> None:
    """Refuse a model that the machine's memory cannot hold, before any of it is taken."""
    needed, memory = size(config).total_bytes, memory_of(device)
    if needed > memory:
        raise LimitError(
            f"training needs {needed / 1e9:.1f} GB, this machine has {memory / 1e9:.1f} GB. A smaller train.batch "
            f"(now {config.train.batch}), train.sequence (now {config.train.sequence}) or model fits; "
            "`cllm info` shows the memory by part"
        )


def _existing(run_dir: Path, resume: bool, display: Display) -> Checkpoint | None:
    has_run = bool(checkpoint.list_checkpoints(run_dir))
    if not resume:
        if has_run:
            raise RunError(
                f"{run_dir}: a run is already there. Continue it with --resume, or give another --out; "
                "nothing was changed"
            )
        return None
    if not has_run:
        display.message(f"{run_dir}: nothing to resume; starting afresh")
        return None
    found = checkpoint.load(run_dir)
    for note in found.notes:
        display.message(note)
    display.message(f"resuming {run_dir} at step {found.step}")
    for change in found.environment_changes():
        display.message(f"note: {change}; the rest of the run may differ in the last bits")
    return found


def _resumed(asked: Config, run_dir: Path) -> Config:
    """The run's own configuration, with what may change on resume taken from `asked`."""
    saved = read_run_file(run_dir)
    theirs, ours = _flat(settings.to_dict(saved)), _flat(settings.to_dict(asked))
    changed = {key: ours.get(key) for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}
    for key, value in changed.items():
        if not key.startswith(FREE_ON_RESUME):
            raise ConfigError(
                f"{key}: got {value!r}, but the run in {run_dir} was started with {theirs.get(key)!r}. A resumed run "
                "keeps its settings, so that it ends as if never interrupted; start a new one with another --out"
            )
    return settings.replace(saved, {key: value for key, value in changed.items() if key != "data.path"})


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{name}.{key}" if isinstance(value, dict) else name: inner
        for name, value in values.items()
        for key, inner in (value.items() if isinstance(value, dict) else (("", value),))
    }


def _data(config: Config, run_dir: Path, resuming: bool, display: Display) -> Prepared:
    """The run's shards, prepared when missing."""
    folder = run_dir / DATA_FOLDER
    if resuming:
        return open_prepared(folder)
    if not config.data.path:
        raise ConfigError("data.path: no text given. Say what to train on: cllm train book.txt, or a folder, or -")
    data = prepare(
        config.data.path,
        folder,
        tokenizer=config.data.tokenizer,
        vocab_size=config.data.vocab_size or config.model.vocab,
        val_fraction=config.data.val_fraction,
        seed=config.seed,
        field=config.data.field,
        skip_bad=config.data.skip_bad,
        dedup=config.data.dedup,
        weights=config.data.weights,
        progress=display.preparing,
    )
    for note in data.notes:
        display.message(note)
    return data


def _same_tokenizer(found: Checkpoint, tokenizer: Tokenizer, run_dir: Path) -> None:
    if found.meta.get("tokenizer") != tokenizer.sha256:
        raise RunError(
            f"{run_dir}: tokenizer.json does not belong to {found.name}: its hash is {tokenizer.sha256[:16]}…, "
            f"the checkpoint was trained with {str(found.meta.get('tokenizer'))[:16]}…; restore the original file"
        )


def _notes(state: State, data: Prepared, found: Checkpoint | None, loop: Loop) -> dict[str, Any]:
    measured = size(state.config)
    return {
        "parameters": measured.parameters,
        "bytes": measured.bytes_by_part,
        "kernels": loop.step.kernels.name,
        "threads": torch.get_num_threads(),
        "data": data.statistics,
        "tokenizer": data.tokenizer.sha256,
        "from": found.name if found else None,
    }


def open_tokenizer(run_dir: Path) -> Tokenizer:
    """The run's tokenizer."""
    path = run_dir / TOKENIZER_FILE
    if not path.exists():
        raise RunError(f"{path}: missing; the run cannot be used without its tokenizer")
    return Tokenizer.load(path)
