"""How a tokenizer fares: counts against a plain encoding, whatever the pieces."""

from __future__ import annotations

from collections import Counter

import pytest

from cllm.text import train_tokenizer
from cllm.text import usage as usage_module
from cllm.text.usage import longest, measure, shown

TEXT = "the cat sat on the mat, 🦊 and the other cat sat on it.\n" * 20


@pytest.mark.parametrize("kind", ["bpe", "char", "word"])
@pytest.mark.parametrize("batch", [1, 100, 1 << 19])
def test_counts_are_those_of_encode(monkeypatch: pytest.MonkeyPatch, kind: str, batch: int) -> None:
    monkeypatch.setattr(usage_module, "BATCH", batch)
    tokenizer = train_tokenizer(kind, [TEXT], 290)
    documents = [TEXT, "a new zebra", ""]
    found = measure(tokenizer, [[d] for d in documents])
    counts = Counter(i for d in documents for i in tokenizer.encode(d))
    assert {i: n for i, n in enumerate(found.counts.tolist()) if n} == dict(counts)
    assert (found.documents, found.characters, found.bytes) == (3, len(TEXT) + 11, len(TEXT.encode()) + 11)
    assert found.bytes_per_token == found.bytes / sum(counts.values())
    ordinary = [i for i in range(tokenizer.vocab_size) if i not in tokenizer.special_ids]
    assert found.unused == [i for i in ordinary if not counts[i]]
    assert found.rare == [i for i in ordinary if 0 < counts[i] < usage_module.RARE]
    assert found.commonest(3) == sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:3]
    assert found.unknown == (counts[tokenizer.unk_id] if tokenizer.unk_id is not None else 0)
    assert found.to_dict()["tokens"] == sum(counts.values())


def test_tokens_are_shown_as_text_and_the_longest_found() -> None:
    tokenizer = train_tokenizer("bpe", [TEXT], 290)
    fox = tokenizer.encode(" 🦊")
    assert "".join(shown(tokenizer, i) for i in tokenizer.encode("the cat")) == "the cat"
    assert all(shown(tokenizer, i) for i in fox)
    lengths = [len(tokenizer.decode_bytes([i])) for i, _ in longest(tokenizer, 5)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] == max(len(p) for p in tokenizer.pieces or [])
