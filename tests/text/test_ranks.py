"""GPT-2's ranks: the tokenizer.json made of them gives the ids that the ranks' own rule gives."""

from __future__ import annotations

import base64
import importlib.metadata
import itertools
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from cllm.errors import DataError
from cllm.text import Tokenizer, train_tokenizer
from cllm.text import ranks as ranks_module
from cllm.text.bytelevel import to_bytes

SAMPLE = "the cat sat on the mat, that's the 1st thing; aaaa aaa aaaaa banana bandana\n\n  être 🦊🦊 " * 5


def trained_ranks(text: str, size: int) -> dict[bytes, int]:
    """Ranks of a BPE trained by the library: its ids without the special tokens, in order."""
    tokenizer = train_tokenizer("bpe", [text], size)
    tokens = [to_bytes(tokenizer.token(i)) for i in range(5, tokenizer.vocab_size)]
    assert None not in tokens
    return {token: rank for rank, token in enumerate(tokens) if token is not None}


def written(ranks: dict[bytes, int]) -> bytes:
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items())


def by_rule(ranks: dict[bytes, int], text: str) -> list[int]:
    """The encoder of ranks as tiktoken's documentation gives it, written out: join the lowest-ranked neighbours,
    the leftmost first, until none is left."""
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    ids = []
    for piece, _ in split.pre_tokenize_str(text):
        content = to_bytes(piece)
        assert content is not None
        parts = [content[i : i + 1] for i in range(len(content))]
        while True:
            found = [(ranks[a + b], i) for i, (a, b) in enumerate(itertools.pairwise(parts)) if a + b in ranks]
            if not found:
                break
            _, i = min(found)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        ids += [ranks[p] for p in parts]
    return ids


RANKS = trained_ranks(SAMPLE, 340)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("ranks") / "small.tiktoken"
    path.write_bytes(written(RANKS))
    return Tokenizer.load(path)


def test_ids_are_the_ranks_and_the_end_comes_after_them(small: Tokenizer) -> None:
    assert small.kind == "bpe"
    assert small.lossless
    assert small.cuts_before_space
    assert small.vocab_size == len(RANKS) + 1
    assert small.eos_id == len(RANKS)
    assert small.pieces is not None
    assert {small.pieces[i]: i for i in range(len(RANKS))} == RANKS
    assert small.encode("<|endoftext|>") == by_rule(RANKS, "<|endoftext|>")  # text never becomes a special token


@given(
    st.lists(st.sampled_from(["the", "ban", "ana", "a", "aa", "t", " ", "h", "e", "\n", "🦊", "1", "'s"])).map("".join)
)
@settings(deadline=None, max_examples=200)
def test_ids_are_those_of_the_rule(small: Tokenizer, text: str) -> None:
    assert small.encode(text) == by_rule(RANKS, text)
    assert small.decode(small.encode(text)) == text


@given(st.text(alphabet="ab", min_size=20, max_size=120), st.text(alphabet="ab", max_size=60))
@settings(deadline=None, max_examples=60)
def test_ids_of_any_trained_ranks_are_those_of_the_rule(source: str, text: str) -> None:
    ranks = trained_ranks(source, 290)
    tokenizer = Tokenizer(ranks_module.to_json(written(ranks), "x"))
    assert tokenizer.encode(text) == by_rule(ranks, text)


def test_the_order_of_lines_does_not_matter_but_ranks_do() -> None:
    turned = dict(reversed(RANKS.items()))
    assert ranks_module.to_json(written(turned), "x") == ranks_module.to_json(written(RANKS), "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not base64! 5\n", "x, line 1: expected a token in base64 and its rank"),
        (b"\nYQ== five\n", "x, line 2: expected a token in base64"),
        (b"YQ==\n", "line 1: expected"),
        (b"YQ== 1\nYQ== 2\n", "line 2: got b'a' again"),
        (b"YQ== 1\nYg== 1\n", "line 2: got rank 1 again"),
        (b"YQ== 1\n", "255 of the 256 bytes have no rank, the first is 0x00"),
        (b"", "256 of the 256 bytes"),
        (written({**{bytes([b]): b for b in range(256)}, b"abc": 256}), r"b'abc' \(rank 256\) is not joined from two"),
        (written({**{bytes([b]): b + 1 for b in range(256)}, b"ab": 0}), r"b'ab' \(rank 0\) is not joined"),
    ],
)
def test_what_is_no_ranks_file_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ranks_module.to_json(content, "x")


def test_ranks_with_another_pattern_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks_module, "OTHERS", {len(RANKS): "cl100k_base"})
    with pytest.raises(DataError, match="ranks of cl100k_base, which splits text by another pattern"):
        ranks_module.to_json(written(RANKS), "x")


def gpt2_file() -> Path | None:
    """GPT-2's real ranks, from the package openai-whisper or the path in CLLM_GPT2_RANKS."""
    if named := os.environ.get("CLLM_GPT2_RANKS"):
        return Path(named)
    try:
        files = importlib.metadata.files("openai-whisper") or ()
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(str(f.locate())) for f in files if f.name == "gpt2.tiktoken"), None)


def test_gpt2_itself() -> None:
    path = gpt2_file()
    if path is None:
        pytest.skip("GPT-2's ranks are not here: pip install --no-deps openai-whisper, or set CLLM_GPT2_RANKS")
    tokenizer = Tokenizer.load(path)
    assert (tokenizer.vocab_size, tokenizer.eos_id) == (50257, 50256)
    # figures that are known of GPT-2: the model card's and OpenAI's own examples
    assert tokenizer.encode("Hello world") == [15496, 995]
    assert tokenizer.encode("tiktoken is great!") == [83, 1134, 30001, 318, 1049, 0]
    made = json.loads(ranks_module.to_json(path.read_bytes(), "x"))
    assert len(made["model"]["merges"]) == 50000  # as many as GPT-2's merges.txt has
    ranks = ranks_module.parse(path.read_bytes(), "x")
    text = SAMPLE + Path(__file__).read_text(encoding="utf-8")
    assert tokenizer.encode(text) == by_rule(ranks, text)
