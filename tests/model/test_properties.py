"""What must hold of any model: every tensor learns, time runs one way, and no split of a batch changes the sums."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from cases import FIRST_ROW, Case, judged
from hypothesis import given, settings
from hypothesis import strategies as st

from cllm.engine.adamw import adamw
from cllm.engine.dropout import Key, attention_mask, dropout_mask
from cllm.model.batch import Batch
from cllm.model.layout import MATRIX
from cllm.model.model import Model
from cllm.model.step import Step
from judges.bounds import UNIT, Bounded, check


def updated(model: Model, step: Step, *, decay: float = 0.0) -> None:
    """One AdamW step from zero moments."""
    for group in model.layout.segments:
        w, g = model.params.segment(group), step.grads.segment(group)
        m, v = torch.zeros_like(w), torch.zeros_like(w)
        weight_decay = decay if group == MATRIX else 0.0
        scale = 1 / max(step.sums.valid, 1)
        adamw(w, g, m, v, t=1, lr=1e-3, betas=(0.9, 0.95), eps=1e-8, decay=weight_decay, scale=scale)


def still(case: Case) -> set[str]:
    """The tensors whose gradient is exactly zero by structure."""
    names = ["bk"] + (["wq", "wk", "bq"] if case.sequence == 1 else [])
    return {f"{i}.attn.{name}" for i in range(case.layers) for name in names}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("initialised", [True, False])
@pytest.mark.parametrize(
    "case",
    [
        Case(head_width=3),
        Case(tied=False, activation="gelu_erf"),
        Case(sequence=1, rows=4),
        Case(dropout=0.2, attention_dropout=0.2, smoothing=0.1, rows=4),
        Case(documents=True, document_mask=True, rows=6, sequence=8),
    ],
)
def test_every_tensor_has_a_gradient_and_changes_in_one_step(case, initialised, dtype):
    model = Model(case.config, dtype).initialise(1) if initialised else case.model(dtype)
    before = {name: view.clone() for name, view in model.params.items()}
    step = case.step(model)
    step.zero()
    step.accumulate(case.batch, dropout=case.key)
    updated(model, step)
    assert {name for name, g in step.grads.items() if not g.any()} == still(case)
    assert {name for name, view in model.params.items() if torch.equal(view, before[name])} == still(case)
    padding = model.layout.total - model.layout.parameters
    for buffer in (step.grads, model.params):
        inside = sum(int((view == 0).sum()) for view in buffer.values())
        assert int((buffer.data == 0).sum()) == inside + padding, "padding of the flat buffers must stay 0"


def test_only_matrices_decay():
    case = Case()
    plain, decayed = case.model(torch.float64), case.model(torch.float64)
    for model, decay in ((plain, 0.0), (decayed, 0.5)):
        step = case.step(model)
        step.zero()
        step.accumulate(case.batch)
        updated(model, step, decay=decay)
    for entry in plain.layout.entries:
        same = torch.equal(plain.params[entry.name], decayed.params[entry.name])
        assert same == (len(entry.shape) == 1 or entry.name == "pos"), entry.name


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 9), st.data())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_token_moves_later_logits_and_leaves_earlier_ones_bit_equal(dtype, seed, sequence, data):
    case = Case(sequence=sequence, seed=seed)
    column = data.draw(st.integers(0, sequence - 1))
    step, tokens = case.step(case.model(dtype)), case.batch.tokens_BT1
    changed = tokens.clone()
    changed[0, column] = (tokens[0, column] + 1) % case.vocab
    a, b = (step.logits(Batch.of(x)) for x in (tokens, changed))
    assert torch.equal(a[0, :column], b[0, :column])
    assert torch.equal(a[1:], b[1:]), "rows of a batch do not touch each other"
    for later in range(column, sequence):
        assert not torch.equal(a[0, later], b[0, later])


def test_documents_do_not_see_each_other():
    case = Case(document_mask=True, sequence=6, rows=1)
    step, tokens = case.step(case.model(torch.float64)), case.batch.tokens_BT1
    documents = torch.tensor([[0, 0, 0, 1, 1, 1, 1]])
    changed = tokens.clone()
    changed[0, :3] = (tokens[0, :3] + 1) % case.vocab
    a, b = (step.logits(Batch.of(x, documents)) for x in (tokens, changed))
    assert torch.equal(a[0, 3:], b[0, 3:])
    alone = case.step(case.model(torch.float64)).logits(Batch.of(tokens.roll(-3, 1), torch.zeros(1, 7).long()))
    spread = judged(dataclasses.replace(case, document_mask=False)).plain_spread["logits"].max()
    assert ((a[0, 3:] - alone[0, :3]).abs() <= 4 * UNIT[torch.float64] * spread).all(), "positions restart"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [[4], [1, 1, 1, 1], [3, 1], [1, 3], [2, 2]], ids=str)
@pytest.mark.parametrize(
    "case",
    [Case(rows=4, documents=True, seed=9), Case(rows=4, dropout=0.3, attention_dropout=0.3, seed=9)],
    ids=["padded", "dropout"],
)
def test_any_split_gives_the_same_sums(case, sizes, dtype):
    """Each split is within the bound of the exact sums, so any two are within twice that of each other."""
    want, u, batch = judged(case), UNIT[dtype], case.batch
    step = case.step(case.model(dtype), rows=max(sizes))
    step.zero()
    for start, size in zip(itertools.accumulate([0, *sizes]), sizes, strict=False):
        part = slice(start, start + size)
        piece = Batch(batch.tokens_BT1[part], batch.documents_BT1[part], FIRST_ROW + start)
        sums = step.accumulate(piece, dropout=case.key)
    assert sums.valid == want.training.valid
    for name, got in step.grads.items():
        exact = want.training.gradients[name]
        check(name, got, exact, Bounded(exact, u, u * want.spread[name]))


def test_the_same_split_gives_the_same_bits_and_zero_forgets():
    case = Case(rows=4, dropout=0.3)
    step, found = case.step(case.model(torch.float32)), []
    for _ in range(2):
        step.zero()
        sums = step.accumulate(case.batch, dropout=case.key)
        found.append((step.grads.data.clone(), sums))
    assert torch.equal(found[0][0], found[1][0]) and found[0][1] == found[1][1]
    step.accumulate(case.batch, dropout=case.key)
    assert step.sums.valid == 2 * sums.valid and step.sums.loss == 2 * sums.loss
    assert step.sums.mean == sums.mean


def test_dropout_masks_do_not_depend_on_the_split():
    def masks(rows: int, first: int) -> list[torch.Tensor]:
        hidden = torch.zeros(rows, 5, 6, dtype=torch.bool)
        dropout_mask(Key(1, 2, first), 0.4, 3, 2, hidden)
        whole = attention_mask(Key(1, 2, first), 0.4, 3, range(rows), 3, range(5), 5, hidden.device)
        return [hidden, whole]

    together = masks(6, 10)
    for size in (1, 2, 3):
        parts = [masks(size, 10 + start) for start in range(0, 6, size)]
        for whole, pieces in zip(together, zip(*parts, strict=True), strict=True):
            assert torch.equal(whole, torch.cat(pieces))
    # nor on the blocks of rows and queries in which attention runs
    block = attention_mask(Key(1, 2, 10), 0.4, 3, range(2, 4), 3, range(3, 5), 5, torch.device("cpu"))
    assert torch.equal(block, together[1][2:4, :, 3:5])


def test_dropout_masks_differ_between_steps_layers_sites_rows_and_seeds():
    def mask(seed=1, step=2, row=0, layer=3, site=2) -> torch.Tensor:
        out = torch.zeros(1, 8, 16, dtype=torch.bool)
        dropout_mask(Key(seed, step, row), 0.5, layer, site, out)
        return out

    changes = [
        {}, {"seed": 2}, {"step": 3}, {"step": 2 + 2**16}, {"row": 1}, {"row": 256}, {"layer": 4}, {"layer": 0},
        {"site": 3}, {"site": 1}, {"layer": 2, "site": 3},
    ]  # fmt: skip
    drawn = [mask(**change) for change in changes]
    for a, b in itertools.combinations(drawn, 2):
        agreement = (a == b).double().mean()
        assert abs(agreement - 0.5) < 6 * 0.5 / 128**0.5, "two masks of 128 fair bits agree in half of them"
    columns = drawn[0][0]
    assert len({tuple(row.tolist()) for row in columns}) == len(columns)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_the_stated_part(p):
    out = torch.zeros(8, 64, 32, dtype=torch.bool)
    dropout_mask(Key(3, 0), p, 0, 2, out)
    n = out.numel()
    assert abs(out.double().mean() - (1 - p)) < 5 * (p * (1 - p) / n) ** 0.5
