"""State: an exact journey through names and back; the update; the guard; the plan."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from cllm import config as settings
from cllm.engine.dropout import Key
from cllm.errors import CorruptError
from cllm.model.batch import Batch
from cllm.model.layout import layout
from cllm.training import guard
from cllm.training.optimiser import gradient_norm, update
from cllm.training.plan import make_step, settle, size, steps_for
from cllm.training.state import State


def config(**changes: Any) -> settings.Config:
    small = {"model.vocab": 64, "train.batch": 4, "train.sequence": 9, "train.steps": 10}
    return settings.load(preset="nano", overrides=small | changes)


def rows(n: int = 4, t: int = 9, seed: int = 0) -> Batch:
    return Batch.of(torch.randint(64, (n, t + 1), generator=torch.Generator().manual_seed(seed)))


def trained(c: settings.Config, steps: int = 3) -> State:
    state = State.fresh(c)
    step = make_step(state)
    for number in range(steps):
        step.zero()
        step.accumulate(rows(seed=number))
        update(state, step, step.kernels, 1e-2, gradient_norm(step, c.optim.clip))
    return state


@pytest.mark.parametrize(
    "changes", [{}, {"optim.ema": 0.9}, {"optim.name": "sgd"}, {"precision": "fp64"}, {"precision": "bf16"}]
)
def test_a_state_comes_back_exactly(changes: dict[str, Any]):
    c = config(**changes)
    state = trained(c)
    weights, rest = ({name: view.clone() for name, view in part.items()} for part in state.tensors())
    back = State.restore(c, weights, rest, state.meta())
    assert torch.equal(back.model.params.data, state.model.params.data)
    for name, flat in state.moments.items():
        assert torch.equal(back.moments[name].data, flat.data)
    assert (back.ema is None) == (state.ema is None)
    if state.ema is not None and back.ema is not None:
        assert torch.equal(back.ema.data, state.ema.data)
        assert not torch.equal(state.ema.data, state.model.params.data)
    assert back.meta() == state.meta()
    assert (back.step, back.tokens) == (3, 3 * 36)


def test_tensors_of_another_configuration_are_refused():
    state = trained(config())
    weights, rest = state.tensors()
    with pytest.raises(CorruptError, match=r"tok: got \(64, 32\).*expected \(65, 32\)"):
        State.restore(config(**{"model.vocab": 65}), weights, rest, state.meta())
    with pytest.raises(CorruptError, match=r"v\.tok: got nothing"):
        State.restore(config(), weights, {k: t for k, t in rest.items() if k != "v.tok"}, state.meta())


def test_the_norm_is_that_of_the_mean_gradient_and_clipping_scales_to_it():
    state = State.fresh(config(precision="fp64"))
    step = make_step(state)
    step.accumulate(rows())
    mean = {name: view.double() / step.sums.valid for name, view in step.grads.items()}
    expected = math.sqrt(sum(float((view**2).sum()) for view in mean.values()))
    norm = gradient_norm(step, clip=expected / 3)
    assert norm.value == pytest.approx(expected, rel=1e-13)
    assert norm.clip == pytest.approx(1 / 3, rel=1e-13)
    assert gradient_norm(step, clip=2 * expected).clip == 1.0
    assert gradient_norm(step, clip=0).clip == 1.0


def test_the_moving_average_forgets_the_initial_weights_quickly_at_first():
    """Its decay at step t is min(ema, (1+t)/(10+t)): 1/10 at the first, t = 0."""
    c = config(**{"optim.ema": 0.999, "precision": "fp64"})
    state = State.fresh(c)
    start = state.model.params.data.clone()
    step = make_step(state)
    step.accumulate(rows())
    update(state, step, step.kernels, 1e-2, gradient_norm(step, 1.0))
    assert state.ema is not None
    now = state.model.params.data
    expected = start * (1 / 10) + now * (9 / 10)
    assert torch.allclose(state.ema.data, expected, rtol=0, atol=4 * 2**-53 * float(now.abs().max()))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_decay_reaches_matrices_only(name: str):
    c = config(**{"optim.name": name, "optim.weight_decay": 0.5})
    state = State.fresh(c)
    state.model.params.data.fill_(1.0)
    step = make_step(state)
    step.sums.valid = 1
    update(state, step, step.kernels, 0.1, gradient_norm(step, 0))  # all gradients are zero: only decay acts
    for key, view in state.model.params.items():
        matrix = key == "tok" or ".w" in key
        assert torch.all(view == (torch.tensor(1.0) * (1 - 0.1 * 0.5) if matrix else 1.0)), key


def test_value_clipping_bounds_each_entry():
    c = config(**{"optim.clip_value": 1e-3, "optim.clip": 0.0, "optim.name": "sgd", "optim.weight_decay": 0.0})
    state = State.fresh(c)
    before = state.model.params.data.clone()
    step = make_step(state)
    step.accumulate(rows())
    assert float((step.grads.data / step.sums.valid).abs().max()) > 1e-3
    update(state, step, step.kernels, 1.0, gradient_norm(step, 0))
    # one rounding of w − lr·g beside the bound itself
    assert float((state.model.params.data - before).abs().max()) <= 1e-3 + 2**-24 * float(before.abs().max())


@pytest.mark.parametrize(
    ("tensor", "place"),
    [
        ("1.ffn.w1", "layer 1, ffn.w1"),
        ("0.ln1.g", "layer 0, ln1"),
        ("0.attn.wv", "layer 0, attn.qkv"),
        ("lnf.g", "lnf"),
    ],
)
def test_the_birthplace_of_a_value_that_overflows(tensor: str, place: str):
    state = State.fresh(config())
    state.model.params[tensor].fill_(3e38)  # finite itself: products and sums with it overflow
    found = guard.birthplace(make_step(state), [rows()], None)
    assert found is not None
    assert str(found).startswith(place)


def test_a_parameter_that_is_nan_is_named_itself():
    state = State.fresh(config())
    state.model.params["1.attn.wo"][3, 4] = math.nan
    found = guard.birthplace(make_step(state), [rows()], None)
    assert str(found) == "parameter 1.attn.wo (1 of 1024 values)"


def test_a_healthy_step_has_no_birthplace():
    state = State.fresh(config(**{"model.dropout": 0.2}))
    assert guard.birthplace(make_step(state), [rows()], Key(1, 0)) is None


def test_the_batch_of_a_refused_step_can_be_read_back(tmp_path: Path):
    batches = [rows(seed=1), rows(seed=2)]
    digest = guard.write_batch(tmp_path / "batch.safetensors", batches)
    assert len(digest) == 64
    found = safetensors.torch.load_file(tmp_path / "batch.safetensors")
    assert torch.equal(found["tokens"], torch.cat([batch.tokens_BT1 for batch in batches]))


@pytest.mark.parametrize("preset", ["nano", "small"])
def test_the_planned_bytes_are_those_allocated(preset: str):
    c = settings.load(preset=preset, overrides={"train.batch": 3, "train.sequence": 17, "model.dropout": 0.1})
    planned = size(c)
    state = State.fresh(c)
    step = make_step(state)
    copied = sum(state.bytes_by_part.values())  # while a checkpoint is written in the background
    assert planned.bytes_by_part == state.bytes_by_part | step.bytes_by_part | {"checkpoint copy": copied}
    seen: dict[int, int] = {}
    # the rounded matrices of bf16 are made when they are first asked for
    _storages([state, step, dict(state.model.operands.items())], seen, set())
    assert planned.total_bytes == sum(seen.values()) + copied
    assert planned.parameters == layout(c.model).parameters


def _storages(found: Any, seen: dict[int, int], visited: set[int]) -> None:
    """Every tensor storage reachable from `found`: address → bytes."""
    if id(found) in visited:
        return
    visited.add(id(found))
    if isinstance(found, torch.Tensor):
        storage = found.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
    elif isinstance(found, dict):
        for value in found.values():
            _storages(value, seen, visited)
    elif isinstance(found, (list, tuple)):
        for value in found:
            _storages(value, seen, visited)
    elif hasattr(found, "__dict__"):
        _storages(vars(found), seen, visited)


def test_minutes_become_steps_by_the_clock_and_settled_settings_are_complete():
    steps = steps_for(0.02, lambda: None, lambda: None, 20)
    assert steps > 1000
    c = settle(config(), 1000)
    assert (c.train.steps, c.train.eval_every, c.schedule.warmup, c.checkpoint.every) == (1000, 50, 50, 100)
    assert None not in (c.train.sample_every, c.train.eval_rows)
    again = settle(settings.replace(c, {"train.eval_every": 7}), 1000)
    assert again.train.eval_every == 7
