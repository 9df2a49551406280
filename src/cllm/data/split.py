"""The split into a training and a validation part: whole documents, or the tail of a single one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from cllm.data.documents import Document
from cllm.data.philox import permutation, words
from cllm.errors import ConfigError, DataError

PURPOSE = 1
"""Sets the split's random numbers apart from those of the row order."""

SEARCH = 4096
"""A tail starts at the first line within so many bytes of the wanted place (or a quarter of the tail)."""


@dataclass(frozen=True)
class Split:
    """Two lists of documents that share no byte; `val` may be empty only where no validation was asked
    for."""

    train: tuple[Document, ...]
    val: tuple[Document, ...]
    notes: tuple[str, ...]


def split(documents: Sequence[Document], fraction: float, seed: int) -> Split:
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
    if fraction == 0:
        return Split(tuple(documents), (), ())
    if len(documents) == 1:
        head, tail = _cut(documents[0], fraction)
        return Split((head,), (tail,), ())
    total = sum(d.size for d in documents)
    wanted, taken = fraction * total, 0
    chosen: set[int] = set()
    for i in permutation(len(documents), seed, 0, PURPOSE):
        size = documents[int(i)].size
        if len(chosen) < len(documents) - 1 and abs(taken + size - wanted) < abs(taken - wanted):
            chosen.add(int(i))
            taken += size
    notes = []
    if not chosen:
        smallest = min(range(len(documents)), key=lambda i: (documents[i].size, i))
        chosen, taken = {smallest}, documents[smallest].size
    if taken > 2 * wanted:
        notes.append(
            f"the validation part is {taken / total:.0%} of the text, not {fraction:.0%}: documents stay whole, "
            "and these are large; join them into one file to have its tail instead"
        )
    return Split(
        tuple(d for i, d in enumerate(documents) if i not in chosen),
        tuple(d for i, d in enumerate(documents) if i in chosen),
        tuple(notes),
    )


def _cut(document: Document, fraction: float) -> tuple[Document, Document]:
    """A document's head and tail; the tail has about `fraction` of the bytes and both have at least one
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
            "validation part; give more text, or set data.val_fraction=0"
        )
    return replace(document, stop=place), replace(document, start=place)


def _boundary(file: BinaryIO, place: int, direction: int) -> int:
    """The nearest place from `place` on in `direction` that is not inside a UTF-8 character."""
    file.seek(place)
    while (byte := file.read(1)) and byte[0] & 0xC0 == 0x80:
        place += direction
        file.seek(place)
    return place
