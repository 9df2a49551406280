"""What a body of text is like: lengths, copies, characters, what is wrong with it; in one or two passes."""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cllm.data.prepare import Progress
from cllm.data.scan import scan
from cllm.data.sources import find_sources
from cllm.data.table import Documents, Ints
from cllm.errors import DataError
from cllm.text import Tokenizer
from cllm.text.usage import Usage, measure

_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")


@dataclass(frozen=True)
class Inspection:
    """`lengths`: characters of each document, int64 [n]. The other fields are those of `to_dict`."""

    names: tuple[str, ...]
    files: int
    bytes: int
    lengths: Ints
    shortest: str
    longest: str
    duplicates: int
    crlf: int
    beyond_ascii: int
    commonest: tuple[tuple[str, int], ...]
    invalid: int
    invalid_first: tuple[str, ...]
    notes: tuple[str, ...]
    usage: Usage | None

    @property
    def characters(self) -> int:
        return int(self.lengths.sum())

    def quantile(self, share: float) -> int:
        """The smallest length that at least `share` of the documents do not exceed."""
        return int(np.sort(self.lengths)[max(0, int(np.ceil(share * len(self.lengths))) - 1)])

    def histogram(self) -> list[tuple[int, int, int]]:
        """(from, up to, documents) with lengths from 2^k to 2^(k+1) − 1 characters, the empty ends left out."""
        k = np.floor(np.log2(np.maximum(self.lengths, 1))).astype(np.int64)
        counts = np.bincount(k)
        first = int(np.flatnonzero(counts)[0])
        return [(1 << i, (2 << i) - 1, int(counts[i])) for i in range(first, len(counts))]

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        found: dict[str, Any] = {
            "documents": len(self.lengths),
            "files": self.files,
            "bytes": self.bytes,
            "characters": self.characters,
            "shortest": {"name": self.shortest, "characters": int(self.lengths.min())},
            "longest": {"name": self.longest, "characters": int(self.lengths.max())},
            "mean": self.characters / len(self.lengths),
            "quantiles": {str(q): self.quantile(q) for q in (0.05, 0.25, 0.5, 0.75, 0.95)},
            "histogram": [{"from": a, "to": b, "documents": n} for a, b, n in self.histogram()],
            "duplicates": self.duplicates,
            "crlf": self.crlf,
            "characters_beyond_ascii": self.beyond_ascii,
            "commonest_beyond_ascii": [{"character": c, "count": n} for c, n in self.commonest],
            "invalid": self.invalid,
            "invalid_first": list(self.invalid_first),
            "notes": list(self.notes),
        }
        return found | ({"tokenizer": self.usage.to_dict()} if self.usage is not None else {})


def inspect(
    paths: Sequence[str | os.PathLike[str]],
    *,
    field: str | None = None,
    tokenizer: Tokenizer | None = None,
    progress: Progress | None = None,
    stdin: BinaryIO | None = None,
) -> Inspection:
    """Reads all that `paths` name (see `find_sources`). Records and files that cannot be used are counted and
    named, not refused. Raises DataError where nothing can be read, MissingExtraError."""
    with tempfile.TemporaryDirectory(prefix="cllm-inspect-") as spool:
        read = None if progress is None else lambda done, total: progress("read", done, total)
        sources = find_sources(paths, Path(spool), stdin, field=field, skip_bad=True, read=read)
        return _inspect(tuple(os.fspath(p) for p in paths), sources, tokenizer, progress)


def _inspect(
    names: tuple[str, ...], sources: Any, tokenizer: Tokenizer | None, progress: Progress | None
) -> Inspection:
    documents: Documents = sources.documents
    total, done = int(documents.sizes.sum()), 0
    bad, crlf = sources.bad, 0
    beyond: Counter[str] = Counter()

    def visit(text: str) -> None:
        if not text.isascii():
            beyond.update(_BEYOND_ASCII.findall(text))

    lengths = np.zeros(len(documents), dtype=np.int64)
    usable = np.ones(len(documents), dtype=bool)
    seen: set[bytes] = set()
    duplicates = 0
    for i, document in enumerate(documents):
        try:
            found = scan(document, visit=visit)
        except DataError as e:
            bad.add(document.name, str(e).removeprefix(f"{document.name}: "))
            usable[i] = False
            continue
        finally:
            done += document.size
            if progress is not None:
                progress("scan", done, total)
        lengths[i] = found.characters
        crlf += found.crlf
        digest = bytes.fromhex(found.sha256)[:16]
        duplicates += digest in seen
        seen.add(digest)
    if not usable.any():
        raise DataError(f"nothing can be read: {bad}")
    kept, lengths = documents.take(usable), lengths[usable]
    usage = None
    if tokenizer is not None:
        usage = measure(tokenizer, (document.pieces() for document in kept))
    return Inspection(
        names=names,
        files=len(np.unique(kept.columns[:, 0])),
        bytes=int(kept.sizes.sum()),
        lengths=lengths,
        shortest=kept[int(lengths.argmin())].name,
        longest=kept[int(lengths.argmax())].name,
        duplicates=duplicates,
        crlf=crlf,
        beyond_ascii=beyond.total(),
        commonest=tuple(sorted(beyond.items(), key=lambda item: (-item[1], item[0]))[:10]),
        invalid=bad.count,
        invalid_first=tuple(bad.first),
        notes=tuple(note for note in sources.notes if not note.startswith("left out: ")),
        usage=usage,
    )
