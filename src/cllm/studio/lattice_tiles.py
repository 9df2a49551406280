"""Tiles: 256 × 256 pixels of a curve at a level, as RGBA bytes.

A pixel of level L is 2^L wide in world units; tile (i, j) covers x from 256·2^L·i, y from 256·2^L·j upwards. Grids
have no levels below 0: their cells are drawn larger by the browser. A pixel that covers many numbers shows the mean
colour of all of them up to 16, beyond that of a sample spread over the pixel (jittered, the same each time).
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from cllm.errors import DomainError
from cllm.studio.lattice_colours import COSTLY, NOTHING, Classes, Colouring, classify, palette
from cllm.studio.lattice_curves import Curve, Options, curve, least_of, own_home
from cllm.studio.lattice_values import MAX_N

SIZE = 256
LEVELS = (-44, 40)
EXACT = 2  # up to this level each cell of a grid is counted
GAIN = 2.5  # how much denser primes look than they are, where a pixel holds many numbers
_CHEAP = 1 << 21  # below, factors are looked up
_FAR = 4e12  # no curve reaches as far; what lies beyond is moved here
_DENSE = 0.6  # a dot whose radius has fewer pixels is not drawn as a disc
_FILLED = 0.42  # part of the plane under dots of 0.36 pitches: π·0.36²
Image = NDArray[np.uint8]


class Tile(msgspec.Struct, frozen=True):
    """Which tile. dot: size of dots, 1 as the curve has it."""

    curve: str
    level: int
    i: int
    j: int
    options: Options = Options()
    colouring: Colouring = Colouring()
    theme: str = "dark"
    dot: float = 1.0

    def __post_init__(self) -> None:
        if not LEVELS[0] <= self.level <= LEVELS[1]:
            raise DomainError(f"level: expected {LEVELS[0]} … {LEVELS[1]}, got {self.level}")
        if max(abs(self.i), abs(self.j)) >= 1 << 52:
            raise DomainError(f"tile: expected |i|, |j| < 2^52, got {self.i}, {self.j}")
        if not 0.1 <= self.dot <= 8:
            raise DomainError(f"dot: expected 0.1 … 8, got {self.dot}")


def tile(tile: dict[str, Any]) -> bytes:
    """The pixels of a tile, row by row from the top: 256·256·4 bytes."""
    return render(msgspec.convert(tile, Tile)).tobytes()


def render(asked: Tile) -> Image:
    """The same as an array uint8 [256, 256, 4], not premultiplied."""
    chosen = curve(asked.curve)
    if chosen.kind == "cells":
        return _cells(chosen, asked)
    if chosen.kind == "points":
        return _points(chosen, asked)
    x, y = centres(asked)
    return (_sectors if chosen.kind == "sectors" else _dots)(chosen, asked, x, y)


def centres(asked: Tile) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """World coordinates of the pixels' centres, [256, 256]."""
    s = 2.0**asked.level
    along = np.arange(SIZE) + 0.5
    x = (asked.i * float(SIZE) + along) * s
    y = ((asked.j + 1) * float(SIZE) - along) * s
    a, b = np.meshgrid(np.clip(x, -_FAR, _FAR), np.clip(y, -_FAR, _FAR))
    return a, b


def _limited(n: Any, chosen: Curve, o: Options) -> NDArray[np.int64]:
    """Numbers outside the curve or beyond 10¹² become −1."""
    return np.where((n >= least_of(chosen, o)) & (n <= MAX_N), n, -1)


def _colours(asked: Tile, ghosts: bool = False) -> Image:
    """The palette; with `ghosts` what is left out of a dense picture is drawn faintly."""
    c = asked.colouring
    colours: Image = np.array(palette(c.scheme, asked.theme, c.modulus, c.low, c.high).colours)
    if ghosts:
        colours[0, 3] = 255
    return colours


def _one(classes: Classes, colours: Image) -> Image:
    return np.asarray(colours[classes.code], dtype=np.uint8)


def _mean(classes: Classes, colours: Image, scheme: str, dots: bool = False) -> Image:
    """The mean over the last axis, weighted by opacity; for dots by the part of the plane that they would cover."""
    rgba: Any = colours[classes.code].astype(np.float32)
    alpha = rgba[..., 3] / 255
    if dots and scheme != "prime":
        alpha = alpha * np.where(classes.bright, np.float32(_FILLED), np.float32(_FILLED * 0.6**2))
    cover = alpha.mean(-1)
    rgb = (rgba[..., :3] * alpha[..., None]).sum(-2) / np.maximum(alpha.sum(-1), 1e-9)[..., None]
    if scheme == "prime":
        cover = np.minimum(1.0, GAIN * cover)
    image: Image = np.rint(np.concatenate((rgb, 255 * cover[..., None]), axis=-1)).astype(np.uint8)
    return image


