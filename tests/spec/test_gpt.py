"""The model against torch autograd, against itself at another precision, and against difference quotients."""

from __future__ import annotations

import numpy as np
import pytest
from flint import arb, ctx
from spec_models import random_batch, random_params, torch_gradients

from cllm.errors import CertificateError, ConfigError, DataError, NonFiniteError, UsageError
from cllm.spec import BallArray, Balls, Batch, Float64, Leaves, Model, enclose, loss, recording
from cllm.spec.balls import working

L, H, D, FF, V, T = 2, 2, 8, 12, 11, 6
TABLE = np.random.default_rng(5).normal(size=(T, D))
VARIANTS = {
    "plain": ({}, {}, {}),
    "untied": ({"tied": False}, {"tied": False}, {}),
    "erf": ({}, {"activation": "gelu_erf"}, {}),
    "fixed table": ({"learned": False}, {"positions": TABLE}, {}),
    "smoothing": ({}, {"label_smoothing": 0.1}, {"padded": True}),
    "padded": ({}, {}, {"padded": True}),
    "documents": ({}, {}, {"padded": True, "documents": True, "document_mask": True}),
    "documents without the mask": ({}, {}, {"documents": True}),
    "dropout": (
        {},
        {"dropout": 0.3, "attention_dropout": 0.2},
        {"padded": True, "seed_": 3, "step": 7, "first_row": 5},
    ),
}


def variant(name, rows=3, columns=T):
    p, m, b = VARIANTS[name]
    b = dict(b)
    flags = {k: b.pop(k) for k in ("padded", "documents") if k in b}
    if "seed_" in b:
        b["seed"] = b.pop("seed_")
    made = random_batch(rows, columns, V, **flags)
    batch = Batch(made.tokens_BT1, made.documents_BT1, **b)
    return random_params(L, D, FF, V, T, **p), batch, Model(L, H, **m)


def everything(params, batch, model, bits, recompute=None):
    with enclose(params, batch, model, bits=bits, recompute=recompute) as e:
        return e.loss, {g.name: g for g in e.gradients() if g.balls.flat}  # formed here, at this precision


@pytest.mark.parametrize("name", VARIANTS)
def test_agrees_with_torch_autograd(name):
    params, batch, model = variant(name)
    value, grads = torch_gradients(params, batch, model)
    with enclose(params, batch, model, bits=200) as e:
        assert e.loss_error(value) < 1e-13
        seen = set()
        for g in e.gradients():
            seen.add(g.name)
            assert g.shape == params[g.name].shape
            assert g.radius.max() < 1e-30
            assert g.error(grads[g.name]).max() < 1e-13, g.name
            bad = grads[g.name].copy()
            bad.flat[-1] += 1e-10
            assert g.error(bad).max() > 0.9e-10
    assert seen == set(params)


@pytest.mark.parametrize("name", VARIANTS)
def test_float64_system_agrees(name):
    params, batch, model = variant(name)
    tape, S = recording(Float64())
    leaves = Leaves(tape, params)
    y = loss(S, leaves, batch, model)
    names = leaves.name_of()
    found = {names[i]: g for i, g in tape.backward(y, np.ones((1, 1)))}
    _, exact = everything(params, batch, model, 128)
    for n, g in exact.items():
        assert g.error(found[n].reshape(g.shape)).max() < 1e-13


@pytest.mark.parametrize("name", ["plain", "dropout", "documents"])
def test_balls_at_two_precisions_overlap_everywhere(name):
    params, batch, model = variant(name)
    f256, g256 = everything(params, batch, model, 256)
    f384, g384 = everything(params, batch, model, 384)
    assert f256.overlaps(f384)
    for n, g in g256.items():
        assert all(a.overlaps(b) for a, b in zip(g.balls.flat, g384[n].balls.flat, strict=True))
        wide, narrow = (max(x.rad() for x in balls) for balls in (g.balls.flat, g384[n].balls.flat))
        assert narrow < wide * arb("1e-30") or wide == 0


@pytest.mark.parametrize("name", ["erf", "dropout", "documents"])
def test_kept_and_recomputed_activations_overlap(name):
    params, batch, model = variant(name)
    _, kept = everything(params, batch, model, 128, recompute=False)
    _, again = everything(params, batch, model, 128, recompute=True)
    for n, g in kept.items():
        assert g.error(again[n].middle).max() < 1e-15
        assert all(a.overlaps(b) for a, b in zip(g.balls.flat, again[n].balls.flat, strict=True))


