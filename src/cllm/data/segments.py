"""Segments: consecutive parts of a list of documents, each encoded by itself, whose ids joined are those of the whole.

A large document is cut where its tokenizer may be cut (before a space, see `Document.pieces`), so the ids do not
depend on where the segments end. A finished segment is two files and a record with their hashes; what a stopped
preparation finished is taken up again, after its hashes are checked.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from cllm.data.documents import Document, last_cut
from cllm.data.record import read_record, write_record
from cllm.data.table import Documents, Ints
from cllm.errors import CllmError
from cllm.text import Tokenizer

SIZE: Final = 8 << 20
"""Bytes of text that a segment aims at."""
BATCH: Final = 1 << 19
"""Characters of text tokenised together."""
WINDOW: Final = 1 << 16
VERSION: Final = 1


class Part(NamedTuple):
    """A document, or a stretch of one; `ends`: its end is the document's, where EOS stands."""

    document: Document
    ends: bool


class SegmentRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What encoding a segment gave."""

    format: str = "cllm segment"
    version: int = VERSION
    tokens: int
    bytes: int
    characters: int
    unknown: int
    lossless: bool
    text_sha256: str
    """of all bytes read"""
    ids_sha256: str
    ends_sha256: str
    """of (tokens, bytes) up to and with each document that ends here, two i64 each"""


class Segment:
    """A segment: `rows` int64 [n, 4], the number of the document, first and last byte + 1, and whether its end is the
    document's. 32 bytes a document; iterating gives the parts."""

    def __init__(self, documents: Documents, rows: Ints) -> None:
        self._documents, self.rows = documents, rows

    @property
    def size(self) -> int:
        """Bytes of text."""
        return int((self.rows[:, 2] - self.rows[:, 1]).sum())

    def __iter__(self) -> Iterator[Part]:
        for number, start, stop, ends in self.rows.tolist():
            whole = self._documents[number]
            yield Part(Document(whole.name, whole.path, start, stop), bool(ends))


def segments(documents: Documents, tokenizer: Tokenizer, size: int = SIZE) -> list[Segment]:
    """The documents in order, in segments of about `size` bytes. Only a tokenizer that may be cut has one cut."""
    found: list[Segment] = []
    held, room = array("q"), size

    def close() -> None:
        nonlocal held, room
        found.append(Segment(documents, np.array(held, dtype=np.int64).reshape(-1, 4)))
        held, room = array("q"), size

    for number, (_, at, stop, _) in enumerate(map(np.ndarray.tolist, documents.columns)):
        while tokenizer.cuts_before_space and stop - at > room + size // 2:
            place = _cut_from(documents[number], at + room)
            if place is None:
                break
            held.extend((number, at, place, 0))
            close()
            at = place
        held.extend((number, at, stop, 1))
        room -= stop - at
        if room <= 0:
            close()
    if held:
        close()
    return found


def _cut_from(document: Document, place: int) -> int | None:
    """The first place from `place` on at which the document may be cut, None when there is none before its end."""
    with document.path.open("rb") as file:
        while place < document.stop:
            start = max(document.start, place - 8)  # a character before `place` decides whether it is a cut
            file.seek(start)
            block = file.read(min(WINDOW, document.stop - start))
            if not block:
                return None
            lead = next((i for i, byte in enumerate(block) if byte & 0xC0 != 0x80), len(block))
            text = block[lead:].decode("utf-8", "ignore")
            for i in range(1, len(text)):
                if text[i] in " \n" and last_cut(text[: i + 1]) == i:
                    found = start + lead + len(text[:i].encode())
                    if found >= place:
                        return found if found < document.stop else None
            place += len(block) - 8 if len(block) > 16 else len(block)
    return None


