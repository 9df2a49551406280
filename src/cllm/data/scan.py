"""Reading every document once: sizes, hashes, and that it is UTF-8."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cllm.data.documents import Document
from cllm.data.table import Documents, Ints


@dataclass(frozen=True)
class Scan:
    """What one pass over a document found."""

    bytes: int
    characters: int
    crlf: int
    sha256: str


def scan(
    document: Document,
    progress: Callable[[int], None] | None = None,
    visit: Callable[[str], None] | None = None,
) -> Scan:
    """Reads the whole document once: its size, its hash, and that it is UTF-8. Raises DataError (see
    `Document.blocks`). `progress(bytes)` is called with the bytes of each block, `visit` with its text."""
    digest = hashlib.sha256()
    characters = crlf = 0
    last = ""

    def seen(block: bytes) -> None:
        digest.update(block)
        if progress is not None:
            progress(len(block))

    for text in document.blocks(seen):
        characters += len(text)
        crlf += text.count("\r\n") + (last == "\r" and text[0] == "\n")
        last = text[-1]
        if visit is not None:
            visit(text)
    return Scan(document.size, characters, crlf, digest.hexdigest())


@dataclass(frozen=True)
class Survey:
    """What the pass over all documents found, one entry a document.

    `characters`: int64 [n]; `digests`: SHA-256 of each text, uint8 [n, 32]; `crlf`: Windows line ends in all.
    """

    characters: Ints
    digests: npt.NDArray[np.uint8]
    crlf: int

    def first_copies(self) -> npt.NDArray[np.bool_]:
        """bool [n]: False where an earlier document has the same text (the same SHA-256)."""
        first = np.ones(len(self.digests), dtype=bool)
        words = np.ascontiguousarray(self.digests).view("<u8")
        order = np.lexsort(words.T)  # stable: of equal ones the earliest comes first
        sorted_words = words[order]
        first[order[1:]] = np.any(sorted_words[1:] != sorted_words[:-1], axis=1)
        return first


def survey(
    documents: Documents,
    progress: Callable[[int], None] | None = None,
    visit: Callable[[str], None] | None = None,
) -> Survey:
    """Scans all documents, in memory of 40 bytes a document. `visit` is given the text, block by block.
    Raises DataError (see `Document.blocks`)."""
    characters, crlf = array("q"), 0
    digests = bytearray()
    for document in documents:
        found = scan(document, progress, visit)
        characters.append(found.characters)
        digests += bytes.fromhex(found.sha256)
        crlf += found.crlf
    return Survey(
        np.frombuffer(characters, dtype=np.int64) if characters else np.zeros(0, dtype=np.int64),
        np.frombuffer(digests, dtype=np.uint8).reshape(-1, 32),
        crlf,
    )
