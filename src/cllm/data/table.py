"""Many documents in little memory: a table of byte ranges of some files."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from cllm.data.documents import Document

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file as the user knows it (`name`), and where the text of its documents is (`path`).

    `record`: what a document of it is called ("line", "row"); empty for a file that is itself the document.
    `copied`: the text is a copy of our own, which nobody else changes.
    """

    name: str
    path: Path
    record: str = ""
    copied: bool = False


class Documents(Sequence[Document]):
    """A sequence of `Document`s, made as they are asked for: 32 bytes each.

    `files`: the files they are in; `columns`: int64 [n, 4], the number of the file, first and last byte + 1
    in `path`, and the record's number (0 for a file that is one document).
    """

    def __init__(self, files: Sequence[SourceFile], columns: Ints) -> None:
        self.files, self.columns = tuple(files), columns

    @classmethod
    def of(cls, documents: Iterable[Document]) -> Documents:
        """The table of some documents, each a file of its own."""
        if isinstance(documents, Documents):
            return documents
        table = Table()
        for document in documents:
            table.add_file(SourceFile(document.name, document.path))
            table.add(document.start, document.stop)
        return table.documents()

    @property
    def sizes(self) -> Ints:
        """Length of each in bytes, int64 [n]."""
        return self.columns[:, 2] - self.columns[:, 1]

    def take(self, index: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Documents:
        """Those that `index` (numbers or a mask) chooses."""
        return Documents(self.files, self.columns[index])

    def between(self, first: int, last: int) -> Documents:
        """Those from number `first` up to `last` (left out)."""
        return Documents(self.files, self.columns[first:last])

    def with_range(self, start: int, stop: int) -> Documents:
        """The only document, from byte `start` to `stop` of its file."""
        columns = self.columns.copy()
        columns[0, 1:3] = start, stop
        return Documents(self.files, columns)

    def joined(self, others: Documents) -> Documents:
        """These and then `others`, which are of the same files."""
        return Documents(self.files, np.concatenate([self.columns, others.columns]))

    def __len__(self) -> int:
        return len(self.columns)

    def __iter__(self) -> Iterator[Document]:
        for at in range(0, len(self.columns), 4096):
            for row in self.columns[at : at + 4096].tolist():
                yield self._document(*row)

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> Documents: ...
    def __getitem__(self, index: int | slice) -> Document | Documents:
        if isinstance(index, slice):
            return Documents(self.files, self.columns[index])
        return self._document(*self.columns[index].tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Documents: {len(self)} of {len(self.files)} files>"

    def _document(self, file: int, start: int, stop: int, number: int) -> Document:
        found = self.files[file]
        name = f"{found.name}, {found.record} {number}" if number else found.name
        return Document(name, found.path, start, stop)


class Table:
    """Collects documents file by file."""

    def __init__(self) -> None:
        self._files: list[SourceFile] = []
        self._cells = array("q")

    def add_file(self, file: SourceFile) -> None:
        """The file that the next documents are in."""
        self._files.append(file)

    def add(self, start: int, stop: int, number: int = 0) -> None:
        """A document of the last file."""
        self._cells.extend((len(self._files) - 1, start, stop, number))

    def __len__(self) -> int:
        return len(self._cells) // 4

    def documents(self) -> Documents:
        """What was collected."""
        return Documents(self._files, np.array(self._cells, dtype=np.int64).reshape(-1, 4))