def test_difference_quotients_of_the_loss():
    """Each tensor moved along a random direction by ±2^-80 at 512 bits: the quotient equals ⟨gradient, direction⟩."""
    params, batch, model = variant("dropout", rows=2, columns=4)
    S, h = Balls(), 2.0**-80
    with working(512):
        tape, R = recording(S)
        leaves = Leaves(tape, params)
        y = loss(R, leaves, batch, model)
        names = leaves.name_of()
        grads = {names[i]: g for i, g in tape.backward(y, BallArray((1, 1), [arb(1)]))}
        w = {n: S.lift(x) for n, x in params.items()}
        rng = np.random.default_rng(0)
        for name, x in w.items():
            d = rng.integers(-8, 8, x.shape[0] * x.shape[1]).tolist()
            ends = []
            for sign in (h, -h):
                moved = BallArray(x.shape, [v + sign * k for v, k in zip(x.flat, d, strict=True)])
                ends.append(loss(S, {**w, name: moved}, batch, model).flat[0])
            slope = sum((g * k for g, k in zip(grads[name].flat, d, strict=True)), arb(0))
            assert abs((ends[0] - ends[1]) / (2 * arb(h)) - slope) < arb(2) ** -120, name


def test_structural_zeros():
    params, batch, model = variant("plain", columns=4)
    _, grads = everything(params, batch, model, 256)
    for i in range(L):
        assert grads[f"{i}.attn.bk"].magnitude().max() < 1e-60
        assert grads[f"{i}.attn.bq"].magnitude().max() > 1e-6
    assert grads["pos"].magnitude()[4:].max() < 1e-300
    assert (grads["pos"].radius[4:] == 0).all()
    assert grads["pos"].magnitude()[:4].min(axis=1).min() > 0


def test_one_token():
    params, batch, model = variant("plain", columns=1)
    value, grads = torch_gradients(params, batch, model)
    with enclose(params, batch, model, bits=256) as e:
        assert e.loss_error(value) < 1e-14
        for g in e.gradients():
            assert g.error(grads[g.name]).max() < 1e-13
            if g.name.rpartition(".")[2] in ("wq", "wk", "bq", "bk"):
                assert g.magnitude().max() < 1e-60


def test_working_puts_everything_back():
    before = ctx.prec, ctx.threads
    params, batch, model = variant("plain")
    everything(params, batch, model, 300)
    assert (ctx.prec, ctx.threads) == before


def test_extreme_scores_do_not_overflow():
    """Attention scores of several thousands: float64's exp would overflow without the peak."""
    params, batch, model = variant("plain")
    params = {n: x * np.float32(60) if n.endswith(("wq", "wk")) else x for n, x in params.items()}
    value, grads = torch_gradients(params, batch, model)
    with enclose(params, batch, model, bits=6000) as e:
        assert e.loss_error(value) < 1e-9
        for g in e.gradients():
            assert np.isfinite(grads[g.name]).all()
            assert g.error(grads[g.name]).max() < 1e-6 * (1 + np.abs(g.middle).max())


def test_refusals():
    params, batch, model = variant("plain")
    bad = {**params, "0.attn.wq": params["0.attn.wq"].copy()}
    bad["0.attn.wq"][1, 2] = np.nan
    with pytest.raises(NonFiniteError, match=r"0\.attn\.wq has 1 values"), enclose(bad, batch, model):
        pass
    with pytest.raises(UsageError, match=r"head\.w"), enclose({**params, "head.w": params["tok"]}, batch, model):
        pass
    short = {n: x for n, x in params.items() if n != "1.ffn.b1"}
    with pytest.raises(UsageError, match=r"1\.ffn\.b1 is missing"), enclose(short, batch, model):
        pass
    with pytest.raises(DataError, match="positions"), enclose({**params, "pos": params["pos"][:4]}, batch, model):
        pass
    with pytest.raises(DataError, match="tokens from"), enclose({**params, "tok": params["tok"][:5]}, batch, model):
        pass
    with pytest.raises(CertificateError, match="precision"), enclose(params, batch, model, bits=4) as e:
        list(e.gradients())
    with pytest.raises(ConfigError, match="relu"):
        Model(1, 1, activation="relu")
    with pytest.raises(DataError, match="no valid target"):
        Batch(np.zeros((1, 3), np.int64), -np.ones((1, 3), np.int64))
    with enclose(params, batch, model) as e, pytest.raises(UsageError, match="shape"):
        next(e.gradients()).error(np.zeros((1, 1)))


def test_engine_values_that_are_not_finite_are_infinitely_wrong():
    params, batch, model = variant("plain")
    with enclose(params, batch, model) as e:
        g = next(e.gradients())
        values = g.middle.copy()
        values[0] = np.nan
        values[1] = np.inf
        assert np.isinf(g.error(values)[:2]).all()
        assert np.isfinite(g.error(values)[2:]).all()
        assert e.loss_error(float("nan")) == np.inf
