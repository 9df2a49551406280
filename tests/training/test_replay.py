"""`cllm replay`: a refused step again, in its own format, in float64 and in balls."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import cllm
from cllm.certificate.replay import in_balls
from cllm.errors import CorruptError, NonFiniteError, RunError
from cllm.model.batch import Batch
from cllm.model.model import Model
from cllm.model.step import Step
from cllm.training import checkpoint
from cllm.training.events import read_events
from cllm.training.replay import LARGEST
from cllm.training.replay import replay as run_again

TEXT = "".join(f"The {a} {b} sees the {c}. " for a in ("red", "old", "sly") for b in ("fox", "cat", "hen")
               for c in ("moon", "barn", "well", "road")) * 12  # fmt: skip
SETTINGS: dict[str, Any] = {
    "train.steps": 3, "train.batch": 2, "train.accumulate": 2, "train.sequence": 12, "model.dropout": 0.1,
    "checkpoint.every": 1, "checkpoint.keep": 9, "data.tokenizer": "char", "optim.ema": 0.9, "train.sample_every": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def hashes(run_dir: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in run_dir.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    """A run that the guard stopped: a rate of 1e12 makes attention scores of 1e51."""
    out = tmp_path_factory.mktemp("refused") / "run"
    absurd = SETTINGS | {"precision": "fp32", "optim.lr": 1e12, "optim.clip": 0, "schedule.warmup": 0, "train.steps": 9}
    with pytest.raises(NonFiniteError):
        cllm.train(text, preset="nano", out=out, set=absurd, quiet=True)
    return out


def test_the_refused_step_is_found_again_and_nothing_is_changed(refused: Path):
    before = hashes(refused)
    found = cllm.replay(refused)
    assert hashes(refused) == before
    alert = next(e for e in read_events(refused / "events.jsonl") if e["event"] == "alert")
    bad = found.replayed.native.first_bad
    assert bad is not None
    assert alert["where"].startswith(f"layer {bad.layer}, {bad.op} (")
    assert found.replayed.step == alert["step"]
    assert found.ok
    assert found.replayed.exact.first_bad is None
    assert math.isfinite(found.replayed.exact.loss)
    # the true results of that op fit the format; what it does within does not, and the balls show what
    verdict = " ".join(found.verdict())
    assert f"fp32 gave out in {bad.name}" in verdict
    assert found.balls is not None
    part = {p.name: p for p in found.balls.parts}[bad.name]
    assert part.log10 > math.log10(LARGEST["fp32"])
    assert part.primitive == "mm"
    assert f"its mm reaches {part.largest}" in verdict
    assert str(found.balls.loss)[:6] in str(found)
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_checkpoints_own_next_step(tmp_path: Path, text: Path):
    out = tmp_path / "run"
    cllm.train(text, preset="nano", out=out, set=SETTINGS, quiet=True)
    found = cllm.replay(out, step=2)
    made = [e for e in read_events(out / "events.jsonl") if e["event"] == "step"][2]
    assert found.replayed.native.loss == made["loss"], "the step that training made, to the bit"
    assert math.isclose(found.replayed.native.norm, made["grad_norm"], rel_tol=1e-12)
    assert found.ok
    assert found.replayed.native.first_bad is None
    assert "Every op is finite" in found.verdict()[0]
    assert math.isclose(found.replayed.exact.loss, made["loss"], rel_tol=1e-5)


def test_the_balls_hold_the_float64_values_of_their_row(tmp_path: Path, text: Path):
    """At ordinary sizes float64 is right to many digits, so the two must agree: op by op, loss and gradient."""
    out = tmp_path / "run"
    plain = SETTINGS | {"model.dropout": 0.0, "train.steps": 2}
    cllm.train(text, preset="nano", out=out, set=plain, quiet=True)
    replayed = run_again(out, step=1)
    balls = in_balls(replayed)
    model = Model(replayed.config.model, torch.float64)
    model.load({name: view.double() for name, view in replayed.weights.items()})
    step = Step(model, 1, 12)
    sizes: dict[str, float] = {}

    def look(layer: int | None, op: str, result: torch.Tensor) -> None:
        sizes[op if layer is None else f"{layer}.{op}"] = float(result.abs().max())

    sums = step.accumulate(Batch(replayed.tokens_RT1[:1], replayed.documents_RT1[:1]), probe=look)
    assert math.isclose(float(balls.loss), sums.mean, rel_tol=1e-9)
    largest = float((step.grads.data / sums.valid).abs().max())
    assert math.isclose(float(balls.gradient), largest, rel_tol=6e-3)  # three digits
    worst = max(step.grads.items(), key=lambda item: float(item[1].abs().max()))[0]
    assert balls.tensor == worst
    names = {part.name for part in balls.parts}
    assert {"embedding", "0.ln1", "0.attn.qkv", "0.attn", "0.attn.out", "0.ln2", "0.ffn.w1", "0.ffn.gelu", "0.ffn.w2",
            "lnf", "logits", "loss"} <= names  # fmt: skip
    for part in balls.parts:  # a part's largest intermediate is no less than its result
        if part.name in sizes and part.name != "loss":
            assert 10**part.log10 >= sizes[part.name] * (1 - 1e-6), part.name


def changed(source: Path, target: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """The run with other parameters in its newest checkpoint."""
    import shutil

    shutil.copytree(source, target)
    found = checkpoint.load(target)
    raw = {name: found.state[f"raw.{name}"].clone() for name in found.weights}
    change(raw)
    state = found.state | {f"raw.{name}": value for name, value in raw.items()}
    checkpoint.save(target, found.step, found.weights, state, found.meta, keep=9, best=False)
    return target


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    out = tmp_path_factory.mktemp("ordinary") / "run"
    cllm.train(text, preset="nano", out=out, set=SETTINGS, quiet=True)
    return out


def test_true_values_beyond_the_format_are_said_to_be_so(tmp_path: Path, ordinary: Path):
    def change(raw: dict[str, torch.Tensor]) -> None:
        raw["1.ffn.w1"].mul_(1e25)
        raw["1.ffn.w2"].mul_(1e25)

    found = cllm.replay(changed(ordinary, tmp_path / "run", change), step=3)
    bad = found.replayed.native.first_bad
    assert bad is not None
    assert bad.name == "1.ffn.w2"
    told = found.to_dict()
    op = next(op for op in told["ops"] if op["op"] == "1.ffn.w2")
    assert op["over_limit"] > 1e6
    assert told["gave_out_float64"] is None
    assert "no way of computing them would fit" in " ".join(found.verdict())


def test_values_that_even_float64_cannot_hold_are_known_from_balls(tmp_path: Path, ordinary: Path):
    def change(raw: dict[str, torch.Tensor]) -> None:
        raw["0.ln1.g"].fill_(1e38)
        raw["0.attn.wq"].fill_(1e38)
        raw["0.attn.wk"].copy_(torch.eye(32) * 1e38)  # scores of 1e152, their squares' gradients far beyond
        raw["0.ln2.g"].fill_(1e38)
        raw["0.ffn.w1"].copy_(torch.eye(128, 32) * 1e38)
        raw["0.ffn.b1"].fill_(3e38)

    found = cllm.replay(changed(ordinary, tmp_path / "run", change), step=3, balls=True)
    assert found.balls is not None, found.why_not
    assert max(part.log10 for part in found.balls.parts) > 200
    assert all(math.isfinite(part.log10) for part in found.balls.parts)


def test_a_parameter_that_was_broken_before_is_named(tmp_path: Path, ordinary: Path):
    def change(raw: dict[str, torch.Tensor]) -> None:
        raw["0.ffn.w1"][3, 4] = math.inf

    found = cllm.replay(changed(ordinary, tmp_path / "run", change), step=3)
    assert "The parameter 0.ffn.w1 is not finite before the step" in found.verdict()[0]


def test_what_is_missing_or_damaged_is_said(tmp_path: Path, ordinary: Path, refused: Path):
    with pytest.raises(RunError, match=r"no step was refused.* --step N, one of 0, 1, 2, 3"):
        cllm.replay(ordinary)
    with pytest.raises(RunError, match="no checkpoint"):
        cllm.replay(ordinary, step=77)
    with pytest.raises(RunError, match="does not exist"):
        cllm.replay(tmp_path / "nothing")
    source = next(refused.glob("nonfinite-*"))
    damaged = tmp_path / source.name
    damaged.write_bytes(source.read_bytes()[:-20])
    with pytest.raises(CorruptError, match="not a batch that the guard wrote"):
        cllm.replay(refused, batch=damaged)


def test_bfloat16_operands(tmp_path: Path, text: Path):
    """The true values are those of the float32 master weights."""
    run = cllm.train(text, preset="nano", out=tmp_path / "run", quiet=True,
                     set=SETTINGS | {"train.steps": 1, "precision": "bf16", "model.dropout": 0.0})  # fmt: skip
    found = cllm.replay(run, step=1)
    assert found.balls is not None, found.why_not
    assert found.to_dict()["limit"] == float(torch.finfo(torch.bfloat16).max)
    plain = run_again(run.path, step=1)
    assert found.replayed.native.loss == plain.native.loss
    assert found.replayed.native.loss != found.replayed.exact.loss


@pytest.mark.parametrize("positions", ["rope", "spiral"])
def test_models_with_fixed_tables(tmp_path: Path, text: Path, positions: str):
    run = cllm.train(text, preset="nano", out=tmp_path / "run", quiet=True,
                     set=SETTINGS | {"precision": "fp32", "train.steps": 1, "model.positions": positions})  # fmt: skip
    found = cllm.replay(run, step=1)
    assert found.balls is not None, found.why_not
    assert found.replayed.exact.first_bad is None
    loss = found.replayed.native.loss
    assert math.isclose(found.replayed.exact.loss, loss, rel_tol=1e-5)


def test_the_command(refused: Path, capsys: pytest.CaptureFixture[str]):
    from cllm.cli import run

    assert run(["replay", str(refused), "--no-balls", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["gave_out"] == "0.attn"
    assert told["balls"] is None
    assert told["loss"] == "NaN"
    assert run(["replay", str(refused), "--step", "1", "--batch", "x"]) == 2
