"""A document: a range of bytes of a file, read piece by piece as exact Unicode text."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cllm.errors import DataError

BLOCK = 1 << 16
"""Bytes read at a time (the tokenizer trainer holds 256 pieces of about this size)."""

BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Document:
    """The bytes `start` to `stop` of the file `path`, one document of a corpus; `name` is what people see."""

    name: str
    path: Path
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.stop - self.start

    def blocks(self, seen: Callable[[bytes], object] | None = None) -> Iterator[str]:
        """The text, in blocks cut anywhere between two characters. `seen` is given the bytes of each block.

        Raises DataError for a file that cannot be read, that has become shorter, or that is not UTF-8 (with
        the byte offset and the line in the file).
        """
        decoder = codecs.getincrementaldecoder("utf-8")("strict")
        position, lines = self.start, 0
        try:
            with self.path.open("rb") as file:
                file.seek(self.start)
                while position < self.stop:
                    block = file.read(min(BLOCK, self.stop - position))
                    if not block:
                        raise DataError(
                            f"{self.name}: {position} bytes, expected {self.stop}: it changed while being read"
                        )
                    if seen is not None:
                        seen(block)
                    pending = decoder.getstate()[0]
                    final = position + len(block) == self.stop
                    try:
                        text = decoder.decode(block, final)
                    except UnicodeDecodeError as e:
                        before = lines + (pending + block)[: e.start].count(b"\n")
                        raise self._not_utf8(position - len(pending) + e.start, before) from None
                    lines += block.count(b"\n")
                    position += len(block)
                    if text:
                        yield text
        except OSError as e:
            raise DataError(f"{self.name}: cannot read it: {e.strerror}") from None

    def pieces(self, seen: Callable[[bytes], object] | None = None) -> Iterator[str]:
        """The text, cut only before a space or line feed that follows another character, so that a tokenizer
        with `cuts_before_space` gives the same ids as for the whole. Raises what `blocks` raises."""
        held: list[str] = []
        for block in self.blocks(seen):
            cut = last_cut(block)
            if cut == 0:  # nowhere in this block: it stays with what follows
                held.append(block)
                continue
            held.append(block[:cut])
            yield "".join(held)
            held = [block[cut:]]
        rest = "".join(held)
        if rest:
            yield rest

    def _not_utf8(self, offset: int, lines_before: int) -> DataError:
        with self.path.open("rb") as file:
            head = file.read(2)
            file.seek(offset)
            got = file.read(1)
            file.seek(0)
            line = lines_before + 1 + _count_lines(self.path, self.start)
        hint = (
            f"it looks like UTF-16; convert it: iconv -f UTF-16 -t UTF-8 {self.name} > utf8.txt"
            if head in (b"\xff\xfe", b"\xfe\xff")
            else f"convert it, for example: iconv -f LATIN1 -t UTF-8 {self.name} > utf8.txt"
        )
        return DataError(
            f"{self.name}: byte {offset} (line {line}): got 0x{got.hex()}, which is not valid UTF-8; "
            f"expected UTF-8 text; {hint}"
        )


def last_cut(text: str) -> int:
    """The last place > 0 where a space or line feed follows a visible character; 0 if there is none."""
    end = len(text)
    while end > 0:
        cut = max(text.rfind("\n", 1, end), text.rfind(" ", 1, end))
        if cut <= 0:
            return 0
        if text[cut - 1].isprintable() and text[cut - 1] != " ":
            return cut
        end = cut
    return 0


def _count_lines(path: Path, stop: int) -> int:
    count = 0
    with path.open("rb") as file:
        while stop > 0 and (block := file.read(min(BLOCK, stop))):
            count += block.count(b"\n")
            stop -= len(block)
    return count
