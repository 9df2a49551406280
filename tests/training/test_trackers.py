"""Log adapters: TensorBoard's real files; trackio and Weights & Biases against modules that take what theirs take."""

from __future__ import annotations

import inspect
import json
import struct
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import cllm
from cllm.errors import MissingExtraError
from cllm.training import checkpoint
from cllm.training.events import read_events, series
from cllm.training.trackers import scalars

TEXT = "".join(f"The {a} {b} sees the {c}. " for a in ("red", "old", "sly") for b in ("fox", "cat", "hen")
               for c in ("moon", "barn", "well", "road")) * 12  # fmt: skip
SETTINGS: dict[str, Any] = {
    "train.steps": 6, "train.batch": 2, "train.sequence": 16, "train.eval_every": 3, "train.sample_every": 4,
    "train.sample_tokens": 3, "checkpoint.every": 2, "checkpoint.keep": 9, "data.tokenizer": "char",
}  # fmt: skip


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def train(text: Path, out: Path, **more: Any) -> cllm.Run:
    return cllm.train(text, preset="nano", out=out, set=SETTINGS | more, quiet=True)


def forget_after(run_dir: Path, step: int) -> None:
    import shutil

    for name in checkpoint.list_checkpoints(run_dir):
        if int(name[5:]) > step:
            shutil.rmtree(run_dir / "checkpoints" / name)
    for pointer in ("latest", "best"):
        (run_dir / pointer).write_text(checkpoint.checkpoint_name(step) + "\n")


def tensorboard_events(folder: Path) -> list[Any]:
    """Every event of every file, read as TensorBoard does: records of length, checksum, data, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            found.append(Event.FromString(data[at + 12 : at + 12 + length]))
            at += 16 + length
    return found


def test_tensorboard_holds_the_events(tmp_path: Path, text: Path):
    run = train(text, tmp_path / "run", **{"log.tensorboard": True})
    events = read_events(run.path / "events.jsonl")
    written = tensorboard_events(run.path / "tensorboard")
    points = {(v.tag, e.step): (v.simple_value, e.wall_time) for e in written for v in e.summary.value
              if v.WhichOneof("value") == "simple_value"}  # fmt: skip
    expected = {(name, e["step"]): (value, e["time"]) for e in events for name, value in scalars(e).items()}
    assert points.keys() == expected.keys()
    assert {"train/loss", "train/lr", "eval/perplexity", "eval_whole/loss"} <= {name for name, _ in expected}
    for key, (value, when) in expected.items():
        assert points[key][0] == struct.unpack("<f", struct.pack("<f", value))[0], "TensorBoard keeps float32"
        assert points[key][1] == when
    tags = {v.tag for e in written for v in e.summary.value}
    assert {"sample/text_summary", "run.toml/text_summary"} <= tags
    # a resumed run tells TensorBoard to forget the steps that are made again
    forget_after(run.path, 4)
    cllm.train(out=run.path, resume=True, quiet=True)
    again = tensorboard_events(run.path / "tensorboard")
    assert [e.step for e in again if e.HasField("session_log")] == [5]


def test_the_training_is_the_same_with_and_without(tmp_path: Path, text: Path):
    runs = [train(text, tmp_path / name, **{"log.tensorboard": on}) for name, on in (("a", True), ("b", False))]
    files = [(run.checkpoint.path / "weights.safetensors").read_bytes() for run in runs]
    assert files[0] == files[1]
    assert series(runs[0].path / "events.jsonl", "loss") == series(runs[1].path / "events.jsonl", "loss")


def test_a_package_that_is_missing_is_said_before_any_work(tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch):
    for module, name in (("tensorboardX", "tensorboard"), ("trackio", "trackio"), ("wandb", "wandb")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingExtraError, match=rf"pip install 'cllm\[{name}\]'"):
            train(text, tmp_path / name, **{f"log.{name}": True})
        assert not (tmp_path / name).exists()


class Calls(list[Any]):
    """What a tracker's module was told."""


