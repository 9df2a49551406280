"""Draw the pictures of docs/lattice.md: `python docs/pictures.py` writes docs/pictures/*."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from cllm.lattice.picture import draw, save_animation, save_png, scene

FOLDER = Path(__file__).parent / "pictures"
SIZE = 420
PICTURES: dict[str, dict[str, Any]] = {
    "ulam": {"count": 101 * 101},
    "crystalline": {"count": 2500, "scheme": "least"},
    "vogel": {"count": 1200, "scheme": "mu"},
    "wheel": {"count": 480, "modulus": 12},
    "folded-clock": {"scheme": "residue", "count": 928},
}
ANIMATION = {"count": 232}


def main(folder: Path = FOLDER) -> None:
    """Write every picture into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, options in PICTURES.items():
        picture, path = scene(name, **options), folder / f"{name}.png"
        if picture.cells is not None:
            save_png(picture, path, SIZE)
        else:  # 64 colours keep an anti-aliased picture under 60 kB
            draw(picture, SIZE).quantize(64, dither=0).save(path, optimize=True)
    save_animation(scene("ring-clock", **ANIMATION), folder / "ring-clock.gif", frames=24, size=200, duration=90)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
