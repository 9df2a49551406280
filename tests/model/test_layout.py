"""Parameters: counts, places, initialisation, loading."""

from __future__ import annotations

import math

import pytest
import torch
from cases import Case

from cllm.config import ModelConfig, load
from cllm.engine.philox import normal
from cllm.model.layout import MATRIX, VECTOR, flops_per_token, layout
from cllm.model.model import Model
from cllm.presets import PRESETS

# by V·D + T·D + L(4D² + 2DF + F + 9D) + 2D, worked out by hand for the published sizes
PARAMETERS = {
    "small": 986_880,
    "seed": 24_297_472,
    "medium": 30_864_384,
    "large": 204_453_888,
    "gpt2": 124_439_808,
    "nano": 43_904,
}


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_of_the_presets(name):
    config = load(preset=name).model
    assert layout(config).parameters == PARAMETERS[name]
    model = Model(config, device="meta")
    assert sum(view.numel() for view in model.params.values()) == PARAMETERS[name]
    assert model.params.data.device.type == "meta"


def test_an_untied_head_adds_v_times_d():
    tied, untied = (layout(ModelConfig(vocab=11, width=8, tied=t)).parameters for t in (True, False))
    assert untied - tied == 11 * 8


def test_names_shapes_and_groups():
    config = Case(layers=1, tied=False).config  # D 6, F 5, V 7, context 6
    d, f, v, t = 6, 5, 7, 6
    matrices = {
        "tok": (v, d), "0.attn.wq": (d, d), "0.attn.wk": (d, d), "0.attn.wv": (d, d), "0.attn.wo": (d, d),
        "0.ffn.w1": (f, d), "0.ffn.w2": (d, f), "head.w": (v, d),
    }  # fmt: skip
    vectors = {
        "pos": (t, d), "0.ln1.g": (d,), "0.ln1.b": (d,), "0.attn.bq": (d,), "0.attn.bk": (d,), "0.attn.bv": (d,),
        "0.attn.bo": (d,), "0.ln2.g": (d,), "0.ln2.b": (d,), "0.ffn.b1": (f,), "0.ffn.b2": (d,), "lnf.g": (d,),
        "lnf.b": (d,),
    }  # fmt: skip
    found = layout(config)
    assert {e.name: e.shape for e in found.entries if e.group == MATRIX} == matrices
    assert {e.name: e.shape for e in found.entries if e.group == VECTOR} == vectors


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_views_are_aligned_but_for_the_joined(dtype):
    model = Model(load(preset="small").model, dtype)
    joined = {e.name for e in model.layout.entries if e.joined}
    assert joined == {f"{i}.attn.{x}" for i in range(4) for x in ("wk", "wv", "bk", "bv")}
    for name, view in model.params.items():
        assert name in joined or view.data_ptr() % 64 == 0, name


def test_initialisation():
    model = Model(load(preset="small").model).initialise(seed=7)
    for name, view in model.params.items():
        if name.endswith(".g"):
            assert (view == 1).all()
        elif view.dim() == 1:
            assert not view.any()
        else:
            std = 0.02 / math.sqrt(8) if name.endswith((".wo", ".w2")) else 0.02
            # five standard errors of the mean and of the standard deviation
            assert abs(view.double().mean()) < 5 * std / math.sqrt(view.numel()), name
            assert abs(view.double().std() / std - 1) < 5 / math.sqrt(2 * view.numel()), name
    assert not model.params.data.isnan().any()
    assert model.params["tok"].data_ptr() == model.params.data.data_ptr()


def test_initialisation_is_a_function_of_seed_tensor_and_index():
    config = Case().config
    a, b, other = Model(config).initialise(3), Model(config).initialise(3), Model(config).initialise(4)
    double = Model(config, torch.float64).initialise(3)
    assert torch.equal(a.params.data, b.params.data)
    assert not torch.equal(a.params.data, other.params.data)
    assert torch.equal(double.params.data.float(), a.params.data), "float32 is float64, rounded once"
    assert torch.equal(double.params["tok"].reshape(-1), normal((3, 0), 0, 42) * 0.02)
    drawn = [tuple(view.reshape(-1)[:4].tolist()) for view in a.params.values() if view.dim() == 2]
    assert len(set(drawn)) == len(drawn), "no two tensors share their numbers"


def test_load_copies_and_refuses():
    case = Case()
    source, model = case.model(torch.float64), Model(case.config, torch.float32)
    held = {name: view.clone() for name, view in source.params.items()}
    model.load(held)
    assert all(torch.equal(model.params[name], held[name].float()) for name in held)
    with pytest.raises(ValueError, match=r"missing: \['tok'\].*unknown: \['token'\]"):
        model.load({("token" if name == "tok" else name): x for name, x in held.items()})
    with pytest.raises(ValueError, match=r"tok: got \(6, 7\), expected \(7, 6\)"):
        model.load(held | {"tok": held["tok"].T})


def test_with_params_shares_the_memory_of_the_other_buffer():
    model = Case().model(torch.float32)
    other = Case(seed=5).model(torch.float32)
    mixed = model.with_params(other.params)
    assert mixed.params.data.data_ptr() == other.params.data.data_ptr()
    assert model.params.data.data_ptr() != other.params.data.data_ptr()


def test_flops_are_those_of_the_matrix_products():
    """6 a weight and token, and 6 a score and channel twice (Q·Kᵀ and A·V) over the T(T+1)/2 allowed pairs."""
    config, t = load(preset="nano").model, 64
    weights = sum(e.size for e in layout(config).entries if e.group == MATRIX)  # the tied head once
    pairs = t * (t + 1) // 2
    assert flops_per_token(config, t) * t == 6 * weights * t + 6 * 2 * config.layers * config.width * pairs
