"""Whole steps of the CUDA kernels against the judge of the whole model, entry by entry (on a GPU: elsewhere.py)."""

from __future__ import annotations

from dataclasses import replace

import elsewhere
import pytest
import torch
from cases import Case, check_step

from cllm.engine.cuda import layernorm

CASES = {
    "documents and padding": Case(layers=1, rows=2, documents=True, document_mask=True, smoothing=0.1),
    "dropout": Case(layers=1, rows=1, dropout=0.3, attention_dropout=0.2, tied=False, activation="gelu_erf"),
    "fused attention": Case(layers=2, heads=1, head_width=8, rows=1),
    "one token": Case(layers=1, heads=1, head_width=8, rows=2, sequence=1),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_a_step_is_the_gradient_of_the_plain_model(name, dtype):
    case = replace(CASES[name], rounded=dtype == torch.bfloat16)
    check_step(case, dtype, kernels=elsewhere.kernels(dtype, case.activation))


@pytest.mark.skipif(elsewhere.DEVICE != "cpu", reason="a test of the check, not of the device")
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_a_wrong_norm_behind_a_product_is_refused(place):
    """Of the four joined norms of two layers, one is that of the sum before."""
    k, calls = elsewhere.kernels(torch.float32), []

    def late(x, w, bias, residual, out, g, shift, y, mean, rstd):
        calls.append(place)
        k.linear_norm_forward(x, w, bias, residual, out, g, shift, y, mean, rstd)
        if len(calls) == place + 1:
            k.layernorm_forward(out - bias, g, shift, y, mean, rstd)

    with pytest.raises(AssertionError):
        check_step(CASES["fused attention"], torch.float32, kernels=replace(k, linear_norm_forward=late))
    assert len(calls) >= 4


@pytest.mark.skipif(elsewhere.DEVICE != "cpu", reason="a test of the check, not of the device")
def test_a_wrong_assembly_is_refused(monkeypatch):
    k = elsewhere.kernels(torch.float32)

    def without_dx(dy, x, mean, rstd, g, dx, rounded, dg, db):
        layernorm.layernorm_backward(dy, x, mean, rstd, g, dx.clone(), rounded, dg, db)

    with pytest.raises(AssertionError):
        check_step(Case(layers=1, rows=1), torch.float32, kernels=replace(k, layernorm_backward=without_dx))
