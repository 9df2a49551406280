"""The policy against loss spikes: what it calls one, what it does, and that a resumed run does the same."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cllm
from cllm import config as settings
from cllm.training import checkpoint, stepper
from cllm.training.events import current, read_events
from cllm.training.spikes import NAME, judge, rollback_step
from cllm.training.state import State

STEPS = 150


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence over and over, and somewhere in it two hundred letters at random."""
    draw = random.Random(1)
    noise = "".join(draw.choice("QZXJVWKPBGYUFMRC") for _ in range(200))
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("the cat sat on the mat. " * 260 + noise + "the cat sat on the mat. " * 200, encoding="utf-8")
    return path


SETTINGS: dict[str, Any] = {
    "train.steps": STEPS, "train.batch": 1, "train.sequence": 24, "train.eval_every": 0, "train.sample_every": 0,
    "checkpoint.every": 20, "checkpoint.keep": 1, "data.tokenizer": "char", "guard.window": 20, "guard.z": 8.0,
    "optim.lr": 1e-2, "guard.by": "loss",
}  # fmt: skip


def train(text: Path, out: Path, **more: Any) -> cllm.Run:
    return cllm.train(text, preset="nano", out=out, set=SETTINGS | more, quiet=True)


def spikes(run: Path) -> list[dict[str, Any]]:
    return [e for e in read_events(run / "events.jsonl") if e["event"] == "alert" and e["kind"] == "spike"]


def contents(run: Path, step: int = STEPS) -> dict[str, bytes]:
    folder = run / "checkpoints" / checkpoint.checkpoint_name(step)
    found = {name: (folder / name).read_bytes() for name in ("weights.safetensors", "state.safetensors")}
    return found | {"meta": repr(checkpoint.load(run, folder.name).meta).encode()}


def test_off_by_default_nothing_is_judged(tmp_path: Path, text: Path):
    run = train(text, tmp_path / "run")
    assert run.config.guard.spikes == "off"
    assert spikes(run.path) == []
    assert run.checkpoint.meta["statistics"] == {}


def test_skip_leaves_the_update_out_and_says_so(tmp_path: Path, text: Path):
    run = train(text, tmp_path / "run", **{"guard.spikes": "skip", "checkpoint.every": 1, "checkpoint.keep": 999})
    found = spikes(run.path)
    assert found, "the noise is in the text"
    losses = {e["step"]: e for e in read_events(run.path / "events.jsonl") if e["event"] == "step"}
    for alert in found:
        step = alert["step"]
        assert alert["action"] == "skip"
        assert alert["z"] > 8
        assert losses[step]["skipped"] is True
        assert losses[step]["loss"] == alert["value"]
        before, after = (checkpoint.load(run.path, checkpoint.checkpoint_name(s)) for s in (step - 1, step))
        assert all(torch.equal(before.weights[k], after.weights[k]) for k in before.weights)
        assert all(torch.equal(before.state[k], after.state[k]) for k in before.state)
        assert after.meta["position"] == before.meta["position"] + 1
    assert sum("skipped" in e for e in losses.values()) == len(found)
    assert run.checkpoint.meta["statistics"][NAME]["spikes"] == len(found)


