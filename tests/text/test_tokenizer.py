"""Tokenizers: exact round trips, specials that text cannot reach, determinism, files made elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors

from cllm.errors import ConfigError, DataError
from cllm.text import Tokenizer, train_tokenizer
from cllm.text.bytelevel import byte_of_character
from cllm.text.specials import NAMES

PROSE = "The quick brown fox isn't quick: it jumps over 12 lazy dogs, naïve façade, 東京 🦊!\r\n\tAgain the fox.\n" * 20
BPE = train_tokenizer("bpe", [PROSE], 400)
CHAR = train_tokenizer("char", [PROSE], 400)
WORD = train_tokenizer("word", [PROSE], 400)

_SIGNS = [*" \n\r\t'’a1.<>é́🦊", "\u200d", "\ufeff", "\ufffd", "\x00", "\u0085", "\u2028", "\u180e", *NAMES]
ODD = st.text() | st.lists(st.sampled_from(_SIGNS)).map("".join)


@given(ODD)
@settings(deadline=None, max_examples=300)
def test_bpe_gives_every_text_back(text: str) -> None:
    ids = BPE.encode(text)
    assert BPE.decode(ids) == text
    assert BPE.decode_bytes(ids) == text.encode()
    assert BPE.byte_lengths is not None
    assert int(BPE.byte_lengths[ids].sum()) == len(text.encode())
    assert not BPE.special_ids & set(ids)


@given(st.text(alphabet=sorted(set(PROSE))))
@settings(deadline=None)
def test_characters_give_known_text_back(text: str) -> None:
    ids = CHAR.encode(text)
    assert len(ids) == len(text)
    assert CHAR.decode(ids) == text


def test_words_give_known_text_back_with_its_spaces() -> None:
    assert WORD.decode(WORD.encode(PROSE)) == PROSE
    assert [WORD.token(i) for i in WORD.encode("The fox isn't lazy,\r\n")] == [
        "The", " fox", " isn't", " lazy", ",", "\r", "\n",
    ]  # fmt: skip


@given(ODD)
@settings(deadline=None)
def test_no_kind_reaches_a_special_token_but_unk(text: str) -> None:
    for tokenizer in (CHAR, WORD):
        assert not set(tokenizer.encode(text)) & {0, 2, 3, 4}


def test_special_tokens_have_their_ids_and_print_nothing() -> None:
    for tokenizer in (BPE, CHAR, WORD):
        assert [tokenizer.token(i) for i in range(5)] == list(NAMES)
        found = tokenizer.pad_id, tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.mask_id
        assert found == (0, 1, 2, 3, 4)
        assert tokenizer.decode([2, *tokenizer.encode(" fox"), 3]) == " fox"
        assert tokenizer.decode([3], show_special=True) == "<eos>"
        assert tokenizer.byte_lengths is not None
        assert tokenizer.byte_lengths[:5].tolist() == [0] * 5


def test_the_name_of_a_special_token_in_text_is_text() -> None:
    text = "a<eos>b <pad><unk>"
    assert not set(BPE.encode(text)) & {0, 1, 2, 3, 4}
    assert BPE.decode(BPE.encode(text)) == text
    with_names = train_tokenizer("bpe", ["say <eos> and <eos> again <eos>\n" * 50], 400)
    assert 3 not in with_names.encode("say <eos>")
    assert with_names.decode(with_names.encode("say <eos>")) == "say <eos>"


def test_what_is_unknown_is_unk_and_prints_the_replacement_character() -> None:
    assert CHAR.encode("aЖ")[1] == 1
    assert CHAR.decode(CHAR.encode("aЖ")) == "a�"
    assert not CHAR.lossless
    assert not WORD.lossless
    assert BPE.lossless


@pytest.mark.parametrize("tokenizer", [BPE, CHAR, WORD])
def test_a_lone_surrogate_is_refused_by_name(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"character 2 .* U\+D800"):
        tokenizer.encode("ab\ud800")
    with pytest.raises(DataError, match=r"U\+DFFF"):
        tokenizer.encode_batch(["fine", "\udfff"])


@pytest.mark.parametrize("kind", ["bpe", "char", "word"])
def test_a_vocabulary_larger_than_the_text_supports_says_so(kind: str) -> None:
    tokenizer = train_tokenizer(kind, ["abc abc"], 5000)
    assert tokenizer.vocab_size < 300
    assert any(f"supports {tokenizer.vocab_size} tokens, fewer than the 5000" in n for n in tokenizer.notes)
    assert tokenizer.decode(tokenizer.encode("abc abc")) == "abc abc"


def test_a_vocabulary_smaller_than_the_text_keeps_the_frequent_ones() -> None:
    tokenizer = train_tokenizer("char", ["aaaabbbccd"], 8)
    assert [tokenizer.token(i) for i in range(5, 8)] == ["a", "b", "c"]
    assert any("1 rarer characters (10.00% of the text)" in n for n in tokenizer.notes)
    assert train_tokenizer("bpe", [PROSE], 300).vocab_size == 300


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs at least 261"):
        train_tokenizer("bpe", ["text"], 260)
    with pytest.raises(ConfigError, match='did you mean "bpe"'):
        train_tokenizer("bpee", ["text"], 300)
    for kind in ("bpe", "char", "word"):
        with pytest.raises(DataError, match="no text"):
            train_tokenizer(kind, ["", ""], 300)


def test_training_is_a_function_of_the_text() -> None:
    code = (
        "from cllm.text import train_tokenizer as t\n"
        "words = [f'w{i * i % 97} x{i * 7 % 31}é ' for i in range(4000)]\n"
        "print([t(k, words, 300).sha256 for k in ('bpe', 'char', 'word')])"
    )
    outputs = set()
    for threads, seed in (("1", "0"), ("2", "1"), ("3", "7")):
        environment = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": seed}
        result = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        outputs.add(result.stdout)
    assert len(outputs) == 1


def test_files_keep_their_bytes_and_hash(tmp_path) -> None:
    for tokenizer in (BPE, CHAR, WORD):
        path = tmp_path / "tokenizer.json"
        tokenizer.save(path)
        loaded = Tokenizer.load(path)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == loaded.sha256 == tokenizer.sha256
        assert (loaded.kind, loaded.vocab_size, loaded.lossless) == (
            tokenizer.kind, tokenizer.vocab_size, tokenizer.lossless,
        )  # fmt: skip
        assert loaded.encode(PROSE) == tokenizer.encode(PROSE)
        assert pickle.loads(pickle.dumps(tokenizer)).encode("the fox") == tokenizer.encode("the fox")


def _foreign(**changes: object) -> bytes:
    """A byte-level BPE as other tools write it: other names, a post-processor, truncation and padding."""
    vocabulary = {c: i for i, c in enumerate(sorted(byte_of_character()))}
    core = tokenizers.Tokenizer(models.BPE(vocabulary, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(changes.get("prefix")), use_regex=True)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    core.add_tokens([AddedToken("<pad>", special=False, lstrip=bool(changes.get("lstrip")))])
    if changes.get("added"):
        core.add_tokens([AddedToken("[X]", special=False, lstrip=True)])
    core.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 256)]
    )
    core.enable_truncation(4)
    core.enable_padding(length=10)
    return core.to_str().encode()


def test_a_foreign_file_is_used_in_our_one_way() -> None:
    tokenizer = Tokenizer(_foreign())
    text = "more than four tokens <|endoftext|> <pad>"
    assert (tokenizer.eos_id, tokenizer.pad_id, tokenizer.bos_id, tokenizer.unk_id) == (256, 257, None, None)
    ids = tokenizer.encode(text)
    assert len(ids) == len(text)  # nothing added, cut …
    assert (
        tokenizer.encode("ab") == tokenizer.encode_batch(["ab"])[0] == [tokenizer.id("a"), tokenizer.id("b")]
    )  # … or padded
    assert max(ids) < 256  # no special token, even where the file forgot to mark it
    assert tokenizer.decode(ids) == text
    assert tokenizer.lossless
    assert not Tokenizer(_foreign(prefix=True)).lossless
    assert not Tokenizer(_foreign(added=True)).lossless


def test_bpe_dropout_is_off() -> None:
    parts = json.loads(BPE.content)
    parts["model"]["dropout"] = 0.5
    tokenizer = Tokenizer(json.dumps(parts).encode())
    assert all(tokenizer.encode(PROSE) == BPE.encode(PROSE) for _ in range(5))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b"null", b"\xff\xfe", b'{"model": {}}', b'{"model": {"type": "BPE"}}', b'{"model": 3}',
     b'{"version": "1.0", "added_tokens": 3, "model": {"type": "WordLevel"}}'],
)  # fmt: skip
def test_a_file_that_is_no_tokenizer_is_named(content: bytes, tmp_path) -> None:
    path = tmp_path / "odd.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"odd\.json"):
        Tokenizer.load(path)


@given(st.data())
@settings(deadline=None, max_examples=100)
def test_a_damaged_file_never_gives_a_traceback(data: st.DataObject) -> None:
    content = bytearray(_foreign())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    try:
        tokenizer = Tokenizer(bytes(content))
        tokenizer.decode(tokenizer.encode("some text"))
    except DataError:
        pass


def test_a_missing_file_and_an_id_outside_are_errors(tmp_path) -> None:
    with pytest.raises(DataError, match="cannot read the tokenizer"):
        Tokenizer.load(tmp_path / "none.json")
    for bad in (-1, BPE.vocab_size):
        with pytest.raises(DataError, match=f"id {bad} is outside"):
            BPE.decode([bad])
        with pytest.raises(DataError, match=f"id {bad} is outside"):
            BPE.decoder().push(bad)
