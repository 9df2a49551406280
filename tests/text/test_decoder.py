"""Streaming decoding: only whole characters, and together exactly `decode`."""

from __future__ import annotations

import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from cllm.text import Tokenizer, train_tokenizer

BPE = train_tokenizer("bpe", ["the fox and the 🦊 and 東京\n" * 30], 290)
CHAR = train_tokenizer("char", ["the fox and the 🦊\n"], 290)


def stream(tokenizer: Tokenizer, ids: list[int]) -> tuple[list[str], str]:
    decoder = tokenizer.decoder()
    parts = [decoder.push(i) for i in ids]
    return parts, decoder.finish()


@given(st.text())
@settings(deadline=None, max_examples=200)
def test_text_comes_in_whole_characters(text: str) -> None:
    ids = BPE.encode(text)
    parts, rest = stream(BPE, ids)
    assert "".join(parts) == text
    assert rest == ""
    shown = b""
    for i, part in zip(range(len(ids)), parts, strict=True):
        shown += part.encode()
        whole = BPE.decode_bytes(ids[: i + 1])
        assert whole.startswith(shown)
        assert len(whole) - len(shown) < 4  # nothing more than one incomplete character is held back


@given(st.lists(st.integers(0, BPE.vocab_size - 1)))
@settings(deadline=None, max_examples=300)
def test_any_ids_stream_to_what_decode_gives(ids: list[int]) -> None:
    parts, rest = stream(BPE, ids)
    assert "".join(parts) + rest == BPE.decode(ids)


def test_an_incomplete_character_is_held_back_and_shown_as_replaced_at_the_end() -> None:
    tokenizer = train_tokenizer("bpe", ["plain"], 261)
    ids = tokenizer.encode("🦊")
    assert len(ids) == 4
    assert stream(tokenizer, ids) == (["", "", "", "🦊"], "")
    assert stream(tokenizer, ids[:3]) == (["", "", ""], "�")
    decoder = tokenizer.decoder()
    decoder.push(ids[0])
    decoder.finish()
    assert [decoder.push(i) for i in ids][-1] == "🦊"  # as new after finish


def test_special_tokens_print_nothing_in_between() -> None:
    ids = BPE.encode("🦊")
    parts, rest = stream(BPE, [2, *ids, 3])
    assert "".join(parts) + rest == "🦊"


def test_characters_come_at_once() -> None:
    assert stream(CHAR, CHAR.encode("fox🦊")) == (["f", "o", "x", "🦊"], "")


def test_a_decoder_that_is_more_than_a_concatenation() -> None:
    core = tokenizers.Tokenizer(models.WordLevel({"▁the": 0, "▁fox": 1, "<unk>": 2}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    tokenizer = Tokenizer(core.to_str().encode())
    assert tokenizer.pieces is None
    assert not tokenizer.lossless
    ids = tokenizer.encode("the fox the")
    parts, rest = stream(tokenizer, ids)
    assert "".join(parts) + rest == "the fox the"
    assert parts[0] == "the"
