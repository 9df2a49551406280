"""Cached decoding: the same logits as the full forward pass, however the tokens arrive."""

from __future__ import annotations

import pytest
import torch
from cases import Case, judged

from cllm.model.batch import Batch
from cllm.model.decode import PREFILL, Decoder
from cllm.model.step import Step
from judges.bounds import UNIT
from judges.bounds_model import sensitivity
from judges.plain_model import evaluate, read

LONG = Case(rows=2, sequence=PREFILL + 21, extra_context=0, layers=2, heads=2, head_width=3, vocab=9, seed=6)


@pytest.fixture(scope="module")
def exact():
    """The plain model's logits of the long rows, and the bound on an engine's distance from them over u."""
    held, batch = dict(LONG.model(torch.float32).params), LONG.batch
    meaning = read(batch.tokens_BT1, batch.documents_BT1, False)
    sizes = (held, LONG.layers, LONG.heads, meaning)
    return evaluate(*sizes).logits, sensitivity(*sizes)["logits"].view(2, LONG.sequence, -1)


# lengths of the pieces in which the first tokens are read
SPLITS = [
    [1] * 12,
    [5],
    [5, 1, 1, 7],
    [PREFILL],
    [PREFILL - 1, 1, 1],
    [PREFILL + 1, 3],
    [PREFILL + 21],
    [3, PREFILL, 1],
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_cached_logits_are_those_of_the_full_forward(split, dtype, exact):
    logits, spread = exact
    tokens = LONG.batch.tokens_BT1[:, :-1]
    model = LONG.model(dtype)
    full = Step(model, 2, LONG.sequence, gradients=False).logits(LONG.batch)
    decoder, start = Decoder(model, batch=2), 0
    for count in split:
        got = decoder.read(tokens[:, start : start + count])
        start += count
        assert decoder.length == start and decoder.room == model.config.context - start
        allowed = UNIT[dtype] * spread[:, start - 1]
        # each is within its bound of the exact logits, so they are within twice that of each other
        assert ((got.double() - logits[:, start - 1]).abs() <= 2 * allowed).all()
        assert ((got.double() - full[:, start - 1].double()).abs() <= 4 * allowed).all()


def test_the_bound_sees_a_wrong_position(exact):
    logits, spread = exact
    decoder = Decoder(LONG.model(torch.float32), batch=2)
    decoder.read(LONG.batch.tokens_BT1[:, 1:7])  # the right tokens, one column off
    got = decoder.read(LONG.batch.tokens_BT1[:, 7:8])
    assert not ((got.double() - logits[:, 7]).abs() <= 2 * UNIT[torch.float32] * spread[:, 7]).all()


def test_rows_do_not_touch_each_other():
    model, tokens = LONG.model(torch.float64), LONG.batch.tokens_BT1[:, :9]
    both, other = Decoder(model, batch=2), Decoder(model, batch=2)
    a = both.read(tokens).clone()
    b = other.read(torch.stack((tokens[0], tokens[1].flip(0)))).clone()
    assert torch.equal(a[0], b[0]) and not torch.equal(a[1], b[1])


def test_reset_forgets_everything():
    model, tokens = LONG.model(torch.float32), LONG.batch.tokens_BT1
    fresh, used = Decoder(model, batch=2), Decoder(model, batch=2)
    used.read(tokens[:, :40])
    used.reset()
    assert used.length == 0
    assert torch.equal(used.read(tokens[:, 3:13]), fresh.read(tokens[:, 3:13]))


def test_the_cache_is_appended_in_place():
    decoder = Decoder(LONG.model(torch.float32), batch=2)
    decoder.read(LONG.batch.tokens_BT1[:, :10])
    place, keys = decoder.cache.k_LBHSK.data_ptr(), decoder.cache.k_LBHSK.clone()
    decoder.read(LONG.batch.tokens_BT1[:, 10:12])
    assert decoder.cache.k_LBHSK.data_ptr() == place
    assert torch.equal(decoder.cache.k_LBHSK[:, :, :, :10], keys[:, :, :, :10])
    assert not decoder.cache.k_LBHSK[:, :, :, 12:].any()


@pytest.mark.parametrize("shape", [(2, 0), (1, 3), (2, LONG.sequence + 1)])
def test_tokens_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected 2 rows of 1 to 85 tokens"):
        Decoder(LONG.model(torch.float32), batch=2).read(torch.zeros(shape, dtype=torch.int64))


def test_a_full_context_is_refused():
    decoder = Decoder(Case().model(torch.float32))
    decoder.read(torch.zeros(1, 6, dtype=torch.int64))
    assert decoder.room == 0
    with pytest.raises(ValueError, match="context 6, 6 read"):
        decoder.read(torch.zeros(1, 1, dtype=torch.int64))


def test_decoding_is_the_training_forward_without_dropout():
    """The forward pass is one piece of code: what a step evaluates is what a decoder reads."""
    case = Case(dropout=0.5, attention_dropout=0.5)
    model = case.model(torch.float64)
    tokens = case.batch.tokens_BT1
    seen = case.step(model).logits(Batch.of(tokens))
    got = Decoder(model, batch=2).read(tokens[:, :-1])
    spread = judged(case).plain_spread["logits"].view_as(seen)
    assert ((got - seen[:, -1]).abs() <= 4 * UNIT[torch.float64] * spread[:, -1]).all()
