"""Rows of tokens: a seeded stream with a position for training, and the plain sequence for validation.

Both give `Rows`: `tokens_BT1`, int64 [count, T+1], and `documents_BT1`, int64 [count, T+1], the number of the
document within its row (0, 1, 2 …; −1 = padding). Column t is the input whose target is column t+1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from cllm.data.philox import permutation, words
from cllm.data.shard import Shard
from cllm.errors import ConfigError, DataError, UsageError

Ints = npt.NDArray[np.int64]

ORDER, OFFSET = 2, 3
"""Purposes of the random numbers (1 is the split's)."""


class Rows(NamedTuple):
    """`tokens_BT1` and `documents_BT1`, int64 [count, T+1] each; both are fresh arrays."""

    tokens_BT1: Ints
    documents_BT1: Ints


class _Cut(Protocol):
    """A way to cut a shard into `count` rows; `place` moves all cuts (packed rows only)."""

    count: int
    targets: int

    def rows(self, index: Ints, place: int) -> Rows: ...


class Stream:
    """The endless training stream: row r is a pure function of (shard, sequence, pack, seed, r).

    Row r belongs to epoch r // `rows_per_epoch`; each epoch takes the rows in an order of its own, drawn from
    (seed, epoch). So the stream's only state is a position, the order does not depend on the batch size or
    the number of ranks (a step that wants rows p … p+B−1 splits them as it likes), and any row can be had at
    once.

    - `pack=True`: the documents are laid end to end, each with its EOS, and the end is joined to the
      beginning; rows are cut anywhere, from a place drawn for each epoch. Every token is a target exactly
      once an epoch, but for fewer than T of them that come twice, since a number of whole rows is cut.
    - `pack=False`: a row holds one document, or a part of T targets of a long one, filled up with padding. It
      begins with the token before it: the start token (EOS, else BOS) for a document's first row. Every
      token is a target exactly once an epoch; without a start token a document's first token is only an
      input.
    """

    def __init__(self, shard: Shard, sequence: int, *, seed: int = 0, pack: bool = True) -> None:
        """`sequence`: T, the number of inputs (and targets) of a row. Raises ConfigError for T < 1 or a seed
        outside [0, 2^64), DataError if the shard has fewer than T+1 tokens to pack."""
        _check_sequence(sequence)
        words(0, seed, 0, ORDER)  # checks the seed
        if pack and shard.record.tokens < sequence + 1:
            raise DataError(
                f"{shard.path}: too little text: its {shard.record.tokens} tokens do not fill one row of "
                f"{sequence} + 1; give more text, or set train.sequence={max(1, shard.record.tokens - 1)} or less"
            )
        self.shard, self.sequence, self.seed, self.pack = shard, sequence, seed, pack
        self._cut: _Cut = _Ring(shard, sequence) if pack else _Single(shard, sequence)
        self.rows_per_epoch = self._cut.count
        """Rows of an epoch."""
        self.targets_per_epoch = self._cut.targets
        """Targets of an epoch (padding left out; a document mask takes some away)."""
        self._order = lru_cache(maxsize=2)(self._draw)

    def rows(self, position: int, count: int) -> Rows:
        """The `count` rows from row number `position` on. Raises UsageError for negative numbers."""
        if position < 0 or count < 0:
            raise UsageError(f"rows: got position {position} and count {count}, expected none below 0")
        tokens = np.empty((count, self.sequence + 1), dtype=np.int64)
        documents = np.empty_like(tokens)
        at = 0
        while at < count:
            epoch, first = divmod(position + at, self.rows_per_epoch)
            order, place = self._order(epoch)
            index = order[first : first + count - at]
            part = self._cut.rows(index, place)
            tokens[at : at + len(index)], documents[at : at + len(index)] = part
            at += len(index)
        return Rows(tokens, documents)

    def epoch(self, position: int) -> int:
        """The epoch (from 0) of row number `position`."""
        return position // self.rows_per_epoch

    def _draw(self, epoch: int) -> tuple[Ints, int]:
        place = int(words(1, self.seed, epoch, OFFSET)[0]) % self.shard.record.tokens if self.pack else 0
        return permutation(self.rows_per_epoch, self.seed, epoch, ORDER), place


class SequentialRows:
    """The rows of a validation part, in order and without overlap: every token is a target exactly once.

    - `pack=True`: the documents end to end, cut into rows of T targets; a row's first token is the previous
      row's last, and row 0's is the start token (EOS, else BOS), numbered as the end of an imaginary
      document before.
    - `pack=False`: as in `Stream`.

    The last row is filled up with padding. Without a start token the first token (of each document for
    `pack=False`) is only an input. With a document mask the targets across a boundary do not count, here as
    in training, nor do their bytes in `bytes_of_targets`.
    """

    def __init__(self, shard: Shard, sequence: int, *, pack: bool = True) -> None:
        """`sequence`: T, targets of a row. Raises ConfigError for T < 1, DataError where there is no
        target."""
        _check_sequence(sequence)
        self.shard, self.sequence, self.pack = shard, sequence, pack
        self._cut: _Cut = _Line(shard, sequence) if pack else _Single(shard, sequence)
        self.targets = self._cut.targets
        """Targets in all rows (padding left out; a document mask takes some away)."""
        if self.targets < 1:
            raise DataError(f"{shard.path}: too little text: no token to predict; give more text")

    def __len__(self) -> int:
        """The number of rows."""
        return self._cut.count

    def rows(self, position: int, count: int) -> Rows:
        """The rows `position` … `position + count − 1`, fewer at the end (so that a last batch is
        smaller)."""
        if position < 0 or count < 0:
            raise UsageError(f"rows: got position {position} and count {count}, expected none below 0")
        return self._cut.rows(np.arange(position, max(position, min(position + count, len(self)))), 0)


def valid_targets(rows: Rows, *, document_mask: bool = False) -> npt.NDArray[np.bool_]:
    """Which targets count, bool [count, T]: neither side is padding, and with `document_mask` both are of one
    document."""
    inputs, targets = rows.documents_BT1[:, :-1], rows.documents_BT1[:, 1:]
    valid: npt.NDArray[np.bool_] = (inputs >= 0) & (targets >= 0)
    return valid & (inputs == targets) if document_mask else valid


def bytes_of_targets(rows: Rows, byte_lengths_V: Ints, *, document_mask: bool = False) -> int:
    """How many bytes of text the valid targets of `rows` stand for; EOS stands for none.

    Summed over all rows of `SequentialRows(shard, T)` this is the shard's number of UTF-8 bytes exactly, if
    the shard is lossless, has a start token and no document mask is used. Bits per byte = (sum of the nats
    of all valid targets) / (ln 2 · these bytes): the cost of EOS counts, its (no) bytes do not.
    `byte_lengths_V`: `Tokenizer.byte_lengths`.
    """
    return int(byte_lengths_V[rows.tokens_BT1[:, 1:]].sum(where=valid_targets(rows, document_mask=document_mask)))


@dataclass
class _Ring:
    """All documents end to end, joined into a ring; row i holds the T+1 tokens from place + i·T on."""

    shard: Shard
    sequence: int

    def __post_init__(self) -> None:
        self.count = -(-self.shard.record.tokens // self.sequence)
        self.targets = self.count * self.sequence

    def rows(self, index: Ints, place: int) -> Rows:
        n = self.shard.record.tokens
        position = place + index[:, None] * self.sequence + np.arange(self.sequence + 1)
        turn, position = np.divmod(position, n)
        document = _document_of(self.shard, position) + turn * self.shard.record.documents
        return Rows(self.shard.tokens[position].astype(np.int64), _number(document))


@dataclass
class _Line:
    """The start token and then all documents end to end, cut into rows; the last is padded."""

    shard: Shard
    sequence: int

    def __post_init__(self) -> None:
        self._lead = int(self.shard.record.start_id is not None)
        self.targets = self.shard.record.tokens - 1 + self._lead
        self.count = -(-self.targets // self.sequence)

    def rows(self, index: Ints, place: int) -> Rows:
        record = self.shard.record
        position = index[:, None] * self.sequence + np.arange(self.sequence + 1) - self._lead
        inside = (position >= 0) & (position < record.tokens)
        safe = np.where(inside, position, 0)
        tokens = np.where(inside, self.shard.tokens[safe].astype(np.int64), record.pad_id)
        document = np.where(position < record.tokens, _document_of(self.shard, safe), -1)
        if record.start_id is not None:
            tokens[position < 0] = record.start_id
            document[position < 0] = -2  # the document that the start token ends, numbered 0 below
        return Rows(tokens, _number(document, padding=-1))


@dataclass
class _Single:
    """One document, or T targets of it, a row; padded."""

    shard: Shard
    sequence: int

    def __post_init__(self) -> None:
        self._lead = int(self.shard.record.start_id is not None)
        self._ends = np.append(self.shard.starts[1:], self.shard.record.tokens)
        targets = np.maximum(self._ends - self.shard.starts - 1 + self._lead, 0)
        self.targets = int(targets.sum())
        self._last = np.cumsum(-(-targets // self.sequence))
        """the number of rows up to and with each document"""
        self.count = int(self._last[-1])
        if self.count == 0:
            raise DataError(f"{self.shard.path}: too little text: no token to predict; give more text")

    def rows(self, index: Ints, place: int) -> Rows:
        record = self.shard.record
        document = np.searchsorted(self._last, index, side="right")
        part = index - np.where(document > 0, self._last[document - 1], 0)
        first = self.shard.starts[document][:, None]
        column = part[:, None] * self.sequence + np.arange(self.sequence + 1) - self._lead
        inside = (column >= 0) & (column < self._ends[document][:, None] - first)
        tokens = np.where(
            inside, self.shard.tokens[np.where(inside, first + column, 0)].astype(np.int64), record.pad_id
        )
        if record.start_id is not None:
            tokens[column < 0] = record.start_id
            inside |= column < 0
        return Rows(tokens, np.where(inside, 0, -1))


def _document_of(shard: Shard, position: Ints) -> Ints:
    """The document of each token position; of documents with no token, none is ever found."""
    return np.searchsorted(shard.starts, position, side="right").astype(np.int64) - 1


def _number(document: Ints, padding: int | None = None) -> Ints:
    """Numbers documents within each row from 0: how often the document has changed up to each column."""
    changes = np.cumsum(np.diff(document, axis=1, prepend=document[:, :1]) != 0, axis=1)
    return changes if padding is None else np.where(document == padding, -1, changes)


def _check_sequence(sequence: int) -> None:
    if sequence < 1:
        raise ConfigError(f"train.sequence: got {sequence}, expected 1 or more")
