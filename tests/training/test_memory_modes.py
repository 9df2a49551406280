"""The memory modes lean and fused: exact states, the same update as from whole gradients, refusals, planned bytes."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import cllm
from cllm import config as settings
from cllm.engine.buffers import Flat
from cllm.engine.compact import EightBit, Split
from cllm.engine.dispatch import torch_kernels
from cllm.errors import ConfigError, CorruptError
from cllm.model.batch import Batch
from cllm.model.layout import hidden_matrix
from cllm.model.model import Model
from cllm.model.step import Step
from cllm.training import checkpoint, guard, plan
from cllm.training.groups import rules
from cllm.training.optimiser import Norm, gradient_norm, update, update_tensor
from cllm.training.plan import make_step, size
from cllm.training.state import State

MODES = ["lean", "fused"]


def config(memory: str = "lean", **changes: Any) -> settings.Config:
    small = {"model.vocab": 64, "train.batch": 4, "train.sequence": 9, "train.steps": 10}
    clip = {"optim.clip": 0.0} if memory == "fused" else {}
    loaded = settings.load(preset="nano", overrides=small | clip)
    return settings.check(settings.replace(loaded, {"precision": "bf16", "memory": memory} | changes))


def rows(seed: int = 0, n: int = 4) -> Batch:
    return Batch.of(torch.randint(64, (n, 10), generator=torch.Generator().manual_seed(seed)))


def one_step(state: State, step: Step, seed: int = 0, lr: float = 3e-3) -> Norm:
    if step.sink is not None:
        step.sink.arm(lr)
    step.zero()
    for part in range(state.config.train.accumulate):
        step.accumulate(rows(seed + 100 * part))
    norm = gradient_norm(step, state.config.optim.clip)
    update(state, step, step.kernels, lr, norm)
    return norm


def trained(c: settings.Config, steps: int = 3, state: State | None = None) -> State:
    state = State.fresh(c) if state is None else state
    step = make_step(state, fused=True)
    for number in range(state.step, state.step + steps):
        one_step(state, step, number)
    return state


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def equal(one: State, other: State) -> bool:
    pairs = zip(one.tensors(), other.tensors(), strict=True)
    return all(a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) for a, b in pairs)


# ---------------------------------------------------------------------------------------------------- the state


@pytest.mark.parametrize("memory", MODES)
@pytest.mark.parametrize("changes", [{}, {"optim.ema": 0.9}, {"model.tied": False}])
def test_a_state_comes_back_exactly_and_goes_on_as_if_never_stopped(memory: str, changes: dict[str, Any]):
    c = config(memory, **changes)
    whole = trained(c, 6)
    half = trained(c, 3)
    weights, rest = (copies(part) for part in half.tensors())
    assert all(tensor.dtype == torch.float32 for tensor in weights.values()), "weights are float32 in every mode"
    assert rest["m.0.attn.wq"].dtype == torch.int8 and rest["v.pos"].dtype == torch.uint8
    assert rest["m.lnf.g"].dtype == torch.float32 and "m.lnf.g.scale" not in rest
    back = State.restore(c, weights, rest, half.meta())
    assert equal(back, half)
    assert equal(trained(c, 3, back), whole)
    if changes.get("optim.ema"):
        assert not torch.equal(weights["tok"], rest["raw.tok"])


def test_a_state_of_another_mode_is_refused():
    weights, rest = (copies(part) for part in trained(config("standard")).tensors())
    with pytest.raises(CorruptError, match=r"m\.tok: got .*float32, expected .*int8"):
        State.restore(config("lean"), weights, rest, trained(config("standard")).meta())


@pytest.mark.parametrize("memory", MODES)
def test_weights_travel_between_the_modes_exactly(memory: str):
    weights = copies(trained(config("standard")).tensors()[0])
    there = Model(config().model, torch.bfloat16, split=True).load(weights)
    back = Model(config().model, torch.bfloat16).load(dict(there.params))
    assert all(torch.equal(back.params[name], value) for name, value in weights.items())
    assert isinstance(there.params, Split) and not isinstance(back.params, Split)


def test_the_moving_average_of_a_split_master_is_that_of_float32():
    c = config("lean").model
    split = [Model(c, torch.bfloat16, split=True).initialise(seed) for seed in (1, 2)]
    flat = [Model(c).initialise(seed) for seed in (1, 2)]
    assert isinstance(split[0].params, Split) and isinstance(split[1].params, Split)
    assert isinstance(flat[0].params, Flat) and isinstance(flat[1].params, Flat)
    for weight in (0.1, 0.001):
        split[0].params.lerp_(split[1].params, weight, rows=1000)
        flat[0].params.lerp_(flat[1].params, weight)
    unit = 2.0**-24 * 8
    for name, value in flat[0].params.items():  # a lerp in pieces may be vectorised in another way: one rounding each
        assert torch.allclose(split[0].params[name], value, rtol=unit, atol=unit * float(value.abs().max()))


# ----------------------------------------------------------------------------------------------------- the update


def test_fused_updates_are_those_from_whole_gradients():
    """Weights that change inside the backward must not change what is still computed from them: every bit is that of
    an update behind a backward that kept all gradients."""
    c = config("fused")
    fused, whole = State.fresh(c), State.fresh(c)
    step = make_step(fused, fused=True)
    layout = whole.model.layout
    wide = Step(whole.model, 4, 9, grads=Flat(layout, torch.float32))  # what the layers' matrices receive
    narrow = make_step(whole)  # what the embedding receives: bfloat16
    for number in range(3):
        norm = one_step(fused, step, number)
        for other in (wide, narrow):
            other.zero()
            other.accumulate(rows(number))
        squares = 0.0
        for name, rule in rules(c, layout).items():
            gradient = narrow.grads[name] if name == "tok" else wide.grads[name]
            squares += float((gradient.double() ** 2).sum())
            update_tensor(whole, narrow.kernels, name, rule, gradient, 3e-3, 1 / 36)
        whole.step += 1
        whole.tokens += 36
        assert equal(fused, whole), number
        assert norm.value == pytest.approx(math.sqrt(squares) / 36, rel=1e-12) and norm.clip == 1.0


def test_an_untied_output_matrix_takes_turns_with_the_embedding():
    c = config("fused", **{"model.tied": False})
    fused, lean = State.fresh(c), State.fresh(c)
    one_step(fused, make_step(fused, fused=True))
    step = make_step(lean)
    step.accumulate(rows())
    for name in ("head.w", "tok"):
        update_tensor(lean, step.kernels, name, rules(c, lean.model.layout)[name], step.grads[name], 3e-3, 1 / 36)
        assert torch.equal(fused.model.params[name], lean.model.params[name]), name


@pytest.mark.parametrize("memory", MODES)
def test_one_batch_is_learnt_by_heart(memory: str):
    state = State.fresh(config(memory))
    step = make_step(state, fused=True)
    for _ in range(120):
        one_step(state, step)
    assert step.sums.mean < 0.05
    start = State.fresh(config(memory))
    for name, value in state.model.params.items():
        assert torch.equal(value, start.model.params[name]) == (name.endswith(".bk")), name


def test_lean_gradients_are_the_standard_ones_rounded_and_accumulated_ones_are_not_rounded():
    weights = {name: value.bfloat16().float() for name, value in Model(config().model).initialise(1).params.items()}
    standard, lean = Model(config().model, torch.bfloat16).load(weights), State.fresh(config("lean"))
    lean.model.load(weights)
    plain = Step(standard, 4, 9)
    plain.accumulate(rows(1))
    narrow = make_step(lean)
    narrow.accumulate(rows(1))
    for name, gradient in plain.grads.items():
        got = narrow.grads[name]
        if hidden_matrix(name):
            assert got.dtype == torch.bfloat16 and torch.equal(got, gradient.bfloat16()), name
        elif name == "tok":  # the head's contribution is rounded before the input side's is added
            inputs = rows(1).tokens_BT1[:, :-1].reshape(-1)
            head = gradient - torch.zeros_like(gradient).index_add(0, inputs, plain._dx_ND)
            assert got.dtype == torch.bfloat16
            assert ((got.float() - gradient).abs() <= 1.01 * 2.0**-8 * (head.abs() + gradient.abs()) + 1e-6).all()
        else:
            assert got.dtype == torch.float32 and torch.equal(got, gradient), name
    plain.accumulate(rows(2))
    many = make_step(State(config("lean", **{"train.accumulate": 2}), lean.model, lean.moments))
    for seed in (1, 2):
        many.accumulate(rows(seed))
    for name, gradient in plain.grads.items():
        assert torch.equal(many.grads[name], gradient), name


def test_clipping_by_the_norm_and_by_value_in_lean():
    c = config("lean", **{"optim.clip": 0.01})
    state = State.fresh(c)
    step = make_step(state)
    step.accumulate(rows())
    mean = torch.cat([view.double().reshape(-1) / 36 for _, view in step.grads.items()])
    norm = gradient_norm(step, c.optim.clip)
    assert norm.value == pytest.approx(float(mean.norm()), rel=1e-12)
    assert norm.clip == pytest.approx(0.01 / norm.value)
    state = State.fresh(config("lean", **{"optim.clip": 0.0, "optim.clip_value": 1e-4}))
    step = make_step(state)
    step.accumulate(rows())
    update(state, step, step.kernels, 1e-3, gradient_norm(step, 0.0))
    assert max(float(view.abs().max()) for view in step.grads.values()) <= float(torch.tensor(1e-4).bfloat16())


@pytest.mark.parametrize("memory", MODES)
def test_groups_hold_in_every_mode(memory: str):
    c = config(memory, **{"optim.groups": [settings.GroupConfig(match="0.*", lr=0.0)]})
    state, start = trained(c), State.fresh(c)
    for name, value in state.model.params.items():
        frozen = name.startswith("0.") or name.endswith(".bk")
        assert torch.equal(value, start.model.params[name]) == frozen, name


@pytest.mark.parametrize("memory", MODES)
def test_native_and_torch_updates_give_the_same_state(memory: str):
    """The whole update, given the same gradients."""
    c = config(memory)
    native, plain = State.fresh(c), State.fresh(c)
    step = make_step(native)
    for number in range(3):
        step.zero()
        step.accumulate(rows(number))
        norm = gradient_norm(step, 0.0)
        update(native, step, step.kernels, 3e-3, norm)
        update(plain, step, torch_kernels(torch.bfloat16), 3e-3, norm)
    assert equal(native, plain)


@pytest.mark.parametrize(("memory", "rows_of_logits"), [("standard", 576), ("lean", 512), ("fused", 512)])
def test_the_smaller_modes_hold_fewer_logits(memory: str, rows_of_logits: int):
    step = make_step(State.fresh(config(memory, **{"train.batch": 64})), fused=True)
    assert step.head_rows == rows_of_logits
    evaluating = Step(step.model, 64, 9, gradients=False)
    assert evaluating.head_rows == 512


# ------------------------------------------------------------------------------------------- what is not finite


def test_a_loss_that_is_not_finite_updates_nothing_in_fused():
    state = State.fresh(config("fused"))
    state.model.params.put("lnf.b", torch.full((32,), math.nan))
    step = make_step(state, fused=True)
    before = copies(dict(state.model.params))
    assert step.sink is not None
    step.sink.arm(1e-3)
    step.accumulate(rows())
    assert not math.isfinite(step.sums.loss) and not step.sink.done and not step.sink.half_made
    for name, value in state.model.params.items():
        assert torch.equal(value, before[name]) or name == "lnf.b"


def test_a_gradient_that_is_not_finite_stops_the_updates_where_it_is_met():
    state = State.fresh(config("fused"))
    step = make_step(state, fused=True)
    before = copies(dict(state.model.params))
    healthy = step.kernels.linear_backward_input
    calls = 0

    def broken(dy: Tensor, w: Tensor, dx: Tensor, *rest: Any) -> None:
        nonlocal calls
        healthy(dy, w, dx, *rest)
        calls += 1
        if calls == 3:  # behind the head's and layer 1's w1: from here on everything is infinite
            dx.fill_(math.inf)

    step.kernels = dataclasses.replace(step.kernels, linear_backward_input=broken)
    assert step.sink is not None
    step.sink.arm(1e-3)
    step.accumulate(rows())
    assert step.sink.half_made and {"1.ffn.w2", "1.ffn.w1"} <= step.sink.done and "0.ffn.w2" not in step.sink.done
    assert not gradient_norm(step, 0.0).finite
    for name, value in state.model.params.items():
        assert torch.equal(value, before[name]) == (name not in step.sink.done), name


def test_the_birthplace_is_found_in_lean():
    state = State.fresh(config("lean"))
    state.model.params.put("1.ffn.w1", torch.full((128, 32), 3e38))
    found = guard.birthplace(make_step(state), [rows()], None)
    assert found is not None and str(found).startswith("layer 1, ffn.")


# ------------------------------------------------------------------------------------------ settings and memory


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "fp32"}, r'memory: "fused" .* needs precision = "bf16", got "fp32"'),
        ({"precision": "fp64", "memory": "lean"}, r'memory: "lean" .* needs precision = "bf16", got "fp64"'),
        ({"optim.name": "muon"}, r'"fused" is for optim.name = "adamw", got "muon"'),
        ({"optim.name": "sgd", "memory": "lean"}, r'"lean" is for optim.name = "adamw", got "sgd"'),
        ({"optim.clip": 1.0, "train.accumulate": 2}, r"optim.clip = 0 .* got 1; train.accumulate = 1, got 2"),
        ({"optim.clip_value": 0.5}, r"optim.clip_value = 0, got 0.5"),
        ({"model.equivariant": True}, r"model.equivariant needs memory"),
    ],
)
def test_what_a_mode_cannot_do_is_refused(changes: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        settings.check(settings.replace(config("fused"), changes))


VARIANTS: list[dict[str, Any]] = [
    {"memory": "standard"},
    {"memory": "standard", "optim.ema": 0.9},
    {"memory": "lean"},
    {"memory": "lean", "optim.ema": 0.9, "train.accumulate": 2},
    {"memory": "lean", "model.tied": False},
    {"memory": "fused"},
    {"memory": "fused", "model.tied": False, "model.vocab": 5},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_planned_bytes_are_those_allocated(variant: dict[str, Any]):
    memory, changes = variant["memory"], {key: value for key, value in variant.items() if key != "memory"}
    c = config(memory, **changes)
    c = settings.replace(c, {"checkpoint.background": False})
    state = State.fresh(c)
    step = make_step(state, fused=True)
    assert size(c).bytes_by_part == state.bytes_by_part | step.bytes_by_part
    evaluated = state.evaluated
    for model in (state.model, evaluated):
        assert model.operands["tok"] is not None  # a rounded copy is made when it is first used
    seen: dict[int, int] = {}
    _storages([state, step, evaluated], seen, set())
    assert size(c).total_bytes == sum(seen.values())


def _storages(found: Any, seen: dict[int, int], visited: set[int]) -> None:
    """Every tensor storage reachable from `found`: address → bytes."""
    if id(found) in visited:
        return
    visited.add(id(found))
    if isinstance(found, Tensor):
        storage = found.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
    elif isinstance(found, dict):
        for value in found.values():
            _storages(value, seen, visited)
    elif isinstance(found, (list, tuple, set, frozenset)):
        for value in found:
            _storages(value, seen, visited)
    elif hasattr(found, "__self__"):
        _storages(found.__self__, seen, visited)
    elif hasattr(found, "__dict__"):
        _storages(vars(found), seen, visited)


def test_the_targets_at_seed():
    """Weights, gradients and the whole state of AdamW, in bytes, without allocating them."""

    def state_of(memory: str, accumulate: int = 1) -> float:
        clip = 0.0 if memory == "fused" else 1.0
        c = settings.load(preset="seed", overrides={"train.batch": 8, "train.sequence": 256, "optim.clip": clip})
        c = settings.check(settings.replace(c, {"precision": "bf16", "memory": memory, "train.accumulate": accumulate}))
        parts = plan.size(c).bytes_by_part
        return sum(parts.get(key, 0) for key in ("weights", "moments", "gradients", "gradients in the making")) / 1e6

    assert state_of("lean") <= 203
    assert state_of("lean", 2) <= 250
    assert state_of("fused") <= 160
    assert state_of("standard") > 2 * state_of("lean")


def test_moments_of_vectors_keep_float32():
    state = State.fresh(config("lean"))
    m = state.moments["m"]
    assert isinstance(m, EightBit)
    assert set(m.plain) == {name for name, value in state.model.params.items() if value.dim() == 1}


# ------------------------------------------------------------------------------------------------- whole runs

TEXT = "".join(f"The {a} {b} sees the {c}. " for a in ("red", "old", "sly") for b in ("fox", "cat", "hen")
               for c in ("moon", "barn", "well", "road")) * 8  # fmt: skip
RUN: dict[str, Any] = {
    "train.steps": 8, "train.batch": 3, "train.sequence": 16, "train.eval_every": 4, "train.sample_every": 0,
    "checkpoint.every": 1, "checkpoint.keep": 100, "optim.ema": 0.9, "model.dropout": 0.1, "data.tokenizer": "char",
    "precision": "bf16",
}  # fmt: skip


@pytest.mark.parametrize("memory", MODES)
def test_a_run_resumes_byte_for_byte_and_starts_from_a_run_of_another_mode(tmp_path: Path, memory: str):
    text = tmp_path / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    clip = {"optim.clip": 0.0} if memory == "fused" else {"train.accumulate": 2}
    chosen = RUN | {"memory": memory} | clip
    whole = tmp_path / "whole"
    cllm.train(text, preset="nano", out=whole, set=chosen, quiet=True)

    def contents() -> dict[str, bytes]:
        folder = whole / "checkpoints" / "step-00000008"
        return {name: (folder / name).read_bytes() for name in ("weights.safetensors", "state.safetensors")}

    expected = contents()
    for step in range(4, 9):
        shutil.rmtree(whole / "checkpoints" / f"step-{step:08d}")
    for pointer in ("latest", "best"):
        (whole / pointer).write_text("step-00000003\n")
    cllm.train(out=whole, resume=True, quiet=True, run=whole / "run.toml")
    assert contents() == expected

    onward = tmp_path / "onward"
    cllm.train(text, out=onward, start=whole, set=RUN | {"train.steps": 1, "memory": "standard"}, quiet=True)
    first = checkpoint.load(onward, "step-00000000")
    saved = checkpoint.load(whole)
    assert all(torch.equal(value, saved.weights[name]) for name, value in first.weights.items())
    back = tmp_path / "back"
    cllm.train(text, out=back, start=onward, set=chosen | {"train.steps": 1}, quiet=True)
    theirs, ours = checkpoint.load(onward).weights, checkpoint.load(back, "step-00000000").weights
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert cllm.load(back).generate("The", max_tokens=4)
