"""Preparing: split, determinism, reuse, and a folder that is there whole or not at all."""

from __future__ import annotations

import io
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cllm.data import SequentialRows, bytes_of_targets, open_prepared, prepare
from cllm.data.documents import Document
from cllm.data.split import split
from cllm.errors import ConfigError, CorruptError, DataError, RunError
from cllm.text import Tokenizer, train_tokenizer

BOOK = "".join(f"Line {i} of the bóok, with {i * i % 17} things in it.\n" for i in range(400))


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text(BOOK)
    return path


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    folder = tmp_path / "shelf"
    folder.mkdir()
    for i in range(20):
        (folder / f"{i:02}.txt").write_text(f"Document {i}.\n" + BOOK[i * 500 : i * 500 + 400 + 10 * i])
    return folder


def texts(prepared, part: str) -> list[str]:
    return [t.decode() for t in getattr(prepared, part).texts(prepared.tokenizer)]


@pytest.mark.parametrize("kind", ["bpe", "char", "word"])
def test_a_single_document_gives_its_tail(book: Path, tmp_path: Path, kind: str) -> None:
    prepared = prepare(book, tmp_path / "data", tokenizer=kind, vocab_size=5000, val_fraction=0.2)
    figures = prepared.statistics
    assert figures["train"]["bytes"] + figures["val"]["bytes"] == len(BOOK.encode())
    assert abs(figures["val"]["bytes"] / len(BOOK.encode()) - 0.2) < 0.01
    if kind != "word":  # the tail has words that the training part has not
        head, tail = texts(prepared, "train"), texts(prepared, "val")
        assert head + tail == [BOOK[: len(head[0])], BOOK[len(head[0]) :]]
        assert tail[0].startswith("Line ")
        rows = SequentialRows(prepared.val, 16).rows(0, 10**6)
        assert bytes_of_targets(rows, prepared.tokenizer.byte_lengths) == len(tail[0].encode())
    else:
        assert figures["val"]["unknown"] > 0
        assert not figures["val"]["lossless"]
        assert figures["train"]["lossless"]
        assert any("of the val part are <unk>" in n for n in prepared.notes)
    assert any("fewer than the 5000 asked for" in n for n in prepared.notes)


def test_several_documents_stay_whole(shelf: Path, tmp_path: Path) -> None:
    originals = {p.read_text() for p in shelf.iterdir()}
    seen = set()
    for seed in range(3):
        prepared = prepare(shelf, tmp_path / f"data{seed}", vocab_size=300, val_fraction=0.15, seed=seed)
        train, val = texts(prepared, "train"), texts(prepared, "val")
        assert set(train) | set(val) == originals
        assert len(train) + len(val) == 20
        assert 0.05 < sum(map(len, val)) / sum(map(len, train + val)) < 0.25
        order = [f"{i}." for i in range(20)]
        for part in (train, val):
            names = [t.split()[1] for t in part]
            assert names == sorted(names, key=order.index), "the documents stay in their order"
        seen.add(tuple(val))
    assert len(seen) == 3


def test_the_tokenizer_never_sees_the_validation_part(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("a" * 900 + "\n" + "Ж" * 50)
    prepared = prepare(path, tmp_path / "data", tokenizer="char", val_fraction=0.1)
    assert prepared.tokenizer.id("Ж") is None
    assert prepared.val is not None
    assert prepared.val.record.unknown == 50


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=30), st.floats(0.001, 0.999), st.integers(0, 99))
@settings(deadline=None)
def test_a_split_is_disjoint_and_whole(sizes: list[int], fraction: float, seed: int) -> None:
    documents = [Document(str(i), Path(f"/{i}"), 0, n) for i, n in enumerate(sizes)]
    parts = split(documents, fraction, seed)
    assert parts.train
    assert parts.val
    assert sorted([*parts.train, *parts.val], key=lambda d: int(d.name)) == documents
    assert not set(parts.train) & set(parts.val)
    share = sum(d.size for d in parts.val) / sum(sizes)
    assert share <= 2 * fraction or (len(parts.val) == 1 and parts.notes)
    assert split(documents, fraction, seed) == parts


