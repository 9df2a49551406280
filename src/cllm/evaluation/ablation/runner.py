"""Training the cells of a study, one run at a time, each in its own run directory; what is done is not done again."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from cllm import config as settings
from cllm.config import Config
from cllm.data.prepare import open_prepared
from cllm.data.stream import SequentialRows
from cllm.errors import CorruptError, DomainError, RunError
from cllm.evaluation.ablation.study import Cell, Study
from cllm.model.model import Model
from cllm.model.step import Step
from cllm.text.training import KINDS
from cllm.training import checkpoint
from cllm.training.events import current, number, read_events
from cllm.training.plan import device_of, settle
from cllm.training.progress import Silent
from cllm.training.run import DATA_FOLDER, EVENTS_FILE, as_resumed, train
from cllm.training.state import DTYPES
from cllm.training.validation import score

RESULT = "result.json"


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One trained run of a study."""

    cell: str
    seed: int
    settings_sha256: str
    """of everything that decides the numbers"""
    parameters: int
    steps: int
    tokens: int
    loss: float
    """nats a token on the whole validation part, at the end"""
    bits_per_byte: float | None
    curve: list[tuple[int, float]]
    """(step, validation loss) of the evaluations on the way"""
    lengths: dict[str, float | None]
    """loss at other sequence lengths; None where the model has no position for them"""
    seconds: float
    """of the training; on the machine as it was then"""


class _Watcher(Silent):
    """Hands the progress of one run on."""

    def __init__(self, run_dir: Path, seen: Callable[[int, int, float], None]) -> None:
        super().__init__(run_dir)
        self._seen = seen

    def step(self, step: int, loss: float, lr: float, grad_norm: float, tokens_per_s: float) -> None:
        super().step(step, loss, lr, grad_norm, tokens_per_s)
        self._seen(step, self.figures.total if self.figures else 0, loss)


class Runner:
    """Trains a study in `folder`.

    `results` has what is finished; `run` does the rest and can be interrupted at any time: the run under way is
    resumed exactly. Raises RunError when the folder holds another study's runs.
    """

    def __init__(self, study: Study, folder: Path) -> None:
        self.study, self.folder = study, folder
        self.results: dict[tuple[str, int], Result] = {}
        for cell in study.cells:
            for seed in study.seeds:
                found = self._finished(cell, seed)
                if found is not None:
                    self.results[cell.name, seed] = found

    @property
    def left(self) -> list[tuple[Cell, int]]:
        """What is still to train: seed by seed, so that an unfinished study has whole pairs."""
        pairs = [(cell, seed) for seed in self.study.seeds for cell in self.study.cells]
        return [(cell, seed) for cell, seed in pairs if (cell.name, seed) not in self.results]

    def run(
        self,
        started: Callable[[Cell, int], None] = lambda cell, seed: None,
        stepped: Callable[[int, int, float], None] = lambda step, steps, loss: None,
        finished: Callable[[Result], None] = lambda result: None,
    ) -> bool:
        """Train what is left; returns whether the study is complete (False: interrupted).

        started(cell, seed), stepped(step, steps, loss) and finished(result) are called as it goes.
        """
        for cell, seed in self.left:
            started(cell, seed)
            result = self._one(cell, seed, stepped)
            if result is None:
                return False
            self.results[cell.name, seed] = result
            finished(result)
        return True

    def place(self, cell: Cell, seed: int) -> Path:
        """The run directory of one run."""
        return self.folder / "runs" / cell.folder / f"seed-{seed}"

    def _one(self, cell: Cell, seed: int, stepped: Callable[[int, int, float], None]) -> Result | None:
        config, place, start = cell.with_seed(seed), self.place(cell, seed), time.monotonic()
        outcome = train(_settled(config, place), place, resume=True, display=_Watcher(place, stepped))
        if outcome.reason == "interrupted":
            return None
        seconds = time.monotonic() - start
        events = current(read_events(place / EVENTS_FILE))
        whole = [e for e in events if e["event"] == "eval" and e.get("whole")]
        loss = number(whole[-1].get("loss")) if whole else None
        if loss is None:
            raise RunError(f"{place}: it has no final evaluation to compare; the data have no validation part")
        last = [e for e in events if e["event"] == "step"][-1]
        curve = [(e["step"], e["loss"]) for e in events if e["event"] == "eval" and number(e.get("loss")) is not None]
        started = next(e for e in events if e["event"] in ("start", "resume"))
        found = Result(
            cell=cell.name,
            seed=seed,
            settings_sha256=_digest(config),
            parameters=started["parameters"],
            steps=last["step"],
            tokens=last["tokens"],
            loss=loss,
            bits_per_byte=number(whole[-1].get("bits_per_byte")),
            curve=curve,
            lengths=self._at_lengths(place, config),
            seconds=seconds,
        )
        content = msgspec.json.format(msgspec.json.encode(found), indent=1)
        temporary = place / f".{RESULT}.tmp"
        temporary.write_bytes(content)
        os.replace(temporary, place / RESULT)
        return found

    def _at_lengths(self, place: Path, config: Config) -> dict[str, float | None]:
        """The trained model on the whole validation part in rows of other lengths."""
        if not self.study.lengths:
            return {}
        found = checkpoint.load(place, with_state=False)
        data = open_prepared(place / DATA_FOLDER, verify=False)
        config = settings.replace(config, {"model.vocab": data.tokenizer.vocab_size})
        model = Model(config.model, DTYPES[config.precision], device_of(config)).load(found.weights)
        losses: dict[str, float | None] = {}
        for length in self.study.lengths:
            if data.val is None:
                losses[str(length)] = None
                continue
            try:
                scored_model = model.longer(length) if length > model.config.context else model
            except DomainError:
                losses[str(length)] = None
                continue
            rows = SequentialRows(data.val, length, pack=config.data.pack)
            step = Step(
                scored_model, min(16, len(rows)), length, document_mask=config.data.document_mask, gradients=False
            )
            scored = score(step, scored_model, rows, None)
            losses[str(length)] = scored.loss if scored else None
        return losses

    def _finished(self, cell: Cell, seed: int) -> Result | None:
        path = self.place(cell, seed) / RESULT
        if not path.exists():
            return None
        try:
            found = msgspec.json.decode(path.read_bytes(), type=Result)
        except (OSError, msgspec.DecodeError) as error:
            raise CorruptError(
                f"{path}: not a result ({error}); remove the file, and the run is scored again"
            ) from None
        if found.settings_sha256 != _digest(cell.with_seed(seed)) or set(found.lengths) != {
            str(n) for n in self.study.lengths
        }:
            raise RunError(
                f"{path.parent}: it was trained with other settings than the study now has for {cell.name}; "
                "choose another --out, or remove this run"
            )
        return found


def _settled(config: Config, place: Path) -> Config:
    """What the study leaves open, fixed as the run's own record has it: only then can a stopped run be resumed."""
    config = settle(config, config.train.steps or 1)
    if config.data.tokenizer in KINDS:
        config = settings.replace(config, {"data.vocab_size": config.data.vocab_size or config.model.vocab})
    begun = as_resumed(place, {})
    if begun is not None:  # its tokenizer is trained: this is the size it has
        config = settings.replace(config, {"model.vocab": begun.model.vocab})
    return config


def _digest(config: Config) -> str:
    """The SHA-256 of all settings that decide numbers (not of logs and checkpoints)."""
    said: dict[str, Any] = settings.to_dict(config)
    for section in ("checkpoint", "log"):
        said.pop(section, None)
    return hashlib.sha256(msgspec.json.encode(said, order="sorted")).hexdigest()
