"""Gradient noise scale and model FLOPs utilisation: what is logged, and that training does not notice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cllm
from cllm import config as settings
from cllm.bench import peak
from cllm.errors import ConfigError
from cllm.model.layout import flops_per_token
from cllm.training import checkpoint
from cllm.training.events import read_events
from cllm.training.noise import NAME, estimate

TEXT = "".join(f"The {a} {b} sees the {c}. " for a in ("red", "old", "sly") for b in ("fox", "cat", "hen")
               for c in ("moon", "barn", "well", "road")) * 12  # fmt: skip
SETTINGS: dict[str, Any] = {
    "train.steps": 8, "train.batch": 2, "train.accumulate": 3, "train.sequence": 16, "train.eval_every": 0,
    "train.sample_every": 0, "data.tokenizer": "char", "checkpoint.every": 1, "checkpoint.keep": 99,
}  # fmt: skip


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def train(text: Path, out: Path, **more: Any) -> cllm.Run:
    return cllm.train(text, preset="nano", out=out, set=SETTINGS | more, quiet=True)


def steps(run: cllm.Run) -> list[dict[str, Any]]:
    return [e for e in read_events(run.path / "events.jsonl") if e["event"] == "step"]


def test_the_estimates_are_unbiased_for_unequal_micro_batches():
    """Gradients drawn with a known mean and covariance: the average estimate lies within 5 standard errors."""
    draw = np.random.default_rng(5)
    mean, deviation = np.array([3.0, -1.0, 0.5, 0.0]), np.array([2.0, 1.0, 4.0, 0.5])
    targets = [3, 10, 1, 6]
    found = []
    for _ in range(6000):
        sums = [n * mean + deviation * np.sqrt(n) * draw.normal(size=4) for n in targets]
        squares = [float(np.sum((s / n) ** 2)) for s, n in zip(sums, targets, strict=True)]
        whole = float(np.sum((np.sum(sums, axis=0) / sum(targets)) ** 2))
        found.append(estimate(squares, targets, whole))
    values = np.array(found)
    error = values.std(axis=0) / np.sqrt(len(values))
    truth = np.array([np.sum(deviation**2), np.sum(mean**2)])
    assert (np.abs(values.mean(axis=0) - truth) < 5 * error).all(), (values.mean(axis=0), truth, error)
    assert (error < 0.05 * truth).all(), "the test can tell"


def test_it_is_logged_saved_and_changes_nothing(tmp_path: Path, text: Path):
    with_it = train(text, tmp_path / "with", **{"log.noise_scale": True})
    without = train(text, tmp_path / "without")
    assert (with_it.checkpoint.path / "weights.safetensors").read_bytes() == (
        without.checkpoint.path / "weights.safetensors"
    ).read_bytes()
    logged = [e["noise_scale"] for e in steps(with_it) if "noise_scale" in e]
    assert logged
    assert all(value > 0 for value in logged)
    assert not any("noise_scale" in e for e in steps(without))
    kept = with_it.checkpoint.meta["statistics"][NAME]
    assert round(kept["trace"] / kept["square"]) == logged[-1]


def test_a_step_estimates_what_its_micro_batches_say(text: Path, tmp_path: Path):
    """The gradients of each micro-batch, computed one by one, give the same two figures."""
    import torch

    from cllm.training.noise import Parts
    from cllm.training.plan import make_step
    from cllm.training.state import State
    from cllm.training.stepper import Stepper

    run = train(text, tmp_path / "run")
    from cllm.data.prepare import open_prepared

    config = settings.replace(run.config, {"log.noise_scale": True})
    state = State.fresh(config)
    stepper = Stepper(state, open_prepared(run.path / "data").train)
    batches = stepper.batches(0)
    norm = stepper.gradients(batches, 0)
    assert isinstance(stepper.parts, Parts)
    alone = []
    for batch in batches:
        step = make_step(state)
        step.zero()
        step.accumulate(batch)
        alone.append(float(torch.sum(step.grads.data.double() ** 2)) / step.sums.valid**2)
    # each difference of float32 sums carries rounding of the sums: relative error of the square below 1e-5 here
    np.testing.assert_allclose(stepper.parts.squares, alone, rtol=1e-4)
    assert stepper.parts.targets == [32, 32, 32]
    found = stepper.parts.estimate(norm.value)
    assert found is not None
    np.testing.assert_allclose(found, estimate(alone, [32, 32, 32], norm.value**2), rtol=1e-3)


def test_a_resumed_run_knows_its_averages(tmp_path: Path, text: Path):
    import shutil

    whole = train(text, tmp_path / "whole", **{"log.noise_scale": True})
    expected = steps(whole)[-1]["noise_scale"], whole.checkpoint.meta
    for name in checkpoint.list_checkpoints(whole.path)[4:]:
        shutil.rmtree(whole.path / "checkpoints" / name)
    (whole.path / "latest").write_text("step-00000003\n")
    again = cllm.train(out=whole.path, resume=True, quiet=True)
    assert (steps(again)[-1]["noise_scale"], again.checkpoint.meta) == expected


def test_it_needs_micro_batches():
    with pytest.raises(ConfigError, match=r"log\.noise_scale: needs train\.accumulate of 2 or more"):
        settings.load(preset="nano", overrides={"log.noise_scale": True})


def test_utilisation_is_the_counted_work_over_the_measured_peak(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    measured = []

    def gemm_peak(*args: Any, **options: Any) -> Any:
        measured.append(args)
        return type("Peak", (), {"flops": 1e10})

    monkeypatch.setattr(peak, "gemm_peak", gemm_peak)
    run = train(text, tmp_path / "run", **{"log.mfu": True})
    work = flops_per_token(run.config.model, 16)
    for event in steps(run):
        assert event["mfu"] == pytest.approx(work * event["tokens_per_s"] / 1e10, rel=1e-3, abs=1e-4)
    train(text, tmp_path / "again", **{"log.mfu": True})
    assert len(measured) == 1, "the second run takes it from the cache"
    from cllm.cli import run as command

    assert command(["runs", str(tmp_path / "run")]) == 0
    assert "MFU" in capsys.readouterr().out


def test_the_peak_is_remembered_and_a_damaged_memory_is_no_harm(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(peak, "SHAPES", ((128, 128, 128),))
    found = peak.peak_flops("fp32")
    assert found > 1e8
    assert peak.peak_flops("fp32") == found
    assert peak.peak_flops("fp32", again=True) >= found, "a disturbed measurement cannot lower it"
    peak.cache_file().write_text("{", encoding="utf-8")
    assert peak.peak_flops("fp32") > 1e8
    assert peak.peak_flops("fp32") == peak.peak_flops("fp32")
