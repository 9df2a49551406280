"""A token shard: the ids of a list of documents, hashed and memory-mapped.

Three files (docs/decisions/data.md), all numbers little-endian:

- `NAME.tokens`: 64 bytes of header (magic `CLLMTOK1`, item size u32, vocabulary u32, token count u64,
  SHA-256 of the tokenizer, 8 zero bytes), then the ids as u16 (V ≤ 65536) or u32;
- `NAME.documents`: for each document its first token and its length in UTF-8 bytes, two i64;
- `NAME.json`: the record of both, with their SHA-256 and its own.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import numpy as np
import numpy.typing as npt

from cllm.data.record import PREPARE_AGAIN, read_record, write_record
from cllm.data.segments import Encoder, SegmentRecord
from cllm.errors import CorruptError, DataError, RunError
from cllm.text import Tokenizer

MAGIC: Final = b"CLLMTOK1"
HEADER: Final = struct.Struct("<8sIIQ32s8x")
VERSION: Final = 1


class MixPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One source of a mix: the next `documents` documents of the shard, and the source's weight."""

    documents: int
    weight: float


class ShardRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of `NAME.json`."""

    format: str = "cllm token shard"
    version: int = VERSION
    item_bytes: int
    tokens: int
    documents: int
    bytes: int
    """UTF-8 bytes of the text"""
    characters: int
    unknown: int
    """tokens that are UNK"""
    lossless: bool
    """the text can be had back from the ids byte for byte (checked for every piece when it was written)"""
    vocab_size: int
    tokenizer_sha256: str
    eos_id: int | None
    start_id: int | None
    """the token that stands before a document's first one: EOS, else BOS, else none"""
    pad_id: int
    tokens_sha256: str
    documents_sha256: str
    mix: list[MixPart] | None = None
    """the sources in the order of their documents, where rows are drawn by weight"""


class Shard:
    """A shard opened for reading.

    `tokens`: read-only memory map of the ids, uint16 or uint32 [n]; `starts`: first token of each document,
    int64 [d]; `document_bytes`: UTF-8 length of each, int64 [d]; `record`: the facts in `NAME.json`, whose
    hash is `sha256` (it covers tokens and documents, so it names the content).
    """

    def __init__(self, folder: Path, name: str, *, verify: bool) -> None:
        """Opens the shard. Header, lengths and the record's own hash are always checked; `verify` also reads
        all of it and compares the hashes. Raises CorruptError or RunError naming the file."""
        self.name = name
        self.path = folder / f"{name}.tokens"
        self.record, self.sha256 = read_record(folder / f"{name}.json", ShardRecord, VERSION)
        r = self.record
        if r.item_bytes not in (2, 4) or r.tokens < 1 or r.documents < 1:
            raise CorruptError(f"{folder / name}.json: impossible sizes; {PREPARE_AGAIN}")
        mix = r.mix if r.mix is not None else [MixPart(documents=r.documents, weight=1.0)]
        if sum(part.documents for part in mix) != r.documents or min(part.documents for part in mix) < 1:
            raise CorruptError(f"{folder / name}.json: the mix is not of its documents; {PREPARE_AGAIN}")
        documents_path = folder / f"{name}.documents"
        _check_size(self.path, HEADER.size + r.tokens * r.item_bytes)
        _check_size(documents_path, r.documents * 16)
        try:
            with self.path.open("rb") as file:
                header = file.read(HEADER.size)
            if header != _header(r):
                raise CorruptError(f"{self.path}: its header is not that of {name}.json; {PREPARE_AGAIN}")
            if verify:
                _check_hash(self.path, r.tokens_sha256)
                _check_hash(documents_path, r.documents_sha256)
            self.tokens: npt.NDArray[Any] = np.asarray(
                np.memmap(self.path, dtype=f"<u{r.item_bytes}", mode="r", offset=HEADER.size, shape=(r.tokens,))
            )
            table = np.fromfile(documents_path, dtype="<i8").reshape(-1, 2)
        except OSError as e:
            raise RunError(f"{self.path}: cannot read it: {e.strerror}") from None
        self.starts = np.ascontiguousarray(table[:, 0]).astype(np.int64)
        self.document_bytes = np.ascontiguousarray(table[:, 1]).astype(np.int64)
        if self.starts[0] != 0 or np.any(np.diff(self.starts) < 0) or self.starts[-1] > r.tokens:
            raise CorruptError(f"{documents_path}: the documents are not in order; {PREPARE_AGAIN}")

    @property
    def lossless(self) -> bool:
        """True if the ids hold the whole text, so that bits per byte mean something."""
        return self.record.lossless

    def document(self, i: int) -> npt.NDArray[Any]:
        """The ids of document `i`, its EOS included, [n_i]."""
        stop = self.starts[i + 1] if i + 1 < len(self.starts) else self.record.tokens
        return self.tokens[self.starts[i] : stop]

    def texts(self, tokenizer: Tokenizer) -> Iterator[bytes]:
        """The UTF-8 text of each document, exactly as it was read. Raises DataError where ids lost
        something."""
        if not self.lossless or tokenizer.sha256 != self.record.tokenizer_sha256:
            raise DataError(
                f"{self.path}: the text cannot be had back from its tokens with {tokenizer!r}; "
                + ("it was made with another tokenizer" if self.lossless else "the tokenizer lost some of it")
            )
        for i in range(self.record.documents):
            yield tokenizer.decode_bytes(self.document(i).tolist())


