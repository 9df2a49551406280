"""The growth of a map, number by number, as GIF or APNG: for the ring clock, ring after ring with its hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cllm.errors import DomainError, LimitError
from cllm.lattice.picture.palette import TEXT, blend
from cllm.lattice.picture.raster import draw, pillow
from cllm.lattice.picture.scene import Scene

MAX_FRAMES = 600
HOLD = 1800  # milliseconds on the last frame


def frame_scene(scene: Scene, index: int, frames: int) -> Scene:
    """Frame `index` of `frames`: the first ⌈count·(index+1)/frames⌉ integers, the newest whitened."""
    shown = -(-scene.count * (index + 1) // frames)
    before = -(-scene.count * index // frames)
    part = scene.first(shown)
    if index == frames - 1:
        return part
    if part.dots is not None:
        colours, bright, radius = part.dots.colours.copy(), part.dots.bright.copy(), part.dots.radius.copy()
        colours[before:] = blend(colours[before:], TEXT, 0.55)
        radius[before:] = np.maximum(radius[before:], 0.8 * float(scene.dots.radius.max() if scene.dots else 0.0))
        bright[before:] = True
        hand = (float(part.dots.x[-1]), float(part.dots.y[-1])) if scene.parameters.get("map") == "ring-clock" else None
        return replace(part, dots=replace(part.dots, colours=colours, bright=bright, radius=radius), hand=hand)
    if part.cells is not None:
        colours = part.cells.colours.copy()
        colours[before:] = blend(colours[before:], TEXT, 0.35)
        return replace(part, cells=replace(part.cells, colours=colours))
    return part


def save_animation(scene: Scene, path: str | Path, *, frames: int = 60, size: int = 560, duration: int = 60) -> None:
    """Write a GIF (`.gif`) or APNG (`.png`, `.apng`) that plays for ever; `duration` milliseconds a frame."""
    images, *_ = pillow()
    path = Path(path)
    if path.suffix.lower() not in (".gif", ".png", ".apng"):
        raise DomainError(f"save_animation: the name must end in .gif, .png or .apng, got {path.name!r}")
    if not 2 <= frames <= MAX_FRAMES or frames * size * size > 4e8:
        raise LimitError(f"save_animation: 2 to {MAX_FRAMES} frames and 4·10^8 pixels in all, got {frames} of {size}²")
    if not 10 <= duration <= 10_000:
        raise DomainError(f"save_animation: a frame lasts 10 to 10000 ms, got {duration}")
    pictures: list[Any] = [draw(frame_scene(scene, i, frames), size) for i in range(frames)]
    times = [duration] * (frames - 1) + [HOLD]
    if path.suffix.lower() == ".gif":
        # one palette for all frames, taken from the last and a middle one, so that colours do not flicker
        pair = images.new("RGB", (pictures[0].width, 2 * pictures[0].height))
        pair.paste(pictures[-1], (0, 0))
        pair.paste(pictures[frames // 2], (0, pictures[0].height))
        palette = pair.quantize(256, method=images.Quantize.MEDIANCUT)
        pictures = [p.quantize(palette=palette, dither=images.Dither.NONE) for p in pictures]
        pictures[0].save(path, format="GIF", save_all=True, append_images=pictures[1:], duration=times, loop=0)
        return
    pictures[0].save(path, format="PNG", save_all=True, append_images=pictures[1:], duration=times, loop=0)
