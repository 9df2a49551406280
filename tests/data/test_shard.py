"""Shards: what goes in comes out, and no damage goes unnoticed."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from cllm.data import Shard, ShardWriter
from cllm.errors import CorruptError, DataError, RunError
from cllm.text import Tokenizer, train_tokenizer

DOCUMENTS = ["the first document, naïve 🦊\n", "second\r\n", "the third and the last " * 40]
BPE = train_tokenizer("bpe", DOCUMENTS, 300)


def write(folder: Path, tokenizer: Tokenizer = BPE, documents: list[str] = DOCUMENTS) -> Shard:
    folder.mkdir(exist_ok=True)
    writer = ShardWriter(folder, "train", tokenizer)
    for document in documents:
        writer.add([document])
    _, digest = writer.finish()
    shard = Shard(folder, "train", verify=True)
    assert shard.sha256 == digest
    return shard


def test_documents_come_back_with_their_ids_and_bytes(tmp_path: Path) -> None:
    shard = write(tmp_path)
    assert shard.tokens.dtype == np.uint16
    assert not shard.tokens.flags.writeable
    for i, text in enumerate(DOCUMENTS):
        assert shard.document(i).tolist() == [*BPE.encode(text), 3]
    assert shard.document_bytes.tolist() == [len(d.encode()) for d in DOCUMENTS]
    assert list(shard.texts(BPE)) == [d.encode() for d in DOCUMENTS]
    record = shard.record
    assert (record.bytes, record.characters) == (len("".join(DOCUMENTS).encode()), len("".join(DOCUMENTS)))
    assert record.tokens == len(shard.tokens) == sum(len(BPE.encode(d)) + 1 for d in DOCUMENTS)
    assert (record.lossless, record.unknown, record.start_id, record.pad_id) == (True, 0, 3, 0)


def test_pieces_make_the_same_files_as_the_whole(tmp_path: Path) -> None:
    write(tmp_path / "whole")
    (tmp_path / "pieces").mkdir()
    writer = ShardWriter(tmp_path / "pieces", "train", BPE)
    for document in DOCUMENTS:
        words = document.split(" ")
        writer.add([words[0], *(" " + w for w in words[1:])])
    writer.finish()
    for name in ("train.tokens", "train.documents", "train.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "pieces" / name).read_bytes()


def test_unknown_characters_make_a_shard_lossy(tmp_path: Path) -> None:
    characters = train_tokenizer("char", [DOCUMENTS[0]], 300)
    shard = write(tmp_path / "known", characters, [DOCUMENTS[0]])
    assert shard.lossless
    assert list(shard.texts(characters)) == [DOCUMENTS[0].encode()]
    shard = write(tmp_path / "unknown", characters, [DOCUMENTS[0], "Ж�ЖЖ"])
    assert (shard.lossless, shard.record.unknown) == (False, 4)
    # what UNK prints as is no exception: its bytes could not be counted
    assert not write(tmp_path / "replacement", characters, [DOCUMENTS[0], "�"]).lossless
    with pytest.raises(DataError, match="the tokenizer lost some of it"):
        list(shard.texts(characters))
    with pytest.raises(DataError, match="another tokenizer"):
        list(write(tmp_path / "bpe").texts(characters))


def test_a_large_vocabulary_takes_four_bytes(tmp_path: Path) -> None:
    many = "".join(chr(0x4E00 + i) for i in range(20_000)) + "".join(chr(0x20000 + i) for i in range(42_000))
    many += "".join(chr(0xAC00 + i) for i in range(11_000))
    tokenizer = train_tokenizer("char", [many], 100_000)
    assert tokenizer.vocab_size > 65536
    shard = write(tmp_path, tokenizer, [many])
    assert shard.tokens.dtype == np.uint32
    assert list(shard.texts(tokenizer)) == [many.encode()]


def test_a_shard_of_no_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gives no token"):
        ShardWriter(tmp_path, "train", BPE).finish()


FILES = ["train.tokens", "train.documents", "train.json"]


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_is_noticed(tmp_path: Path, name: str) -> None:
    write(tmp_path)
    path = tmp_path / name
    content = path.read_bytes()
    draw = random.Random(name)
    places = range(len(content)) if len(content) < 700 else draw.sample(range(len(content)), 300)
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(RunError, match=r"train\."):
            Shard(tmp_path, "train", verify=True)
    path.write_bytes(content)
    Shard(tmp_path, "train", verify=True)


@pytest.mark.parametrize("name", FILES)
def test_every_truncation_is_noticed_without_reading_it_all(tmp_path: Path, name: str) -> None:
    write(tmp_path)
    path = tmp_path / name
    content = path.read_bytes()
    for size in {0, 1, 7, 63, 64, 65, len(content) // 2, len(content) - 1}:
        path.write_bytes(content[: min(size, len(content) - 1)])
        with pytest.raises(CorruptError, match=r"train\."):
            Shard(tmp_path, "train", verify=False)
    path.write_bytes(content + b"\0")
    with pytest.raises(CorruptError):
        Shard(tmp_path, "train", verify=False)
    path.unlink()
    with pytest.raises(RunError, match="cannot read it"):
        Shard(tmp_path, "train", verify=False)


def test_a_header_of_another_shard_is_noticed_cheaply(tmp_path: Path) -> None:
    write(tmp_path / "a")
    other = train_tokenizer("bpe", ["something else, something else"], 300)
    write(tmp_path / "b", other, ["x" * 30])
    mine = write(tmp_path / "a").path
    content = bytearray(mine.read_bytes())
    content[24:56] = bytes.fromhex(other.sha256)
    mine.write_bytes(content)
    with pytest.raises(CorruptError, match=r"its header is not that of train\.json"):
        Shard(tmp_path / "a", "train", verify=False)


def test_another_version_says_so(tmp_path: Path) -> None:
    import msgspec

    from cllm.data.record import write_record

    shard = write(tmp_path)
    write_record(tmp_path / "train.json", msgspec.structs.replace(shard.record, version=99))
    with pytest.raises(RunError, match="version 99 of the format, expected 1"):
        Shard(tmp_path, "train", verify=False)
    write_record(tmp_path / "train.json", msgspec.structs.replace(shard.record, tokens="many"))
    with pytest.raises(CorruptError, match="Expected `int`"):
        Shard(tmp_path, "train", verify=False)
    shutil.rmtree(tmp_path)
