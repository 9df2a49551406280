"""Every lattice option: the step against autograd of the plain model, decoding, lengths, initial values.

Tolerance: the certificate's float64 row, 2e-12 of each tensor's root mean square (docs/certificates.md).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from cases import SEED, STEP, Case, general
from sympy import prime

from cllm.config import ModelConfig, load
from cllm.engine.dropout import Key
from cllm.engine.rope import rope
from cllm.errors import ConfigError, DomainError
from cllm.lattice import lattice_embedding, position_table, rope_tables, symmetry_bias
from cllm.lattice.dihedral import equivariant
from cllm.lattice.orthogonal import lattice_transform
from cllm.lattice.positions import learned_start, mix_parts
from cllm.model.batch import Batch
from cllm.model.decode import PREFILL, Decoder
from cllm.model.model import Model
from cllm.model.step import Step
from judges.lattice_options import OPTIONS
from judges.plain_model import Drop, Lattice, evaluate, read

CASE = Case(
    layers=2, heads=2, head_width=6, ff=7, vocab=29, rows=3, sequence=9, extra_context=2, documents=True, seed=4
)


def config_of(case: Case, options: dict[str, object]) -> ModelConfig:
    return msgspec.structs.replace(case.config, **options)


def model_of(case: Case, options: dict[str, object], dtype: torch.dtype = torch.float64) -> Model:
    model = general(Model(config_of(case, options), dtype), case.seed)
    for name in model.params:
        if model.is_averaged(name):
            model.params.put(name, torch.from_numpy(equivariant(model.params[name].double().numpy())).to(dtype))
    return model


def meaning_of(c: ModelConfig) -> Lattice:
    """The options from the lattice's formulas, float64."""

    def of(a: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.asarray(a, dtype=np.float64))

    found = Lattice(averaged=c.equivariant)
    if c.positions == "rope":
        cos, sin = rope_tables(c.context, c.head_width, c.rope_base)
        found = replace(found, cos=of(cos), sin=of(sin), interleaved=c.rope_interleaved)
    elif c.positions == "mix":
        parts = of(mix_parts(c.context, c.width))[:3]
        if c.positions_mix[3] == 0:
            found = replace(found, table=sum(w * part for w, part in zip(c.positions_mix, parts, strict=False)))
        else:
            found = replace(found, parts=parts, weights=None if c.positions_mix_trainable else c.positions_mix)
    elif c.positions != "learned":
        table = position_table(c.positions, c.context, c.width, normalize=c.positions_normalize)
        found = replace(found, table=of(table))
    if c.symmetry_bias or c.symmetry_bias_trainable:
        by_prime = c.symmetry_classes == "prime"
        classes = torch.tensor([prime(i + 1) % 12 if by_prime else i % 12 for i in range(c.vocab)])
        found = replace(found, classes=classes, log_m=of(symmetry_bias(np.arange(12), 1.0)))
        found = replace(found, beta=None if c.symmetry_bias_trainable else c.symmetry_bias)
    if c.lattice_transform:
        found = replace(found, turn=of(lattice_transform(c.width)))
    return found


def near(got: torch.Tensor, want: torch.Tensor, what: str) -> None:
    rms = float(want.square().mean().sqrt())
    assert float((got - want).abs().max()) <= 2e-12 * rms + 1e-300, what


