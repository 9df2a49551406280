"""From what the user names (files, folders, globs, `-`, a named corpus) to a list of documents."""

from __future__ import annotations

import glob
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from cllm.data import compressed
from cllm.data.corpora import NAMED, is_named, named_corpus
from cllm.data.documents import BOM
from cllm.data.hugging_face import dataset_files
from cllm.data.record import is_prepared
from cllm.data.records import DEFAULT_FIELD, KINDS, NOUN, BadRecords, read_records, unpack
from cllm.data.table import Documents, SourceFile, Table
from cllm.errors import DataError, closest

TEXT: Final = (".txt", ".text", ".md")
"""The files of a folder that are read as text. A file or glob that is named is read whatever its suffix."""

SUFFIXES: Final = tuple(s + c for s in (*TEXT, *KINDS) for c in ("", *compressed.SUFFIXES))
"""The files of a folder that are read at all."""

REFUSED: Final = (".bz2", ".xz", ".zip", ".tar", ".tgz", ".7z", ".rar", ".feather", ".orc", ".avro", ".pdf", ".docx")
"""Formats refused rather than taken for text."""

Read = Callable[[int, int], None]
"""read(bytes done, bytes in all) of the files whose text is copied out (records, compressed files)."""


@dataclass(frozen=True)
class Sources:
    """The documents in a fixed order, and what there is to say about them (one sentence each).

    `counts`: how many of the documents each of the given paths has brought; `bad`: the records that were left
    out because they cannot be used.
    """

    documents: Documents
    notes: tuple[str, ...]
    counts: tuple[int, ...]
    bad: BadRecords


def find_sources(
    paths: Sequence[str | os.PathLike[str]],
    spool: Path,
    stdin: BinaryIO | None = None,
    *,
    field: str | None = None,
    skip_bad: bool = False,
    read: Read | None = None,
) -> Sources:
    """The documents that `paths` name, in the order of `paths`, of names in a folder and of records in a file.

    - a file: read whatever its suffix, as text (one document) but for the formats of `KINDS`, each of whose
      records is a document: its `field` (default "text") is the text. `.gz` and `.zst` files are unpacked and
      are what the suffix before says. A first-in-first-out pipe is read likewise;
    - a folder: its files of the suffixes `SUFFIXES`, at any depth, without those whose name starts with a dot;
      a folder that Hugging Face `datasets` saved (`save_to_disk`): its Arrow files, in its own order;
    - a glob (`*`, `?`, `[…]`, `**`), where no file has that very name;
    - `-`: standard input, one text;
    - a named corpus (`shakespeare`), where no file or folder has that name.

    Text of records and of compressed files is copied to the folder `spool`, so that no more than one record is
    held in memory; other files are read where they are. A file reached twice is read once. Text is taken as it
    is: line ends are not changed (CRLF stays CRLF); only a UTF-8 byte order mark at the start of a file is left
    out, since it is no part of the text. An empty file that was named is an error; in a folder or glob it is
    left out, with a note, and so are records with an empty text.

    Records that cannot be used (not JSON, no such field, no text, not UTF-8) are counted over all files and
    refused together, or with `skip_bad` left out, with a note.

    Raises DataError (nothing found, empty, unreadable, bad records, a format that is not read) and
    MissingExtraError.
    """
    if not paths:
        raise DataError("no text was named; expected files, folders, globs, - or a named corpus: " + ", ".join(NAMED))
    finder = _Finder(spool, field or DEFAULT_FIELD, stdin)
    found = [finder.look(os.fspath(given)) for given in paths]
    finder.total = sum(path.stat().st_size for files in found for path, _ in files if path.is_file())
    finder.read = read
    counts = []
    for given, files in zip(paths, found, strict=True):
        before = len(finder.table)
        finder.take(os.fspath(given), files)
        counts.append(len(finder.table) - before)
    bad, notes = finder.bad, finder.notes
    if bad.count and not skip_bad:
        raise DataError(f"{bad}. Repair them, or have them left out: data.skip_bad=true (--skip-bad)")
    if bad.count:
        notes.append(f"left out: {bad}")
    if finder.blank:
        notes.append(f"{finder.blank} records with an empty text are left out")
    if finder.empty:
        notes.append(f"{len(finder.empty)} empty files are left out, the first is {finder.empty[0]}")
    if not len(finder.table):
        raise DataError(f"{_listed(paths)}: every file is empty{' or bad' * bool(bad.count)}; expected text")
    return Sources(finder.table.documents(), tuple(notes), tuple(counts), bad)


