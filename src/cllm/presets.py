"""The named models: sizes that a preset fills in where a run file is silent (docs/model.md has the table)."""

from __future__ import annotations

from typing import Final

# name → layers, width, heads, ff, vocab, context
PRESETS: Final[dict[str, dict[str, int]]] = {
    name: dict(zip(("layers", "width", "heads", "ff", "vocab", "context"), sizes, strict=True))
    for name, sizes in {
        "nano": (2, 32, 2, 128, 512, 64),
        "small": (4, 128, 4, 512, 1000, 512),
        "seed": (6, 512, 8, 2048, 10000, 512),
        "medium": (8, 512, 8, 2048, 10000, 1024),
        "large": (12, 1024, 16, 4096, 50000, 2048),
        "gpt2": (12, 768, 12, 3072, 50257, 1024),
    }.items()
}

DEFAULT: Final = "small"