def _cells(chosen: Curve, asked: Tile) -> Image:
    assert chosen.inverse is not None
    level, o = max(asked.level, 0), asked.options
    if asked.level < 0:
        raise DomainError("level: grids have no tiles below level 0; their cells are drawn larger")
    if level > EXACT:
        return _sampled(chosen, asked)
    k = 1 << level
    first_a, top_b = asked.i * SIZE * k, (asked.j + 1) * SIZE * k - 1
    along = np.arange(SIZE * k, dtype=np.int64)
    a, b = np.meshgrid(first_a + along, top_b - along)
    n = _limited(chosen.inverse(a, b, o), chosen, o)
    if level and asked.colouring.scheme in COSTLY and int(n.max()) > _CHEAP:
        return _sampled(chosen, asked)
    if not level:
        return _one(classify(n, asked.colouring), _colours(asked))
    blocks = n.reshape(SIZE, k, SIZE, k).transpose(0, 2, 1, 3).reshape(SIZE, SIZE, k * k)
    return _mean(classify(blocks, asked.colouring), _colours(asked), asked.colouring.scheme)


def _sampled(chosen: Curve, asked: Tile) -> Image:
    """The mean of 16 numbers a pixel, or of one where they must be factored."""
    assert chosen.inverse is not None
    o, s = asked.options, 2.0**asked.level
    x, y = centres(asked)
    rng = np.random.default_rng((asked.level - LEVELS[0], asked.i + (1 << 52), asked.j + (1 << 52)))
    side = 2 if chosen.radius is not None and chosen.name != "sacks" else 4  # a golden map's inverse takes longer
    while True:
        steps = (np.arange(side) + 0.5) / side - 0.5
        shape = (SIZE, SIZE, side, side)
        px = x[..., None, None] + s * (steps[:, None] + (rng.random(shape) - 0.5) / side)
        py = y[..., None, None] + s * (steps[None, :] + (rng.random(shape) - 0.5) / side)
        px, py = np.clip(px, -_FAR, _FAR), np.clip(py, -_FAR, _FAR)
        if chosen.kind == "cells":
            n = chosen.inverse(np.floor(px).astype(np.int64), np.floor(py).astype(np.int64), o)
        else:
            n = chosen.inverse(px, py, o)
            n = n.n if chosen.kind == "sectors" else n
        n = _limited(n, chosen, o).reshape(SIZE, SIZE, side * side)
        if side > 1 and asked.colouring.scheme in COSTLY and int(n.max()) > _CHEAP:
            side = 1
            continue
        return _mean(classify(n, asked.colouring), _colours(asked), asked.colouring.scheme, chosen.kind == "dots")


def _sectors(chosen: Curve, asked: Tile, x: Any, y: Any) -> Image:
    assert chosen.inverse is not None
    s = 2.0**asked.level
    found = chosen.inverse(x, y, asked.options)
    half = np.minimum(found.half_across, found.half_along)
    if float(np.median(half)) < s:
        return _sampled(chosen, asked)
    n = _limited(found.n, chosen, asked.options)
    colours = _one(classify(n, asked.colouring), _colours(asked, ghosts=True))
    gap = np.where(half > 2.5 * s, 0.09 * half, 0.0)
    inside = np.minimum(found.half_across - np.abs(found.across), found.half_along - np.abs(found.along)) - gap
    return _faded(colours, np.clip(0.5 + inside / s, 0, 1))


def _dots(chosen: Curve, asked: Tile, x: Any, y: Any) -> Image:
    assert chosen.inverse is not None
    assert chosen.radius is not None
    s, o = 2.0**asked.level, asked.options
    n = _limited(chosen.inverse(x, y, o), chosen, o)
    there = np.where(n < 0, max(chosen.least, 1), n)
    radius = chosen.radius(np.maximum(there, 1).astype(np.float64)) * asked.dot
    dense = radius < _DENSE * s
    if bool(dense.all()):
        return _sampled(chosen, asked)
    px, py = chosen.place(there, o)
    classes = classify(n, asked.colouring)
    size = np.where(classes.bright, radius, 0.6 * radius)
    cover = np.clip(0.5 + (size - np.hypot(px - x, py - y)) / s, 0, 1)
    drawn = _faded(_one(classes, _colours(asked, ghosts=True)), np.minimum(cover, np.pi * (size / s) ** 2))
    return np.where(dense[..., None], _sampled(chosen, asked), drawn) if bool(dense.any()) else drawn