class _Finder:
    """Goes through what was named and fills the table of documents."""

    def __init__(self, spool: Path, field: str, stdin: BinaryIO | None) -> None:
        self._spool, self._field, self._stdin = spool, field, stdin
        self.table, self.bad = Table(), BadRecords()
        self.notes: list[str] = []
        self.empty: list[str] = []
        self.blank = self.total = self._done = self._copies = 0
        self.read: Read | None = None
        self._reached: set[Path] = set()

    def look(self, name: str) -> list[tuple[Path, bool]]:
        """The files that `name` stands for, each with whether it was itself named; none for what has no files of
        its own (`-`, a named corpus)."""
        if name == "-":
            return []
        files, chosen = _files(name)
        if chosen and name in NAMED:
            self.notes.append(f"{name}: the file or folder of that name is read, not the named corpus")
        return [(path, chosen) for path in files or ()]

    def take(self, name: str, files: list[tuple[Path, bool]]) -> None:
        """Adds the documents of one argument."""
        if name == "-":
            target = self._target("stdin")
            _copy(self._stdin if self._stdin is not None else sys.stdin.buffer, target, "standard input")
            self._text("standard input", target, copied=True, chosen=True)
        elif not files:
            for document in named_corpus(name):
                if document.path not in self._reached:
                    self._reached.add(document.path)
                    self.table.add_file(SourceFile(document.name, document.path))
                    self.table.add(document.start, document.stop)
        for path, chosen in files:
            resolved = path.resolve()
            if resolved in self._reached:
                self.notes.append(f"{path}: named twice, read once")
                continue
            self._reached.add(resolved)
            self._file(path, chosen)

    def _file(self, path: Path, chosen: bool) -> None:
        name, kind, compression = str(path), *_format(path)
        try:
            pipe, regular = path.is_fifo(), path.is_file()
            size = path.stat().st_size
        except OSError as e:
            raise DataError(f"{name}: cannot read it: {e.strerror}") from None
        if pipe:
            path, given = self._target("pipe"), path
            try:
                with given.open("rb") as source:
                    _copy(source, path, name)
            except OSError as e:
                raise DataError(f"{name}: cannot read it: {e.strerror}") from None
        elif not regular:
            raise DataError(f"{name}: not a regular file; expected a text file")
        elif size == 0:  # whatever format it should be
            self._nothing(name, chosen)
            return
        if kind:
            self._records(name, path, kind, compression, chosen)
        elif compression:
            target = self._target("text")
            unpack(path, name, compression, target, self._report)
            self._text(name, target, copied=True, chosen=chosen)
        else:
            self._text(name, path, copied=pipe, chosen=chosen)
        self._done += 0 if pipe else size
        self._report(0)

    def _text(self, name: str, path: Path, *, copied: bool, chosen: bool) -> None:
        try:
            with path.open("rb") as file:
                start = len(BOM) if file.read(len(BOM)) == BOM else 0
                stop = file.seek(0, os.SEEK_END)
        except OSError as e:
            raise DataError(f"{name}: cannot read it: {e.strerror}") from None
        if start == stop:
            self._nothing(name, chosen)
            return
        self.table.add_file(SourceFile(name, path, copied=copied))
        self.table.add(start, stop)

    def _records(self, name: str, path: Path, kind: str, compression: str, chosen: bool) -> None:
        target = self._target("records")
        self.table.add_file(SourceFile(name, target, record=NOUN[kind], copied=True))
        before, wrong, place = len(self.table), self.bad.count, 0
        records = read_records(path, name, kind, compression, self._field, self._spool, self._report)
        with target.open("wb") as out:
            for record in records:
                if record.wrong:
                    self.bad.add(f"{name}, {NOUN[kind]} {record.number}", record.wrong)
                elif record.text:
                    start, place = place, place + out.write(record.text.encode())
                    self.table.add(start, place, record.number)
                else:
                    self.blank += 1
        if len(self.table) == before and self.bad.count == wrong:
            self._nothing(name, chosen)

    def _nothing(self, name: str, chosen: bool) -> None:
        if chosen:
            raise DataError(f"{name}: it is empty; expected text")
        self.empty.append(name)

    def _target(self, what: str) -> Path:
        self._copies += 1
        return self._spool / f"{what}-{self._copies}"

    def _report(self, done: int) -> None:
        if self.read is not None:
            self.read(self._done + done, self.total)


def _format(path: Path) -> tuple[str, str]:
    """The format of records ("" for text) and the compression ("" for none) that a file's name says."""
    suffix = path.suffix.lower()
    compression = suffix if suffix in compressed.SUFFIXES else ""
    inner = Path(path.stem).suffix.lower() if compression else suffix
    if inner in REFUSED:
        raise DataError(
            f"{path}: {inner} files are not read; expected UTF-8 text or {', '.join(KINDS)}: convert it first"
        )
    return KINDS.get(inner, ""), compression


def _files(name: str) -> tuple[list[Path] | None, bool]:
    """The files that `name` stands for (None: a named corpus), and whether it is one file's own name."""
    if not name or "\0" in name:
        raise DataError(f"{name!r}: not a path (it is empty or holds a NUL character)")
    path = Path(name)
    try:
        if path.is_dir():
            return dataset_files(path) or _folder(path), False
        if path.exists() or path.is_symlink():
            return [path], True
    except OSError as e:
        raise DataError(f"{name}: cannot read it: {e.strerror}") from None
    if is_named(name):
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
    if not found and is_prepared(folder):
        raise DataError(f"{folder}: prepared data, no text; `cllm train` takes them as they are, alone")
    if not found:
        raise DataError(
            f"{folder}: no text file in this folder ({others} files with other suffixes); expected "
            f"{', '.join((*TEXT, *KINDS))}, or these compressed ({', '.join(compressed.SUFFIXES)}); "
            f'for others name a pattern, for example "{folder}/**/*.py"'
        )
    return found


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
