"""Writes a text whose entropy is known: lines of 8 random letters of 16, a bar, and the same letters in reverse.

    python docs/studies/mirror_text.py mirror.txt

A line has 18 characters. Only its first 8 are free, so its entropy is 8·ln 16 nats, 1.2323 a character; without memory
of the line, the last 8 letters cost ln 16 each, too: 2.4645 a character. Where a letter has to be read back from depends
on the position in the line. (A row that begins within a line has its first letters to guess: the least possible loss
on rows of 128 is a little above the entropy.)
"""

from __future__ import annotations

import math
import random
import sys

LETTERS, FREE, LINES = "abcdefghijklmnop", 8, 20_000


def text(lines: int = LINES, seed: int = 1) -> str:
    """The text, a function of the seed."""
    draw, written = random.Random(seed), []
    for _ in range(lines):
        word = "".join(draw.choice(LETTERS) for _ in range(FREE))
        written.append(f"{word}|{word[::-1]}\n")
    return "".join(written)


if __name__ == "__main__":
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        file.write(text())
    entropy = FREE * math.log(len(LETTERS)) / (2 * FREE + 2)
    print(f"{LINES:,} lines; entropy {entropy:.4f} nats a character; without memory {2 * entropy:.4f}")
