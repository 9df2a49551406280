"""Faults done to a small run, and what becomes of it: the rows of the fault table.

Every trial ends in one of three ways: the run, resumed, is byte for byte the uninterrupted one ("equal"); it is
refused, and the error names what is wrong ("said"); or neither, which is a failure of the test ("silent").
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import os
import random
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cllm import config as settings
from cllm.errors import CllmError
from cllm.training import checkpoint, stepper
from cllm.training.progress import Silent
from cllm.training.run import settings_of, train

STEPS = 6
TEXT = "".join(f"The {a} {b} sees the {c}. " for a in ("red", "old", "sly") for b in ("fox", "cat", "hen")
               for c in ("moon", "barn", "well", "road")) * 4  # fmt: skip
SETTINGS: dict[str, Any] = {
    "train.steps": STEPS, "train.batch": 2, "train.accumulate": 2, "train.sequence": 12, "train.eval_every": 2,
    "train.sample_every": 3, "train.sample_tokens": 2, "checkpoint.every": 2, "checkpoint.keep": 2, "optim.ema": 0.9,
    "model.dropout": 0.1, "data.tokenizer": "char", "model.width": 16, "model.ff": 32,
}  # fmt: skip
FILES = ("weights.safetensors", "state.safetensors")


class Told(Silent):
    """A display that keeps what it is told."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__(run_dir)
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)


@dataclass
class Row:
    """One row of the table."""

    fault: str
    trials: int = 0
    equal: int = 0
    said: int = 0
    silent: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {"fault": self.fault, "trials": self.trials, "equal": self.equal, "said": self.said,
                "silent": len(self.silent)}  # fmt: skip


