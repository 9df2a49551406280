"""Rows of tokens: a seeded stream with a position for training, and the plain sequence for validation.

Both give `Rows`: `tokens_BT1`, int64 [count, T+1], and `documents_BT1`, int64 [count, T+1], the number of the
document within its row (0, 1, 2 …; −1 = padding). Column t is the input whose target is column t+1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from cllm.data.mix import Mix
from cllm.data.philox import permutation, words
from cllm.data.shard import Shard
from cllm.data.table import Ints
from cllm.errors import ConfigError, DataError, UsageError

ORDER, OFFSET = 2, 3
"""Purposes of the random numbers (1 is the split's, 4 the mix's); those of the g-th source of a mix are 16·g more."""


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

    A shard with a mix (sources with weights) gives each source its share of the rows (see `Mix`); each is a
    stream of its own, as above, with epochs of its own, so a source with a large weight comes round more often.
    `rows_per_epoch` and `targets_per_epoch` are then the sums over the sources: as much as all text once.
    """

    def __init__(self, shard: Shard, sequence: int, *, seed: int = 0, pack: bool = True) -> None:
        """`sequence`: T, the number of inputs (and targets) of a row. Raises ConfigError for T < 1 or a seed
        outside [0, 2^64), DataError if the shard has fewer than T+1 tokens to pack."""
        _check_sequence(sequence)
        words(0, seed, 0, ORDER)  # checks the seed
        views, mix = View.of(shard), shard.record.mix
        self.shard, self.sequence, self.seed, self.pack = shard, sequence, seed, pack
        self._parts = [_Part(view, sequence, seed, pack, 16 * g) for g, view in enumerate(views)]
        self._mix = Mix([part.weight for part in mix], seed) if mix is not None else None
        self.rows_per_epoch = sum(part.cut.count for part in self._parts)
        """Rows of an epoch."""
        self.targets_per_epoch = sum(part.cut.targets for part in self._parts)
        """Targets of an epoch (padding left out; a document mask takes some away)."""

    def rows(self, position: int, count: int) -> Rows:
        """The `count` rows from row number `position` on. Raises UsageError for negative numbers."""
        if position < 0 or count < 0:
            raise UsageError(f"rows: got position {position} and count {count}, expected none below 0")
        tokens = np.empty((count, self.sequence + 1), dtype=np.int64)
        documents = np.empty_like(tokens)
        deal = self._mix.rows(position, count) if self._mix is not None else [(0, position, np.arange(count))]
        for source, first, places in deal:
            self._parts[source].fill(first, places, tokens, documents)
        return Rows(tokens, documents)

    def epoch(self, position: int) -> int:
        """The epoch (from 0) of row number `position`."""
        return position // self.rows_per_epoch


class _Part:
    """The endless stream of one source."""

    def __init__(self, view: View, sequence: int, seed: int, pack: bool, purpose: int) -> None:
        if pack and view.count < sequence + 1:
            raise DataError(
                f"{view.path}: too little text: {view.what} {view.count} tokens do not fill one row of "
                f"{sequence} + 1; give more text, or set train.sequence={max(1, view.count - 1)} or less"
            )
        self.cut: _Cut = _Ring(view, sequence) if pack else _Single(view, sequence)
        self._seed, self._purpose, self._tokens = seed, purpose, view.count if pack else 1
        self._order = lru_cache(maxsize=2)(self._draw)

    def fill(self, position: int, places: Ints, tokens: Ints, documents: Ints) -> None:
        """Puts the rows from number `position` on into the given places."""
        at = 0
        while at < len(places):
            epoch, first = divmod(position + at, self.cut.count)
            order, place = self._order(epoch)
            index = order[first : first + len(places) - at]
            here = places[at : at + len(index)]
            tokens[here], documents[here] = self.cut.rows(index, place)
            at += len(index)

    def _draw(self, epoch: int) -> tuple[Ints, int]:
        place = int(words(1, self._seed, epoch, OFFSET + self._purpose)[0]) % self._tokens
        return permutation(self.cut.count, self._seed, epoch, ORDER + self._purpose), place


