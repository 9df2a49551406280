"""The byte alphabet of byte-level BPE: one printable character for each of the 256 bytes.

Source: GPT-2's `bytes_to_unicode` (Radford et al. 2019). Printable Latin-1 bytes stand for themselves; the
other 68 are mapped, in order, to the characters from U+0100 on.
"""

from __future__ import annotations

from functools import cache


@cache
def byte_of_character() -> dict[str, int]:
    """The byte that each of the 256 characters of the alphabet stands for."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(b): b for b in printable}
    others = (b for b in range(256) if b not in set(printable))
    table.update({chr(0x100 + n): b for n, b in enumerate(others)})
    return table


def to_bytes(token: str) -> bytes | None:
    """The bytes of a token written in the byte alphabet; None if it holds another character."""
    table = byte_of_character()
    try:
        return bytes(table[c] for c in token)
    except KeyError:
        return None
