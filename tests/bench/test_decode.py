"""`cllm bench decode`: the peer decodes what the plain model computes, and the table says what was measured."""

from __future__ import annotations

import pytest
import torch

from cllm.bench import decode
from cllm.bench.peers import PlainGPT
from cllm.errors import UsageError


def test_the_cached_peer_gives_the_logits_of_the_plain_model():
    torch.manual_seed(1)
    plain = PlainGPT(layers=2, width=12, heads=3, ff=20, context=9, vocab=11, dtype=torch.float64)
    tokens = torch.randint(11, (2, 9))
    with torch.no_grad():
        for name, p in plain.named().items():  # in general position: no zero biases
            p.add_(torch.randn_like(p), alpha=0.3 if name.endswith(".g") else 0.1)
        want = plain(tokens)
    cached = decode.CachedGPT(plain, 2, 9)
    for i in range(9):
        got = cached.read(tokens[:, i : i + 1])
        # float64 in two orders of summation; a wrong position or key would be off by the size of the logits
        torch.testing.assert_close(got[:, 0], want[:, i], rtol=1e-11, atol=1e-12)


def test_a_small_table(monkeypatch):
    monkeypatch.setattr(decode, "FILLED", 5)
    monkeypatch.setattr(decode, "COUNT", 2)
    table = decode.run("nano", batch=2, rounds=2)
    rows = {row.name: row.figures for row in table.rows}
    assert {"cllm fp32", "cllm bf16", "cllm int8", "eager fp32", "eager bf16"} <= rows.keys()
    assert rows["eager bf16"]["ratio"] == 1.0
    for figures in rows.values():
        assert figures["tokens_per_s"] == pytest.approx(2 / (figures["ms"] / 1e3))
    if rows["cllm bf16"]["mb"] is not None:  # nano: 32 wide, so rows of 64 hold it: half of bf16 is padding
        assert rows["cllm int8"]["mb"] < rows["cllm bf16"]["mb"] <= rows["cllm fp32"]["mb"]


@pytest.mark.parametrize(("preset", "batch", "message"), [("nano", 17, "expected 1 to 16"), ("nano", 0, "1 to 16")])
def test_misuse(preset, batch, message):
    with pytest.raises(UsageError, match=message):
        decode.run(preset, batch=batch, rounds=1)
