"""Narrow weights in generation and evaluation: what is generated with is what is evaluated, and its cost is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cllm import api, cli
from cllm.errors import UsageError
from cllm.generation.generate import Request
from cllm.model.decode import Decoder
from cllm.model.narrow import with_weights

TEXT = "The quick brown fox jumps over the lazy dog. Pack my box with five dozen liquor jugs. " * 40


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    folder = tmp_path_factory.mktemp("weights")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    settings = {"train.steps": 12, "train.batch": 4, "optim.lr": 1e-2, "precision": "fp32"}
    return api.train(folder / "text.txt", preset="nano", out=folder / "run", set=settings, quiet=True)


@pytest.mark.parametrize("kind", ["fp32", "bf16", "int8"])
def test_greedy_text_is_that_of_the_narrowed_model(run: api.Run, kind: str):
    text = run.generate("The ", max_tokens=12, temperature=0.0, weights=kind)
    narrow, ids = with_weights(run.model, kind), list(run.tokenizer.encode("The "))
    whole = Decoder(narrow)
    pieces = run.tokenizer.decoder()
    want = ""
    for _ in range(12):
        whole.reset()  # uncached: the whole text again for each token
        token = int(whole.read(torch.tensor([ids]))[0].argmax())
        if token == run.tokenizer.eos_id:
            break
        ids.append(token)
        want += pieces.push(token)
    assert text == want + pieces.finish()


def test_the_cost_is_that_of_the_narrowed_matrices(run: api.Run):
    own, wide, narrow = (run.evaluate(weights=kind) for kind in (None, "fp32", "int8"))
    assert own.loss == wide.loss != narrow.loss
    assert narrow.targets == wide.targets
    stored = api.Run(run.path)  # the same numbers from a model that holds the narrowed matrices
    for name, value in with_weights(run.model, "int8").params.items():
        stored.model.params[name].copy_(value)
    assert stored.evaluate(weights="fp32").loss == narrow.loss


def test_eval_tells_the_cost(run: api.Run, capsys: pytest.CaptureFixture[str]):
    assert cli.run(["eval", str(run.path), "--weights", "int8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["weights"] == "int8"
    assert found["loss"] == run.evaluate(weights="int8").loss
    assert found["loss_difference"] == found["loss"] - found["fp32"]["loss"]
    assert found["perplexity_difference"] == found["perplexity"] - found["fp32"]["perplexity"]
    assert cli.run(["eval", str(run.path), "--weights", "bf16"]) == 0
    assert "weights         bf16: loss" in capsys.readouterr().out


def test_unknown_weights_are_refused(run: api.Run, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(UsageError, match='got "int4"'):
        Request.of(weights="int4")
    with pytest.raises(UsageError, match='got "int4"'):
        run.evaluate(weights="int4")
    assert cli.run(["eval", str(run.path), "--weights", "int8", "--choices", "q.jsonl"]) == 2
    assert "--weights" in capsys.readouterr().err
    assert not Path("q.jsonl").exists()
