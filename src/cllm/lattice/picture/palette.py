"""Colours: one dark ground, one accent, and scales made in OKLab so that equal steps look equal (Ottosson 2020)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Colour = tuple[int, int, int]
Colours = NDArray[np.uint8]

GROUND: Colour = (10, 13, 22)
PANEL: Colour = (17, 22, 36)
FAINT: Colour = (47, 56, 84)
TEXT: Colour = (222, 228, 240)
QUIET: Colour = (136, 147, 173)
ACCENT: Colour = (255, 205, 92)
WARM: Colour = (244, 122, 96)
COOL: Colour = (94, 190, 214)

_ANCHORS = ("#3d3f8f", "#3f74c4", "#2fa8b5", "#63c98a", "#f0d264", "#f58f5a", "#f7d9d0")


def rgb(text: str) -> Colour:
    """`#rrggbb` as three integers."""
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def hexadecimal(colour: ArrayLike) -> str:
    """Three integers as `#rrggbb`."""
    red, green, blue = (int(c) for c in np.asarray(colour))
    return f"#{red:02x}{green:02x}{blue:02x}"


_TO_LMS = np.array(
    [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
     [0.0883024619, 0.2817188376, 0.6299787005]]
)  # fmt: skip
_TO_LAB = np.array(
    [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
     [0.0259040371, 0.7827717662, -0.8086757660]]
)  # fmt: skip


def _oklab(colours: ArrayLike) -> NDArray[np.float64]:
    s = np.asarray(colours, dtype=np.float64) / 255
    linear = np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4)
    return np.asarray(np.cbrt(linear @ _TO_LMS.T) @ _TO_LAB.T)


def _srgb(lab: ArrayLike) -> Colours:
    linear = (np.asarray(lab, dtype=np.float64) @ np.linalg.inv(_TO_LAB).T) ** 3 @ np.linalg.inv(_TO_LMS).T
    linear = np.clip(linear, 0, 1)
    s = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(255 * s), dtype=np.uint8)


def sequential(t: ArrayLike) -> Colours:
    """t in [0, 1] on the scale indigo – blue – teal – green – gold – orange – pale: uint8 [..., 3]."""
    anchors = _oklab([rgb(a) for a in _ANCHORS])
    place = np.clip(np.asarray(t, dtype=np.float64), 0, 1) * (len(anchors) - 1)
    low = np.minimum(place.astype(np.int64), len(anchors) - 2)
    part = (place - low)[..., None]
    return _srgb((1 - part) * anchors[low] + part * anchors[low + 1])


def wheel_colours(count: int) -> Colours:
    """`count` hues round the circle, equal in lightness and chroma: uint8 [count, 3]."""
    hue = 2 * np.pi * (np.arange(count) / max(count, 1) + 0.08)
    lab = np.stack((np.full(count, 0.76), 0.125 * np.cos(hue), 0.125 * np.sin(hue)), axis=-1)
    return _srgb(lab)


def blend(colours: ArrayLike, other: Colour, part: float) -> Colours:
    """Move colours towards `other` by `part` in [0, 1], in OKLab."""
    return _srgb((1 - part) * _oklab(colours) + part * _oklab(other))
