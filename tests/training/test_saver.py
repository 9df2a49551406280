"""Saving in the background: the same bytes, nothing named before it is durable, no error lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import cllm
from cllm.errors import RunError
from cllm.training import checkpoint, loop, saver, storage
from cllm.training.events import read_events
from cllm.training.stepper import Stepper

TEXT = "".join(f"The {a} {b} sees the {c}. " for a in ("red", "old", "sly") for b in ("fox", "cat", "hen")
               for c in ("moon", "barn", "well", "road")) * 12  # fmt: skip
STEPS = 12
SETTINGS: dict[str, Any] = {
    "train.steps": STEPS, "train.batch": 2, "train.sequence": 16, "train.eval_every": 5, "train.sample_every": 0,
    "checkpoint.every": 3, "checkpoint.keep": 99, "data.tokenizer": "char",
}  # fmt: skip


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def train(text: Path, out: Path, **more: Any) -> cllm.Run:
    return cllm.train(text, preset="nano", out=out, set=SETTINGS | more, quiet=True)


def files(run: Path) -> dict[str, bytes]:
    """All checkpoints but for the manifests' own settings."""
    found = {}
    for folder in sorted((run / "checkpoints").iterdir()):
        found |= {f"{folder.name}/{name}": (folder / name).read_bytes()
                  for name in ("weights.safetensors", "state.safetensors")}  # fmt: skip
    return found


class Slow(storage.PosixStorage):
    """A disk whose files take a while to be durable."""

    def fsync(self, file: int) -> None:
        time.sleep(0.05)
        super().fsync(file)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    disk, plain = Slow(), checkpoint.save
    monkeypatch.setattr(saver.checkpoint, "save", lambda *a, **k: plain(*a, **k, storage=disk))
    return disk


def test_the_steps_go_on_and_the_bytes_are_the_same(
    tmp_path: Path, text: Path, slow: Slow, monkeypatch: pytest.MonkeyPatch
):
    busy: list[bool] = []
    plain = Stepper.update
    loops: list[loop.Loop] = []
    make = loop.Loop.__init__

    def init(self: loop.Loop, *args: Any) -> None:
        make(self, *args)
        loops.append(self)

    def update(self: Stepper, *args: Any) -> None:
        plain(self, *args)
        busy.append(loops[-1]._saver.busy)

    monkeypatch.setattr(loop.Loop, "__init__", init)
    monkeypatch.setattr(Stepper, "update", update)
    behind = train(text, tmp_path / "behind")
    assert any(busy), "some updates were made while a checkpoint was being written"
    busy.clear()
    inline = train(text, tmp_path / "inline", **{"checkpoint.background": False})
    assert not any(busy)
    assert files(behind.path) == files(inline.path)
    told = [[(e["step"], e["name"], e["best"]) for e in read_events(run.path / "events.jsonl")
             if e["event"] == "checkpoint"] for run in (behind, inline)]  # fmt: skip
    assert told[0] == told[1]
    assert not [t for t in threading.enumerate() if t.name.startswith("checkpoint-")]


def test_latest_never_names_what_is_not_durable(tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "run"
    seen: list[str] = []

    class Watched(storage.PosixStorage):
        def fsync(self, file: int) -> None:
            if threading.current_thread() is not threading.main_thread():
                time.sleep(0.02)
                if (out / "latest").exists():
                    name = (out / "latest").read_text().strip()
                    checkpoint.verify(out / "checkpoints" / name)  # raises when a file is not complete
                    seen.append(name)
            super().fsync(file)

    plain = checkpoint.save
    monkeypatch.setattr(saver.checkpoint, "save", lambda *a, **k: plain(*a, **k, storage=Watched()))
    train(text, out)
    assert len(set(seen)) > 2
    assert checkpoint.load(out).step == STEPS


class Full(storage.PosixStorage):
    """A disk that is full for the checkpoint of one step."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def create(self, path: Path) -> int:
        if any(name in str(path) for name in self.names):
            raise OSError(28, "No space left on device")
        return super().create(path)


@pytest.mark.parametrize("background", [True, False])
def test_a_full_disk_is_said_at_the_next_step_and_the_training_goes_on(
    tmp_path: Path, text: Path, background: bool, monkeypatch: pytest.MonkeyPatch
):
    plain = checkpoint.save
    disk = Full("tmp-step-00000003")
    monkeypatch.setattr(saver.checkpoint, "save", lambda *a, **k: plain(*a, **k, storage=disk))
    run = train(text, tmp_path / "run", **{"checkpoint.background": background})
    alerts = [e for e in read_events(run.path / "events.jsonl") if e["event"] == "alert"]
    assert [a["kind"] for a in alerts] == ["save"]
    assert "No space left" in alerts[0]["what"]
    assert 3 <= alerts[0]["step"] <= 6
    assert checkpoint.list_checkpoints(run.path) == [f"step-{s:08d}" for s in (0, 5, 6, 9, 10, 12)]
    assert run.checkpoint.step == STEPS


def test_a_full_disk_at_the_end_is_an_error(tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch):
    plain = checkpoint.save
    disk = Full("tmp-step-00000012")
    monkeypatch.setattr(saver.checkpoint, "save", lambda *a, **k: plain(*a, **k, storage=disk))
    with pytest.raises(RunError, match="No space left"):
        train(text, tmp_path / "run")
    assert not [t for t in threading.enumerate() if t.name.startswith("checkpoint-")]
    assert checkpoint.load(tmp_path / "run").step == 10
    monkeypatch.undo()
    cllm.train(out=tmp_path / "run", resume=True, quiet=True)
    assert files(tmp_path / "run") == files(train(text, tmp_path / "again").path)


@pytest.mark.parametrize("signals", [1, 2])
def test_a_signal_waits_for_the_save(
    tmp_path: Path, text: Path, slow: Slow, signals: int, monkeypatch: pytest.MonkeyPatch
):
    plain, made = Stepper.update, 0

    def update(self: Stepper, *args: Any) -> None:
        nonlocal made
        plain(self, *args)
        made += 1
        if made == 4:  # the checkpoint of step 3 is on its way
            for _ in range(signals):
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Stepper, "update", update)
    out = tmp_path / "run"
    if signals == 1:
        assert train(text, out).outcome.reason == "interrupted"
        assert checkpoint.load(out).step == 4
    else:  # the second stops at once, without saving step 4; but what was begun is finished
        with pytest.raises(KeyboardInterrupt):
            train(text, out)
        assert checkpoint.load(out).step == 3
    assert checkpoint.load(out).notes == ()
    assert not [t for t in threading.enumerate() if t.name.startswith("checkpoint-")]
