"""Gradient norms by group: what is logged beside the global one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import cllm
from cllm import config as settings
from cllm.model.batch import Batch
from cllm.training.events import read_events
from cllm.training.group_norms import GROUPS, group_of, norms_by_group
from cllm.training.optimiser import gradient_norm
from cllm.training.plan import make_step
from cllm.training.state import State

SETTINGS: dict[str, Any] = {
    "train.steps": 3, "train.batch": 2, "train.sequence": 16, "train.eval_every": 0, "train.sample_every": 0,
    "data.tokenizer": "char",
}  # fmt: skip


def logged(tmp_path: Path, **more: Any) -> list[dict[str, Any]]:
    text = tmp_path / "text.txt"
    text.write_text("The red fox sees the cold moon over the old barn. " * 40, encoding="utf-8")
    run = cllm.train(text, preset="nano", out=tmp_path / "run", set=SETTINGS | more, quiet=True)
    return [e for e in read_events(run.path / "events.jsonl") if e["event"] == "step"]


@pytest.mark.parametrize("more", [{}, {"optim.clip_value": 1e-4}, {"model.tied": False}])
def test_the_squares_of_the_groups_add_up_to_the_norm(tmp_path: Path, more: dict[str, Any]) -> None:
    events = logged(tmp_path, **more)
    assert len(events) == 3
    for event in events:
        assert tuple(event["grad_norms"]) == GROUPS
        whole = math.sqrt(math.fsum(value**2 for value in event["grad_norms"].values()))
        # each figure is a float64 root of a float64 sum: a few units in the last place apart
        assert whole == pytest.approx(event["grad_norm"], rel=64 * 2.0**-53)


def test_each_group_is_its_tensors() -> None:
    config = settings.load(preset="nano", overrides={"model.vocab": 64, "precision": "fp64"})
    state = State.fresh(config)
    step = make_step(state)
    tokens = torch.arange(16 * 65).view(16, 65) % 61
    step.zero()
    step.accumulate(Batch(tokens, torch.zeros_like(tokens), first_row=0), None)
    found = norms_by_group(step)
    for group in GROUPS:
        parts = [g.double() for name, g in step.grads.items() if group_of(name) == group]
        assert parts
        squares = math.fsum(float((part**2).sum()) for part in parts)
        count = sum(part.numel() for part in parts)
        assert found[group] == pytest.approx(math.sqrt(squares) / step.sums.valid, rel=count * 2.0**-53)
    assert {group_of(name) for name in step.grads} == set(GROUPS)
    assert group_of("tok") == group_of("pos") == group_of("head.w") == "embeddings"
    assert group_of("0.attn.bq") == "attention"
    assert group_of("11.ln2.b") == group_of("lnf.g") == "norms"
    assert gradient_norm(step, 0.0).value == pytest.approx(math.hypot(*found.values()), rel=64 * 2.0**-53)


@pytest.mark.parametrize(
    "more", [{"log.grad_norms": False}, {"memory": "fused", "optim.clip": 0.0, "train.accumulate": 1}]
)
def test_where_they_are_off_or_cannot_be_had(tmp_path: Path, more: dict[str, Any]) -> None:
    events = logged(tmp_path, **more)
    assert len(events) == 3
    assert not any("grad_norms" in event for event in events)
