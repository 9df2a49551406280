"""Narrow weights and the native decoder: the logits of the full forward at the weights' own values, at every level."""

from __future__ import annotations

import os

import msgspec
import pytest
import torch
from cases import Case, general

from cllm import native
from cllm.engine.quantise import KINDS, narrowed, quantise_rows
from cllm.errors import UsageError
from cllm.model.decode import Decoder
from cllm.model.model import Model
from cllm.model.narrow import own_kind, with_weights
from cllm.model.step import Step
from judges.bounds import UNIT
from judges.bounds_model import sensitivity
from judges.plain_model import evaluate, read

HIGHEST = native.level("engine", "engine")
FORCED = os.environ.get(native.VARIABLE)
LEVELS = (
    [FORCED] if FORCED else ["off", *native.LEVELS[: native.LEVELS.index(HIGHEST) + 1]] if HIGHEST != "off" else ["off"]
)
# widths that are no multiple of a vector, a head of an odd width, several blocks of output rows, both activations
CASES = {
    "odd": Case(rows=5, sequence=24, layers=2, heads=3, head_width=7, vocab=37, seed=6),
    "wide": Case(rows=2, sequence=10, layers=1, heads=2, head_width=40, vocab=70, seed=7, activation="gelu_erf"),
    "many": Case(rows=16, sequence=6, layers=1, heads=2, head_width=20, vocab=50, seed=3),
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
@pytest.mark.parametrize("name", ["odd", "wide"])
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
def test_every_size_of_batch(batch, kind, exact):
    """Batches of different sizes go through different loops."""
    case, (logits, spread) = CASES["many"], exact("many", kind)
    model, tokens = case.model(torch.float32), case.batch.tokens_BT1[:batch]
    decoder, again = Decoder(model, batch, kind), Decoder(model, batch, kind)
    for t in range(4):
        got = decoder.read(tokens[:, t : t + 1])
        assert ((got.double() - logits[:batch, t]).abs() <= 2 * UNIT[torch.float32] * spread[:batch, t]).all()
        assert torch.equal(again.read(tokens[:, t : t + 1]), got)  # the same bits when run again


@pytest.mark.skipif(HIGHEST == "off", reason="no native kernels")
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_change_a_bit(threads):
    case, before = CASES["odd"], torch.get_num_threads()
    model, tokens = case.model(torch.float32), case.batch.tokens_BT1
    want = Decoder(model, case.rows, "int8").read(tokens[:, :1]).clone()
    try:
        torch.set_num_threads(threads)
        assert torch.equal(Decoder(model, case.rows, "int8").read(tokens[:, :1]), want)
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(HIGHEST == "off", reason="no native kernels")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_not_finite_shows(kind, wrong):
    """Also where activations become whole numbers on the way: only the sequence that met it is lost."""
    case = CASES["odd"]
    model = case.model(torch.float32)
    model.params["tok"][5, 3] = wrong
    tokens = torch.full((case.rows, 1), 6)
    tokens[2] = 5
    heads = [name for name in model.params if name != "tok"]
    untied = msgspec.structs.replace(case.config, tied=False)
    other = Model(untied, torch.float32).load({**{n: model.params[n] for n in heads}, "tok": model.params["tok"],
                                               "head.w": torch.ones_like(model.params["tok"])})  # fmt: skip
    got = Decoder(other, case.rows, kind).read(tokens)
    assert not got[2].isfinite().any()
    assert got[[0, 1, 3, 4]].isfinite().all()


@pytest.mark.skipif(HIGHEST == "off", reason="no native kernels")
@pytest.mark.parametrize("kind", KINDS)
def test_a_vector_of_zeros(kind):
    model = CASES["odd"].model(torch.float32)
    for name, value in model.params.items():
        if name.startswith("ln"):
            value.zero_()  # what the head is multiplied with
    assert not Decoder(model, 2, kind).read(torch.tensor([[1], [2]])).any()


POSITIONS = [
    {"positions": "sinusoidal"},
    {"positions": "spiral"},
    {"positions": "mix"},
    {"positions": "mix", "positions_mix": (0.4, 0.3, 0.3, 0.0)},
    {"equivariant": True},
    {"positions": "rope"},
    {"symmetry_bias": 0.5},
    {"lattice_transform": True},
]


@pytest.mark.skipif(HIGHEST == "off", reason="no native kernels")
@pytest.mark.parametrize("options", POSITIONS, ids=str)
def test_lattice_options(options):
    """Tables of positions go through the native call; what it does not know takes the ordinary path."""
    case = Case(rows=3, sequence=9, heads=2, head_width=6, vocab=29, seed=4)
    config = msgspec.structs.replace(case.config, **options)
    tokens = case.batch.tokens_BT1
    model = general(Model(config, torch.float32), 4)
    double = Model(config, torch.float64).load({name: p.double() for name, p in model.params.items()})
    want = Step(double, case.rows, case.sequence, gradients=False).logits(case.batch)
    error = (Step(model, case.rows, case.sequence, gradients=False).logits(case.batch) - want).abs().max()
    decoder = Decoder(model, case.rows)
    known = options.get("positions") != "rope" and not options.keys() & {"symmetry_bias", "lattice_transform"}
    assert (decoder._network is not None) == known
    for t in range(case.sequence):
        got = decoder.read(tokens[:, t : t + 1])
        # float32 as the full forward is: the sums run in another order, so their errors are of the same size
        assert (got - want[:, t]).abs().max() <= 8 * error


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