def fake_trackio(calls: Calls) -> types.ModuleType:
    """The part of trackio 0.43 that is used, with its signatures."""
    module = types.ModuleType("trackio")

    def init(
        project: str, name: str | None = None, config: dict[str, Any] | None = None, resume: str = "never",
        embed: bool = True,
    ) -> None:  # fmt: skip
        json.dumps(config, allow_nan=False)
        calls.append(("init", project, name, resume))

    def log(metrics: dict[str, Any], step: int | None = None) -> None:
        calls.append(("log", step, dict(metrics)))

    module.init, module.log, module.finish = init, log, lambda: calls.append(("finish",))  # type: ignore[attr-defined]
    return module


def fake_wandb(calls: Calls) -> types.ModuleType:
    """The part of wandb 0.31 that is used."""
    module = types.ModuleType("wandb")

    class Run:
        def define_metric(self, name: str, step_metric: str | None = None) -> None:
            calls.append(("metric", name, step_metric))

        def log(self, data: dict[str, Any], step: int | None = None) -> None:
            calls.append(("log", data["step"], {k: v for k, v in data.items() if k != "step"}))

        def finish(self) -> None:
            calls.append(("finish",))

    def init(
        project: str | None = None, name: str | None = None, id: str | None = None, dir: str | None = None,
        config: dict[str, Any] | None = None, resume: str | None = None,
    ) -> Run:  # fmt: skip
        calls.append(("init", project, id, resume))
        return Run()

    module.init = init  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize(("name", "fake"), [("trackio", fake_trackio), ("wandb", fake_wandb)])
def test_the_others_get_the_events_and_one_identity_over_resumes(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch, name: str, fake: Any
):
    calls = Calls()
    monkeypatch.setitem(sys.modules, name, fake(calls))
    run = train(text, tmp_path / "run", **{f"log.{name}": True, "log.project": "mine"})
    events = read_events(run.path / "events.jsonl")
    expected = [("log", e["step"], scalars(e)) for e in events if scalars(e)]
    assert [call for call in calls if call[0] == "log"] == expected
    assert calls[0][:2] == ("init", "mine")
    assert calls[-1] == ("finish",)
    forget_after(run.path, 4)
    cllm.train(out=run.path, resume=True, quiet=True)
    first, second = [call for call in calls if call[0] == "init"]
    assert first == second, "the same run goes on"
    other = train(text, tmp_path / "other", **{f"log.{name}": True})
    assert other is not None
    assert [call for call in calls if call[0] == "init"][-1][2] != first[2]


def test_a_tracker_that_fails_is_left_alone_and_the_training_goes_on(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    calls = Calls()
    module: Any = fake_trackio(calls)
    plain = module.log

    def log(metrics: dict[str, Any], step: int | None = None) -> None:
        if step == 3:
            raise ConnectionError("the server is away")
        plain(metrics, step)

    module.log = log
    monkeypatch.setitem(sys.modules, "trackio", module)
    run = cllm.train(text, preset="nano", out=tmp_path / "run", set=SETTINGS | {"log.trackio": True})
    assert run.outcome is not None
    assert run.outcome.reason == "done"
    said = capsys.readouterr().err
    assert said.count("log.trackio failed and is left out from here on: ConnectionError: the server is away") == 1
    assert [call[1] for call in calls if call[0] == "log"] == [1, 2]


def test_the_fakes_have_the_real_signatures_where_those_are_installed():
    for name, fake, functions in (
        ("trackio", fake_trackio, ("init", "log", "finish")),
        ("wandb", fake_wandb, ("init",)),
    ):
        try:
            real = __import__(name)
        except ImportError:
            continue
        for function in functions:
            mine = inspect.signature(getattr(fake(Calls()), function)).parameters
            assert mine.keys() <= inspect.signature(getattr(real, function)).parameters.keys()
