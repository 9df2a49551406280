"""The whole training step against autograd of the plain model: logits, losses and every entry of every gradient."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from cases import SEED, Case, check_step, judged
from hypothesis import example, given, settings
from hypothesis import strategies as st

import cllm.model.step as step_module
from cllm.engine import embedding, layernorm, linear
from cllm.engine.dispatch import select
from cllm.model.batch import IGNORED, Batch, derive, pad_rows
from cllm.model.model import Model
from cllm.model.step import Step
from judges.plain_model import read

DTYPES = (torch.float64, torch.float32)

cases = st.builds(
    Case,
    layers=st.integers(1, 2),
    heads=st.integers(1, 3),
    head_width=st.integers(3, 4),
    ff=st.integers(1, 6),
    vocab=st.integers(2, 8),  # fewer words than columns: tokens repeat
    rows=st.integers(1, 3),
    sequence=st.integers(1, 6),
    extra_context=st.integers(0, 2),
    activation=st.sampled_from(["gelu_tanh", "gelu_erf"]),
    tied=st.booleans(),
    documents=st.booleans(),
    document_mask=st.booleans(),
    smoothing=st.sampled_from([0.0, 0.1]),
    dropout=st.sampled_from([0.0, 0.0, 0.3]),
    attention_dropout=st.sampled_from([0.0, 0.0, 0.2]),
    seed=st.integers(0, 10**6),
)


@settings(max_examples=40, deadline=None)
@given(cases)
@example(Case())  # D = 6, H = 3, odd T
@example(Case(sequence=1, rows=3))
@example(Case(heads=1, head_width=5, tied=False))
@example(Case(vocab=1))  # one token, always: the loss is 0 and so is every gradient
@example(Case(documents=True, document_mask=True, smoothing=0.1, dropout=0.3, attention_dropout=0.2, seed=1))
def test_step_is_the_gradient_of_the_plain_model(case):
    for dtype in DTYPES:
        check_step(case, dtype)


# Wrong models. Each must fail the check above at every precision; a mutant of an op alone is in tests/engine.


def _calls(function, number, wrong):
    """`wrong` in place of the given call of a kernel in a step (counted from 0), `function` otherwise."""
    count = iter(range(10**6))
    return lambda *args, **kwargs: (wrong if next(count) == number else function)(*args, **kwargs)


def _lost_residual(dy, x, mean, rstd, g, dx, *rest):
    dx.zero_()
    layernorm.layernorm_backward(dy, x, mean, rstd, g, dx, *rest)


def _only_position_side(dx, tokens, positions, de, dp):
    embedding.embedding_backward(dx, tokens, positions, torch.zeros_like(de), dp)


def _skip(*args, **kwargs):
    """Does nothing."""


def _shifted(batch, *args):
    d = derive(batch, *args)
    return dataclasses.replace(d, targets_BT=d.targets_BT.roll(1, 1))


def _counting_ignored(batch, *args):
    d = derive(batch, *args)
    return dataclasses.replace(d, valid=d.targets_BT.numel())


def _pads_are_targets(batch, *args):
    d = derive(batch, *args)
    return dataclasses.replace(d, targets_BT=d.targets_BT.clamp_min(0))


def _positions_from_one(batch, *args):
    d = derive(batch, *args)
    columns = torch.arange(d.inputs_BT.shape[1]).expand_as(d.inputs_BT)
    return dataclasses.replace(d, positions_BT=columns + 1)


def _positions_do_not_restart(batch, *args):
    return dataclasses.replace(derive(batch, *args), positions_BT=None)


def _no_document_mask(batch, *args):
    return dataclasses.replace(derive(batch, *args), documents_BT=None)


PADDED = Case(documents=True, document_mask=True, sequence=6, rows=3, seed=4)
KERNELS = {
    # norms run backward in the order lnf, ln2 and ln1 of the last layer, ln2 and ln1 of the first
    "residual dropped before the last feed-forward": {
        "layernorm_backward": lambda: _calls(layernorm.layernorm_backward, 1, _lost_residual)
    },
    "residual dropped before the first attention": {
        "layernorm_backward": lambda: _calls(layernorm.layernorm_backward, 4, _lost_residual)
    },
    "tied embedding misses the input side": {"embedding_backward": lambda: _only_position_side},
    "tied embedding misses the output side": {
        "linear_backward_weight": lambda: _calls(linear.linear_backward_weight, 0, _skip)
    },
    "one layer's Wo gets no gradient": {
        "linear_backward_weight": lambda: _calls(linear.linear_backward_weight, 3, _skip)
    },
}
DERIVATIONS = {
    "labels shifted": (Case(), _shifted),
    "ignored targets counted": (PADDED, _counting_ignored),
    "padding as targets": (PADDED, _pads_are_targets),
    "position row off by one": (Case(), _positions_from_one),
    "positions run on over documents": (PADDED, _positions_do_not_restart),
    "attention across documents": (PADDED, _no_document_mask),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", KERNELS)
def test_a_wrong_assembly_is_refused(name, dtype):
    change = {op: make() for op, make in KERNELS[name].items()}
    check_step(Case(), dtype)
    with pytest.raises(AssertionError):
        check_step(Case(), dtype, kernels=dataclasses.replace(select(dtype), **change))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", DERIVATIONS)
def test_a_wrong_reading_of_the_batch_is_refused(name, dtype, monkeypatch):
    case, wrong = DERIVATIONS[name]
    check_step(case, dtype)
    monkeypatch.setattr(step_module, "derive", wrong)
    with pytest.raises(AssertionError):
        check_step(case, dtype)


@pytest.mark.parametrize("wrong", ["layer", "row"])
def test_dropout_of_another_layer_or_row_is_refused(wrong):
    case, kernels = Case(dropout=0.3, attention_dropout=0.2), select(torch.float32)

    def mask(key, p, layer, site, out):
        if wrong == "layer":
            layer = 0
        else:
            key = dataclasses.replace(key, first_row=0)
        kernels.dropout_mask(key, p, layer, site, out)

    check_step(case, torch.float32)
    with pytest.raises(AssertionError):
        check_step(case, torch.float32, kernels=dataclasses.replace(kernels, dropout_mask=mask))


def test_one_entry_off_by_a_thousandth_of_its_tensor_is_refused():
    """The sensitivity of the float64 check is far better than that: 1e-7 of the rms of any tensor."""
    for dtype, part in ((torch.float64, 1e-7), (torch.float32, 1e-2)):
        for number in range(5):

            def nudged(dy, x, dw, db, *, add, part=part, number=number):
                linear.linear_backward_weight(dy, x, dw, db, add=add)
                dw.view(-1)[number] += part * dw.square().mean().sqrt()

            kernels = dataclasses.replace(select(dtype), linear_backward_weight=nudged)
            with pytest.raises(AssertionError):
                check_step(Case(), dtype, kernels=kernels)


# What a batch means


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 9), st.booleans())
def test_derive_agrees_with_a_reading_by_loops(seed, rows, sequence, document_mask):
    batch = Case(rows=rows, sequence=sequence, documents=True, seed=seed).batch
    got, want = derive(batch, document_mask), read(batch.tokens_BT1, batch.documents_BT1, document_mask)
    assert torch.equal(got.inputs_BT, want.inputs)
    assert torch.equal(got.targets_BT, want.targets)
    assert got.valid == (want.targets != IGNORED).sum()
    if document_mask:
        assert torch.equal(got.positions_BT, want.positions)
        assert torch.equal(got.documents_BT, batch.documents_BT1[:, :-1])
    else:
        assert got.positions_BT is None and got.documents_BT is None


def test_padding_in_front_is_no_context_for_a_target():
    """A target counts only when both it and the token before it belong to the text."""
    batch = Batch.of([[0, 0, 3, 4, 5]], [[-1, -1, 0, 0, -1]])
    for document_mask in (False, True):
        found = derive(batch, document_mask)
        assert found.targets_BT.tolist() == [[-1, -1, 4, -1]] and found.valid == 1


def test_rows_of_padding_change_nothing():
    case = Case(documents=True, seed=2)
    model = case.model(torch.float64)
    plain, padded = case.step(model), case.step(model, rows=5)
    for step in (plain, padded):
        step.zero()
        step.accumulate(case.batch)
    assert padded.sums.valid == plain.sums.valid
    whole = pad_rows(case.batch, 5)
    assert whole.tokens_BT1.shape[0] == 5 and (whole.documents_BT1[2:] == -1).all()
    assert padded.evaluate(case.batch).losses_BT.shape == (2, 5)
    assert padded.logits(case.batch).shape == plain.logits(case.batch).shape
    for name, g in plain.grads.items():  # other shapes may run other matrix products: equal within their rounding
        assert ((padded.grads[name] - g).abs() <= 2 * 2.0**-53 * judged(case).spread[name]).all()


@pytest.mark.parametrize("case", [Case(), Case(tied=False)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_new_step_knows_nothing_of_the_gradients_before(case, dtype):
    """Those that are products are written over, not zeroed: whatever is there, also where logits come in blocks."""
    fresh, used = case.step(case.model(dtype)), case.step(case.model(dtype))
    fresh.head_rows = used.head_rows = 3
    used.grads.data.fill_(torch.nan)
    for step in (fresh, used):
        step.zero()
        step.accumulate(case.batch)
        step.accumulate(case.batch)
    assert used.head_rows < case.rows * case.sequence
    assert torch.equal(fresh.grads.data, used.grads.data)


@pytest.mark.parametrize("shape", [(3, 6), (2, 5), (2, 7)])
def test_a_batch_that_does_not_fit_is_refused(shape):
    step = Case().step(Case().model(torch.float32))
    with pytest.raises(ValueError, match=r"this step takes at most 2 rows of 6"):
        step.accumulate(Batch.of(torch.zeros(shape, dtype=torch.int64)))


def test_a_sequence_beyond_the_context_is_refused():
    with pytest.raises(ValueError, match="longer than the model's context"):
        Step(Model(Case().config), 1, 7)


def test_evaluation_is_without_smoothing_and_dropout_and_counts_ranks():
    case = Case(smoothing=0.1, dropout=0.3, documents=True, seed=2)
    step = case.step(case.model(torch.float64))
    found, logits = step.evaluate(case.batch), step.logits(case.batch)
    plain = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), found.targets_BT.reshape(-1), reduction="none", ignore_index=IGNORED
    )
    # both are the same real number of the same logits: their rounding is that of a logsumexp of 7 terms
    assert (found.losses_BT.reshape(-1) - plain).abs().max() <= 64 * 2.0**-53 * (1 + logits.abs().max())
    for row, ranks, targets in zip(logits, found.ranks_BT, found.targets_BT, strict=True):
        for z, rank, target in zip(row, ranks, targets.tolist(), strict=True):
            if target != IGNORED:
                assert rank == sum(bool(x > z[target]) for x in z)


def test_probe_sees_every_op_with_layer_and_name():
    case, seen = Case(), []
    step = case.step(case.model(torch.float32))
    step.zero()
    step.accumulate(case.batch, probe=lambda layer, op, tensor: seen.append((layer, op, bool(tensor.isfinite().all()))))
    assert len(seen) == len({(layer, op) for layer, op, _ in seen}) and all(finite for *_, finite in seen)
    backward = [layer for layer, op, _ in seen if op == "attn backward"]
    assert backward == [1, 0]
    assert [op for layer, op, _ in seen if layer == 0 and "backward" not in op] == [
        "ln1", "attn.qkv", "attn", "attn.out", "ln2", "ffn.w1", "ffn.gelu", "ffn.w2"
    ]  # fmt: skip


def test_seed_of_dropout_is_used():
    assert SEED  # the cases' masks come from a seed other than 0
    case = Case(dropout=0.5)
    model, found = case.model(torch.float32), []
    for seed in (1, 2):
        step = case.step(model)
        step.zero()
        key = dataclasses.replace(case.key, seed=seed)
        found.append(step.accumulate(case.batch, dropout=key).loss)
    assert found[0] != found[1]
