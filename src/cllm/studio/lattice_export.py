"""The numbers of a view as a table (CSV) or as shapes (SVG), and the folded clock's points."""

from __future__ import annotations

from html import escape
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from cllm.errors import DomainError, LimitError
from cllm.lattice import clocks
from cllm.lattice.folding import fold_ticks
from cllm.lattice.picture.palette import hexadecimal
from cllm.studio import lattice_values as values
from cllm.studio.lattice_colours import NOTHING, Colouring, classify, palette
from cllm.studio.lattice_curves import Curve, Options, Points, curve, least_of
from cllm.studio.lattice_tiles import dot_pixels
from cllm.studio.lattice_values import MAX_N

MAX_NUMBERS = 60_000
MAX_FOLDED = 20_000
_GROUND = {"dark": "#0a0d16", "light": "#f8f7f3"}


class View(msgspec.Struct, frozen=True):
    """What is seen: the world box and its size in pixels."""

    curve: str
    x0: float
    y0: float
    x1: float
    y1: float
    width: int
    height: int
    options: Options = Options()
    colouring: Colouring = Colouring()
    theme: str = "dark"
    dot: float = 1.0

    def __post_init__(self) -> None:
        if not (self.x0 < self.x1 and self.y0 < self.y1 and np.isfinite([self.x0, self.y0, self.x1, self.y1]).all()):
            raise DomainError("view: expected x0 < x1 and y0 < y1")
        if not (16 <= self.width <= 4096 and 16 <= self.height <= 4096):
            raise DomainError(f"view: expected 16 … 4096 pixels, got {self.width}×{self.height}")


def numbers(view: View) -> Points:
    """The numbers whose places lie in the view, ascending. LimitError when they are too many."""
    chosen, o = curve(view.curve), view.options
    box = (view.x0, view.y0, view.x1, view.y1)
    if chosen.within is not None:
        found = chosen.within(box, o)
    else:
        n = _inverted(chosen, view)
        n = np.unique(n[(n >= least_of(chosen, o)) & (n <= MAX_N)])
        _limit(n.size)
        x, y = chosen.place(n, o)
        keep = (x >= view.x0) & (x <= view.x1) & (y >= view.y0) & (y <= view.y1)
        found = Points(n[keep], x[keep], y[keep])
    _limit(found.n.size)
    order = np.argsort(found.n, kind="stable")
    return Points(found.n[order], found.x[order], found.y[order])


def _limit(count: int) -> None:
    if count > MAX_NUMBERS:
        raise LimitError(f"the view holds {count} numbers; at most {MAX_NUMBERS} are written. Zoom in, or export a PNG")


def _inverted(chosen: Curve, view: View) -> NDArray[np.int64]:
    """Every number that a pixel of the view meets."""
    assert chosen.inverse is not None
    if chosen.kind == "cells":
        a, b = np.floor((view.x0, view.x1)).astype(np.int64), np.floor((view.y0, view.y1)).astype(np.int64)
        _limit(int(a[1] - a[0] + 1) * int(b[1] - b[0] + 1))
        grid = np.meshgrid(np.arange(a[0], a[1] + 1), np.arange(b[0], b[1] + 1))
        return np.asarray(chosen.inverse(*grid, view.options)).ravel()
    x = np.linspace(view.x0, view.x1, min(view.width, 1600))
    y = np.linspace(view.y0, view.y1, min(view.height, 1600))
    found = chosen.inverse(*np.meshgrid(x, y), view.options)
    return np.asarray(found.n if chosen.kind == "sectors" else found).ravel()


def csv(view: dict[str, Any]) -> str:
    """n, x, y, prime, least factor, Ω, μ: one row a number."""
    points = numbers(msgspec.convert(view, View))
    table, prime = values.factors(points.n), values.are_prime(points.n)
    rows = ["n,x,y,prime,least,big_omega,mobius"]
    columns = (points.n, points.x, points.y, prime, table.least, table.big_omega, table.mobius)
    rows += [
        f"{n},{x:.12g},{y:.12g},{int(p)},{least},{big},{mu}"
        for n, x, y, p, least, big, mu in zip(*(c.tolist() for c in columns), strict=True)
    ]
    return "\n".join(rows) + "\n"