class SequentialRows:
    """The rows of a validation part, in order and without overlap: every token is a target exactly once.

    - `pack=True`: the documents end to end, cut into rows of T targets; a row's first token is the previous
      row's last, and row 0's is the start token (EOS, else BOS), numbered as the end of an imaginary
      document before.
    - `pack=False`: as in `Stream`.

    The last row is filled up with padding. Without a start token the first token (of each document for
    `pack=False`) is only an input. With a document mask the targets across a boundary do not count, here as
    in training, nor do their bytes in `bytes_of_targets`.

    With a stride S < T (packed rows only) each row begins S tokens after the one before and only its last S
    targets are fresh (all of row 0's): every token is still scored exactly once (`fresh`), but with at least
    T − S tokens of context behind it instead of, at a row's beginning, one.
    """

    def __init__(self, shard: Shard, sequence: int, *, pack: bool = True, stride: int | None = None) -> None:
        """`sequence`: T, targets of a row; `stride`: 1 … T (default T). Raises ConfigError for T < 1,
        UsageError for a stride outside that range or without packing, DataError where there is no target."""
        _check_sequence(sequence)
        self.shard, self.sequence, self.pack = shard, sequence, pack
        self.stride = sequence if stride is None else stride
        if not 1 <= self.stride <= sequence:
            raise UsageError(f"stride: got {self.stride}, expected 1 to {sequence}, the length of a row")
        if self.stride < sequence and not pack:
            raise UsageError("stride: rows that hold one document each (data.pack = false) do not slide; leave it out")
        (view,) = View.of(shard, whole=True)
        self._cut: _Cut = _Line(view, sequence, self.stride) if pack else _Single(view, sequence)
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

    def fresh(self, position: int, count: int) -> npt.NDArray[np.bool_]:
        """Which targets of `rows(position, count)` no earlier row has scored, bool [rows, T]."""
        number = np.arange(position, max(position, min(position + count, len(self))))
        column = np.arange(self.sequence)
        new: npt.NDArray[np.bool_] = (column >= self.sequence - self.stride) | (number[:, None] == 0)
        return new


def valid_targets(rows: Rows, *, document_mask: bool = False) -> npt.NDArray[np.bool_]:
    """Which targets count, bool [count, T]: neither side is padding, and with `document_mask` both are of one
    document."""
    inputs, targets = rows.documents_BT1[:, :-1], rows.documents_BT1[:, 1:]
    valid: npt.NDArray[np.bool_] = (inputs >= 0) & (targets >= 0)
    return valid & (inputs == targets) if document_mask else valid


def bytes_of_targets(
    rows: Rows,
    byte_lengths_V: Ints,
    *,
    document_mask: bool = False,
    fresh_BT: npt.NDArray[np.bool_] | None = None,
) -> int:
    """How many bytes of text the valid targets of `rows` stand for; EOS stands for none.

    Summed over all rows of `SequentialRows(shard, T)` this is the shard's number of UTF-8 bytes exactly, if
    the shard is lossless, has a start token and no document mask is used. Bits per byte = (sum of the nats
    of all valid targets) / (ln 2 · these bytes): the cost of EOS counts, its (no) bytes do not.
    `byte_lengths_V`: `Tokenizer.byte_lengths`.  `fresh_BT`: targets to count, for rows that overlap.
    """
    counted = valid_targets(rows, document_mask=document_mask)
    if fresh_BT is not None:
        counted &= fresh_BT
    return int(byte_lengths_V[rows.tokens_BT1[:, 1:]].sum(where=counted))


@dataclass(frozen=True)
class View:
    """The tokens of a shard, or of one source in it: `count` tokens, `documents` documents, `starts` [documents]
    counted from the view's first token."""

    path: Path
    what: str
    tokens: npt.NDArray[Any]
    starts: Ints
    start_id: int | None
    pad_id: int

    @property
    def count(self) -> int:
        return len(self.tokens)

    @property
    def documents(self) -> int:
        return len(self.starts)

    @classmethod
    def of(cls, shard: Shard, *, whole: bool = False) -> list[View]:
        """The sources of a shard with a mix, else (or for `whole`) all of it."""
        record = shard.record
        counts = [record.documents] if whole or record.mix is None else [part.documents for part in record.mix]
        views, first = [], 0
        for number, count in enumerate(counts, 1):
            starts = shard.starts[first : first + count]
            first += count
            stop = record.tokens if first == record.documents else int(shard.starts[first])
            what = "its" if len(counts) == 1 else f"source {number} of its mix, whose"
            tokens = shard.tokens[int(starts[0]) : stop]
            views.append(cls(shard.path, what, tokens, starts - starts[0], record.start_id, record.pad_id))
        return views


