"""The full certificate: what it says, what makes it fail, and what does not."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from fractions import Fraction

import msgspec
import numpy as np
import pytest
import torch
from flint import arb

from cllm import config as settings
from cllm import spec
from cllm.certificate.budget import BUDGETS, MOST, conditions
from cllm.certificate.full import _quantiles, certify_step, run_engine, work
from cllm.certificate.memory import available, estimate, refuse_too_large
from cllm.certificate.record import OUTSIDE, PROVEN, REPORTED, WITHIN, above, read
from cllm.certificate.subjects import of_preset, shape_for
from cllm.certificate.zeros import structural
from cllm.certificate.zoo import SCENES, scene
from cllm.engine.dispatch import torch_kernels
from cllm.errors import CertificateError, CorruptError, LimitError, NonFiniteError, UsageError


def test_nano_is_certified_in_float32(nano) -> None:
    c = certify_step(nano)
    assert c.ok and c.enclosure == PROVEN and c.verdict == WITHIN
    assert c.radius_over_rms <= 1e-20
    assert c.entries == sum(w.size for w in nano.weights.values())
    assert 0 < c.errors.p50 < c.errors.p99 < c.errors.p999 < c.errors.max < 1e-4
    assert [z.what for z in c.structural] == ["key bias"] * 2
    assert all(z.exact_bound < 1e-30 and z.engine_max == 0 for z in c.structural)
    text = str(c)
    assert re.match(r"CERTIFIED  engine (torch|native-\w+)-fp32 ", text)
    assert "structural zeros (key bias)" in text and "chained steps" in text and "384 bit" in text


def test_small_is_certified_in_both_precisions() -> None:
    for precision in ("fp32", "fp64"):
        c = certify_step(of_preset("small", 64, precision=precision))
        assert c.ok and c.radius_over_rms <= 1e-20


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_every_scene_of_the_healthy_engine_is_within(name: str, precision: str) -> None:
    c = certify_step(scene(name, precision, seed=2), bits=256)
    assert c.ok, c.bad


@pytest.mark.parametrize(("precision", "size"), [("fp64", 1e-5), ("fp32", 1e-3)])
@pytest.mark.parametrize("tensor", ["tok", "pos", "0.attn.wq", "1.attn.bv", "1.ffn.w1", "0.ln2.g", "lnf.b"])
def test_one_entry_changed_is_found_and_named(precision: str, size: float, tensor: str) -> None:
    subject = scene("unpadded", precision)
    engine = run_engine(subject)
    values = engine.gradients[tensor].copy()
    rms = float(np.sqrt(np.mean(values.astype(np.float64) ** 2)))
    at = np.unravel_index(values.size // 2, values.shape)
    values[at] += size * rms
    c = certify_step(subject, engine=replace(engine, gradients={**engine.gradients, tensor: values}), bits=256)
    assert not c.ok and c.verdict == OUTSIDE and c.bad is not None
    assert c.bad.tensor == tensor and c.bad.index == [int(i) for i in at]
    assert "NOT CERTIFIED" in str(c) and "first fault" in str(c)


def test_noise_where_the_gradient_is_zero_by_structure_is_found(padded) -> None:
    engine = run_engine(padded)
    noise = {**engine.gradients, "0.attn.bk": engine.gradients["0.attn.bk"] + 1e-18}
    c = certify_step(padded, engine=replace(engine, gradients=noise), bits=256)
    assert not c.ok and c.bad is not None and c.bad.tensor == "0.attn.bk"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_outside(padded, value: float, tmp_path) -> None:
    engine = run_engine(padded)
    broken = engine.gradients["1.ffn.w2"].copy()
    broken[3, 4] = value
    c = certify_step(padded, engine=replace(engine, gradients={**engine.gradients, "1.ffn.w2": broken}), bits=256)
    assert not c.ok and c.bad is not None and c.bad.tensor == "1.ffn.w2" and c.bad.index == [3, 4]
    again = read(c.save(tmp_path))  # JSON has no infinity
    assert str(again) == str(c) and "max unbounded" in str(c)


def test_a_wrong_loss_is_outside(padded) -> None:
    engine = run_engine(padded)
    c = certify_step(padded, engine=replace(engine, loss=engine.loss + 1e-12), bits=256)
    assert not c.ok and c.bad is not None and c.bad.tensor == "loss"


def test_a_loss_that_is_not_finite_is_outside(padded, tmp_path) -> None:
    c = certify_step(padded, engine=replace(run_engine(padded), loss=math.nan), bits=256)
    assert not c.ok and c.bad is not None and c.bad.engine == "nan" and not read(c.save(tmp_path)).ok


def test_an_engine_that_does_not_repeat_is_outside(padded) -> None:
    c = certify_step(padded, engine=replace(run_engine(padded), repeatable=False), bits=256)
    assert not c.ok and "different bits" in " ".join(c.notes)


def test_balls_of_two_precisions_overlap_everywhere(padded) -> None:
    with spec.enclose(padded.weights, padded.spec_batch, padded.spec_model, bits=256) as a:
        first = {g.name: g.balls.flat for g in a.gradients()}
        loss = a.loss
    with spec.enclose(padded.weights, padded.spec_batch, padded.spec_model, bits=384) as b:
        assert b.loss.overlaps(loss)
        for g in b.gradients():
            assert all(x.overlaps(y) for x, y in zip(first.pop(g.name), g.balls.flat, strict=True))
    assert not first


def test_central_differences_of_the_enclosed_loss_agree(padded) -> None:
    with spec.enclose(padded.weights, padded.spec_batch, padded.spec_model, bits=256) as exact:
        rows = {g.name: g.middle for g in exact.gradients() if g.name in ("0.attn.wv", "tok", "1.ln1.g")}
    h = 2.0**-20
    for name, gradient in rows.items():
        at = np.unravel_index(int(np.argmax(np.abs(gradient))), gradient.shape)
        ends = []
        for sign in (1, -1):
            moved = padded.weights[name].copy()
            moved[at] += sign * h
            weights = {**padded.weights, name: moved}
            with spec.enclose(weights, padded.spec_batch, padded.spec_model, bits=256) as exact:
                ends.append((exact.loss, Fraction(float(moved[at]))))
        step = ends[0][1] - ends[1][1]
        slope = float((ends[0][0] - ends[1][0]) / arb(step.numerator) * arb(step.denominator))
        assert slope == pytest.approx(float(gradient[at]), rel=1e-6)


def test_too_little_precision_is_doubled_and_said(nano) -> None:
    with pytest.raises(CertificateError, match="64 bits do not suffice"):
        certify_step(nano, bits=64)
    trained = replace(of_preset("nano", 5), trained=True)
    import cllm.certificate.full as full

    assert full.certify_step(trained).bits == 256


def test_auto_precision_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    import cllm.certificate.full as full
    from cllm.spec import balls

    monkeypatch.setattr(full, "ENOUGH", 1e-150)
    monkeypatch.setattr(balls, "LEADING", 1000)
    c = full.certify_step(of_preset("nano", 3, precision="fp64"), system=spec.Balls())
    assert c.bits == 768 and "doubled" in c.notes[0]


def test_an_unknown_budget_is_reported(padded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(BUDGETS, "float64")
    c = certify_step(padded, bits=256)
    assert c.ok and c.verdict == REPORTED and "no budget" in str(c)


def test_weights_that_are_not_finite_are_named(nano) -> None:
    broken = {name: value.copy() for name, value in nano.weights.items()}
    broken["1.ffn.w1"][5, 7] = np.nan
    with pytest.raises(NonFiniteError, match=r"1\.ffn\.w1 has 1 of .* \[5, 7\]"):
        replace(nano, weights=broken)


def test_tokens_outside_the_vocabulary_are_refused(nano) -> None:
    with pytest.raises(UsageError, match="token numbers"):
        replace(nano, tokens_BT1=nano.tokens_BT1 + 512)


def test_tokens_choose_whole_rows() -> None:
    assert shape_for(64, 256) == (1, 64)
    assert shape_for(700, 256) == (2, 256)
    with pytest.raises(UsageError):
        shape_for(0, 256)


def test_more_than_memory_holds_is_refused_with_what_fits(nano) -> None:
    config = nano.config
    least, all_of_it = estimate(config, 1, 64), estimate(config, 640, 64)
    limit = (least + all_of_it) // 2
    with pytest.raises(LimitError, match=r"--tokens \d+ fits") as refused:
        refuse_too_large(config, 10, 64, limit=limit)
    fits = int(str(refused.value).split("--tokens ")[1].split()[0])
    assert estimate(config, fits, 64) <= limit < estimate(config, fits + 1, 64)
    with pytest.raises(LimitError, match="no number of tokens fits"):
        refuse_too_large(config, 1, 64, limit=least - 1)
    refuse_too_large(config, 1, 64)
    assert available() > 2**28


def test_structural_zeros_depend_on_the_batch() -> None:
    def names(s) -> set[str]:
        return set(structural(s))

    keys = {"0.attn.bk", "1.attn.bk"}
    assert names(scene("unpadded")) == keys
    single = {f"{i}.attn.{n}" for i in (0, 1) for n in ("wq", "wk", "bq")}
    assert names(scene("one token")) == keys | single
    assert names(scene("untied erf")) == keys | {"tok"}
    longer = scene("padded")
    cut = replace(longer, tokens_BT1=longer.tokens_BT1[:, :6], documents_BT1=longer.documents_BT1[:, :6])
    why, mask = structural(cut)["pos"]
    assert "position" in why and mask.sum() == 8 * 12 and mask[5:].all()


def test_a_shorter_sequence_reports_the_position_rows_beyond(padded) -> None:
    cut = replace(padded, tokens_BT1=padded.tokens_BT1[:, :6], documents_BT1=padded.documents_BT1[:, :6])
    c = certify_step(cut, bits=256)
    assert c.ok and [z.entries for z in c.structural if z.tensor == "pos"] == [8 * 12]


def test_certificate_file_round_trip(padded, tmp_path) -> None:
    c = certify_step(padded, bits=256)
    path = c.save(tmp_path)
    assert path.name.startswith("certificate-") and msgspec.to_builtins(read(path)) == msgspec.to_builtins(c)
    assert str(read(path)) == str(c)
    path.write_text("{}")
    with pytest.raises(CorruptError, match="not a certificate"):
        read(path)


def test_numbers_are_printed_rounded_up() -> None:
    assert above(1.21e-7) == "1.3e-7" and above(1.2e-7) in ("1.2e-7", "1.3e-7") and above(0.0) == "0"
    for x in (0.1, 1 / 3, 9.99e-5, 123.4, 5e-324):
        assert Fraction(above(x)) >= Fraction(x)
    assert above(math.inf) == above(math.nan) == "unbounded"


def test_quantiles_are_upper(padded) -> None:
    q = _quantiles([np.arange(1, 1001, dtype=np.float32)])
    assert (q.p50, q.p99, q.p999, q.max) == (500, 990, 999, 1000)


def test_conditions() -> None:
    found = conditions(0.5, {"tok": 1.0, "0.attn.wq": 1e-3, "0.attn.wv": 1.0})
    assert found == {"tok": 2.0, "0.attn.wq": 200.0, "0.attn.wv": 2.0}
    assert all(b.max * MOST < limit for b, limit in ((BUDGETS["float32"], 1e-3), (BUDGETS["float64"], 1e-5)))


def test_progress_reaches_its_end(padded) -> None:
    seen: list[tuple[int, int]] = []
    certify_step(padded, bits=256, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen) and seen[-1][1] == work(padded)
    assert seen[-1][0] >= 0.9 * work(padded)


def test_the_engine_hash_is_of_its_numbers(padded) -> None:
    a, b = run_engine(padded), run_engine(padded)
    assert a.sha256 == b.sha256 and a.repeatable
    other = replace(padded, tokens_BT1=padded.tokens_BT1[::-1].copy())
    assert run_engine(other).sha256 != a.sha256 and other.hashes()["batch"] != padded.hashes()["batch"]
    assert torch.equal(torch.from_numpy(a.gradients["tok"]), torch.from_numpy(b.gradients["tok"]))


def test_a_tensor_whose_every_path_is_dropped_out_is_zero() -> None:
    """One token, and a rate at which all attention probabilities of a layer are dropped."""
    subject = scene("one token")
    heavy = settings.replace(subject.config, {"model.dropout": 0.9, "model.attention_dropout": 0.9})
    certificates = [certify_step(replace(subject, config=heavy, step=n), bits=256) for n in range(4)]
    assert all(c.ok for c in certificates)
    assert any(row.rms == 0 for c in certificates for row in c.tensors)


@pytest.mark.prove
@pytest.mark.timeout(900)
def test_seed_at_64_tokens_meets_its_targets() -> None:
    subject = of_preset("seed", 64)
    assert sum(w.size for w in subject.weights.values()) == 24_068_096
    on_torch = run_engine(subject, lambda: subject.engine_step(torch_kernels(torch.float32)))
    c = certify_step(subject, engine=on_torch)
    assert c.ok and c.radius_over_rms <= 1e-20
    assert c.errors.max <= 2e-4 and c.errors.p99 <= 3e-6 and c.worst_normwise <= 3e-6
    assert certify_step(subject).ok  # whichever kernels a step runs on: their budget is wider (docs/certificates.md)