@pytest.mark.parametrize("document_mask", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
def test_step_is_the_gradient_of_the_plain_model(name: str, document_mask: bool):
    case = replace(CASE, document_mask=document_mask, smoothing=0.1)
    model, batch = model_of(case, OPTIONS[name]), case.batch
    step = case.step(model)
    step.zero()
    sums = step.accumulate(batch)
    found = evaluate(
        dict(model.params), 2, 2, read(batch.tokens_BT1, batch.documents_BT1, document_mask),
        smoothing=0.1, lattice=meaning_of(model.config),
    )  # fmt: skip
    assert sums.valid == found.valid
    near(torch.tensor(sums.loss, dtype=torch.float64), found.losses.sum(), "loss")
    assert found.gradients.keys() == step.grads.keys()
    for key, got in step.grads.items():
        if key.endswith("attn.bk") and model.config.positions != "rope":
            assert not got.any(), "the key bias has no gradient"
            continue
        near(got, found.gradients[key], key)
        assert got.any(), f"{key} has a gradient"


@pytest.mark.parametrize("recompute", ["gelu", "norms", "layer"])
def test_recomputed_layers_turn_and_bias_as_before(recompute: str):
    case = replace(CASE, dropout=0.2, attention_dropout=0.1)
    model, grads = model_of(case, OPTIONS["many"] | {"dropout": 0.2, "attention_dropout": 0.1}), []
    for way in ("none", recompute):
        step = Step(model, case.rows, case.sequence, recompute=way)
        step.accumulate(case.batch, dropout=Key(SEED, STEP))
        grads.append({name: g.clone() for name, g in step.grads.items()})
    for name, g in grads[0].items():
        assert torch.equal(g, grads[1][name]), name
    batch = case.batch
    found = evaluate(
        dict(model.params), 2, 2, read(batch.tokens_BT1, batch.documents_BT1, False),
        drop=Drop(SEED, STEP, batch.first_row, 0.2, 0.1), lattice=meaning_of(model.config),
    )  # fmt: skip
    for name, g in grads[0].items():
        near(g, found.gradients[name], name)


@pytest.mark.parametrize("name", OPTIONS)
def test_micro_batches_add_up(name: str):
    model, batch = model_of(CASE, OPTIONS[name]), CASE.batch
    whole, parts = CASE.step(model), CASE.step(model, rows=1)
    whole.accumulate(batch)
    for row in range(CASE.rows):
        part = slice(row, row + 1)
        parts.accumulate(Batch(batch.tokens_BT1[part], batch.documents_BT1[part], batch.first_row + row))
    assert parts.sums.valid == whole.sums.valid
    for key, g in whole.grads.items():
        near(parts.grads[key], g, key)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("split", [[1] * 7, [5, 1, 1], [PREFILL, 1, 2]], ids=str)
def test_cached_logits_are_those_of_the_full_forward(name: str, split: list[int]):
    case = replace(CASE, rows=2, sequence=PREFILL + 3, extra_context=4, documents=False)
    model, tokens = model_of(case, OPTIONS[name]), case.batch.tokens_BT1[:, :-1]
    full = Step(model, 2, case.sequence, gradients=False).logits(case.batch)
    decoder, start = Decoder(model, batch=2), 0
    for count in split:
        got = decoder.read(tokens[:, start : start + count])
        start += count
        near(got, full[:, start - 1], f"after {start} tokens")
    decoder.reset()
    near(decoder.read(tokens[:, :4]), full[:, 3], "read again")


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_other_precisions_follow(name: str, dtype: torch.dtype):
    """Against float64: the loss within a thousand units of roundoff (sums of T·L terms of size 1)."""
    exact, rough = (model_of(CASE, OPTIONS[name], d) for d in (torch.float64, dtype))
    for key in exact.params:
        exact.params.put(key, rough.params[key].double())
    a, b = (CASE.step(m).accumulate(CASE.batch).mean for m in (exact, rough))
    assert abs(a - b) <= 1000 * {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-9}[dtype]
    assert abs(a - b) > 0


def test_rope_turns_by_the_distance():
    """A score of turned q and k depends on how far apart they are alone; turning back gives what was there."""
    torch.manual_seed(1)
    cos, sin = (torch.from_numpy(x) for x in rope_tables(40, 8))
    q, k = torch.randn(8, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    for interleaved in (False, True):
        scores = {}
        for i, j in ((3, 1), (13, 11), (39, 37), (5, 5), (9, 2)):
            joint = torch.zeros(2, 24, dtype=torch.float64)
            joint[0, :8], joint[1, 8:16] = q, k
            joint[:, 16:] = 7.0
            before = joint.clone()
            at = torch.tensor([[i, j]])
            rope(joint, cos, sin, at, shape=(1, 2, 1), interleaved=interleaved)
            scores.setdefault(i - j, []).append(float(joint[0, :8] @ joint[1, 8:16]))
            assert (joint[:, 16:] == 7.0).all(), "values stay"
            rope(joint, cos, sin, at, shape=(1, 2, 1), interleaved=interleaved, inverse=True)
            near(joint, before, "back")
        assert max(scores[2]) - min(scores[2]) < 1e-12
        assert scores[0][0] == pytest.approx(float(q @ k), rel=1e-12)
        assert abs(scores[7][0] - scores[2][0]) > 1e-3


@pytest.mark.parametrize("name", OPTIONS)
def test_a_future_token_changes_nothing(name: str):
    case = replace(CASE, documents=False)
    model, batch = model_of(case, OPTIONS[name], torch.float32), case.batch
    step = Step(model, case.rows, case.sequence, gradients=False)
    before = step.logits(batch)
    batch.tokens_BT1[:, 6] = (batch.tokens_BT1[:, 6] + 1) % case.vocab
    after = step.logits(batch)
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.equal(before[:, 6:], after[:, 6:])


def test_longer_tables():
    for name in ("sinusoidal", "spiral", "clock", "prime", "rope", "mix older", "transform"):
        options = OPTIONS[name] | ({"positions": "rope"} if name == "transform" else {})
        model = model_of(CASE, options)
        longer = model.longer(40)
        assert longer.config.context == 40
        wanted = Model(longer.config, torch.float64).load(dict(model.params))
        for key, table in wanted.tables.items():
            assert torch.equal(longer.tables[key], table)
        tokens = torch.randint(CASE.vocab, (1, 41))
        assert torch.isfinite(Step(longer, 1, 40, gradients=False).logits(Batch.of(tokens))).all()
        assert model.config.context == CASE.config.context
    for name in ("mix", "mix trained", "bias"):
        with pytest.raises(DomainError, match="no trained row from 11 on; a length of 40 is not applicable"):
            model_of(CASE, OPTIONS[name]).longer(40)


def test_initial_values():
    c = config_of(CASE, {"init": "lattice", "init_mix": 0.25, "positions_start": "sinusoid", "equivariant": True})
    model, plain = Model(c, torch.float64).initialise(3), Model(CASE.config, torch.float64).initialise(3)
    noise = plain.params["tok"].numpy()
    near(model.params["tok"], torch.from_numpy(lattice_embedding(29, 12, mix=0.25, noise=noise)), "tok")
    assert torch.equal(model.params["pos"], torch.from_numpy(learned_start(c.context, 12)))
    near(model.params["1.attn.wo"], torch.from_numpy(equivariant(plain.params["1.attn.wo"].numpy())), "wo")
    assert torch.equal(model.params["1.ffn.w1"], plain.params["1.ffn.w1"])
    trained = Model(config_of(CASE, OPTIONS["mix trained"]), torch.float64).initialise(3)
    assert trained.params["positions.mix"].tolist() == [0.25] * 4
    beta = Model(config_of(CASE, {"symmetry_bias": 0.5, "symmetry_bias_trainable": True})).initialise(3)
    assert beta.params["symmetry.beta"].tolist() == [0.5]


def test_stored_tables_are_used_as_they_are():
    model = model_of(CASE, OPTIONS["spiral"])
    stored = dict(model.params) | {key: value * 2 for key, value in model.stored_tables.items()}
    again = Model(model.config, torch.float64).load(stored)
    assert torch.equal(again.tables["positions"], 2 * model.tables["positions"])
    with pytest.raises(ValueError, match=r"table\.positions: got"):
        Model(model.config, torch.float64).load(dict(model.params) | {"table.positions": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match=r"unknown: \['table.rope"):
        Model(model.config, torch.float64).load(dict(model.params) | {"table.rope.cos": torch.zeros(2, 2)})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model.positions_mix_trainable": True}, "does nothing without model.positions"),
        ({"model.rope_base": 100.0}, 'does nothing without model.positions = "rope"'),
        ({"model.init_mix": 0.5}, 'without model.init = "lattice"'),
        ({"model.symmetry_classes": "prime"}, "or a symmetry bias"),
        ({"model.positions": "rope", "model.positions_start": "sinusoid"}, "without a learned position table"),
        ({"model.positions": "learned", "model.positions_normalize": False}, "without a spiral"),
        ({"model.positions": "spiral", "model.width": 33, "model.heads": 3}, "needs an even width"),
        ({"model.positions": "rope", "model.width": 33, "model.heads": 3}, "needs an even head width, got 11"),
        ({"model.equivariant": True, "model.width": 33, "model.heads": 3}, "needs an even width"),
        ({"model.positions": "mix", "model.positions_mix": [0.0, 0.0, 0.0, 0.0]}, "all weights are 0"),
        ({"model.positions": "rope", "model.rope_base": 0.5}, "above 1"),
        ({"model.positions": "clok"}, 'did you mean "clock"'),
    ],
)
def test_wrong_combinations_are_refused_with_the_reason(settings: dict[str, object], said: str):
    with pytest.raises(ConfigError, match=said):
        load(preset="nano", overrides=settings)


def test_options_survive_a_run_file(tmp_path: Path):
    from cllm.config import to_toml

    for options in OPTIONS.values():
        config = load(preset="nano", overrides={f"model.{key}": value for key, value in options.items()})
        (tmp_path / "run.toml").write_text(to_toml(config), encoding="utf-8")
        assert load(tmp_path / "run.toml") == config
    assert json.loads(msgspec.json.encode(config.model))["equivariant"] is True