@dataclass
class _Ring:
    """All documents end to end, joined into a ring; row i holds the T+1 tokens from place + i·T on."""

    view: View
    sequence: int

    def __post_init__(self) -> None:
        self.count = -(-self.view.count // self.sequence)
        self.targets = self.count * self.sequence

    def rows(self, index: Ints, place: int) -> Rows:
        n = self.view.count
        position = place + index[:, None] * self.sequence + np.arange(self.sequence + 1)
        turn, position = np.divmod(position, n)
        document = _document_of(self.view, position) + turn * self.view.documents
        return Rows(self.view.tokens[position].astype(np.int64), _number(document))


@dataclass
class _Line:
    """The start token and then all documents end to end, cut into rows `stride` apart; the last is padded."""

    view: View
    sequence: int
    stride: int

    def __post_init__(self) -> None:
        self._lead = int(self.view.start_id is not None)
        self.targets = self.view.count - 1 + self._lead
        self.count = 1 + -(-max(self.targets - self.sequence, 0) // self.stride) if self.targets > 0 else 0

    def rows(self, index: Ints, place: int) -> Rows:
        view = self.view
        position = index[:, None] * self.stride + np.arange(self.sequence + 1) - self._lead
        inside = (position >= 0) & (position < view.count)
        safe = np.where(inside, position, 0)
        tokens = np.where(inside, self.view.tokens[safe].astype(np.int64), view.pad_id)
        document = np.where(position < view.count, _document_of(self.view, safe), -1)
        if view.start_id is not None:
            tokens[position < 0] = view.start_id
            document[position < 0] = -2  # the document that the start token ends, numbered 0 below
        return Rows(tokens, _number(document, padding=-1))


@dataclass
class _Single:
    """One document, or T targets of it, a row; padded."""

    view: View
    sequence: int

    def __post_init__(self) -> None:
        self._lead = int(self.view.start_id is not None)
        self._ends = np.append(self.view.starts[1:], self.view.count)
        targets = np.maximum(self._ends - self.view.starts - 1 + self._lead, 0)
        self.targets = int(targets.sum())
        self._last = np.cumsum(-(-targets // self.sequence))
        """the number of rows up to and with each document"""
        self.count = int(self._last[-1])
        if self.count == 0:
            raise DataError(f"{self.view.path}: too little text: no token to predict; give more text")

    def rows(self, index: Ints, place: int) -> Rows:
        view = self.view
        document = np.searchsorted(self._last, index, side="right")
        part = index - np.where(document > 0, self._last[document - 1], 0)
        first = self.view.starts[document][:, None]
        column = part[:, None] * self.sequence + np.arange(self.sequence + 1) - self._lead
        inside = (column >= 0) & (column < self._ends[document][:, None] - first)
        tokens = np.where(inside, self.view.tokens[np.where(inside, first + column, 0)].astype(np.int64), view.pad_id)
        if view.start_id is not None:
            tokens[column < 0] = view.start_id
            inside |= column < 0
        return Rows(tokens, np.where(inside, 0, -1))


def _document_of(view: View, position: Ints) -> Ints:
    """The document of each token position; of documents with no token, none is ever found."""
    return np.searchsorted(view.starts, position, side="right").astype(np.int64) - 1


def _number(document: Ints, padding: int | None = None) -> Ints:
    """Numbers documents within each row from 0: how often the document has changed up to each column."""
    changes = np.cumsum(np.diff(document, axis=1, prepend=document[:, :1]) != 0, axis=1)
    return changes if padding is None else np.where(document == padding, -1, changes)


def _check_sequence(sequence: int) -> None:
    if sequence < 1:
        raise ConfigError(f"train.sequence: got {sequence}, expected 1 or more")
