"""A scene as SVG text; needs nothing but this file."""

from __future__ import annotations

import json
from math import cos, sin
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from cllm.errors import LimitError
from cllm.lattice.picture.palette import FAINT, GROUND, PANEL, QUIET, TEXT, hexadecimal
from cllm.lattice.picture.scene import Cells, Dots, Frame, Scene

MAX_SHAPES = 200_000  # about 10 MB of text


def svg(scene: Scene, size: int = 1000) -> str:
    """The scene as an SVG document; its parameters are in <metadata> as JSON."""
    if scene.count > MAX_SHAPES:
        raise LimitError(f"svg: at most {MAX_SHAPES} integers, got {scene.count}; write a PNG or lower the count")
    if not 64 <= size <= 8192:
        raise LimitError(f"svg: a picture is 64 to 8192 units wide, got {size}")
    frame = Frame.of(scene, size)
    unit = frame.width / 1080
    box = f'viewBox="0 0 {frame.width} {frame.height}" width="{frame.width}" height="{frame.height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} font-family="Inter, Helvetica, Arial, sans-serif">',
        f"<title>{escape(scene.title)}</title>",
        f"<metadata>{escape(json.dumps({'cllm': scene.parameters}))}</metadata>",
        f'<rect width="100%" height="100%" fill="{hexadecimal(GROUND)}"/>',
    ]
    parts += _guides(scene, frame)
    if scene.cells is not None:
        parts += _cells(scene.cells, frame)
    if scene.dots is not None:
        parts += _dots(scene.dots, scene, frame)
    parts += _words(scene, frame, unit)
    return "\n".join((*parts, "</svg>\n"))


def save_svg(scene: Scene, path: str | Path, size: int = 1000) -> None:
    """Write the SVG document."""
    Path(path).write_text(svg(scene, size), encoding="utf-8")


def _guides(scene: Scene, frame: Frame) -> list[str]:
    x0, y0 = frame.place(scene, 0.0, 0.0)
    unit = frame.scale(scene)
    shapes = [f'<circle cx="{x0:.2f}" cy="{y0:.2f}" r="{r * unit:.2f}"/>' for r in scene.circles]
    if scene.quadrant:
        radii = [r * unit for r in scene.circles]
        shapes = [f'<path d="M{x0 + r:.2f} {y0:.2f}A{r:.2f} {r:.2f} 0 0 0 {x0:.2f} {y0 - r:.2f}"/>' for r in radii]
    shapes += [
        f'<path d="M{x0:.2f} {y0:.2f}L{x0 + unit * cos(a):.2f} {y0 - unit * sin(a):.2f}"/>' for a in scene.spokes
    ]
    group = f'<g fill="none" stroke="{hexadecimal(FAINT)}" stroke-opacity="0.45" stroke-width="0.7">'
    return [group, *shapes, "</g>"] if shapes else []


def _cells(cells: Cells, frame: Frame) -> list[str]:
    """One path a colour; neighbours in a row are one rectangle."""
    grid = np.full((cells.side, cells.side), -1, dtype=np.int64)
    packed = cells.colours.astype(np.int64) @ np.array([65536, 256, 1])
    grid[cells.row, cells.column] = packed
    c = frame.cell
    ground = int(np.array(FAINT) @ np.array([65536, 256, 1]))
    box = f'x="{frame.left}" y="{frame.top}" width="{frame.plot}" height="{frame.plot}"'
    parts = [f'<rect {box} fill="{hexadecimal(PANEL)}"/>']
    for value in np.unique(packed).tolist():
        if value == ground:
            continue  # the panel shows through
        edges = np.diff(np.pad((grid == value).astype(np.int8), ((0, 0), (1, 1))), axis=1)
        rows, begins = np.nonzero(edges == 1)
        _, ends = np.nonzero(edges == -1)
        path = "".join(
            f"M{frame.left + b * c} {frame.top + r * c}h{(e - b) * c}v{c}h{(b - e) * c}z"
            for r, b, e in zip(rows.tolist(), begins.tolist(), ends.tolist(), strict=True)
        )
        parts.append(f'<path fill="#{value:06x}" shape-rendering="crispEdges" d="{path}"/>')
    return parts


def _dots(dots: Dots, scene: Scene, frame: Frame) -> list[str]:
    x, y = frame.place(scene, dots.x, dots.y)
    radius = np.maximum(dots.radius * frame.plot, 0.4)
    packed = dots.colours.astype(np.int64) @ np.array([65536, 256, 1])
    parts = []
    for bright in (False, True):
        for value in np.unique(packed[dots.bright == bright]).tolist():
            chosen = np.flatnonzero((packed == value) & (dots.bright == bright))
            circles = "".join(f'<circle cx="{x[i]:.2f}" cy="{y[i]:.2f}" r="{radius[i]:.2f}"/>' for i in chosen.tolist())
            parts.append(f'<g fill="#{value:06x}">{circles}</g>')
    return parts


def _words(scene: Scene, frame: Frame, unit: float) -> list[str]:
    base = frame.top + frame.plot
    room = frame.height - base
    big, small = 30 * unit, 16 * unit
    parts = [
        _text(frame.left, frame.top * 0.5, big, hexadecimal(TEXT), scene.title),
        _text(frame.left, base + room * 0.36, small, hexadecimal(QUIET), scene.caption),
    ]
    x, y, dot = float(frame.left), base + room * 0.72, 0.36 * small
    for label, colour in scene.legend:
        needed = 2.6 * dot + 0.56 * small * len(label) + 1.1 * small
        if x + needed > frame.left + frame.plot + small:
            break
        parts.append(f'<circle cx="{x + dot:.1f}" cy="{y:.1f}" r="{dot:.1f}" fill="{colour}"/>')
        parts.append(_text(x + 2.6 * dot, y, small, hexadecimal(QUIET), label))
        x += needed
    return parts


def _text(x: float, middle: float, size: float, colour: str, words: str) -> str:
    place = f'x="{x:.1f}" y="{middle + 0.35 * size:.1f}"'
    return f'<text {place} font-size="{size:.1f}" fill="{colour}">{escape(words)}</text>'
