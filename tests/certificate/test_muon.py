"""Muon's steps in the step certificate: healthy ones are within their budget, mistakes are outside."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cllm import config as settings
from cllm.certificate.adamw import STEPS, certify_adamw
from cllm.certificate.subjects import Subject
from cllm.certificate.zoo import scene
from cllm.engine import muon
from cllm.training import optimiser


def subject(precision: str, **changes: object) -> Subject:
    found = scene("padded", precision)
    return replace(found, config=settings.replace(found.config, {"optim.name": "muon"} | changes))


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_ten_steps_are_within(precision: str) -> None:
    rows, _ = certify_adamw(subject(precision))
    assert [row.t for row in rows] == list(range(1, STEPS + 1))
    assert all(row.bad is None and row.used < 1 for row in rows)
    assert max(row.error for row in rows) < (1e-2 if precision == "fp32" else 1e-10)


def test_groups_are_certified_with_their_settings() -> None:
    groups = [
        settings.GroupConfig(match="*.attn.*", lr=0.25, weight_decay=0.3),
        settings.GroupConfig(match="lnf.*", betas=(0.5, 0.9)),
    ]
    rows, _ = certify_adamw(subject("fp64", **{"optim.groups": groups}))
    assert all(row.bad is None for row in rows)


def wrong(kind: str):
    def update(w, g, m, *, lr, momentum, decay, scale=1.0, shadow=None):
        d = g * scale
        m.mul_(momentum).add_(d)
        if kind != "no look-ahead":
            d = d.add(m, alpha=momentum)
        else:
            d = m.clone()
        old = muon.COEFFICIENTS
        try:
            if kind == "coefficient":
                muon.COEFFICIENTS = (3.4445, -4.7750, 2.0316)
            out = muon.orthogonalise(d)
        finally:
            muon.COEFFICIENTS = old
        stretch = max(1.0, w.shape[0] / w.shape[1]) ** 0.5 if kind != "not stretched" else 1.0
        shrink = 1.0 - lr * decay * (lr if kind == "decay twice" else 1.0)
        w.mul_(shrink).sub_(out, alpha=lr * stretch)

    return update


@pytest.mark.parametrize("kind", ["no look-ahead", "coefficient", "not stretched", "decay twice"])
@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_mistakes_are_outside(kind: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimiser, "muon", wrong("nothing"))
    assert all(row.bad is None for row in certify_adamw(subject(precision))[0])
    monkeypatch.setattr(optimiser, "muon", wrong(kind))
    rows, _ = certify_adamw(subject(precision))
    assert any(row.bad is not None and row.bad.op == f"muon t={row.t}" for row in rows)


def test_a_nan_is_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(w, g, m, **settings):
        muon.muon(w, g, m, **settings)
        w[0, 0] = float("nan")

    monkeypatch.setattr(optimiser, "muon", broken)
    assert any(row.bad is not None and row.bad.engine == "nan" for row in certify_adamw(subject("fp64"))[0])
    assert torch.isfinite(muon.orthogonalise(torch.zeros(3, 5))).all()
