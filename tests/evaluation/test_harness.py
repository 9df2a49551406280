"""The adapter for the evaluation harness, with the harness itself where it is installed."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from cllm.errors import MissingExtraError
from cllm.evaluation.continuation import Scorer
from cllm.interop.lm_eval import harness_model


def test_without_the_harness_the_install_command_is_said(model, tokenizer, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'cllm\[lm-eval\]'"):
        harness_model(model, tokenizer)


def test_a_text_is_predicted_once_with_full_windows(model, tokenizer):
    """Rolling: the sum over windows, the first ones disjoint, the last with a full context."""
    text = "the cat sat on the mat. a dog saw the cat and ran. zqx " * 6
    ids = [tokenizer.eos_id, *tokenizer.encode(text)]
    longest = model.config.context
    assert len(ids) > 2 * longest
    scorer = Scorer(model, tokenizer, batch=2)
    windows, at = [], 1
    while at < len(ids):
        stop = min(at + longest, len(ids))
        windows.append((ids[max(0, stop - longest - 1) : stop], stop - at))
        at = stop
    assert sum(count for _, count in windows) == len(ids) - 1
    assert len(windows[-1][0]) == longest + 1
    found = scorer.rolling([text, "", "a dog"])
    assert found[0] == pytest.approx(sum(nats for nats, _ in scorer._run(windows)), rel=1e-12)
    assert found[1] == 0
    assert found[2] == pytest.approx(scorer.score([("", "a dog")])[0].nats, rel=1e-12)


def test_the_harness_asks_and_is_answered(model, tokenizer, monkeypatch):
    base = type("LM", (), {"__init__": lambda self: None})
    if "lm_eval" not in sys.modules and not _installed():
        # the adapter against the harness's interface: three methods over requests with .args
        monkeypatch.setitem(sys.modules, "lm_eval", SimpleNamespace())
        monkeypatch.setitem(sys.modules, "lm_eval.api", SimpleNamespace())
        monkeypatch.setitem(sys.modules, "lm_eval.api.model", SimpleNamespace(LM=base))
    harness = harness_model(model, tokenizer)
    ask = [SimpleNamespace(args=("the cat", " sat"))]
    (expected,) = Scorer(model, tokenizer).score([("the cat", " sat")])
    assert harness.loglikelihood(ask) == [(expected.nats, expected.greedy)]
    assert len(harness.loglikelihood_rolling([SimpleNamespace(args=("the cat sat",))])) == 1
    long = SimpleNamespace(args=("the cat sat on the mat. " * 30, {"until": ["."], "max_gen_toks": 9}))
    short = SimpleNamespace(args=("the cat", {"until": "a"}))
    texts = harness.generate_until([long, short])
    assert "." not in texts[0]
    assert "a" not in texts[1]
    assert texts == harness.generate_until([long, short])  # greedy


def _installed() -> bool:
    import importlib.util

    return importlib.util.find_spec("lm_eval") is not None
