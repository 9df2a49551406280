"""The step in every precision and on both paths, against the same judge; and what is computed again is the same."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from cases import Case, check_step
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cllm import native
from cllm.engine.dispatch import select, torch_kernels
from cllm.model.activations import RECOMPUTE
from cllm.model.layout import MATRIX
from cllm.model.model import Model
from cllm.model.step import Step

DTYPES = (torch.float64, torch.float32, torch.bfloat16)
CASES = [
    Case(rounded=True),
    Case(rounded=True, tied=False, activation="gelu_erf", heads=1, head_width=5, sequence=7, rows=3),
    Case(rounded=True, documents=True, document_mask=True, smoothing=0.1, dropout=0.3, attention_dropout=0.2, seed=1),
    Case(rounded=True, sequence=1, rows=3),
    Case(rounded=True, heads=2, head_width=16, ff=67, vocab=71, sequence=19, rows=4),  # whole vectors and their tails
]


@pytest.mark.parametrize("path", ["native", "torch"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_both_paths_are_within_the_bounds_of_their_precision(case, dtype, path):
    kernels = select(dtype, case.activation) if path == "native" else torch_kernels(dtype, case.activation)
    if path == "native" and native.level("engine", "engine") == "off":
        pytest.skip(native.why_not("engine", "engine"))
    assert kernels.name.startswith(path)
    check_step(case, dtype, kernels)


@pytest.mark.parametrize("path", ["native", "torch"])
def test_a_bf16_step_with_a_wrong_gelu_is_refused(path):
    """The bounds of bfloat16 are wide, but not as wide as a mistake."""
    case = CASES[-1]
    kernels = select(torch.bfloat16) if path == "native" else torch_kernels(torch.bfloat16)

    def without_slope(dy, w, pre, dpre):
        kernels.linear_backward_input(dy, w, dpre)

    with pytest.raises(AssertionError):
        check_step(case, torch.bfloat16, dataclasses.replace(kernels, linear_gelu_backward_input=without_slope))


@pytest.mark.skipif(native.level("engine", "engine") == "off", reason=native.why_not("engine", "engine"))
@pytest.mark.parametrize("dtype", DTYPES)
def test_native_steps_do_not_depend_on_the_number_of_threads(dtype):
    case = Case(
        layers=2, heads=3, head_width=16, ff=200, vocab=301, sequence=70, rows=3, documents=True, document_mask=True,
        dropout=0.1, attention_dropout=0.1,
    )  # fmt: skip
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            step = case.step(case.model(dtype))
            step.zero()
            found.append((step.accumulate(case.batch, dropout=case.key).loss, step.grads.data))
    finally:
        torch.set_num_threads(before)
    for loss, gradients in found[1:]:
        assert loss == found[0][0] and torch.equal(gradients, found[0][1])


def test_bf16_computes_at_the_rounded_matrices_and_keeps_the_others():
    case = Case(seed=3)
    rounded, plain = Case(seed=3, rounded=True).model(torch.bfloat16), case.model(torch.bfloat16)
    assert plain.dtype == torch.float32 and plain.operand == torch.bfloat16
    for entry in plain.layout.entries:
        if entry.group == MATRIX:
            assert torch.equal(plain.operands[entry.name], plain.params[entry.name].bfloat16())
    steps = [case.step(model) for model in (plain, rounded)]
    for step in steps:
        step.zero()
        step.accumulate(case.batch)
    for name in steps[0].grads:
        assert torch.equal(steps[0].grads[name], steps[1].grads[name]), name


def test_the_rounded_matrices_follow_the_parameters():
    model = Model(Case().config, torch.bfloat16).initialise(1)
    first = model.operands["0.attn.wo"].clone()
    model.params["0.attn.wo"].mul_(3.0)  # through a view
    assert torch.equal(model.operands["0.attn.wo"], model.params["0.attn.wo"].bfloat16())
    assert not torch.equal(first, model.operands["0.attn.wo"])
    place = model.operands.data.data_ptr()
    model.params.data.zero_()
    assert not model.operands.data.any() and model.operands.data.data_ptr() == place
    other = model.with_params(Case().model(torch.float32).params)
    assert torch.equal(other.operands["tok"], other.params["tok"].bfloat16()) and not model.operands["tok"].any()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(DTYPES), st.integers(1, 3), st.sampled_from(["gelu_tanh", "gelu_erf"]),
    st.sampled_from([0.0, 0.3]), st.sampled_from([0.0, 0.2]), st.booleans(),
)  # fmt: skip
@pytest.mark.parametrize("path", ["native", "torch"])
def test_what_is_computed_again_is_the_same(path, dtype, layers, activation, dropout, attention_dropout, mask):
    case = Case(
        layers=layers, heads=2, head_width=8, ff=35, vocab=19, sequence=9, rows=3, activation=activation,
        dropout=dropout, attention_dropout=attention_dropout, documents=mask, document_mask=mask,
    )  # fmt: skip
    make = select if path == "native" else torch_kernels
    found = {}
    for level in RECOMPUTE:
        model = case.model(dtype)
        step = Step(
            model, case.rows, case.sequence, document_mask=mask, recompute=level, kernels=make(dtype, activation)
        )
        step.zero()
        for _ in range(2):  # the second time over what the first one left in the buffers
            sums = step.accumulate(case.batch, dropout=case.key)
        found[level] = sums.loss, step.grads.data.clone(), sum(step.bytes_by_part.values())
    for level in RECOMPUTE[1:]:
        assert found[level][0] == found["none"][0]
        assert torch.equal(found[level][1], found["none"][1]), level
    sizes = [found[level][2] for level in RECOMPUTE]
    assert sizes == sorted(sizes, reverse=True) and (layers == 1 or sizes[0] > sizes[1] > sizes[2] > sizes[3])


def test_an_unknown_recompute_is_refused():
    with pytest.raises(ValueError, match="recompute: got 'most'"):
        Step(Model(Case().config), 1, 3, recompute="most")
