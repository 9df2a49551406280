"""From what the user names (files, folders, globs, `-`, a named corpus) to a list of documents."""

from __future__ import annotations

import glob
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from cllm.data.corpora import NAMED, named_corpus
from cllm.data.documents import BOM, Document
from cllm.errors import DataError, closest

SUFFIXES: Final = (".txt", ".text", ".md")
"""The files of a folder that are read as text. A file or glob that is named is read whatever its suffix."""

NOT_YET: Final = (".jsonl", ".parquet", ".csv", ".tsv", ".gz", ".zst", ".bz2", ".xz", ".zip")
"""Formats of records or compressed files, refused rather than taken for text."""


@dataclass(frozen=True)
class Sources:
    """The documents in a fixed order, and what there is to say about them (one sentence each)."""

    documents: tuple[Document, ...]
    notes: tuple[str, ...]


def find_sources(paths: Sequence[str | os.PathLike[str]], spool: Path, stdin: BinaryIO | None = None) -> Sources:
    """The documents that `paths` name, each file one document, in the order of `paths` and of names in a
    folder.

    - a file: read whatever its suffix; a first-in-first-out pipe likewise (copied to the folder `spool`);
    - a folder: its `.txt`, `.text` and `.md` files, at any depth, without those whose name starts with a dot;
    - a glob (`*`, `?`, `[…]`, `**`), where no file has that very name;
    - `-`: standard input, copied to `spool`;
    - a named corpus (`shakespeare`), where no file or folder has that name.

    A file reached twice is one document. Text is taken as it is: line ends are not changed (CRLF stays CRLF);
    only a UTF-8 byte order mark at the start of a file is left out, since it is no part of the text.
    An empty file that was named is an error; in a folder or glob it is left out, with a note.

    Raises DataError (nothing found, empty, unreadable, a format that is not read) and MissingExtraError.
    """
    if not paths:
        raise DataError("no text was named; expected files, folders, globs, - or a named corpus: " + ", ".join(NAMED))
    documents: list[Document] = []
    notes: list[str] = []
    reached: set[Path] = set()
    empty: list[str] = []
    for given in paths:
        name = os.fspath(given)
        if name == "-":
            file = spool / f"stdin-{len(documents)}.txt"
            _copy(stdin if stdin is not None else sys.stdin.buffer, file, "standard input")
            documents.append(_document("standard input", file))
            continue
        files, chosen = _files(name)
        if files is None:
            documents.extend(d for d in named_corpus(name) if d.path not in reached)
            reached |= {d.path for d in documents}
            continue
        if chosen and name in NAMED:
            notes.append(f"{name}: the file or folder of that name is read, not the named corpus")
        for path in files:
            resolved = path.resolve()
            if resolved in reached:
                notes.append(f"{path}: named twice, read once")
                continue
            reached.add(resolved)
            if path.is_fifo():
                file = spool / f"pipe-{len(documents)}.txt"
                try:
                    with path.open("rb") as pipe:
                        _copy(pipe, file, str(path))
                except OSError as e:
                    raise DataError(f"{path}: cannot read it: {e.strerror}") from None
                documents.append(_document(str(path), file))
                continue
            document = _document(str(path), path, may_be_empty=not chosen)
            if document.size:
                documents.append(document)
            else:
                empty.append(str(path))
    if empty:
        notes.append(f"{len(empty)} empty files are left out, the first is {empty[0]}")
    if not documents:
        raise DataError(f"{_listed(paths)}: every file is empty; expected text")
    return Sources(tuple(documents), tuple(notes))


def _files(name: str) -> tuple[list[Path] | None, bool]:
    """The files that `name` stands for (None: a named corpus), and whether it is one file's own name."""
    if not name or "\0" in name:
        raise DataError(f"{name!r}: not a path (it is empty or holds a NUL character)")
    path = Path(name)
    try:
        if path.is_dir():
            return _folder(path), False
        if path.exists() or path.is_symlink():
            return [path], True
    except OSError as e:
        raise DataError(f"{name}: cannot read it: {e.strerror}") from None
    if name in NAMED:
        return None, False
    if glob.has_magic(name):
        found = sorted(Path(p) for p in glob.glob(name, recursive=True) if not os.path.isdir(p))
        if not found:
            raise DataError(f"{name}: no file matches this pattern (from {Path.cwd()})")
        return found, False
    raise DataError(
        f"{name}: no such file or folder, and no named corpus{closest(name, NAMED)} "
        f"(named corpora: {', '.join(NAMED)}; - is standard input)"
    )


def _folder(folder: Path) -> list[Path]:
    failed: list[OSError] = []
    found, others = [], 0
    for where, folders, names in os.walk(folder, onerror=failed.append):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(n for n in names if not n.startswith(".")):
            if name.lower().endswith(SUFFIXES):
                found.append(Path(where, name))
            else:
                others += 1
    if failed:
        raise DataError(f"{failed[0].filename}: cannot read the folder: {failed[0].strerror}")
    if not found:
        raise DataError(
            f"{folder}: no text file in this folder ({others} files with other suffixes); expected "
            f'{", ".join(SUFFIXES)}; for others name a pattern, for example "{folder}/**/*.py"'
        )
    return found


def _document(name: str, path: Path, *, may_be_empty: bool = False) -> Document:
    if path.suffix.lower() in NOT_YET:
        raise DataError(f"{name}: {path.suffix} files are not read; expected UTF-8 text: unpack or convert it first")
    try:
        if not path.is_file():
            raise DataError(f"{name}: not a regular file; expected a text file")
        with path.open("rb") as file:
            start = len(BOM) if file.read(len(BOM)) == BOM else 0
            stop = file.seek(0, os.SEEK_END)
    except OSError as e:
        raise DataError(f"{name}: cannot read it: {e.strerror}") from None
    if start == stop and not may_be_empty:
        raise DataError(f"{name}: it is empty; expected text")
    return Document(name, path, start, stop)


def _copy(source: BinaryIO, target: Path, name: str) -> None:
    """Copies a stream to a file, so that it can be read more than once in bounded memory."""
    try:
        with target.open("wb") as file:
            shutil.copyfileobj(source, file)
    except OSError as e:
        raise DataError(f"{name}: cannot copy it to {target}: {e.strerror}") from None


def _listed(paths: Sequence[str | os.PathLike[str]]) -> str:
    names = [os.fspath(p) for p in paths]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
