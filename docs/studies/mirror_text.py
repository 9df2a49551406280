"""Writes a text whose entropy is known: lines of 3 random letters of 8, then the same letters in reverse.

    python docs/studies/mirror_text.py mirror.txt

A line has 7 characters. Only its first 3 are free, so its entropy is 3·ln 8 nats, 0.8912 a character; without memory of
the line, the last 3 letters cost ln 8 each, too: 1.7825 a character. Where to read a letter back from depends on the
position in the line. (A row that begins within a line has letters to guess: the least possible loss on rows of 128 is
a little above the entropy.) 7 has no factor in common with the length of a row, so that rows begin at every place of a
line: with 8 characters a line all rows of an epoch begin at the same place, and a code of absolute positions learns
that place by heart.
"""

from __future__ import annotations

import math
import random
import sys

LETTERS, FREE, LINES = "abcdefgh", 3, 20_000


def text(lines: int = LINES, seed: int = 1) -> str:
    """The text, a function of the seed."""
    draw, written = random.Random(seed), []
    for _ in range(lines):
        word = "".join(draw.choice(LETTERS) for _ in range(FREE))
        written.append(f"{word}{word[::-1]}\n")
    return "".join(written)


if __name__ == "__main__":
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        file.write(text())
    entropy = FREE * math.log(len(LETTERS)) / (2 * FREE + 1)
    print(f"{LINES:,} lines; entropy {entropy:.4f} nats a character; without memory {2 * entropy:.4f}")