def _faded(colours: Image, cover: Any) -> Image:
    colours = colours.copy()
    colours[..., 3] = np.rint(colours[..., 3] * cover).astype(np.uint8)
    return colours


def dot_pixels(chosen: Curve, o: Options, level: int, dot: float) -> float:
    """Radius in pixels of a scattered point: it grows slowly as one zooms in."""
    unit = (own_home(o) if chosen.name == "formula" else chosen.home)[2] / 800
    return float(np.clip(1.5 * (unit / 2.0**level) ** 0.3, 0.7, 9.0)) * dot


def _points(chosen: Curve, asked: Tile) -> Image:
    assert chosen.within is not None
    s = 2.0**asked.level
    radius = dot_pixels(chosen, asked.options, asked.level, asked.dot)
    left, top = asked.i * float(SIZE) * s, (asked.j + 1) * float(SIZE) * s
    side, edge = SIZE * s, (radius + 1) * s
    n, x, y = chosen.within((left - edge, top - side - edge, left + side + edge, top + edge), asked.options)
    n = np.where((n >= 0) & (n <= MAX_N), n, -1)
    classes = classify(n, asked.colouring)
    colours = _colours(asked)
    px, py = (x - left) / s - 0.5, (top - y) / s - 0.5
    if n.size > SIZE * SIZE:
        return _crowd(px, py, colours[classes.code], asked.colouring.scheme)
    seen = colours[classes.code][:, 3] > 0
    code = np.full((SIZE, SIZE), NOTHING, dtype=np.uint8)
    cover = np.zeros((SIZE, SIZE), dtype=np.float32)
    for bright in (False, True):
        chosen_ones = seen & (classes.bright == bright)
        stamp(code, cover, px[chosen_ones], py[chosen_ones], classes.code[chosen_ones],
              radius if bright else 0.7 * radius)  # fmt: skip
    return _faded(np.asarray(colours[code]), cover)


def _crowd(px: Any, py: Any, rgba: Image, scheme: str) -> Image:
    """More points than pixels: the mean colour of each pixel's points."""
    ax, ay = np.rint(px).astype(np.int64), np.rint(py).astype(np.int64)
    keep = (ax >= 0) & (ay >= 0) & (ax < SIZE) & (ay < SIZE)
    at, rgba = ay[keep] * SIZE + ax[keep], rgba[keep]
    count = np.bincount(at, minlength=SIZE * SIZE)
    opaque = rgba[:, 3] > 0
    shown = np.bincount(at[opaque], minlength=SIZE * SIZE)
    image = np.zeros((SIZE * SIZE, 4), dtype=np.uint8)
    for channel in range(3):
        total = np.bincount(at[opaque], weights=rgba[opaque, channel], minlength=SIZE * SIZE)
        image[:, channel] = np.rint(total / np.maximum(shown, 1))
    part = shown / np.maximum(count, 1)
    # a pixel with a single point is not as bright as a full one
    image[:, 3] = np.rint(255 * np.minimum(1.0, part * (GAIN if scheme == "prime" else 1.0)) * (1 - 0.5**count))
    return image.reshape(SIZE, SIZE, 4)


def stamp(code: Any, cover: Any, x: Any, y: Any, classes: Any, radius: float) -> None:
    """Draw discs at pixel coordinates into `code` and `cover`; of several at one pixel the one that covers most."""
    if not x.size:
        return
    reach = int(np.ceil(radius + 0.5))
    cx, cy = np.rint(x).astype(np.int64), np.rint(y).astype(np.int64)
    fresh = np.zeros(SIZE * SIZE, dtype=np.float32)
    winner = np.full(SIZE * SIZE, NOTHING, dtype=np.uint8)
    most = min(1.0, np.pi * radius**2)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            if dx * dx + dy * dy > (radius + 1.3) ** 2:
                continue
            ax, ay = cx + dx, cy + dy
            part = np.clip(radius + 0.5 - np.hypot(ax - x, ay - y), 0, most).astype(np.float32)
            keep = (part > 0) & (ax >= 0) & (ay >= 0) & (ax < SIZE) & (ay < SIZE)
            at, part = ay[keep] * SIZE + ax[keep], part[keep]
            np.maximum.at(fresh, at, part)
            first = fresh[at] == part
            winner[at[first]] = classes[keep][first]
    drawn = winner != NOTHING
    flat_code, flat_cover = code.reshape(-1), cover.reshape(-1)
    flat_code[drawn] = winner[drawn]
    flat_cover[drawn] = np.maximum(fresh[drawn], flat_cover[drawn])