class Lab:
    """A text, the run that nothing happened to, and a place for others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.text = folder / "text.txt"
        self.text.write_text(TEXT, encoding="utf-8")
        self.go(folder / "whole", resume=False)
        self.expected = self.contents(folder / "whole")
        self.number = 0

    def new(self) -> Path:
        """A fresh place for a run."""
        self.number += 1
        return self.folder / f"run-{self.number}"

    def go(self, run: Path, *, resume: bool = True) -> Told:
        """Train, or go on, as the command does; what was said."""
        base = (settings_of(run) or {}) if resume else {}
        overrides = {} if base else SETTINGS | {"data.path": [str(self.text)]}
        config = settings.load(preset=None if base else "nano", overrides=overrides, base=base)
        told = Told(run)
        train(config, run, resume=resume, display=told)
        return told

    def contents(self, run: Path) -> dict[str, bytes]:
        """The last checkpoint, to the byte."""
        folder = run / "checkpoints" / checkpoint.checkpoint_name(STEPS)
        found = {name: (folder / name).read_bytes() for name in FILES}
        return found | {"meta": repr(checkpoint.load(run, folder.name).meta).encode()}

    def goes_on(self, row: Row, run: Path, what: str) -> None:
        """The verdict of a trial whose fault is over: resume, and compare."""
        row.trials += 1
        try:
            self.go(run)
        except CllmError as error:
            if str(run) in str(error):
                row.said += 1
            else:
                row.silent.append(f"{what}: refused without saying where: {error}")
            return
        if self.contents(run) == self.expected:
            row.equal += 1
        else:
            row.silent.append(f"{what}: the resumed run is another one")
        shutil.rmtree(run)


# ------------------------------------------------------------------------------------------------- signals


def signals(lab: Lab, trials: int, seed: int = 0) -> Row:
    """SIGTERM at random steps, before the gradients, behind them, behind the update, or in the middle of a save."""
    row, draw = Row("SIGTERM at a random step"), random.Random(seed)
    for _ in range(trials):
        run, at, place = lab.new(), draw.randrange(STEPS), draw.choice(("gradients", "update", "save"))
        with _signal_at(at, place):
            lab.go(run, resume=False)
        lab.goes_on(row, run, f"SIGTERM at step {at}, {place}")
    return row


@contextlib.contextmanager
def _signal_at(at: int, place: str) -> Iterator[None]:
    made = 0
    owner, name = (checkpoint, "save") if place == "save" else (stepper.Stepper, place)
    plain = getattr(owner, name)

    def then(*args: Any, **options: Any) -> Any:
        nonlocal made
        made += 1
        if made == at + 1 and place == "save":
            os.kill(os.getpid(), signal.SIGTERM)
        found = plain(*args, **options)
        if made == at + 1 and place != "save":
            os.kill(os.getpid(), signal.SIGTERM)
        return found

    with patch.object(owner, name, then):
        yield


# -------------------------------------------------------------------------------------------------- full disk


class FullDisk:
    """From the n-th writing call below a folder on, every one fails: no space left on the device.

    Writing calls: opening to write, writing, making a folder, renaming. A write that fails first takes half.
    """

    def __init__(self, folder: Path, at: int | None) -> None:
        self.folder, self.at, self.calls = str(folder), at, 0
        self.failed = ""
        self._ours: dict[int, str] = {}
        self._plain = {"open": os.open, "write": os.write, "close": os.close, "mkdir": os.mkdir,
                       "rename": os.rename, "replace": os.replace, "io": io.open}  # fmt: skip

    def call(self, what: str) -> None:
        """One more writing call."""
        self.calls += 1
        if self.at is not None and self.calls >= self.at:
            self.failed = self.failed or f"call {self.calls}: {what}"
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), what)

    def below(self, path: Any) -> bool:
        return isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(self.folder)

    @contextlib.contextmanager
    def installed(self) -> Iterator[FullDisk]:
        with contextlib.ExitStack() as stack:
            for name in ("open", "write", "close", "mkdir", "rename", "replace"):
                stack.enter_context(patch.object(os, name, getattr(self, f"_{name}")))
            stack.enter_context(patch.object(io, "open", self._io_open))
            stack.enter_context(patch.object(builtins, "open", self._io_open))
            yield self

    def _open(self, path: Any, flags: int, *args: Any, **options: Any) -> int:
        writes = bool(flags & (os.O_WRONLY | os.O_RDWR)) and self.below(path)
        if writes:
            self.call(f"open {path}")
        file = self._plain["open"](path, flags, *args, **options)
        if writes:
            self._ours[file] = os.fspath(path)
        return int(file)

    def _close(self, file: int) -> None:
        self._ours.pop(file, None)
        self._plain["close"](file)

    def _write(self, file: int, data: Any) -> int:
        if file in self._ours:
            try:
                self.call(f"write {self._ours[file]}")
            except OSError:
                self._plain["write"](file, bytes(data)[: len(data) // 2])
                raise
        return int(self._plain["write"](file, data))

    def _mkdir(self, path: Any, *args: Any, **options: Any) -> None:
        if self.below(path):
            self.call(f"mkdir {path}")
        self._plain["mkdir"](path, *args, **options)

    def _rename(self, source: Any, target: Any, **options: Any) -> None:
        if self.below(target):
            self.call(f"rename {target}")
        self._plain["rename"](source, target, **options)

    def _replace(self, source: Any, target: Any, **options: Any) -> None:
        if self.below(target):
            self.call(f"replace {target}")
        self._plain["replace"](source, target, **options)

    def _io_open(self, path: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        writes = any(c in mode for c in "wax+") and self.below(path)
        if writes:
            self.call(f"open {path}")
        file = self._plain["io"](path, mode, *args, **options)
        return _FullFile(file, self, os.fspath(path)) if writes else file


class _FullFile:
    """A file object whose writes count."""

    def __init__(self, file: Any, disk: FullDisk, path: str) -> None:
        self._file, self._disk, self._path = file, disk, path

    def write(self, data: Any) -> Any:
        try:
            self._disk.call(f"write {self._path}")
        except OSError:
            self._file.write(data[: len(data) // 2])
            raise
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _FullFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def writing_calls(lab: Lab) -> int:
    """How many writing calls a whole run makes."""
    run = lab.new()
    with FullDisk(run, None).installed() as disk:
        lab.go(run, resume=False)
    assert lab.contents(run) == lab.expected, "counting changes nothing"
    shutil.rmtree(run)
    return disk.calls


def full_disk(lab: Lab, places: list[int]) -> Row:
    """The disk is full from the n-th writing call of a run on; then there is space again."""
    row = Row("disk full at a writing call of the run")
    for at in places:
        run = lab.new()
        with FullDisk(run, at).installed() as disk, contextlib.suppress(CllmError):
            lab.go(run, resume=False)
        if not disk.failed:
            continue
        lab.goes_on(row, run, disk.failed)
    return row


# ------------------------------------------------------------------------------------------------- damage


def stopped(lab: Lab, step: int = STEPS - 1) -> Path:
    """A run stopped behind a step."""
    run = lab.new()
    with _signal_at(step - 1, "update"):
        lab.go(run, resume=False)
    assert checkpoint.load(run).step == step
    return run


def damaged_files(run: Path) -> list[Path]:
    """The checkpoints' and the shards' files, and the tokenizers."""
    found = [p for p in run.rglob("*") if p.is_file() and p.parent.parent.name == "checkpoints"]
    return sorted(found + [p for p in (run / "data").iterdir() if p.is_file()] + [run / "tokenizer.json"])


def bit_flips(lab: Lab, trials: int, seed: int = 0) -> Row:
    """One flipped bit in a file of a checkpoint, of the data or in the tokenizer, then resume.

    Going on is right only when it was said that something is wrong, or the bytes are those that were expected.
    """
    row, draw = Row("one flipped bit in a file of a checkpoint, the data or the tokenizer"), random.Random(seed)
    origin = stopped(lab)
    files = damaged_files(origin)
    for trial in range(trials):
        run = lab.new()
        shutil.copytree(origin, run)
        path = run / files[trial % len(files)].relative_to(origin)
        data = bytearray(path.read_bytes())
        bit = draw.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        _judge(lab, row, run, path, f"bit {bit} of {path.relative_to(run)}", must_tell=_read_on_resume(path, run))
    shutil.rmtree(origin)
    return row


def cuts(lab: Lab, trials: int, seed: int = 0) -> Row:
    """A file cut short at a random place, or gone, then resume."""
    row, draw = Row("a file of a checkpoint, the data or the tokenizer cut short or gone"), random.Random(seed)
    origin = stopped(lab)
    files = damaged_files(origin)
    for trial in range(trials):
        run = lab.new()
        shutil.copytree(origin, run)
        path = run / files[trial % len(files)].relative_to(origin)
        size = path.stat().st_size
        if trial % 5 == 0:
            path.unlink()
        else:
            os.truncate(path, draw.randrange(size))
        _judge(lab, row, run, path, f"{path.relative_to(run)} cut", must_tell=_read_on_resume(path, run))
    shutil.rmtree(origin)
    return row


def _read_on_resume(path: Path, run: Path) -> bool:
    """Older checkpoints are not read unless the newest is damaged; the run's own tokenizer is read when used."""
    newest = (run / "latest").read_text().strip()
    return path.parent.name == newest or path.parent.name == "data"


