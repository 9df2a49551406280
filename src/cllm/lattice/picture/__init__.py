"""Pictures of the maps, drawn from values: SVG with nothing else installed, PNG, GIF and APNG with Pillow."""

from __future__ import annotations

from pathlib import Path

from cllm.errors import DomainError
from cllm.lattice.picture.animation import save_animation
from cllm.lattice.picture.colouring import SCHEMES, colour
from cllm.lattice.picture.plans import MAPS, scene
from cllm.lattice.picture.raster import draw, save_png
from cllm.lattice.picture.readback import check_primes, read_cells
from cllm.lattice.picture.scene import Scene
from cllm.lattice.picture.svg import save_svg, svg


def save(picture: Scene, path: str | Path, size: int = 1000) -> None:
    """Write a scene as `.png` or `.svg`."""
    suffix = Path(path).suffix.lower()
    if suffix == ".svg":
        save_svg(picture, path, size)
    elif suffix == ".png":
        save_png(picture, path, size)
    else:
        raise DomainError(f"save: the name must end in .png or .svg, got {Path(path).name!r}")


__all__ = [
    "MAPS",
    "SCHEMES",
    "Scene",
    "check_primes",
    "colour",
    "draw",
    "read_cells",
    "save",
    "save_animation",
    "save_png",
    "save_svg",
    "scene",
    "svg",
]
