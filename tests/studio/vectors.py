"""Vectors for the pages' own inverse maps, written by the maps themselves: `python tests/studio/vectors.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from cllm.studio.lattice_curves import CURVES, Options

FILE = Path(__file__).resolve().parents[2] / "web" / "test" / "vectors" / "maps.json"
_CASES: list[tuple[str, dict[str, Any]]] = [
    ("ulam", {"start": 1}), ("ulam", {"start": 41}), ("hilbert", {"start": 0}), ("hilbert", {"start": 7}),
    ("sacks", {}), ("wheel", {"modulus": 30}), ("wheel", {"modulus": 7}), ("ring-clock", {"start": 0}),
    ("ring-clock", {"start": 5}),
]  # fmt: skip


def numbers(start: int) -> list[int]:
    """Small ones, the neighbours of squares and of powers, and some far out."""
    found = {*range(60), *(k * k + d for k in (7, 8, 100, 999, 1000, 99_999) for d in (-1, 0, 1, 2))}
    found |= {10**k + d for k in range(2, 13) for d in (-1, 0)} | {4**k - 1 for k in range(2, 20)}
    return sorted(n + start for n in found if n + start <= 10**12)


def made() -> list[dict[str, Any]]:
    """The cases: curve, settings, numbers and their places."""
    cases = []
    for name, options in _CASES:
        n = np.array(numbers(options.get("start", 0)), dtype=np.int64)
        x, y = CURVES[name].place(n, Options(**options))
        cases.append({"curve": name, "options": options, "n": n.tolist(), "x": x.tolist(), "y": y.tolist()})
    return cases


if __name__ == "__main__":
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(json.dumps(made(), separators=(",", ":")) + "\n")
