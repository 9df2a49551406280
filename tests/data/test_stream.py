"""Rows: a pure function of (seed, position), every token a target as often as promised."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cllm.data import SequentialRows, Shard, ShardWriter, Stream, bytes_of_targets, valid_targets
from cllm.data.philox import permutation, words
from cllm.errors import ConfigError, DataError, UsageError
from cllm.text import Tokenizer, train_tokenizer

LETTERS = "".join(chr(0x4E00 + i) for i in range(900))
CHAR = train_tokenizer("char", [LETTERS], 2000)


def shard_of(folder: Path, lengths: list[int], tokenizer: Tokenizer = CHAR) -> Shard:
    """A shard whose tokens are all different (but EOS), so that each can be recognised in the rows."""
    folder.mkdir(parents=True, exist_ok=True)
    writer, at = ShardWriter(folder, "train", tokenizer), 0
    for n in lengths:
        writer.add([LETTERS[at : at + n]])
        at += n
    writer.finish()
    return Shard(folder, "train", verify=True)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shard]:
    base = tmp_path_factory.mktemp("shards")
    return {str(lengths): shard_of(base / str(i), lengths) for i, lengths in enumerate(LENGTHS)}


LENGTHS = [[40], [7, 1, 30, 2, 19], [1] * 25, [300, 200, 5]]
SHAPES = st.tuples(st.sampled_from([str(x) for x in LENGTHS]), st.integers(1, 39), st.booleans())


def flat(shard: Shard) -> list[int]:
    return shard.tokens.tolist()


@given(SHAPES, st.integers(0, 2**64 - 1), st.integers(0, 3))
@settings(deadline=None, max_examples=150)
def test_an_epoch_has_every_token_as_a_target(shards, shape, seed: int, epoch: int) -> None:
    name, T, pack = shape
    shard = shards[name]
    stream = Stream(shard, T, seed=seed, pack=pack)
    rows = stream.rows(epoch * stream.rows_per_epoch, stream.rows_per_epoch)
    assert rows.tokens_BT1.shape == rows.documents_BT1.shape == (stream.rows_per_epoch, T + 1)
    assert rows.tokens_BT1.dtype == rows.documents_BT1.dtype == np.int64
    valid = valid_targets(rows)
    assert int(valid.sum()) == stream.targets_per_epoch
    seen, wanted = Counter(rows.tokens_BT1[:, 1:][valid].tolist()), Counter(flat(shard))
    if pack:
        assert seen >= wanted
        assert (seen - wanted).total() < T
    else:
        assert seen == wanted


@given(SHAPES, st.integers(0, 2**32))
@settings(deadline=None, max_examples=100)
def test_each_target_follows_its_input(shards, shape, seed: int) -> None:
    """Every pair (input, target) is a pair of neighbours in the ring of documents."""
    name, T, pack = shape
    shard = shards[name]
    tokens = flat(shard)
    pairs = set(zip(tokens, tokens[1:] + tokens[:1], strict=True))
    starts = {(3, tokens[s]) for s in shard.starts}
    stream = Stream(shard, T, seed=seed, pack=pack)
    rows = stream.rows(0, stream.rows_per_epoch)
    valid = valid_targets(rows)
    seen = set(zip(rows.tokens_BT1[:, :-1][valid].tolist(), rows.tokens_BT1[:, 1:][valid].tolist(), strict=True))
    assert seen <= pairs | starts


@given(SHAPES, st.integers(0, 2**32), st.integers(0, 5000), st.integers(0, 70))
@settings(deadline=None, max_examples=150)
def test_a_row_depends_on_its_number_alone(shards, shape, seed: int, position: int, count: int) -> None:
    name, T, pack = shape
    together = Stream(shards[name], T, seed=seed, pack=pack).rows(position, count)
    other = Stream(shards[name], T, seed=seed, pack=pack)
    other.rows(position + 12345, 3)  # what was read before has no influence
    for i in reversed(range(count)):
        alone = other.rows(position + i, 1)
        assert np.array_equal(alone.tokens_BT1[0], together.tokens_BT1[i])
        assert np.array_equal(alone.documents_BT1[0], together.documents_BT1[i])


def test_epochs_and_seeds_differ(shards) -> None:
    shard = shards[str([300, 200, 5])]
    stream = Stream(shard, 8, seed=1)
    n = stream.rows_per_epoch
    first, second = stream.rows(0, n).tokens_BT1, stream.rows(n, n).tokens_BT1
    assert not np.array_equal(first, second)
    assert {tuple(r) for r in first.tolist()} != {tuple(r) for r in second.tolist()}  # other cuts, too
    assert not np.array_equal(first, Stream(shard, 8, seed=2).rows(0, n).tokens_BT1)
    in_order = int((first[1:, 0] == first[:-1, -1]).sum())  # rows that go on where the one before ended
    assert in_order < n / 4
    assert [stream.epoch(p) for p in (0, n - 1, n, 2 * n)] == [0, 0, 1, 2]


def test_the_order_is_pinned_for_ever() -> None:
    """Known words of Philox4x64-10 (Random123's kat_vectors: counter 0, key 0) and an order made of them."""
    raw = np.random.Philox(counter=0, key=0).random_raw(4)
    # NumPy's generator advances its counter before the first block; the block of counter 0 is the known answer
    before = np.random.Philox(counter=2**256 - 1, key=0).random_raw(4)
    assert [hex(w) for w in before.tolist()] == [
        "0x16554d9eca36314c", "0xdb20fe9d672d0fdc", "0xd7e772cee186176b", "0x7e68b68aec7ba23b",
    ]  # fmt: skip
    assert raw.tolist() == words(4, 0, 0, 0).tolist()
    assert permutation(8, 7, 3, 2).tolist() == np.argsort(words(8, 7, 3, 2)).tolist()
    assert sorted(permutation(100, 7, 3, 2).tolist()) == list(range(100))


def test_documents_are_numbered_within_the_row(shards) -> None:
    rows = SequentialRows(shards[str([7, 1, 30, 2, 19])], 12).rows(0, 100)
    # start, then 7 + EOS, 1 + EOS, the first 2 of 30
    assert rows.documents_BT1[0].tolist() == [0, *[1] * 8, *[2] * 2, *[3] * 2]
    assert rows.documents_BT1[1].tolist() == [0] * 13
    assert rows.documents_BT1[-1].tolist()[-1] == -1
    stream = Stream(shards[str([40])], 30, seed=0).rows(0, 50).documents_BT1
    for row in stream.tolist():
        assert row[0] == 0
        assert set(np.diff(row)) <= {0, 1}
    assert stream.max() == 1  # the ring is joined: a row may end one turn of the document and begin the next


@given(SHAPES)
@settings(deadline=None)
def test_validation_covers_every_token_once_in_order(shards, shape) -> None:
    name, T, pack = shape
    shard = shards[name]
    sequence = SequentialRows(shard, T, pack=pack)
    rows = sequence.rows(0, len(sequence))
    valid = valid_targets(rows)
    assert rows.tokens_BT1[:, 1:][valid].tolist() == flat(shard)
    assert sequence.targets == len(flat(shard)) == int(valid.sum())
    assert rows.tokens_BT1[0, 0] == 3
    if pack:
        assert np.array_equal(rows.tokens_BT1[1:, 0], rows.tokens_BT1[:-1, -1])
    padding = rows.documents_BT1 == -1
    assert not rows.tokens_BT1[padding].any()
    assert bytes_of_targets(rows, CHAR.byte_lengths) == shard.record.bytes
    parts = [sequence.rows(p, 2) for p in range(0, len(sequence), 2)]
    assert np.array_equal(np.concatenate([p.tokens_BT1 for p in parts]), rows.tokens_BT1)
    assert len(sequence.rows(len(sequence), 5).tokens_BT1) == 0


def test_a_document_mask_drops_the_targets_across_a_boundary_and_their_bytes(shards) -> None:
    shard = shards[str([7, 1, 30, 2, 19])]
    sequence = SequentialRows(shard, 12)
    rows = sequence.rows(0, len(sequence))
    assert int(valid_targets(rows, document_mask=True).sum()) == sequence.targets - 5  # each first token
    counted = bytes_of_targets(rows, CHAR.byte_lengths, document_mask=True)
    assert counted == shard.record.bytes - 5 * 3  # each of these characters has 3 bytes
    alone = SequentialRows(shard, 12, pack=False)
    assert bytes_of_targets(alone.rows(0, len(alone)), CHAR.byte_lengths, document_mask=True) == shard.record.bytes


def test_bits_per_byte_of_a_uniform_model_is_what_arithmetic_says(shards) -> None:
    """Every target costs ln V: over N characters of 3 bytes and their EOS that is (N+d)·log2 V / 3N bits a byte."""
    shard = shards[str([7, 1, 30, 2, 19])]
    sequence = SequentialRows(shard, 10)
    nats = bytes_counted = 0.0
    for p in range(0, len(sequence), 3):
        rows = sequence.rows(p, 3)
        nats += int(valid_targets(rows).sum()) * math.log(CHAR.vocab_size)
        bytes_counted += bytes_of_targets(rows, CHAR.byte_lengths)
    expected = (59 + 5) * math.log2(CHAR.vocab_size) / (3 * 59)
    assert math.isclose(nats / (math.log(2) * bytes_counted), expected, rel_tol=1e-12)


@pytest.mark.parametrize("eos", [False, True])
def test_a_tokenizer_without_eos_or_with_only_bos(tmp_path: Path, eos: bool) -> None:
    content = CHAR.content.decode().replace('"<eos>"', '"<e>"')
    content = content if eos else content.replace('"<bos>"', '"<b>"')
    tokenizer = Tokenizer(content.encode())
    assert tokenizer.eos_id is None
    shard = shard_of(tmp_path, [5, 8], tokenizer)
    assert shard.record.tokens == 13
    assert shard.record.start_id == (2 if eos else None)
    for pack, lost in ((True, 1), (False, 2)):
        sequence = SequentialRows(shard, 4, pack=pack)
        rows = sequence.rows(0, 100)
        assert sequence.targets == int(valid_targets(rows).sum()) == 13 - (0 if eos else lost)
        assert bytes_of_targets(rows, tokenizer.byte_lengths) == 3 * sequence.targets
    rows = Stream(shard, 4).rows(0, 4)
    assert rows.documents_BT1.max() >= 1


def test_faults(shards, tmp_path: Path) -> None:
    shard = shards[str([40])]
    Stream(shard, 40)
    with pytest.raises(DataError, match=r"its 41 tokens do not fill one row of 41 \+ 1.*train.sequence=40 or less"):
        Stream(shard, 41)
    Stream(shard, 41, pack=False)
    with pytest.raises(ConfigError, match="expected 1 or more"):
        Stream(shard, 0)
    with pytest.raises(ConfigError, match="seed: got -1"):
        Stream(shard, 4, seed=-1)
    with pytest.raises(UsageError, match="none below 0"):
        Stream(shard, 4).rows(-1, 1)
    with pytest.raises(UsageError, match="none below 0"):
        SequentialRows(shard, 4).rows(0, -1)
    tokenizer = Tokenizer(CHAR.content.replace(b'"<eos>"', b'"<e>"').replace(b'"<bos>"', b'"<b>"'))
    single = shard_of(tmp_path, [1], tokenizer)
    for pack in (True, False):
        with pytest.raises(DataError, match="no token to predict"):
            SequentialRows(single, 4, pack=pack)
