"""Starting from another run's weights, and stopping early."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import cllm
from cllm.errors import ConfigError, RunError
from cllm.training import checkpoint
from cllm.training.events import read_events

TEXT = "She sells sea shells by the sea shore; the shells she sells are sea shells. " * 100


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
