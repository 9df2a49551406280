"""The op-local certificate: silent on the healthy engine, loud and precise on a broken op or wire."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from torch import Tensor

from cllm.certificate.frame import order
from cllm.certificate.ledger import Ledger
from cllm.certificate.local import certify_ops
from cllm.certificate.subjects import of_preset
from cllm.certificate.watch import watch
from cllm.certificate.zoo import SCENES, kind, scene
from cllm.model.batch import Batch
from cllm.model.step import Step
from cllm.spec.intervals import Interval


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("precision", ["fp32", "fp64"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_alarm_on_the_healthy_engine(name: str, precision: str, seed: int) -> None:
    ledger = watch(scene(name, precision, seed))
    assert ledger.first is None
    assert max(row.used for row in ledger.rows.values()) < 0.7  # the budget is generous


def test_every_entry_of_every_gradient_is_checked(padded) -> None:
    found = certify_ops(padded)
    assert found.ok
    checked = {row.op: row.entries for row in found.rows}
    m = padded.config.model
    n = padded.rows * padded.sequence
    # linear: result, dX, dW and db
    assert checked["0.ffn.w1"] == n * m.ff + n * m.width + m.ff * m.width + m.ff
    assert checked["embedding"] == n * m.width + (m.vocab + m.context) * m.width
    # queries, keys and values: the key bias is not computed, and compared bit for bit with zero
    assert checked["0.attn.qkv"] == n * 3 * m.width + n * m.width + 3 * m.width**2 + 2 * m.width
    calls = {op for _, op in order(m.layers, False, 1)}
    assert calls <= set(checked)
    assert {kind(op) for op in checked} >= {
        "embedding",
        "layernorm",
        "linear",
        "attention",
        "cross_entropy",
        "residual",
    }
    assert "CERTIFIED  op by op" in str(found)


def test_several_blocks_of_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    import cllm.model.step as step_module

    monkeypatch.setattr(step_module, "HEAD_ROWS", 16)
    for name in ("padded", "untied erf"):
        ledger = watch(scene(name))
        assert ledger.first is None and {"head.0", "head.1", "head.2"} <= set(ledger.rows)


def test_a_block_of_the_head_that_writes_over_the_one_before_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import cllm.model.step as step_module

    class WritesOver(step_module.Step):
        def _product(self, dy, x, dw, db, *, again=False):
            super()._product(dy, x, dw, db)

    monkeypatch.setattr(step_module, "HEAD_ROWS", 16)
    first = watch(scene("padded"), step=WritesOver).first
    assert first is not None and first.op == "head.1" and "writes over" in str(first)


def wrong(kernel: str, change) -> tuple[str, object]:
    subject = scene("unpadded")
    kernels = subject.engine_step().kernels
    healthy = getattr(kernels, kernel)

    def broken(*args, **kwargs):
        change(healthy, *args, **kwargs)

    first = watch(subject, replace(kernels, **{kernel: broken})).first
    return first.op, first


def test_a_tiny_relative_error_in_one_entry_is_named() -> None:
    def one_entry(run, x, w, b, pre, post):
        run(x, w, b, pre, post)
        pre[7, 3] *= 1 + 1e-11

    op, first = wrong("linear_gelu_forward", one_entry)
    assert op == "0.ffn.w1" and first.index == [7, 3]
    assert float(first.engine) != float(first.exact.split()[0])


def test_writing_into_an_input_is_named() -> None:
    def spoils(run, x, g, b, y, mean, rstd):
        run(x, g, b, y, mean, rstd)
        x[0, 0] += 1e-9

    op, first = wrong("layernorm_forward", spoils)
    assert op == "0.ln1" and first.tensor == "x after"


def test_adding_to_a_gradient_of_another_op_is_named() -> None:
    subject = scene("unpadded")
    kernels = subject.engine_step().kernels

    class Leaks(Step):
        def accumulate(self, batch: Batch, dropout=None, probe=None):
            sums = super().accumulate(batch, dropout, probe)
            self.grads["1.ffn.b2"][0] += 1e-12
            return sums

    first = watch(subject, kernels, Leaks).first
    assert first.op == "gradients at the end" and first.tensor == "grad 1.ffn.b2"


class Reordered(Step):
    """Positions one column late, as the step derives them."""

    def _backward(self, inputs_BT: Tensor, *rest) -> None:
        super()._backward(inputs_BT.roll(1, dims=1), *rest)


class ForgetsValueBias(Step):
    def accumulate(self, batch: Batch, dropout=None, probe=None):
        sums = super().accumulate(batch, dropout, probe)
        self.grads["0.attn.bv"].mul_(1 + 1e-9)
        return sums


class NoisyKeyBias(Step):
    def accumulate(self, batch: Batch, dropout=None, probe=None):
        sums = super().accumulate(batch, dropout, probe)
        self.grads["0.attn.bk"].add_(1e-20)
        return sums


class WrongCount(Step):
    def accumulate(self, batch: Batch, dropout=None, probe=None):
        sums = super().accumulate(batch, dropout, probe)
        sums.valid += 1
        return sums


@pytest.mark.parametrize(
    ("step", "op", "tensor"),
    [
        (Reordered, "embedding", "tokens"),
        (ForgetsValueBias, "0.attn.qkv", "grad 0.attn.bv"),
        (NoisyKeyBias, "0.attn.qkv", "grad 0.attn.bk"),
        (WrongCount, "loss", "valid targets"),
    ],
)
def test_wires_outside_the_kernels_are_checked(step: type[Step], op: str, tensor: str) -> None:
    first = watch(scene("unpadded"), step=step).first
    assert first is not None and (first.op, first.tensor) == (op, tensor)


def test_a_call_left_out_or_out_of_order_is_named() -> None:
    class Shorter(Step):
        def _backward(self, *args) -> None:
            """The whole way back is missing."""

    first = watch(scene("unpadded"), step=Shorter).first
    assert first is not None and "never called layernorm_backward" in first.why


def test_weights_of_another_tensor_are_named() -> None:
    subject = scene("unpadded")
    kernels = subject.engine_step().kernels
    ledger = watch(
        subject, replace(kernels, linear_forward=lambda x, w, *rest: kernels.linear_forward(x, w.flip(0), *rest))
    )
    assert ledger.first is not None and kind(ledger.first.op) == "linear"


def test_ledger_treats_nan_and_unknown_as_outside() -> None:
    exact = Interval(np.array([[1.0, 2.0]]), np.array([[1e-16, 1e-16]]))
    ledger = Ledger(2.0**-53)
    ledger.value("op", "y", np.array([[1.0, np.nan]]), exact)
    assert ledger.first is not None and ledger.first.index == [0, 1]
    ledger = Ledger(2.0**-53)
    ledger.value("op", "y", np.array([[1.0, 2.0]]), Interval(exact.mid, np.array([[1e-16, np.inf]])))
    assert ledger.first is not None and "unbounded" in ledger.first.why
    ledger = Ledger(2.0**-53)
    ledger.value("op", "y", np.array([[1.0, 2.0 + 1e-17]]), exact)
    assert ledger.first is None
    ledger.wire("op", "x", np.array([1.0, 2.0]), np.array([1.0, 2.5]))
    assert ledger.first.index == [1] and ledger.first.exact == "2.5"


@pytest.mark.prove
def test_seed_op_by_op() -> None:
    found = certify_ops(of_preset("seed", 64))
    assert found.ok
