"""Parameter groups by pattern, and Muon's share of the tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cllm import config as settings
from cllm.errors import ConfigError
from cllm.model.batch import Batch
from cllm.model.layout import hidden_matrix
from cllm.model.model import Model
from cllm.training.groups import rules, runs
from cllm.training.optimiser import gradient_norm, update
from cllm.training.plan import make_step, size
from cllm.training.state import State


def config(**changes: Any) -> settings.Config:
    small = {"model.vocab": 64, "train.batch": 4, "train.sequence": 9, "train.steps": 10}
    return settings.load(preset="nano", overrides=small | changes)


def rows(seed: int = 0) -> Batch:
    return Batch.of(torch.randint(64, (4, 10), generator=torch.Generator().manual_seed(seed)))


def stepped(c: settings.Config, steps: int = 3) -> State:
    state = State.fresh(c)
    step = make_step(state)
    for number in range(steps):
        step.zero()
        step.accumulate(rows(number))
        update(state, step, step.kernels, 1e-2, gradient_norm(step, c.optim.clip))
    return state


def test_later_groups_win_and_what_is_left_out_stays():
    groups = [
        {"match": "*.b*", "lr": 0.5},
        {"match": "0.*", "weight_decay": 0.3},
        {"match": "0.attn.bq", "lr": 0.5, "eps": 1e-6},
        {"match": "lnf.?", "betas": [0.8, 0.9], "weight_decay": 0.0},
    ]
    c = config(**{"optim.groups": groups})
    found = rules(c, Model(c.model, device="meta").layout)
    assert found["tok"].lr == 1.0 and found["tok"].decay == 0.1
    assert found["1.attn.bq"].lr == 0.5 and found["1.attn.bq"].decay == 0.0
    assert found["0.attn.bq"].lr == 0.25 and found["0.attn.bq"].decay == 0.3 and found["0.attn.bq"].eps == 1e-6
    assert found["0.attn.wq"].decay == 0.3 and found["1.attn.wq"].decay == 0.1
    assert found["lnf.g"].betas == (0.8, 0.9) and found["0.ln1.g"].betas == (0.9, 0.95)


def test_without_groups_there_are_two_runs():
    c = config()
    layout = Model(c.model, device="meta").layout
    assert [len(run.names) for run in runs(c, layout, (layout, layout))] == [13, 23]


def test_a_pattern_that_matches_nothing_is_refused():
    c = config(**{"optim.groups": [{"match": "0.attn.wg"}]})
    with pytest.raises(ConfigError, match=r'optim.groups\[0\].match: no parameter is called .*did you mean "0.attn.w'):
        rules(c, Model(c.model, device="meta").layout)


def test_a_rate_of_zero_freezes_exactly():
    c = config(**{"optim.groups": [{"match": "0.*", "lr": 0}, {"match": "tok", "lr": 0}]})
    state, start = stepped(c), State.fresh(c)
    for name, value in state.model.params.items():
        frozen = name.startswith("0.") or name == "tok"
        assert torch.equal(value, start.model.params[name]) == (frozen or name == "1.attn.bk"), name


def test_groups_that_say_nothing_new_change_no_bit():
    plain = stepped(config())
    grouped = stepped(config(**{"optim.groups": [{"match": "*.attn.*", "lr": 1.0}, {"match": "pos", "eps": 1e-8}]}))
    assert torch.equal(plain.model.params.data, grouped.model.params.data)


def test_a_group_is_as_if_all_had_its_settings():
    c = config(**{"optim.groups": [{"match": "*", "lr": 0.5, "eps": 1e-5, "betas": [0.8, 0.99]}]})
    whole = config(**{"optim.eps": 1e-5, "optim.betas": [0.8, 0.99]})
    grouped, state = stepped(c, steps=1), State.fresh(whole)
    step = make_step(state)
    step.accumulate(rows())
    update(state, step, step.kernels, 0.5e-2, gradient_norm(step, 1.0))
    assert torch.equal(grouped.model.params.data, state.model.params.data)


def test_muon_takes_the_layers_matrices_and_no_second_moment_of_them():
    c = config(**{"optim.name": "muon", "optim.lr": 1e-3})
    state = State.fresh(c)
    names = {name for name in state.model.params if hidden_matrix(name)}
    assert names == {
        f"{i}.{rest}" for i in range(2) for rest in ("attn.wq", "attn.wk", "attn.wv", "attn.wo", "ffn.w1", "ffn.w2")
    }
    assert (
        set(state.moments["m"]) == set(state.model.params)
        and set(state.moments["v"]) == set(state.model.params) - names
    )
    assert rules(c, state.model.layout)["0.attn.wq"].lr == pytest.approx(20)
    assert size(c).bytes_by_part["moments"] == state.bytes_by_part["moments"]


def test_muon_trains_and_its_other_tensors_are_those_of_adamw():
    one = {"optim.clip": 0.0}
    with_muon, plain = stepped(config(**{"optim.name": "muon"} | one), steps=1), stepped(config(**one), steps=1)
    for name in with_muon.model.params:
        assert torch.equal(with_muon.model.params[name], plain.model.params[name]) == (not hidden_matrix(name)), name
    c = config(**{"optim.name": "muon"})
    state = State.fresh(c)
    step = make_step(state)
    losses = []
    for _ in range(150):
        step.zero()
        losses.append(step.accumulate(rows()).mean)
        update(state, step, step.kernels, 3e-3, gradient_norm(step, 1.0))
    assert losses[-1] < 0.05, "one batch is learnt by heart"


def test_a_state_with_muon_comes_back_exactly():
    c = config(**{"optim.name": "muon", "optim.ema": 0.9})
    state = stepped(c)
    weights, rest = ({name: value.clone() for name, value in part.items()} for part in state.tensors())
    assert "v.0.attn.wq" not in rest and "v.tok" in rest
    back = State.restore(c, weights, rest, state.meta())
    for mine, theirs in zip(state.tensors(), back.tensors(), strict=True):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
