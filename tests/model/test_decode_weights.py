"""Narrow weights and the native decoder: the logits of the full forward at the weights' own values, at every level."""

from __future__ import annotations

import pytest
import torch
from cases import Case

from cllm import native
from cllm.engine.quantise import KINDS, narrowed, quantise_rows
from cllm.errors import UsageError
from cllm.model.decode import Decoder
from cllm.model.narrow import own_kind, with_weights
from cllm.model.step import Step
from judges.bounds import UNIT
from judges.bounds_model import sensitivity
from judges.plain_model import evaluate, read

HIGHEST = native.level("engine", "engine")
LEVELS = ["off", *native.LEVELS[: native.LEVELS.index(HIGHEST) + 1]] if HIGHEST != "off" else ["off"]
# widths that are no multiple of a vector, a head of an odd width, several blocks of output rows, both activations
CASES = {
    "odd": Case(rows=5, sequence=24, layers=2, heads=3, head_width=7, vocab=37, seed=6),
    "wide": Case(rows=2, sequence=10, layers=1, heads=2, head_width=40, vocab=70, seed=7, activation="gelu_erf"),
}


@pytest.fixture(scope="module")
def exact():
    """By case and kind, on first use: the plain model's logits at the narrowed weights, and the bound over u."""
    found = {}

    def get(name: str, kind: str):
        if (name, kind) not in found:
            case = CASES[name]
            held = dict(with_weights(case.model(torch.float32), kind).params)
            meaning = read(case.batch.tokens_BT1, case.batch.documents_BT1, False)
            sizes, options = (held, case.layers, case.heads, meaning), {"activation": case.activation}
            shape = (case.rows, case.sequence, -1)
            found[name, kind] = (
                evaluate(*sizes, **options).logits.view(shape),
                sensitivity(*sizes, **options)["logits"].view(shape),
            )
        return found[name, kind]

    return get


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_the_narrowed_weights(name, kind, level, exact, monkeypatch):
    monkeypatch.setenv(native.VARIABLE, level)
    case, (logits, spread) = CASES[name], exact(name, kind)
    decoder, tokens = Decoder(case.model(torch.float32), batch=case.rows, weights=kind), case.batch.tokens_BT1
    assert (decoder._network is not None) == (level != "off")
    start = 0
    for count in (1, 1, 4, 1, 1, 1):
        got = decoder.read(tokens[:, start : start + count])
        start += count
        allowed = 2 * UNIT[torch.float32] * spread[:, start - 1]
        assert ((got.double() - logits[:, start - 1]).abs() <= allowed).all()
        assert decoder.length == start
    with pytest.raises(AssertionError):  # the bound is narrow enough to tell the kinds apart
        other = exact(name, "fp32" if kind == "int8" else "int8")[0]
        assert ((got.double() - other[:, start - 1]).abs() <= allowed).all()


@pytest.mark.skipif(HIGHEST == "off", reason="no native kernels")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 2, 3, 4, 7, 16])
def test_a_row_does_not_depend_on_its_batch_beyond_rounding(batch, kind):
    """Rows of a batch go through other loops than a row alone; the weights and the values are the same."""
    case = Case(rows=16, sequence=6, layers=1, heads=2, head_width=20, vocab=50, seed=3)
    model, tokens = case.model(torch.float32), case.batch.tokens_BT1[:, :4]
    together, alone = Decoder(model, batch, kind), Decoder(model, 1, kind)
    again = Decoder(model, batch, kind)
    for t in range(4):
        got = together.read(tokens[:batch, t : t + 1])
        assert torch.equal(again.read(tokens[:batch, t : t + 1]), got)  # and the same bits when run again
    for t in range(4):
        one = alone.read(tokens[batch - 1 : batch, t : t + 1])
    # 40 columns, values of order 1: far above rounding, far below a wrong row or column
    torch.testing.assert_close(one[0], got[-1], rtol=1e-4, atol=1e-5)


def test_int8_is_exact_in_float32_within_half_a_step_and_stable():
    w = torch.randn(40, 33, generator=torch.Generator().manual_seed(1)) * torch.logspace(-6, 6, 40).unsqueeze(1)
    w[3] = 0.0
    q, scale = quantise_rows(w)
    value = narrowed(w, "int8")
    assert torch.equal(value.double(), q.double() * scale.double().unsqueeze(1))  # no rounding in scale·q
    assert ((value - w).abs() <= scale.unsqueeze(1) / 2 * (1 + 2**-20)).all()
    assert q.abs().max() == 127 and scale[3] == 0 and not value[3].any()
    again, same = quantise_rows(value)
    assert torch.equal(again, q) and torch.equal(same, scale)


def test_narrow_models():
    model = CASES["odd"].model(torch.float32)
    assert with_weights(model, "fp32") is model
    for kind in ("bf16", "int8"):
        narrow = with_weights(model, kind)
        for name, value in narrow.params.items():
            want = model.params[name]
            matrix = want.dim() == 2 and name != "pos"
            assert torch.equal(value, narrowed(want, kind) if matrix else want), name
    with pytest.raises(UsageError, match='got "int4"'):
        with_weights(model, "int4")


def test_a_bf16_model_decodes_with_its_rounded_matrices():
    case = CASES["odd"]
    model = case.model(torch.bfloat16)
    assert own_kind(model) == "bf16"
    tokens = case.batch.tokens_BT1[:, :5]
    got = Decoder(model, case.rows).read(tokens)
    narrow = with_weights(model, "bf16")
    assert narrow.operand == torch.float32
    want = Step(narrow, case.rows, case.sequence, gradients=False).logits(case.batch)[:, 4]
    # operands rounded to bf16 in two layers, or not at all: within a few of its steps
    assert (got - want).abs().max() <= 16 * 2.0**-8 * want.abs().max()


@pytest.mark.skipif(HIGHEST == "off", reason="no native kernels")
def test_tokens_outside_the_vocabulary_are_refused():
    decoder = Decoder(CASES["odd"].model(torch.float32))
    with pytest.raises(ValueError, match="the vocabulary has 37"):
        decoder.read(torch.tensor([[37]]))