def test_rollback_goes_back_and_on_behind_the_spike(tmp_path: Path, text: Path):
    run = train(text, tmp_path / "run", **{"guard.spikes": "rollback"})
    found = spikes(run.path)
    assert found
    events = read_events(run.path / "events.jsonl")
    back = [e for e in events if e["event"] == "resume"]
    assert len(back) == len(found)
    for alert, resumed in zip(found, back, strict=True):
        assert resumed["step"] == alert["step"] == rollback_step(alert["at_step"], 20)
        assert resumed["rolled_back_from"] == alert["at_step"]
    assert [e["step"] for e in current(events) if e["event"] == "step"] == list(range(1, STEPS + 1))
    again = sum(alert["at_step"] + 1 - alert["step"] for alert in found)
    assert run.checkpoint.meta["position"] == STEPS + again, "every row was seen once, the spike's with it"


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_a_run_that_is_stopped_and_resumed_decides_the_same(
    tmp_path: Path, text: Path, policy: str, monkeypatch: pytest.MonkeyPatch
):
    whole = train(text, tmp_path / "whole", **{"guard.spikes": policy})
    alerts = spikes(whole.path)
    assert alerts
    at = alerts[0].get("at_step", alerts[0]["step"])
    expected = contents(whole.path)
    made = 0
    plain = stepper.Stepper.update

    def counted(self: Any, *args: Any) -> None:
        nonlocal made
        plain(self, *args)
        made += 1
        if made in stops:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(stepper.Stepper, "update", counted)
    # between the checkpoint of the cadence and the spike, just before it, just behind it, and long behind
    stops = {at - 7, at - 1, at + 1, at + 3, at + 40}
    out = tmp_path / "stopped"
    run = train(text, out, **{"guard.spikes": policy})
    while run.outcome is not None and run.outcome.reason == "interrupted":
        run = cllm.train(out=out, resume=True, quiet=True)
    assert contents(out) == expected
    assert len(read_events(out / "events.jsonl")) > len(read_events(whole.path / "events.jsonl"))


def test_the_cadence_belongs_to_the_course_of_a_run_that_rolls_back(tmp_path: Path, text: Path):
    for policy in ("skip", "rollback"):
        out = tmp_path / policy
        train(text, out, **{"guard.spikes": policy, "train.steps": 21})
        (out / "latest").write_text("step-00000020\n")
        if policy == "skip":
            cllm.train(out=out, run=out / "run.toml", resume=True, set={"checkpoint.every": 7}, quiet=True)
        else:
            with pytest.raises(cllm.errors.ConfigError, match=r"checkpoint\.every: got 7"):
                cllm.train(out=out, run=out / "run.toml", resume=True, set={"checkpoint.every": 7}, quiet=True)


def state(**guard: Any) -> State:
    small = {"model.vocab": 16, "model.width": 8, "model.heads": 1, "model.ff": 8, "train.steps": 9}
    return State.fresh(settings.load(preset="nano", overrides=small | {f"guard.{k}": v for k, v in guard.items()}))


def test_the_average_and_deviation_are_those_of_the_steps_so_far():
    s = state(spikes="skip", window=50, z=6.0)
    draw = np.random.default_rng(3)
    losses = draw.normal(3.0, 0.1, 50)
    for i, loss in enumerate(losses):
        assert judge(s, float(loss), 1.0) is None
        s.step = i + 1
    figures = s.statistics[NAME]
    n = len(losses)
    bound = 16 * n * 2.0**-53
    assert abs(figures["loss_mean"] - losses.mean()) <= bound * abs(losses).max()
    assert abs(figures["loss_variance"] - losses.var()) <= bound * (losses**2).max()
    high = float(losses.mean() + 6.5 * losses.std())
    found = judge(s, high, 1.0)
    assert found is not None
    assert found.by == "loss"
    assert abs(found.z - 6.5) < 1e-9
    assert judge(s, float(losses.mean() - 6.5 * losses.std()), 1.0) is None, "a fall is no spike"
    assert judge(s, float(losses.mean() + 5.5 * losses.std()), 1.0) is None


def test_too_many_in_a_row_are_a_new_level():
    s = state(spikes="skip", window=10, z=5.0, most=3, by="grad_norm")
    for i in range(30):
        assert judge(s, 3.0, 1.0 + 0.01 * (i % 3)) is None
        s.step += 1
    found = []
    for _ in range(4):
        found.append(judge(s, 99.0, 50.0))
        s.step += 1
    assert [f.level for f in found if f is not None] == [False, False, False, True]
    assert judge(s, 3.0, 50.0) is None, "the average has started again"
    assert s.statistics[NAME]["seen"] == 2


def test_going_back_needs_checkpoints():
    with pytest.raises(cllm.errors.ConfigError, match=r"needs checkpoint\.every > 0"):
        settings.load(preset="nano", overrides={"guard.spikes": "rollback", "checkpoint.every": 0})