@given(st.text(min_size=2, max_size=60), st.floats(0.001, 0.999))
@settings(deadline=None)
def test_a_tail_is_cut_between_characters(tmp_path_factory, text: str, fraction: float) -> None:
    path = tmp_path_factory.getbasetemp() / "tail.txt"
    path.write_bytes(text.encode())
    document = Document("tail", path, 0, path.stat().st_size)
    parts = split([document], fraction, 0)
    (head,), (tail,) = parts.train, parts.val
    assert "".join(head.blocks()) + "".join(tail.blocks()) == text
    assert head.size > 0
    assert tail.size > 0


def test_the_same_text_gives_the_same_bytes(shelf: Path, tmp_path: Path) -> None:
    prepare(shelf, tmp_path / "a", vocab_size=320, seed=4)
    prepare([shelf / "0?.txt", shelf / "1?.txt"], tmp_path / "b", vocab_size=320, seed=4)
    for name in ("tokenizer.json", "train.tokens", "train.documents", "train.json", "val.tokens", "val.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_prepared_data_is_used_again_or_never_overwritten(shelf: Path, tmp_path: Path) -> None:
    out = tmp_path / "run" / "data"
    first = prepare(shelf, out, vocab_size=300)
    again = prepare(shelf, out, vocab_size=300)
    assert (first.reused, again.reused) == (False, True)
    assert again.train.sha256 == first.train.sha256
    with pytest.raises(RunError, match="vocab_size was 300, is 301; choose another folder"):
        prepare(shelf, out, vocab_size=301)
    with pytest.raises(RunError, match=r"seed was 0, is 1.*|val_fraction"):
        prepare(shelf, out, vocab_size=300, seed=1)
    (shelf / "00.txt").write_text("changed")
    with pytest.raises(RunError, match="2 documents are new, changed or missing"):
        prepare(shelf, out, vocab_size=300)
    assert open_prepared(out).train.sha256 == first.train.sha256
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(RunError, match="holds something else"):
        prepare(shelf, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_given_tokenizer_is_taken_as_it_is(book: Path, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    train_tokenizer("bpe", [BOOK], 350).save(path)
    prepared = prepare(book, tmp_path / "data", tokenizer=path)
    assert prepared.tokenizer.sha256 == Tokenizer.load(path).sha256
    assert (tmp_path / "data" / "tokenizer.json").read_bytes() == path.read_bytes()
    assert prepare(book, tmp_path / "data", tokenizer=path, vocab_size=9).reused
    with pytest.raises(DataError, match='got "bpp", which is not a file'):
        prepare(book, tmp_path / "other", tokenizer="bpp")


def test_standard_input_no_validation_and_notes(tmp_path: Path) -> None:
    stdin = io.BytesIO(b"one\r\ntwo\r\n" * 50)
    prepared = prepare("-", tmp_path / "data", vocab_size=261, val_fraction=0, stdin=stdin)
    assert prepared.val is None
    assert list(prepared.statistics) == ["train"]
    assert texts(prepared, "train") == ["one\r\ntwo\r\n" * 50]
    assert any("100 Windows line ends (CRLF); they are kept" in n for n in prepared.notes)
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == [
        "prepared.json", "tokenizer.json", "train.documents", "train.json", "train.tokens",
    ]  # fmt: skip


def test_progress_reaches_the_end_of_each_stage(shelf: Path, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    prepare(shelf, tmp_path / "data", vocab_size=300, progress=lambda *c: calls.append(c))
    for stage in ("scan", "tokenizer", "encode"):
        done = [(d, t) for s, d, t in calls if s == stage]
        assert done[-1][0] == done[-1][1] > 0
        assert done == sorted(done)


def test_what_cannot_be_prepared_leaves_nothing_behind(book: Path, tmp_path: Path) -> None:
    tiny = tmp_path / "tiny.txt"
    tiny.write_text("x")
    latin = tmp_path / "latin.txt"
    latin.write_bytes(BOOK.encode("latin1", "replace"))
    out = tmp_path / "deep" / "data"
    for paths, options, error, message in (
        (tiny, {}, DataError, r"tiny\.txt: too little text: 1 bytes cannot be cut"),
        (latin, {}, DataError, r"latin\.txt: byte 15 \(line 1\): got 0xf3"),
        (book, {"val_fraction": 1.0}, ConfigError, "expected 0 ≤ val_fraction < 1"),
        (book, {"vocab_size": 3}, ConfigError, "needs at least 261"),
        (book, {"seed": -1, "val_fraction": 0.1, "vocab_size": 300}, ConfigError, "seed"),
    ):
        with pytest.raises(error, match=message):
            prepare([paths, book] if options.get("seed") else paths, out, **options)
        assert list(out.parent.iterdir()) == []


def test_a_file_that_changes_meanwhile_is_noticed(book: Path, tmp_path: Path) -> None:
    def meddle(stage: str, done: int, total: int) -> None:
        if stage == "tokenizer":
            book.write_text(BOOK.replace("Line 7", "Lime 7"))

    with pytest.raises(DataError, match="it changed while it was being read"):
        prepare(book, tmp_path / "data", vocab_size=300, progress=meddle)
    assert not (tmp_path / "data").exists()


def test_what_a_killed_process_left_is_removed(book: Path, tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = tmp_path / f".data.preparing-{gone.pid}"
    left.mkdir()
    (left / "train.tokens").write_bytes(b"half")
    alive = tmp_path / ".data.preparing-1"  # of a process that lives is left alone
    alive.mkdir()
    prepare(book, tmp_path / "data", vocab_size=300)
    assert not left.exists()
    assert alive.exists()


def test_damage_anywhere_in_the_folder_is_noticed(shelf: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    prepare(shelf, out, vocab_size=300)
    names = sorted(p.name for p in out.iterdir())
    assert len(names) == 8
    draw = random.Random(1)
    for name in names:
        path = out / name
        content = path.read_bytes()
        for _ in range(25):
            damaged = bytearray(content)
            damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
            path.write_bytes(damaged)
            with pytest.raises((CorruptError, RunError), match=name.replace(".", r"\.")):
                open_prepared(out)
        path.write_bytes(content[:-1])
        with pytest.raises(RunError):
            open_prepared(out, verify=False)
        path.unlink()
        with pytest.raises(RunError):
            open_prepared(out, verify=False)
        path.write_bytes(content)
    open_prepared(out)
    # parts of two folders that are each in order do not pass for one
    prepare(shelf, tmp_path / "other", tokenizer=out / "tokenizer.json", seed=5)
    assert (out / "train.json").read_bytes() != (tmp_path / "other" / "train.json").read_bytes()
    for name in ("train.json", "train.tokens", "train.documents"):
        shutil.copy(tmp_path / "other" / name, out / name)
    with pytest.raises(CorruptError, match="does not belong"):
        open_prepared(out)
    with pytest.raises(RunError, match="no prepared data here"):
        open_prepared(tmp_path)


@pytest.mark.prove
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    """Ten times the text costs less than half its size in memory (fresh processes)."""
    code = (
        "import re, sys; from cllm.data import prepare\n"
        "prepare(sys.argv[1], sys.argv[2], vocab_size=300)\n"
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1])"
    )
    peaks = []  # VmHWM: a process's ru_maxrss would begin with what its parent had
    for i, lines in enumerate((200_000, 2_000_000)):
        path = tmp_path / f"{i}.txt"
        path.write_bytes(b"some words and then some more\n" * lines)
        command = [sys.executable, "-c", code, str(path), str(tmp_path / f"data{i}")]
        peaks.append(int(subprocess.run(command, capture_output=True, check=True).stdout) * 1024)
    assert peaks[1] - peaks[0] < 30 * 1_800_000 / 2


@given(st.binary(min_size=1, max_size=80), st.floats(0, 0.9), st.sampled_from(["bpe", "char", "word"]))
@settings(deadline=None, max_examples=60)
def test_any_bytes_are_prepared_exactly_or_refused(
    tmp_path_factory, content: bytes, fraction: float, kind: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "x.txt").write_bytes(content)
    try:
        prepared = prepare(folder / "x.txt", folder / "data", tokenizer=kind, vocab_size=300, val_fraction=fraction)
    except DataError:
        return
    finally:
        assert not [p for p in folder.iterdir() if p.name.startswith(".")]
    text = content.removeprefix(b"\xef\xbb\xbf")
    figures = prepared.statistics
    assert sum(int(f["bytes"]) for f in figures.values()) == len(text)
    if kind == "bpe":
        shards = [s for s in (prepared.train, prepared.val) if s is not None]
        assert b"".join(t for s in shards for t in s.texts(prepared.tokenizer)) == text
