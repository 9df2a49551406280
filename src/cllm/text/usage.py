"""How a tokenizer fares on some text: compression, tokens that are rare or never used, the longest tokens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cllm.text.tokenizer import Tokenizer

RARE = 10
"""A token used fewer times than this is called rare: its embedding has hardly been trained."""

BATCH = 1 << 19
"""Characters encoded together."""


@dataclass(frozen=True)
class Usage:
    """`counts`: how often each id was used, int64 [V]; `bytes`, `characters`, `documents` of the text."""

    tokenizer: Tokenizer
    counts: npt.NDArray[np.int64]
    bytes: int
    characters: int
    documents: int

    @property
    def tokens(self) -> int:
        """Tokens in all (EOS, which is put after each document, is not counted)."""
        return int(self.counts.sum())

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / max(self.tokens, 1)

    @property
    def unknown(self) -> int:
        """Tokens that are UNK."""
        return 0 if self.tokenizer.unk_id is None else int(self.counts[self.tokenizer.unk_id])

    def _ordinary(self) -> npt.NDArray[np.int64]:
        ids = np.arange(len(self.counts))
        named = np.array([self.tokenizer.token(i) != "" for i in ids.tolist()])
        return ids[named & ~np.isin(ids, list(self.tokenizer.special_ids))]

    @property
    def unused(self) -> list[int]:
        """The ids (special tokens apart) that the text never uses."""
        ids = self._ordinary()
        found: list[int] = ids[self.counts[ids] == 0].tolist()
        return found

    @property
    def rare(self) -> list[int]:
        """The ids (special tokens apart) that the text uses, but fewer than `RARE` times."""
        ids = self._ordinary()
        found: list[int] = ids[(self.counts[ids] > 0) & (self.counts[ids] < RARE)].tolist()
        return found

    def commonest(self, count: int = 10) -> list[tuple[int, int]]:
        """The ids used most, each with how often; ties by id."""
        order = np.argsort(-self.counts, kind="stable")[:count]
        return [(int(i), int(self.counts[i])) for i in order if self.counts[i]]

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "sha256": self.tokenizer.sha256,
            "documents": self.documents,
            "bytes": self.bytes,
            "characters": self.characters,
            "tokens": self.tokens,
            "bytes_per_token": self.bytes_per_token,
            "tokens_per_document": self.tokens / max(self.documents, 1),
            "unknown": self.unknown,
            "unused": len(self.unused),
            "rare": len(self.rare),
            "rare_below": RARE,
            "commonest": [{"id": i, "token": shown(self.tokenizer, i), "count": n} for i, n in self.commonest()],
        }


def measure(tokenizer: Tokenizer, documents: Iterable[Iterable[str]]) -> Usage:
    """Encodes the documents, each given in pieces whose ids can be joined, and counts. Memory is bounded for a
    tokenizer with `cuts_before_space`; for others a document is held at a time."""
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    size = characters = number = held = 0
    batch: list[str] = []

    def flush() -> None:
        for ids in tokenizer.encode_batch(batch):
            counts[:] += np.bincount(np.array(ids, dtype=np.int64), minlength=len(counts))
        batch.clear()

    for pieces in documents:
        number += 1
        for piece in pieces if tokenizer.cuts_before_space else ["".join(pieces)]:
            size += len(piece.encode())
            characters += len(piece)
            batch.append(piece)
            held += len(piece) + 64
            if held >= BATCH:
                flush()
                held = 0
    flush()
    return Usage(tokenizer, counts, size, characters, number)


def shown(tokenizer: Tokenizer, i: int) -> str:
    """A token as people read it: its text, or, where its bytes are no whole characters, the file's spelling."""
    if tokenizer.pieces is None or i in tokenizer.special_ids:
        return tokenizer.token(i)
    try:
        return tokenizer.pieces[i].decode()
    except UnicodeDecodeError:
        return tokenizer.token(i)


def longest(tokenizer: Tokenizer, count: int = 10) -> list[tuple[int, str]]:
    """The ids with most bytes (characters where tokens have no bytes of their own), special ones apart."""
    pieces = tokenizer.pieces
    ids = [i for i in range(tokenizer.vocab_size) if i not in tokenizer.special_ids]
    lengths = {i: len(pieces[i]) if pieces is not None else len(tokenizer.token(i)) for i in ids}
    return [(i, shown(tokenizer, i)) for i in sorted(ids, key=lambda i: (-lengths[i], i))[:count] if lengths[i]]
