"""Mixing by weight: every source has its share, and a row is a function of its number alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cllm.data import Prepared, Stream, open_prepared, prepare
from cllm.data.mix import BLOCK, Mix
from cllm.errors import ConfigError, CorruptError, DataError

WEIGHTS = st.lists(st.floats(0.01, 10), min_size=1, max_size=6)


def dealt(mix: Mix, position: int, count: int) -> list[tuple[int, int]]:
    """(source, row of it) for each row."""
    found = [(-1, -1)] * count
    for source, first, places in mix.rows(position, count):
        for i, place in enumerate(places.tolist()):
            assert found[place] == (-1, -1)
            found[place] = (source, first + i)
    return found


@given(WEIGHTS, st.integers(0, 2**32 - 1), st.integers(1, 3))
@settings(deadline=None, max_examples=40)
def test_each_source_has_its_share_and_each_of_its_rows_once(weights: list[float], seed: int, blocks: int) -> None:
    try:
        mix = Mix(weights, seed)
    except ConfigError:
        assert min(weights) / sum(weights) < 1.01 / BLOCK
        return
    found = dealt(mix, 0, blocks * BLOCK)
    for source, weight in enumerate(weights):
        rows = [row for s, row in found if s == source]
        assert rows == list(range(len(rows)))
        assert abs(len(rows) - weight / sum(weights) * len(found)) < 1.001
        assert mix.taken(blocks)[source] == len(rows)


@given(WEIGHTS, st.integers(0, 10**12), st.integers(1, 2500), st.data())
@settings(deadline=None, max_examples=40)
def test_rows_are_a_function_of_their_number(
    weights: list[float], position: int, count: int, data: st.DataObject
) -> None:
    try:
        mix = Mix(weights, 3)
    except ConfigError:
        return
    cut = data.draw(st.integers(0, count))
    whole = dealt(mix, position, count)
    assert whole == dealt(mix, position, cut) + dealt(Mix(weights, 3), position + cut, count - cut)


def test_the_order_depends_on_seed_and_block() -> None:
    order = {tuple(dealt(Mix([1, 1], seed), block * BLOCK, 64)) for seed in range(3) for block in range(3)}
    assert len({tuple(s for s, _ in rows) for rows in order}) == 9


@pytest.mark.parametrize("weights", [[1, 0], [1, -1], [1, float("nan")], [1, float("inf")], [1, 1 / 1024]])
def test_weights_that_cannot_be(weights: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"data\.weights: got"):
        Mix(weights, 0)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("mix")
    (folder / "a.txt").write_text("a" * 4000 + "\n" + "a" * 999)
    (folder / "b.jsonl").write_text("".join(f'{{"text": "{"b" * 50}{i % 10}"}}\n' for i in range(40)))
    paths = [folder / "a.txt", folder / "b.jsonl"]
    weights = {str(paths[0]): 1, str(paths[1]): 3}
    return prepare(paths, folder / "data", tokenizer="char", weights=weights, seed=5)


def test_the_stream_gives_each_source_its_share_of_rows(mixed: Prepared) -> None:
    assert mixed.train.record.mix is not None
    assert [part.documents for part in mixed.train.record.mix] == [1, 36]
    assert mixed.val is not None
    assert mixed.val.record.documents == 5  # the tail of a, four records of b: each is split by itself
    stream = Stream(mixed.train, 16, seed=9)
    rows = stream.rows(0, 2 * BLOCK)
    b = mixed.tokenizer.encode("b")[0]
    of_b = (rows.tokens_BT1 == b).sum(axis=1) > 8
    assert of_b.sum() == 2 * BLOCK * 3 // 4
    a = mixed.tokenizer.encode("a")[0]
    assert not ((rows.tokens_BT1 == b).any(axis=1) & (rows.tokens_BT1 == a).any(axis=1)).any()  # no row of both
    again = Stream(mixed.train, 16, seed=9)
    for position, count in ((0, 1), (7, 300), (1000, 100), (2047, 1)):
        part = again.rows(position, count)
        assert np.array_equal(part.tokens_BT1, rows.tokens_BT1[position : position + count])
        assert np.array_equal(part.documents_BT1, rows.documents_BT1[position : position + count])


@pytest.mark.parametrize("pack", [True, False])
def test_every_token_of_a_source_is_a_target_once_in_its_epoch(mixed: Prepared, pack: bool) -> None:
    stream = Stream(mixed.train, 15, seed=1, pack=pack)
    assert stream.targets_per_epoch >= mixed.train.record.tokens - 2
    rows = stream.rows(0, 4 * BLOCK)
    digits = [mixed.tokenizer.encode(str(d))[0] for d in range(10)]
    valid = rows.documents_BT1[:, 1:] >= 0
    counts = np.array([((rows.tokens_BT1[:, 1:] == d) & valid).sum() for d in digits])
    texts = b"".join(mixed.train.texts(mixed.tokenizer))
    expected = np.array([texts.count(str(d).encode()) for d in range(10)])
    rounds = counts / expected  # all parts of the source come round equally often
    assert rounds.max() - rounds.min() <= 1


def test_weights_name_the_data(mixed: Prepared, tmp_path: Path) -> None:
    folder = mixed.folder.parent
    a, b = str(folder / "a.txt"), str(folder / "b.jsonl")
    for paths, weights, message in (
        ([a, b], {a: 1}, "expected a weight for"),
        ([a], {a: 1, b: 2}, "not among the data"),
        ([a, a], {a: 1}, "named twice"),
        ([a, b], {a: 1, b: 0}, "expected a number above 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            prepare(paths, tmp_path / "data", tokenizer="char", weights=weights)
    (tmp_path / "copy.txt").write_text((folder / "a.txt").read_text())
    copy = str(tmp_path / "copy.txt")
    with pytest.raises(DataError, match="source 2 has no document of its own"):
        prepare([a, copy], tmp_path / "data", tokenizer="char", weights={a: 1, copy: 1}, dedup=True)
    with pytest.raises(DataError, match=r"source 1 of its mix, whose \d+ tokens do not fill one row"):
        Stream(mixed.train, 4600)


def test_a_changed_mix_is_noticed(mixed: Prepared) -> None:
    path = mixed.folder / "train.json"
    content = path.read_text()
    assert '"documents": 36' in content
    try:
        path.write_text(content.replace('"weight": 3.0', '"weight": 4.0'))
        with pytest.raises(CorruptError):
            open_prepared(mixed.folder)
    finally:
        path.write_text(content)
    open_prepared(mixed.folder)