class ShardWriter:
    """Writes a shard document by document (or segment by segment) in bounded memory; `finish` makes it readable."""

    def __init__(self, folder: Path, name: str, tokenizer: Tokenizer, mix: list[MixPart] | None = None) -> None:
        self._folder, self._name, self._tokenizer, self._mix = folder, name, tokenizer, mix
        self._tokens: BinaryIO = (folder / f"{name}.tokens").open("wb")
        try:
            self._tokens.write(b"\0" * HEADER.size)  # the header needs the count: written last
        except OSError:
            self._tokens.close()
            raise
        self._encoder = Encoder(tokenizer, self._tokens)

    def add(self, pieces: Iterable[str]) -> None:
        """Adds one document, given as pieces of text whose ids can be joined; its EOS is appended."""
        self._encoder.add(pieces)

    def append(self, place: Path, record: SegmentRecord) -> None:
        """Adds an encoded segment (see `encode_segment`), whose files were checked."""
        e = self._encoder
        e.flush()
        with place.with_suffix(".ids").open("rb") as file:
            while block := file.read(1 << 20):
                e.digest.update(block)
                self._tokens.write(block)
        ends = np.fromfile(place.with_suffix(".ends"), dtype="<i8").reshape(-1, 2) + np.array([e.tokens, e.bytes])
        e.ends.frombytes(ends.astype(np.int64).tobytes())
        e.tokens += record.tokens
        e.bytes += record.bytes
        e.characters += record.characters
        e.unknown += record.unknown
        e.lossless = e.lossless and record.lossless

    def finish(self) -> tuple[ShardRecord, str]:
        """Completes the three files, flushes them to the disk and returns the record and its hash. DataError
        for no token."""
        e = self._encoder
        e.flush()
        if e.tokens == 0:
            self.close()
            raise DataError(f"{self._name}: the text gives no token")
        tokenizer = self._tokenizer
        start = tokenizer.eos_id if tokenizer.eos_id is not None else tokenizer.bos_id
        ends = np.array(e.ends, dtype="<i8").reshape(-1, 2)
        # first token and length in bytes of each document, from where each ends
        rows = np.stack([np.append(0, ends[:-1, 0]), np.diff(ends[:, 1], prepend=0)], axis=1)
        table = np.ascontiguousarray(rows, dtype="<i8").tobytes()
        record = ShardRecord(
            item_bytes=e.dtype.itemsize,
            tokens=e.tokens,
            documents=len(ends),
            bytes=e.bytes,
            characters=e.characters,
            unknown=e.unknown,
            lossless=e.lossless,
            vocab_size=tokenizer.vocab_size,
            tokenizer_sha256=tokenizer.sha256,
            eos_id=tokenizer.eos_id,
            start_id=start,
            pad_id=tokenizer.pad_id if tokenizer.pad_id is not None else 0,
            tokens_sha256="",
            documents_sha256=hashlib.sha256(table).hexdigest(),
            mix=self._mix,
        )
        header = _header(record)
        # the file's hash is that of header, then ids: the ids' hash alone was gathered while writing
        digest = hashlib.sha256(header + e.digest.digest()).hexdigest()
        record = msgspec.structs.replace(record, tokens_sha256=digest)
        self._tokens.seek(0)
        self._tokens.write(header)
        self._tokens.flush()
        os.fsync(self._tokens.fileno())
        self._tokens.close()
        with (self._folder / f"{self._name}.documents").open("wb") as file:
            file.write(table)
            file.flush()
            os.fsync(file.fileno())
        return record, write_record(self._folder / f"{self._name}.json", record)

    def close(self) -> None:
        """Gives the open file back (after a failure; `finish` does it otherwise)."""
        self._tokens.close()


def _header(r: ShardRecord) -> bytes:
    try:
        tokenizer = bytes.fromhex(r.tokenizer_sha256)
        return HEADER.pack(MAGIC, r.item_bytes, r.vocab_size, r.tokens, tokenizer)
    except (ValueError, struct.error):
        return b""


def _check_size(path: Path, expected: int) -> None:
    try:
        size = path.stat().st_size
    except OSError as e:
        raise RunError(f"{path}: cannot read it: {e.strerror}; {PREPARE_AGAIN}") from None
    if size != expected:
        raise CorruptError(f"{path}: {size} bytes, expected {expected}; {PREPARE_AGAIN}")


def _check_hash(path: Path, expected: str) -> None:
    """Compares a file's hash; that of a token file is SHA-256(header ‖ SHA-256(ids))."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        header = file.read(HEADER.size) if path.suffix == ".tokens" else b""
        while block := file.read(1 << 20):
            digest.update(block)
    got = hashlib.sha256(header + digest.digest()).hexdigest() if header else digest.hexdigest()
    if got != expected:
        raise CorruptError(
            f"{path}: its SHA-256 is {got[:16]}…, expected {expected[:16]}…: the file was changed or damaged; "
            f"{PREPARE_AGAIN}"
        )
