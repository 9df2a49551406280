"""Certificates of bf16 steps: proven at the rounded operands, reported beside autocast, faults still visible."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cllm.certificate import autocast
from cllm.certificate.full import certify_step, run_engine
from cllm.certificate.local import certify_ops
from cllm.certificate.record import PROVEN, REPORTED, read
from cllm.certificate.subjects import of_preset
from cllm.errors import UsageError

LATTICE = {"model.positions": "rope", "model.symmetry_bias": 0.5, "model.lattice_transform": True}


@pytest.fixture(scope="module")
def nano():
    return of_preset("nano", 64, precision="bf16")


def test_the_function_is_that_at_the_rounded_matrices(nano):
    assert (nano.precision, nano.sums) == ("bfloat16", "float32")
    model = nano.engine_step().model
    for name, value in nano.weights.items():
        if name in model.operands and model.operands[name].dtype == torch.bfloat16:
            assert np.array_equal(model.operands[name].float().numpy(), value), name
            assert np.array_equal(torch.from_numpy(value).bfloat16().float().numpy(), value)
        else:
            assert np.array_equal(model.params[name].numpy(), value), name
    rounded = [n for n, v in nano.weights.items() if np.array_equal(torch.from_numpy(v).bfloat16().float().numpy(), v)]
    assert {"tok", "0.attn.wq", "1.ffn.w2"} <= set(rounded)
    assert not {"pos", "0.ln1.g", "1.ffn.b1"} & set(rounded), "vectors and positions stay float32"


def test_nano_is_proven_and_reported(nano, tmp_path):
    c = certify_step(nano)
    assert c.ok
    assert (c.enclosure, c.verdict) == (PROVEN, REPORTED)
    assert c.radius_over_rms <= 1e-20
    assert "no budget exists for bfloat16" in str(c)
    assert "torch autocast bf16 on the same batch" in str(c)
    assert read(c.save(tmp_path)).beside == c.beside
    # in float64 the same rounded weights give the same exact loss: it is their function that is certified
    again = of_preset("nano", 64, precision="fp64")
    same = certify_step(type(again)(again.config, {n: w.astype(np.float64) for n, w in nano.weights.items()},
                                    nano.tokens_BT1, nano.documents_BT1))  # fmt: skip
    assert c.loss.exact[:30] == same.loss.exact[:30]


@pytest.mark.parametrize("preset", ["nano", "small"])
def test_no_worse_than_autocast(preset: str):
    c = certify_step(of_preset(preset, 64, precision="bf16"))
    assert c.beside is not None
    assert c.median_normwise <= c.beside.median
    assert c.worst_normwise <= c.beside.worst


def test_autocast_is_the_same_function(nano):
    """Its gradients are near the engine's in every tensor (a wrong formula would be of the gradient's own size)."""
    assert autocast.comparable(nano)
    other, ours = autocast.gradients(nano), run_engine(nano).gradients
    for name, g in ours.items():
        if not name.endswith("attn.bk"):
            assert np.linalg.norm(other[name] - g) < 0.2 * np.linalg.norm(g), name


def test_a_gross_fault_shows(nano):
    """There is no budget, so the verdict stays REPORTED, but the normwise error beside autocast's tells."""
    engine = run_engine(nano)
    engine.gradients["1.ffn.w1"] = engine.gradients["1.ffn.w1"] * 1.5
    c = certify_step(nano, engine=engine)
    assert c.worst_tensor == "1.ffn.w1"
    assert c.worst_normwise > 0.4 > 3 * c.beside.worst


def test_options_and_dropout_without_a_peer():
    for settings in (LATTICE, {"model.dropout": 0.1}):
        c = certify_step(of_preset("nano", 32, precision="bf16", overrides=settings))
        assert c.enclosure == PROVEN
        assert c.beside is None
        assert c.worst_normwise < 0.2


def test_op_by_op_is_refused_in_words(nano):
    with pytest.raises(UsageError, match="no a-priori budget for bfloat16"):
        certify_ops(nano)
