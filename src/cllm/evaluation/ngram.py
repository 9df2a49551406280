"""Byte n-gram models with Witten–Bell smoothing: what a language model has to beat.

Interpolated form (Witten & Bell 1991, method C; Chen & Goodman 1999, eq. 16): with c(h, w) the count of byte
w after the context h, c(h) = Σ_w c(h, w), t(h) the number of different bytes seen after h, and h′ the context
without its first byte,

    p(w | h) = (c(h, w) + t(h) · p(w | h′)) / (c(h) + t(h)),      p(w | h) = p(w | h′) where c(h) = 0,

down to the empty context, below which every byte has 1/256. Order n uses contexts of n − 1 bytes. Contexts do
not cross a document's beginning: its first bytes have shorter ones, in fitting as in scoring.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cllm.errors import DataError, UsageError

LARGEST_ORDER: Final = 8
"""A gram is kept in one 64-bit word."""

CHUNK: Final = 1 << 20
"""Bytes worked on at a time: memory is bounded by this and the number of different grams."""

Words = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Table:
    """The grams of one order (context bytes, then the byte) and the contexts they begin with, both sorted."""

    grams: Words
    counts: Counts
    contexts: Words
    totals: Counts
    """c(h)"""
    kinds: Counts
    """t(h)"""


class NgramModel:
    """Counts of all orders 1 … `order` of some text; scores bytes with any of them."""

    def __init__(self, documents: Iterable[bytes], order: int) -> None:
        """Counts the documents. Raises UsageError for an order outside 1…8, DataError for no byte at all."""
        if not 1 <= order <= LARGEST_ORDER:
            raise UsageError(f"n-gram order: got {order}, expected 1 to {LARGEST_ORDER}")
        self.order = order
        counted: list[tuple[Words, Counts]] = [(np.empty(0, np.uint64), np.empty(0, np.int64)) for _ in range(order)]
        for block in _blocks(documents, order - 1):
            for n in range(1, order + 1):
                grams, counts = np.unique(block.grams(n), return_counts=True)
                counted[n - 1] = _merge(counted[n - 1], (grams, counts.astype(np.int64)))
        if not len(counted[0][0]):
            raise DataError("n-gram model: there is no text to fit it on")
        self._tables = [_table(*c) for c in counted]

    def bits(self, documents: Iterable[bytes], orders: Sequence[int] | None = None) -> tuple[dict[int, float], int]:
        """The bits that each of `orders` (default: the model's own) needs for `documents`, and how many bytes
        those are. Raises UsageError for an order that was not counted."""
        orders = [self.order] if orders is None else list(orders)
        for n in orders:
            if not 1 <= n <= self.order:
                raise UsageError(f"n-gram order: got {n}, expected 1 to {self.order}")
        bits, size = dict.fromkeys(orders, 0.0), 0
        for block in _blocks(documents, max(orders) - 1):
            size += block.size
            p = np.full(block.size, 1 / 256)
            for n in range(1, max(orders) + 1):
                p = self._interpolate(p, n, block)
                if n in bits:
                    bits[n] -= float(np.log2(p).sum())
        return bits, size

    def distribution(self, context: bytes, order: int | None = None) -> Floats:
        """p(w | context) for each byte w, float64 [256]; of `context` the last order − 1 bytes count."""
        order = self.order if order is None else order
        history = context[-(order - 1) :] if order > 1 else b""
        p = np.full(256, 1 / 256)
        for n in range(1, min(order, len(history) + 1) + 1):
            h = int.from_bytes(history[len(history) - n + 1 :], "big")
            grams = (np.uint64(h) << np.uint64(8)) | np.arange(256, dtype=np.uint64)
            p = _mix(p, *_look_up(grams, self._tables[n - 1]))
        return p

    def _interpolate(self, p: Floats, n: int, block: _Block) -> Floats:
        """One order up, for every byte of the block that has n − 1 bytes before it."""
        grams = block.grams(n)
        if not len(grams):
            return p
        result = p.copy()
        where = block.has(n)
        different, inverse = np.unique(grams, return_inverse=True)  # few: searches are then fast and in order
        count, total, kinds = (x[inverse] for x in _look_up(different, self._tables[n - 1]))
        result[where] = _mix(p[where], count, total, kinds)
        return result


def ngram_bits_per_byte(
    train: Iterable[bytes], val: Iterable[bytes], orders: Sequence[int] = (1, 2, 3, 5)
) -> dict[int, float]:
    """Bits per byte on `val` of the models of each order fitted on `train` (documents as bytes, each read
    once).

    Only bytes are scored: unlike a language model's figure, no end of document is paid for. Raises DataError
    for an empty part, UsageError for an order outside 1…8.
    """
    model = NgramModel(train, max(orders))
    bits, size = model.bits(val, orders)
    if size == 0:
        raise DataError("n-gram model: there is no text to score it on")
    return {n: bits[n] / size for n in orders}


@dataclass(frozen=True)
class _Block:
    """`size` bytes of documents, each byte with its history: `words` holds the 8 bytes up to and with it,
    `reach` how many of them belong to its document."""

    size: int
    words: Words
    reach: Counts

    def has(self, n: int) -> npt.NDArray[np.bool_]:
        """Which bytes have n − 1 bytes of history."""
        return self.reach >= n

    def grams(self, n: int) -> Words:
        """The grams of order n that end at those bytes."""
        mask = np.uint64((1 << 8 * n) - 1)
        return (self.words & mask)[self.has(n)]


def _blocks(documents: Iterable[bytes], history: int) -> Iterator[_Block]:
    """Cuts documents into blocks; small documents share one, a large one has several."""
    parts: list[_Block] = []
    waiting = 0
    for document in documents:
        for start in range(0, len(document), CHUNK):
            before = min(start, history)
            piece = np.frombuffer(document[start - before : start + CHUNK], dtype=np.uint8).astype(np.uint64)
            words = piece.copy()
            for k in range(1, min(history + 1, len(piece))):
                words[k:] |= piece[: len(piece) - k] << np.uint64(8 * k)
            reach = np.minimum(np.arange(1, len(piece) + 1), history + 1)
            parts.append(_Block(len(piece) - before, words[before:], reach[before:]))
            waiting += parts[-1].size
            if waiting >= CHUNK:
                yield _join(parts)
                parts, waiting = [], 0
    if parts:
        yield _join(parts)


def _join(parts: list[_Block]) -> _Block:
    if len(parts) == 1:
        return parts[0]
    return _Block(
        sum(p.size for p in parts),
        np.concatenate([p.words for p in parts]),
        np.concatenate([p.reach for p in parts]),
    )


def _merge(a: tuple[Words, Counts], b: tuple[Words, Counts]) -> tuple[Words, Counts]:
    """Adds the counts of two sorted tables of grams."""
    if not len(a[0]):
        return b
    grams = np.concatenate([a[0], b[0]])
    order = np.argsort(grams, kind="stable")
    grams, counts = grams[order], np.concatenate([a[1], b[1]])[order]
    first = np.flatnonzero(np.diff(grams, prepend=~grams[:1]) != 0)
    return grams[first], np.add.reduceat(counts, first)


def _table(grams: Words, counts: Counts) -> _Table:
    contexts, first, kinds = np.unique(grams >> np.uint64(8), return_index=True, return_counts=True)
    totals = np.add.reduceat(counts, first) if len(grams) else counts
    return _Table(grams, counts, contexts, totals, kinds.astype(np.int64))


def _look_up(grams: Words, table: _Table) -> tuple[Counts, Counts, Counts]:
    """c(h, w), c(h) and t(h) of each gram; zeros for what was not seen."""
    zeros = np.zeros(len(grams), dtype=np.int64)
    if not len(table.grams):
        return zeros, zeros, zeros
    at = np.minimum(np.searchsorted(table.grams, grams), len(table.grams) - 1)
    count = np.where(table.grams[at] == grams, table.counts[at], 0)
    contexts = grams >> np.uint64(8)
    at = np.minimum(np.searchsorted(table.contexts, contexts), len(table.contexts) - 1)
    seen = table.contexts[at] == contexts
    return count, np.where(seen, table.totals[at], 0), np.where(seen, table.kinds[at], 0)


def _mix(p: Floats, count: Counts, total: Counts, kinds: Counts) -> Floats:
    """p(w | h) from p(w | h′) and the counts of (h, w)."""
    return np.where(total > 0, (count + kinds * p) / np.maximum(total + kinds, 1), p)
