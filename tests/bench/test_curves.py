"""The comparison of trainings: equal arithmetic gives equal losses, and another training is seen."""

from __future__ import annotations

import pytest

from cllm.bench import curves
from cllm.bench.curves import TARGET


def small(**changes: object):
    return curves.run("nano", steps=12, seeds=[1], batch=4, sequence=16, **changes)


def test_a_short_training_stays_with_plain_torch() -> None:
    table = small()
    rows = {row.name: row.figures for row in table.rows}
    assert set(curves.MODES) < set(rows) and {"plain torch fp32", "plain torch fp32, no clipping"} < set(rows)
    assert all(rows[name]["within_target"] for name in curves.MODES)
    assert rows["cllm fp32"]["loss"] < 5.4  # ln 256 = 5.545: it learnt
    assert rows["cllm bf16"]["difference"] != rows["cllm fp32"]["difference"]


def test_another_training_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(curves.MODES, "cllm fp32", {"precision": "fp32", "optim.betas": [0.5, 0.95]})
    (row,) = [row for row in small(modes=["cllm fp32"]).rows if row.name == "cllm fp32"]
    assert abs(float(row.figures["difference"])) > TARGET and not row.figures["within_target"]
