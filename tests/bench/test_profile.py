"""The profile of a step: every kernel is there, and what it costs is what the model's size says."""

from __future__ import annotations

import pytest

from cllm import config as settings
from cllm.bench import profile
from cllm.model.layout import flops_per_token

B, T = 2, 16


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_operations_are_those_of_the_model(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "limits", lambda: {"fp32_gflops": 1.0, "bf16_gflops": 1.0, "copy_gb_s": 1.0})
    table = profile.run("nano", batch=B, sequence=T, precision=precision, rounds=2)
    rows = {row.name: row.figures for row in table.rows}
    m = settings.load(preset="nano").model
    assert {"linear_forward", "attention_backward", "layernorm_backward", "adamw", "cross_entropy"} <= set(rows)
    assert rows["linear_forward"]["calls"] == 3 * m.layers + 1
    products = sum(float(f.get("gflop", 0)) for name, f in rows.items() if name.startswith("linear"))
    attention = sum(float(f.get("gflop", 0)) for name, f in rows.items() if name.startswith("attention"))
    pairs = m.layers * B * m.heads * T * (T + 1) // 2
    assert attention == pytest.approx(14 * pairs * m.head_width / 1e9)  # the backward computes the scores again: 14
    counted = flops_per_token(m, T) * B * T / 1e9
    assert products + attention * 12 / 14 == pytest.approx(counted)
    weights = 4 * (m.layers * (4 * m.width**2 + 2 * m.width * m.ff) + m.vocab * m.width)
    assert float(rows["adamw"]["mb"]) * 1e6 > 7 * weights
