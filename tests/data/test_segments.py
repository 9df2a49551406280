"""Segments and processes never show in the bytes; what was finished is taken up again, what is damaged is not."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cllm.data import prepare
from cllm.data import segments as module
from cllm.data.documents import Document
from cllm.data.segments import SIZE, segments
from cllm.data.table import Documents
from cllm.errors import DataError
from cllm.text import train_tokenizer
from waiting import until

WORDS = ["der", "die", "das\nund", "", "oder\taber", "é", "中文", "🙂", "\r\n", "x"]
BPE = train_tokenizer("bpe", [" ".join(WORDS) * 50], 300)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of about 2 kB, so that little text has many."""
    monkeypatch.setattr(module, "SIZE", 2048)
    monkeypatch.setattr(segments, "__defaults__", (2048,))


def text(seed: int, words: int) -> str:
    draw = random.Random(seed)
    return "".join(draw.choice(WORDS) + draw.choice(["", " ", " ", "\n"]) for _ in range(words))


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    folder = tmp_path / "shelf"
    folder.mkdir()
    for i, words in enumerate((3000, 1, 20, 900, 5, 5000)):
        (folder / f"{i}.txt").write_bytes((text(i, words) + "x").encode())
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@given(
    st.lists(st.text(st.sampled_from("ab \n é中🙂"), min_size=1, max_size=80), min_size=1, max_size=6),
    st.integers(1, 60),
)
@settings(deadline=None, max_examples=150)
def test_segments_have_every_byte_once_and_the_same_ids(tmp_path_factory, texts: list[str], size: int):
    folder = tmp_path_factory.mktemp("texts")
    documents = []
    for i, one in enumerate(texts):
        (folder / str(i)).write_bytes(one.encode())
        documents.append(Document(str(i), folder / str(i), 0, len(one.encode())))
    table = Documents.of(documents)
    found = segments(table, BPE, size)
    parts = [part for segment in found for part in segment]
    ids: list[list[int]] = [[]]
    for part in parts:
        for piece in part.document.pieces():
            ids[-1] += BPE.encode(piece)
        if part.ends:
            ids.append([])
    assert ids == [BPE.encode(one) for one in texts] + [[]]
    assert sum(segment.size for segment in found) == sum(len(one.encode()) for one in texts)


def test_the_bytes_do_not_depend_on_segments_or_processes(shelf: Path, tmp_path: Path, monkeypatch):
    prepare(shelf, tmp_path / "whole", vocab_size=300, workers=1)
    expected = content(tmp_path / "whole")
    for size, workers in ((2048, 1), (2048, 2), (700, 3)):
        monkeypatch.setattr(segments, "__defaults__", (size,))
        out = tmp_path / f"{size}-{workers}"
        prepare(shelf, out, vocab_size=300, workers=workers)
        assert content(out) == expected
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("kind", ["char", "word"])
def test_a_tokenizer_that_must_not_be_cut_is_not(shelf: Path, tmp_path: Path, monkeypatch, kind: str):
    prepare(shelf, tmp_path / "whole", tokenizer=kind, vocab_size=300)
    monkeypatch.setattr(segments, "__defaults__", (500,))
    prepare(shelf, tmp_path / "cut", tokenizer=kind, vocab_size=300, workers=2)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


class Stop(Exception):
    pass


def test_what_was_finished_is_taken_up_again(shelf: Path, tmp_path: Path, small, monkeypatch):
    prepare(shelf, tmp_path / "whole", vocab_size=300)
    seen: list[str] = []

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "encode" and done > total // 2:
            raise Stop

    with pytest.raises(Stop):
        prepare(shelf, tmp_path / "data", vocab_size=300, progress=stop, workers=1)
    (kept,) = tmp_path.glob(".data.segments-*")
    done = sorted(kept.glob("*.json"))
    assert len(done) > 3
    # one of them is damaged meanwhile: ids, ends or record
    for place, suffix in zip(done, (".ids", ".ends", ".json"), strict=False):
        path = place.with_suffix(suffix)
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]) if whole else b"x")
    real = module.encode_segment

    def counted(parts, tokenizer, place, progress=None):
        seen.append(place.name)
        return real(parts, tokenizer, place, progress)

    monkeypatch.setattr("cllm.data.encode.encode_segment", counted)
    prepare(shelf, tmp_path / "data", vocab_size=300, workers=1)
    assert {place.stem for place in done[:3]} <= set(seen), "the damaged ones are encoded again"
    assert not {place.stem for place in done[3:]} & set(seen), "the others are not"
    assert content(tmp_path / "data") == content(tmp_path / "whole")
    assert not list(tmp_path.glob(".data*"))


def test_segments_of_other_texts_are_not_taken(shelf: Path, tmp_path: Path, small):
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "encode" and done > total // 2:
            raise Stop

    with pytest.raises(Stop):
        prepare(shelf, tmp_path / "data", vocab_size=300, progress=stop, workers=1)
    (shelf / "0.txt").write_text(text(77, 3000), encoding="utf-8")
    prepare(shelf, tmp_path / "data", vocab_size=300, workers=1)
    prepare(shelf, tmp_path / "whole", vocab_size=300)
    assert content(tmp_path / "data") == content(tmp_path / "whole")


def test_a_file_that_changes_while_processes_encode_is_noticed(shelf: Path, tmp_path: Path, small):
    changed = False

    def meddle(stage: str, done: int, total: int) -> None:
        nonlocal changed
        if stage == "tokenizer" and not changed:
            changed = True
            path = shelf / "5.txt"
            path.write_bytes(path.read_bytes().replace(b"oder", b"ador", 1))

    with pytest.raises(DataError, match="changed while it was being read"):
        prepare(shelf, tmp_path / "data", vocab_size=300, progress=meddle, workers=2)
    assert changed
    assert not (tmp_path / "data").exists()


def test_bytes_that_are_not_utf8_are_named_from_a_process(shelf: Path, tmp_path: Path, small):
    def meddle(stage: str, done: int, total: int) -> None:
        if stage == "tokenizer" and done == total:
            path = shelf / "0.txt"
            path.write_bytes(path.read_bytes()[:-1] + b"\xff")

    with pytest.raises(DataError, match=r"0\.txt"):
        prepare(shelf, tmp_path / "data", vocab_size=300, progress=meddle, workers=2)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_leaves_no_process_and_the_work_goes_on(tmp_path: Path):
    book = tmp_path / "book.txt"
    book.write_text(text(1, 1 << 20) * 10, encoding="utf-8")
    assert book.stat().st_size > 4 * SIZE
    code = "import sys; from cllm.data import prepare\nprepare('book.txt', 'data', vocab_size=300, workers=2)"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, start_new_session=True, stderr=subprocess.PIPE
    )
    until(lambda: list(tmp_path.glob(".data.segments-*/*.json")), seconds=120)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert list(tmp_path.glob(".data.segments-*/*.json"))
    until(lambda: subprocess.run(["pgrep", "-s", str(process.pid)], stdout=subprocess.DEVNULL).returncode == 1)
