"""The split into a training and a validation part: whole documents, or the tail of a single one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from cllm.data.documents import Document
from cllm.data.philox import permutation, words
from cllm.data.table import Documents
from cllm.errors import ConfigError, DataError

PURPOSE = 1
"""Sets the split's random numbers apart from those of the row order."""

SEARCH = 4096
"""A tail starts at the first line within so many bytes of the wanted place (or a quarter of the tail)."""


@dataclass(frozen=True)
class Split:
    """Two lists of documents that share no byte; `val` may be empty only where no validation was asked
    for."""

    train: Documents
    val: Documents
    notes: tuple[str, ...]


def split(documents: Iterable[Document], fraction: float, seed: int) -> Split:
    """Sets about `fraction` of the bytes aside for validation.

    Several documents: in an order drawn from `seed`, each is taken that brings the sum nearer to `fraction`
    of the bytes; where none does, the smallest is taken, and a note says how much it is. The order of
    documents within each part stays that of the sources. A single document gives its contiguous tail, from
    the start of a line where there is one near the place. `fraction` 0 gives no validation part.

    Raises ConfigError for a fraction outside [0, 1) or a seed that cannot be, DataError for a document too
    small to be cut in two.
    """
    if not 0 <= fraction < 1:
        raise ConfigError(f"val_fraction: got {fraction}, expected 0 ≤ val_fraction < 1")
    words(0, seed, 0, PURPOSE)  # checks the seed
    documents = Documents.of(documents)
    if fraction == 0:
        return Split(documents, documents[:0], ())
    if len(documents) == 1:
        place = _place(documents[0], fraction)
        start, stop = documents.columns[0, 1:3].tolist()
        return Split(documents.with_range(start, place), documents.with_range(place, stop), ())
    sizes = documents.sizes
    total = int(sizes.sum())
    wanted, taken, count = fraction * total, 0, 0
    chosen = np.zeros(len(sizes), dtype=bool)
    order = permutation(len(sizes), seed, 0, PURPOSE)
    for at in range(0, len(order), 4096):  # Python numbers of all of them would take more memory than the table
        part = order[at : at + 4096]
        for i, size in zip(part.tolist(), sizes[part].tolist(), strict=True):
            if count < len(sizes) - 1 and abs(taken + size - wanted) < abs(taken - wanted):
                chosen[i] = True
                taken += size
                count += 1
    notes: list[str] = []
    if not count:
        smallest = int(np.argmin(sizes))
        chosen[smallest], taken = True, int(sizes[smallest])
    if taken > 2 * wanted:
        notes.append(
            f"the validation part is {taken / total:.0%} of the text, not {fraction:.0%}: documents stay whole, "
            "and these are large; join them into one file to have its tail instead"
        )
    return Split(documents.take(~chosen), documents.take(chosen), tuple(notes))


def _place(document: Document, fraction: float) -> int:
    """Where a document's tail starts: it has about `fraction` of the bytes, and head and tail have at least one
    character."""
    place = document.stop - max(1, round(document.size * fraction))
    try:
        with document.path.open("rb") as file:
            file.seek(place)
            near = file.read(min(SEARCH, (document.stop - place) // 4))
            line = near.find(b"\n") + 1
            if 0 < line < len(near):
                place += line
            else:
                place = _boundary(file, place, -1)
                if place <= document.start:
                    place = _boundary(file, document.start + 1, +1)
    except OSError as e:
        raise DataError(f"{document.name}: cannot read it: {e.strerror}") from None
    if not document.start < place < document.stop:
        raise DataError(
            f"{document.name}: too little text: {document.size} bytes cannot be cut into a training and a "
            "validation part, which takes two characters; give more text"
        )
    return place


def _boundary(file: BinaryIO, place: int, direction: int) -> int:
    """The nearest place from `place` on in `direction` that is not inside a UTF-8 character."""
    file.seek(place)
    while (byte := file.read(1)) and byte[0] & 0xC0 == 0x80:
        place += direction
        file.seek(place)
    return place