def _judge(lab: Lab, row: Row, run: Path, path: Path, what: str, *, must_tell: bool) -> None:
    row.trials += 1
    try:
        told = lab.go(run)
    except CllmError as error:
        named = any(word in str(error) for word in (path.name, path.parent.name, str(path)))
        if named:
            row.said += 1
        else:
            row.silent.append(f"{what}: {error}")
        shutil.rmtree(run)
        return
    same = lab.contents(run) == lab.expected
    said = any(path.name in text or path.parent.name in text for text in told.said)
    if not same:
        row.silent.append(f"{what}: went on to another end; said {told.said}")
    elif must_tell and not said:
        row.silent.append(f"{what}: accepted without a word")
    else:
        row.equal += 1
        row.said += said
    shutil.rmtree(run)


# ------------------------------------------------------------------------------------------- two processes


def two_writers(lab: Lab, trials: int, seed: int = 0) -> Row:
    """While a run trains, another start on its folder, with and without --resume: refused; the first is unharmed."""
    row, draw = Row("a second process on the run"), random.Random(seed)
    for trial in range(trials):
        run, at = lab.new(), draw.randrange(STEPS)
        refused = _with_intruder(lab, run, at, resume=bool(trial % 2))
        row.trials += 1
        if not (len(refused) == 1 and f"in use by process {os.getpid()}" in refused[0]):
            row.silent.append(f"the second was not refused at step {at}: {refused}")
        elif lab.contents(run) != lab.expected:
            row.silent.append("the first was harmed")
        else:
            row.said += 1
            row.equal += 1
        shutil.rmtree(run)
    return row


def _with_intruder(lab: Lab, run: Path, at: int, *, resume: bool) -> list[str]:
    """Train; behind step `at` another training is started on the same folder. What that one was told."""
    refused: list[str] = []
    plain, made = stepper.Stepper.update, 0

    def intrude(self: Any, *args: Any) -> None:
        nonlocal made
        plain(self, *args)
        made += 1
        if made == at + 1:
            try:
                lab.go(run, resume=resume)
            except CllmError as error:
                refused.append(str(error))

    with patch.object(stepper.Stepper, "update", intrude):
        lab.go(run, resume=False)
    return refused
