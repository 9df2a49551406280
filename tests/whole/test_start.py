"""Starting from another run's weights, and stopping early."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch

import cllm
from cllm.errors import ConfigError, RunError
from cllm.model.model import Model
from cllm.training import checkpoint
from cllm.training.events import read_events

TEXT = "She sells sea shells by the sea shore; the shells she sells are sea shells. " * 100
NOTHING: dict[str, Any] = {
    "train.steps": 1,
    "optim.lr": 1e-30,
    "optim.weight_decay": 0.0,
}  # a step that changes nothing


@pytest.fixture
def first(tmp_path: Path) -> cllm.Run:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return cllm.train(
        tmp_path / "text.txt",
        preset="nano",
        out=tmp_path / "first",
        set={"train.steps": 20, "model.ff": 64},
        quiet=True,
    )


def test_a_run_starts_from_the_weights_model_and_tokenizer_of_another(first: cllm.Run, tmp_path: Path):
    (tmp_path / "other.txt").write_text(TEXT[::-1], encoding="utf-8")
    second = cllm.train(tmp_path / "other.txt", start=first.path, out=tmp_path / "second", quiet=True,
                        set={"train.steps": 1, "optim.lr": 1e-30, "optim.weight_decay": 0.0})  # fmt: skip
    assert second.config.model == first.config.model
    assert second.tokenizer.sha256 == first.tokenizer.sha256
    for name, tensor in first.checkpoint.weights.items():
        assert torch.equal(second.checkpoint.weights[name], tensor), "a step at a rate of nothing changes nothing"
    state = checkpoint.load(second.path).meta
    assert (state["step"], state["tokens"]) == (1, 16 * 64)


def started(run: cllm.Run) -> dict[str, Any]:
    """What the first event says about where the weights come from."""
    return next(e for e in read_events(run.path / "events.jsonl") if e["event"] == "start")["started_from"]


def test_another_text_and_a_longer_context_are_said_and_recorded(
    first: cllm.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "other.txt").write_text(TEXT[::-1], encoding="utf-8")
    texts = [tmp_path / "text.txt", tmp_path / "other.txt"]
    mix = {"data.weights": {str(texts[0]): 1.0, str(texts[1]): 3.0}}
    longer = cllm.train(texts, start=first.path, out=tmp_path / "longer",
                        set=NOTHING | mix | {"model.context": 100, "train.sequence": 90})  # fmt: skip
    said = capsys.readouterr().err
    assert "another text, or another mix of it, than there" in said
    assert "model.context: 100 here, 64 there" in said
    assert "train.sequence: 90 here, 64 there" in said
    assert "the last 36 positions of the longer context were never trained" in said
    record = started(longer)
    assert record["run"] == str(first.path)
    assert record["checkpoint"] == "step-00000020"
    assert (record["step"], record["tokens"]) == (20, 20 * 16 * 64)
    assert record["weights_sha256"] == sha256((first.checkpoint.path / "weights.safetensors").read_bytes()).hexdigest()
    assert record["same_text"] is False
    assert record["changes"]["model.context"] == [64, 100]
    assert record["changes"]["data.path"][1] == [str(tmp_path / "text.txt"), str(tmp_path / "other.txt")]
    assert "data.weights" in record["changes"]
    assert "data.tokenizer" not in record["changes"], "it is the same one, by its file"
    assert record["new_positions"] == 36
    table, theirs = longer.checkpoint.weights["pos"], first.checkpoint.weights["pos"]
    assert torch.equal(table[:64], theirs)
    fresh = Model(longer.config.model).initialise(longer.config.seed).params["pos"]
    assert torch.equal(table[64:], fresh[64:]), "the new rows are those of a new model"


def test_the_same_text_and_context_is_said_too(first: cllm.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    again = cllm.train(tmp_path / "text.txt", start=first.path, out=tmp_path / "again", set={"train.steps": 1})
    assert "training on the same text as there" in capsys.readouterr().err
    record = started(again)
    assert record["same_text"] is True
    assert record["changes"] == {}
    assert "started_from" not in next(e for e in read_events(first.path / "events.jsonl") if e["event"] == "start")


def test_a_shorter_context_keeps_the_first_positions(first: cllm.Run, tmp_path: Path):
    short = cllm.train(tmp_path / "text.txt", start=first.path, out=tmp_path / "short", quiet=True,
                       set=NOTHING | {"model.context": 20, "train.sequence": 20})  # fmt: skip
    assert torch.equal(short.checkpoint.weights["pos"], first.checkpoint.weights["pos"][:20])
    assert started(short)["new_positions"] == 0


def test_one_checkpoint_can_be_named(first: cllm.Run, tmp_path: Path):
    folder = first.path / "checkpoints" / "step-00000010"
    if not folder.exists():
        folder = first.checkpoint.path.parent / checkpoint.list_checkpoints(first.path)[0]
    again = cllm.train(tmp_path / "text.txt", start=folder, out=tmp_path / "again", quiet=True, set=NOTHING)
    assert started(again)["checkpoint"] == folder.name
    saved = checkpoint.load(first.path, folder.name)
    assert all(torch.equal(again.checkpoint.weights[name], value) for name, value in saved.weights.items())


def test_a_model_or_tokenizer_that_does_not_fit_is_refused(first: cllm.Run, tmp_path: Path):
    text = tmp_path / "text.txt"
    with pytest.raises(ConfigError, match="its weights do not fit this model"):
        cllm.train(text, start=first.path, out=tmp_path / "a", set={"train.steps": 1, "model.ff": 96}, quiet=True)
    with pytest.raises(RunError, match="its tokenizer is another"):
        cllm.train(
            text, start=first.path, out=tmp_path / "b", set={"train.steps": 1, "data.tokenizer": "char"}, quiet=True
        )
    with pytest.raises(RunError, match="does not exist"):
        cllm.train(text, start=tmp_path / "none", out=tmp_path / "c", quiet=True)


def test_early_stop_ends_when_the_validation_loss_stops_falling(first: cllm.Run, tmp_path: Path):
    run = cllm.train(
        tmp_path / "text.txt",
        preset="nano",
        out=tmp_path / "early",
        set={"train.steps": 500, "train.eval_every": 1, "train.early_stop": 3, "optim.lr": 1e-30},
        quiet=True,
    )
    assert run.outcome is not None
    assert run.outcome.reason == "early stop"
    losses = [event["loss"] for event in read_events(run.path / "events.jsonl") if event["event"] == "eval"]
    best = min(range(len(losses)), key=losses.__getitem__)
    assert run.outcome.step == best + 1 + 3
    assert run.outcome.score is not None
