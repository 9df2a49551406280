"""Scores of continuations against log-softmax of the whole logits; multiple choice; sliding windows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cllm.data import SequentialRows, Shard, ShardWriter, bytes_of_targets, valid_targets
from cllm.errors import DataError, UsageError
from cllm.evaluation.choices import Question, answer, read_questions
from cllm.evaluation.continuation import Scorer
from cllm.model.batch import Batch
from cllm.model.step import Step
from cllm.training.validation import score

PAIRS = [
    ("the cat", " sat on the mat."),
    ("", "a dog"),
    ("a dog saw the", " cat"),
    ("the cat sat on the mat. " * 12, "a dog ran"),  # longer than the context
]


def plain(model, ids: list[int], count: int) -> tuple[float, bool]:
    """One pair by itself, from the logits of every position."""
    tokens = torch.tensor([ids])
    z = Step(model, 1, len(ids) - 1, gradients=False).logits(Batch.of(tokens))[0]
    log_p = torch.log_softmax(z, dim=1)
    places = range(len(ids) - 1 - count, len(ids) - 1)
    nats = sum(float(log_p[i, ids[i + 1]]) for i in places)
    return nats, all(int(z[i].argmax()) == ids[i + 1] for i in places)


def test_scores_are_those_of_each_pair_alone(model, tokenizer):
    found = Scorer(model, tokenizer, batch=3).score(PAIRS)
    for (context, continuation), got in zip(PAIRS, found, strict=True):
        before = tokenizer.encode(context) or [tokenizer.eos_id]
        ids = tokenizer.encode(context + continuation) if context else before + tokenizer.encode(continuation)
        count = len(ids) - len(before)
        nats, greedy = plain(model, ids[-model.config.context - 1 :], count)
        assert (got.tokens, got.greedy, got.cut) == (count, greedy, len(ids) > model.config.context + 1)
        assert got.nats == pytest.approx(nats, rel=1e-12)
    assert found[3].cut
    assert not found[0].cut


def test_the_likeliest_token_is_called_greedy(model, tokenizer):
    """All one-token continuations of some contexts: the model's arg max and no other is greedy."""
    words, seen = {i: tokenizer.decode([i]) for i in range(5, tokenizer.vocab_size)}, 0
    for context in ("the", "the cat", "a dog saw", "the cat sat on", "sat", "mat", "on the"):
        ids = tokenizer.encode(context)
        own = [i for i, word in words.items() if word and tokenizer.encode(context + word) == [*ids, i]]
        logits = Step(model, 1, len(ids), gradients=False).logits(Batch.of(torch.tensor([[*ids, 0]])))[0, -1]
        best = int(logits.argmax())
        found = Scorer(model, tokenizer).score([(context, words[i]) for i in own])
        assert [s.greedy for s in found] == [i == best for i in own]
        seen += best in own
    assert seen > 0


def test_what_cannot_be_scored_is_said(model, tokenizer):
    scorer = Scorer(model, tokenizer)
    with pytest.raises(DataError, match="no token of its own"):
        scorer.score([("the cat", "")])
    with pytest.raises(DataError, match="the context holds 48"):
        scorer.score([("the cat", " zqxw" * 40)])


def test_accuracies_by_hand(model, tokenizer):
    questions = [Question("the", (" cat", " dog saw the cat and ran"), a) for a in (0, 1)]
    nats = [s.nats for s in Scorer(model, tokenizer).score([("the", c) for c in questions[0].choices])]
    by_byte = [n / len(c) for n, c in zip(nats, questions[0].choices, strict=True)]
    found = answer(Scorer(model, tokenizer), questions)
    assert found.questions == 2
    assert found.correct == 1  # one of the two answers is the likelier choice
    assert found.chance == 0.5
    for q in questions:
        one = answer(Scorer(model, tokenizer), [q])
        assert one.correct == (np.argmax(nats) == q.answer)
        assert one.correct_by_byte == (np.argmax(by_byte) == q.answer)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "expected an object"),
        ('{"choices": ["a", "b"], "answer": 0}', "prompt: expected a text"),
        ('{"prompt": "p", "choices": ["a"], "answer": 0}', "choices: expected two"),
        ('{"prompt": "p", "choices": ["a", ""], "answer": 0}', "choices: expected two"),
        ('{"prompt": "p", "choices": ["a", "b"], "answer": 2}', "from 0 to 1, got 2"),
        ('{"prompt": "p", "choices": ["a", "b"], "answer": true}', "got True"),
    ],
)
def test_a_bad_question_is_named(tmp_path: Path, line: str, said: str):
    good = json.dumps({"prompt": "a\u2028b", "choices": ["a", "b"], "answer": 1}, ensure_ascii=False)
    file = tmp_path / "q.jsonl"
    file.write_text(good + "\n\n", encoding="utf-8")
    assert read_questions(file) == [Question("a\u2028b", ("a", "b"), 1)]
    file.write_text(good + "\n" + line, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        read_questions(file)


@pytest.fixture
def shard(tmp_path: Path, tokenizer) -> Shard:
    writer = ShardWriter(tmp_path, "train", tokenizer)
    for text in ("the cat sat on the mat", "a dog", "saw the cat and ran. " * 5):
        writer.add([text])
    writer.finish()
    return Shard(tmp_path, "train", verify=True)


@pytest.mark.parametrize(("sequence", "stride"), [(8, 8), (8, 3), (8, 1), (48, 5), (7, 4)])
def test_sliding_rows_score_every_token_once(shard: Shard, tokenizer, sequence: int, stride: int):
    rows = SequentialRows(shard, sequence, stride=stride)
    part, fresh = rows.rows(0, len(rows)), rows.fresh(0, len(rows))
    counted = valid_targets(part) & fresh
    assert part.tokens_BT1[:, 1:][counted].tolist() == shard.tokens.tolist()
    assert int(counted.sum()) == rows.targets
    whole = SequentialRows(shard, sequence)
    lengths = tokenizer.byte_lengths
    assert bytes_of_targets(part, lengths, fresh_BT=fresh) == bytes_of_targets(whole.rows(0, len(whole)), lengths)
    assert len(rows.rows(len(rows) - 1, 5).tokens_BT1) == 1
    assert counted[-1].any()  # no row for nothing


def test_sliding_gives_each_token_its_long_context(model, shard: Shard, tokenizer):
    """Stride 1: token i is predicted from the T tokens before it, each time in a row of its own."""
    T = 6
    rows = SequentialRows(shard, T, stride=1)
    found = score(Step(model, 4, T, gradients=False), model, rows, tokenizer.byte_lengths)
    tokens = [tokenizer.eos_id, *shard.tokens.tolist()]
    nats = -sum(plain(model, tokens[max(0, i - T) : i + 1], 1)[0] for i in range(1, len(tokens)))
    assert found is not None
    assert found.targets == len(tokens) - 1
    assert found.nats == pytest.approx(nats, rel=1e-12)


def test_strides_that_make_no_sense(shard: Shard):
    for stride in (0, 9):
        with pytest.raises(UsageError, match="expected 1 to 8"):
            SequentialRows(shard, 8, stride=stride)
    with pytest.raises(UsageError, match="do not slide"):
        SequentialRows(shard, 8, stride=4, pack=False)