class Encoder:
    """Encodes documents into ids written to `file` in bounded memory.

    After `flush`: `tokens`, `bytes`, `characters`, `unknown`, `lossless`, `digest` (SHA-256 of the ids), and `ends`:
    tokens and bytes up to and with each finished document.
    """

    def __init__(self, tokenizer: Tokenizer, file: BinaryIO) -> None:
        self._tokenizer, self._file = tokenizer, file
        self.dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
        self._queue: list[str | None] = []
        """pieces not yet written; None ends a document"""
        self._queued = 0
        self.digest = hashlib.sha256()
        self.ends = array("q")
        self.tokens = self.bytes = self.characters = self.unknown = 0
        self.lossless = tokenizer.pieces is not None

    def add(self, pieces: Iterable[str], *, ends: bool = True) -> None:
        """Adds a document, or a stretch of one, as pieces of text whose ids can be joined; EOS where it ends."""
        if not self._tokenizer.cuts_before_space:
            pieces = ["".join(pieces)]
        for piece in pieces:
            self._queue.append(piece)
            self._queued += len(piece) + 64
            if self._queued >= BATCH:
                self.flush()
        if ends:
            self._queue.append(None)

    def flush(self) -> None:
        """Writes the queue; a document that has not ended goes on with the next."""
        queue, self._queue, self._queued = self._queue, [], 0
        ids = iter(self._tokenizer.encode_batch(text for text in queue if text is not None))
        for text in queue:
            if text is not None:
                self._encoded(text, next(ids))
                continue
            if self._tokenizer.eos_id is not None:
                self._write(np.array([self._tokenizer.eos_id], dtype=self.dtype))
            self.ends.extend((self.tokens, self.bytes))

    def _encoded(self, text: str, ids: list[int]) -> None:
        tokenizer = self._tokenizer
        content = text.encode()
        self.bytes += len(content)
        self.characters += len(text)
        found = np.array(ids, dtype=self.dtype)
        unknown = 0 if tokenizer.unk_id is None else int(np.count_nonzero(found == tokenizer.unk_id))
        self.unknown += unknown
        if self.lossless:
            self.lossless = unknown == 0 and tokenizer.decode_bytes(ids) == content
        self._write(found)

    def _write(self, ids: npt.NDArray[Any]) -> None:
        content = ids.tobytes()
        self.digest.update(content)
        self._file.write(content)
        self.tokens += len(ids)


def encode_segment(
    parts: Iterable[Part], tokenizer: Tokenizer, place: Path, progress: Callable[[int], None] | None = None
) -> SegmentRecord:
    """Encodes a segment into `place`.ids, .ends and .json (last: a segment with a record is whole)."""
    read = hashlib.sha256()

    def seen(block: bytes) -> None:
        read.update(block)
        if progress is not None:
            progress(len(block))

    with place.with_suffix(".ids").open("wb") as file:
        encoder = Encoder(tokenizer, file)
        for part in parts:
            encoder.add(part.document.pieces(seen), ends=part.ends)
        encoder.flush()
        file.flush()
        os.fsync(file.fileno())
    ends = np.array(encoder.ends, dtype="<i8").tobytes()
    with place.with_suffix(".ends").open("wb") as file:
        file.write(ends)
        file.flush()
        os.fsync(file.fileno())
    record = SegmentRecord(
        tokens=encoder.tokens,
        bytes=encoder.bytes,
        characters=encoder.characters,
        unknown=encoder.unknown,
        lossless=encoder.lossless,
        text_sha256=read.hexdigest(),
        ids_sha256=encoder.digest.hexdigest(),
        ends_sha256=hashlib.sha256(ends).hexdigest(),
    )
    temporary = place.with_suffix(".new")
    write_record(temporary, record)
    os.replace(temporary, place.with_suffix(".json"))
    return record


def finished(place: Path) -> SegmentRecord | None:
    """The record of a segment that is there and whole, every byte checked; None otherwise."""
    try:
        record, _ = read_record(place.with_suffix(".json"), SegmentRecord, VERSION)
        for suffix, expected in ((".ends", record.ends_sha256), (".ids", record.ids_sha256)):
            with place.with_suffix(suffix).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                    return None
    except (CllmError, OSError):
        return None
    return record
