"""The optimiser's certificate."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cllm import config as settings
from cllm.certificate.adamw import STEPS, add_steps, certify_adamw
from cllm.certificate.full import certify_step
from cllm.certificate.mutants import ZOO
from cllm.certificate.zoo import scene
from cllm.errors import UsageError


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
@pytest.mark.parametrize("clip", [0.0, 0.01])
def test_ten_steps_are_within(precision: str, clip: float) -> None:
    subject = scene("padded", precision)
    subject = replace(subject, config=settings.replace(subject.config, {"optim.clip": clip}))
    rows, entries = certify_adamw(subject)
    assert [row.t for row in rows] == list(range(1, STEPS + 1))
    assert entries >= 16 * len(subject.weights) * 0.5
    assert all(row.bad is None and 0 < row.used < 0.7 for row in rows)
    limit = 1e-3 if precision == "fp32" else 1e-11
    assert all(0 < row.error < limit for row in rows)


def test_the_statement_has_the_steps_and_a_fault_counts(padded) -> None:
    c = certify_step(padded, bits=256)
    add_steps(c, padded)
    assert c.ok and "AdamW step t=1..10: |Δw error| ≤" in str(c)


def test_late_bias_correction_is_seen_early() -> None:
    mutant = next(m for m in ZOO if m.name == "AdamW: v not corrected")
    subject = scene("padded")
    rows, _ = certify_adamw(subject, mutant.kernels(subject.engine_step().kernels))
    assert rows[0].bad is not None and rows[0].bad.op == "adamw" and rows[0].error > rows[-1].error / 10


def test_a_weight_that_becomes_nan_is_outside() -> None:
    subject = scene("padded")
    kernels = subject.engine_step().kernels

    def broken(w, g, m, v, **settings):
        kernels.adamw(w, g, m, v, **settings)
        w[0] = float("nan")

    rows, _ = certify_adamw(subject, replace(kernels, adamw=broken))
    assert rows[0].bad is not None and rows[0].bad.engine == "nan" and rows[0].error > 1e300


@pytest.mark.parametrize(("key", "value"), [("optim.name", "sgd"), ("optim.clip_value", 0.1)])
def test_what_is_not_adamw_is_refused(key: str, value: object) -> None:
    subject = scene("padded")
    subject = replace(subject, config=settings.replace(subject.config, {key: value}))
    with pytest.raises(UsageError):
        certify_adamw(subject)