def svg(view: dict[str, Any]) -> str:
    """The view as shapes in the palette's colours."""
    asked = msgspec.convert(view, View)
    points, chosen = numbers(asked), curve(asked.curve)
    c = asked.colouring
    shades = palette(c.scheme, asked.theme, c.modulus, c.low, c.high)
    classes = classify(points.n, c)
    scale = asked.width / (asked.x1 - asked.x0)
    words = f"{chosen.title}, {shades.title}, n = {points.n[0]} … {points.n[-1]}" if points.n.size else chosen.title
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {asked.width} {asked.height}">',
        f"<title>{escape(words)}</title>",
        f'<rect width="100%" height="100%" fill="{_GROUND[asked.theme]}"/>',
    ]
    draw = {"cells": _square, "sectors": _sector}.get(chosen.kind, _disc)
    for code in np.unique(classes.code).tolist():
        if code == NOTHING or shades.colours[code, 3] == 0:
            continue
        mine = np.flatnonzero(classes.code == code)
        parts.append(f'<g fill="{hexadecimal(shades.colours[code, :3])}">')
        parts += [draw(chosen, asked, points, int(i), scale, bool(classes.bright[i])) for i in mine]
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _square(chosen: Curve, view: View, points: Points, i: int, scale: float, bright: bool) -> str:
    x, y = (points.x[i] - 0.5 - view.x0) * scale, (view.y1 - points.y[i] - 0.5) * scale
    return f'<rect x="{x:.2f}" y="{y:.2f}" width="{scale:.2f}" height="{scale:.2f}"/>'


def _disc(chosen: Curve, view: View, points: Points, i: int, scale: float, bright: bool) -> str:
    if chosen.radius is not None:
        radius = float(chosen.radius(np.array([max(points.n[i], 1)], dtype=np.float64))[0]) * scale * view.dot
    else:
        radius = dot_pixels(chosen, view.options, -round(np.log2(scale)), view.dot)
    radius *= 1.0 if bright else 0.6
    x, y = (points.x[i] - view.x0) * scale, (view.y1 - points.y[i]) * scale
    return f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{radius:.2f}"/>'


def _sector(chosen: Curve, view: View, points: Points, i: int, scale: float, bright: bool) -> str:
    """A piece of a ring, as the tile draws it."""
    assert chosen.inverse is not None
    x, y = points.x[i : i + 1], points.y[i : i + 1]
    half = float(chosen.inverse(x, y, view.options).half_along[0])
    radius, angle = float(np.hypot(x[0], y[0])), float(np.arctan2(y[0], x[0]))
    gap = 0.09 * min(0.5, half)
    inner, outer, spread = radius - 0.5 + gap, radius + 0.5 - gap, (half - gap) / radius
    corners = []
    for r, a in ((inner, -spread), (outer, -spread), (outer, spread), (inner, spread)):
        px, py = r * np.cos(angle + a), r * np.sin(angle + a)
        corners.append(f"{(px - view.x0) * scale:.2f} {(view.y1 - py) * scale:.2f}")
    large = int(2 * spread > np.pi)
    out, back = (f"A{r * scale:.2f} {r * scale:.2f} 0 {large} {way}" for r, way in ((outer, 0), (inner, 1)))
    first, second, third, fourth = corners
    out, back = (
        f"A{outer * scale:.2f} {outer * scale:.2f} 0 {large} 0",
        f"A{inner * scale:.2f} {inner * scale:.2f} 0 {large} 1",
    )
    return f'<path d="M{first}L{second}{out} {third}L{fourth}{back} {first}Z"/>'


def folded(start: int, count: int, colouring: dict[str, Any], theme: str) -> dict[str, Any]:
    """The folded clock: for each n its ring, the angle on it (clockwise from twelve) and the one it is folded to.

    radius: 4·lap + ring + 1; angle and folded: radians; quadrant 0 … 3; colour: #rrggbb, empty where nothing is drawn.
    """
    if not 0 <= start <= MAX_N or not 1 <= count <= MAX_FOLDED:
        raise LimitError(f"folded clock: 1 … {MAX_FOLDED} numbers up to 10^12, got {count} from {start}")
    n = np.arange(start, start + count, dtype=np.int64)
    index = n - start
    lap, ring, place = clocks.ring_clock(index)
    sizes = np.array(clocks.RADICES)[ring]
    flat, quadrant = np.empty(count), np.empty(count, dtype=np.int64)
    for which, size in enumerate(clocks.RADICES):
        on = ring == which
        fold = fold_ticks(place[on], size)
        flat[on], quadrant[on] = fold.value * (2 * np.pi / size), fold.quadrant
    c = msgspec.convert(colouring, Colouring)
    classes = classify(n, c)
    shades = palette(c.scheme, theme, c.modulus, c.low, c.high)
    table = [hexadecimal(row[:3]) if row[3] else "" for row in shades.colours]
    return {
        "n": n.tolist(),
        "radius": (4 * lap + ring + 1).tolist(),
        "angle": (place * (2 * np.pi / sizes)).tolist(),
        "folded": flat.tolist(),
        "quadrant": quadrant.tolist(),
        "colour": [table[code] for code in classes.code.tolist()],
        "bright": classes.bright.tolist(),
    }
