"""Numbers of processes on the command line: `--processes 1,2,4` or `1..4096` (doubling)."""

from __future__ import annotations

from collections.abc import Sequence

from cllm.errors import UsageError


def numbers(words: Sequence[str] | None, default: Sequence[int]) -> list[int]:
    """["1,2", "4..16"] → [1, 2, 4, 8, 16]. Raises UsageError for what is no number of processes."""
    if not words:
        return list(default)
    found: list[int] = []
    for word in (part for text in words for part in text.split(",")):
        first, dots, last = word.partition("..")
        if not first.isdecimal() or int(first) < 1 or (dots and not (last.isdecimal() and int(last) >= int(first))):
            raise UsageError(f"--processes {word}: expected numbers of 1 or more, as in 1,2,4 or 1..4096 (doubling)")
        found.append(int(first))
        while dots and 2 * found[-1] <= int(last):
            found.append(2 * found[-1])
    return found
