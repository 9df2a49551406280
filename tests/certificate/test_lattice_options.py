"""Certificates of every lattice option: the specification agrees with the engine, and a fault of an option is found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cllm import spec
from cllm.certificate.full import certify_step, run_engine
from cllm.certificate.local import certify_ops
from cllm.certificate.record import OUTSIDE, PROVEN, WITHIN
from cllm.certificate.subjects import Subject, of_preset
from cllm.engine import rope
from cllm.engine.dispatch import select
from cllm.errors import UsageError
from cllm.lattice import rotate
from cllm.lattice.dihedral import equivariant
from cllm.model.step import Step
from cllm.spec import lattice
from cllm.spec.floats import Float64
from judges.lattice_options import OPTIONS


def subject(name: str, precision: str = "fp64") -> Subject:
    sizes = {"width": 24, "heads": 2, "ff": 32, "vocab": 40, "context": 13}
    settings = {f"model.{key}": value for key, value in (sizes | OPTIONS[name]).items()}
    return of_preset("nano", 26, precision=precision, overrides=settings | {"data.document_mask": True})


@pytest.mark.parametrize("precision", ["fp64", "fp32"])
@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_certified(name: str, precision: str):
    given = subject(name, precision)
    assert given.spec_batch.positions_BT.max() < 12  # several documents: positions restart
    c = certify_step(given)
    assert c.ok, c.bad
    assert (c.enclosure, c.verdict) == (PROVEN, WITHIN)
    assert ("fixed tables" in str(c)) == bool(given.tables)
    assert any(z.what == "key bias" for z in c.structural) == (given.config.model.positions != "rope")
    if "symmetry_bias_trainable" in OPTIONS[name]:
        assert "symmetry.beta" in {row.name for row in c.tensors}


class _Uncounted(Step):
    """The gradient of β and of the mix weights forgotten."""

    def _embedding_backward(self, *args: Any) -> None:
        super()._embedding_backward(*args)
        for name in ("symmetry.beta", "positions.mix"):
            if name in self.grads:
                self.grads[name].zero_()


class _Unaveraged(Step):
    def _average(self, name: str) -> None:
        pass


def wrong_rope(*args: Any, inverse: bool = False, **options: Any) -> None:
    """Turned the same way in the backward."""
    rope.rope(*args, inverse=False, **options)


@pytest.mark.parametrize(
    ("name", "step", "rope_kernel", "tensor"),
    [
        ("bias by primes, trained", _Uncounted, None, "symmetry.beta"),
        ("mix trained", _Uncounted, None, "positions.mix"),
        ("equivariant", _Unaveraged, None, None),
        ("rope", Step, wrong_rope, None),
    ],
)
def test_a_fault_of_an_option_is_found(name: str, step: type[Step], rope_kernel: Any, tensor: str | None):
    given = subject(name)
    kernels = select(torch.float64)
    if rope_kernel is not None:
        kernels = replace(kernels, rope=rope_kernel)
    c = certify_step(given, engine=run_engine(given, lambda: given.engine_step(kernels, step)))
    assert not c.ok
    assert c.verdict == OUTSIDE
    assert c.bad is not None
    assert tensor in (None, c.bad.tensor)


def test_a_table_that_is_not_the_formulas_is_found():
    given = subject("clock", "fp32")
    table = given.tables["positions"].copy()
    table[3, 5] = np.nextafter(table[3, 5], np.float32(2))
    assert "within 1 ulp of their formulas" in str(certify_step(replace(given, tables={"positions": table})))
    table[3, 5] += 1e-4
    c = certify_step(replace(given, tables={"positions": table}))
    assert c.bad is not None
    assert (c.bad.tensor, c.bad.index, c.verdict) == ("table.positions", [3, 5], OUTSIDE)
    assert "not the formula's" in c.bad.why
    assert not c.ok


def test_op_by_op_says_what_it_does_not_cover():
    with pytest.raises(UsageError, match=r"model\.positions is not checked op by op"):
        certify_ops(subject("rope"))


def test_the_specification_is_the_lattices_definition():
    """rope, the group average and ln M of the specification against the definitions in `lattice`, in float64."""
    S, draw = Float64(), np.random.default_rng(2)
    x = draw.normal(size=(6, 16))
    angle = draw.normal(size=(4, 4))
    cos, sin, at = np.cos(angle), np.sin(angle), np.array([0, 1, 2, 3, 1, 0])
    for interleaved in (False, True):
        got = lattice.rope(S, S.lift(x), cos=cos, sin=sin, positions=at, heads=2, interleaved=interleaved)
        heads = x.reshape(6, 2, 8).transpose(1, 0, 2)
        want = rotate(heads, cos[at], sin[at], interleaved=interleaved).transpose(1, 0, 2).reshape(6, 16)
        np.testing.assert_allclose(np.asarray(got), want, rtol=0, atol=1e-14)
    w = draw.normal(size=(8, 6))
    np.testing.assert_allclose(np.asarray(lattice.averaged(S, S.lift(w))), equivariant(w), rtol=0, atol=1e-14)
    log_m = np.asarray(lattice.log_closeness(S))
    assert log_m[0, 6] == pytest.approx(-np.log(4))
    assert log_m[1, 11] == pytest.approx(-np.log(2))
    assert spec.OPS["rope"].forward is lattice.rope


def test_a_run_is_certified_with_its_options(tmp_path: Path):
    import cllm

    (tmp_path / "book.txt").write_text("It was the best of times, it was the worst of times. " * 60, encoding="utf-8")
    options = {"model.positions": "spiral", "model.symmetry_bias": 0.5, "model.symmetry_bias_trainable": True}
    small = {
        "train.steps": 3,
        "train.batch": 2,
        "train.sequence": 16,
        "train.sample_every": 0,
        "data.tokenizer": "char",
    }
    run = cllm.train(
        tmp_path / "book.txt",
        preset="nano",
        out=tmp_path / "run",
        set=options | small | {"precision": "fp32"},
        quiet=True,
    )
    c = cllm.certify(run, tokens=16)
    assert c.ok
    assert "fixed tables (positions)" in str(c)
