"""Lines in one picture: an SVG that needs nothing else (light and dark), and the same in a terminal's characters.

The loss curve of one run has a picture of its own (curve.py); this is for comparing, and for range tests.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from cllm.training.curve import Axis, figure

WIDTH, HEIGHT = 960, 540
LEFT, RIGHT, TOP, BOTTOM = 76, 916, 84, 480
# blue, orange, green, purple, red, brown, pink, grey: told apart with the usual colour blindnesses by dashes, too
COLOURS = ("#1f6fb5", "#d9730d", "#2e8540", "#8250bf", "#cf222e", "#8a5a2b", "#c2428f", "#6e7781")
DASHES = ("", "7 4", "2 3", "9 3 2 3")
ANSI = ("blue", "dark_orange", "green", "magenta", "red", "yellow", "bright_magenta", "white")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
BRAILLE = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
STYLE = """
text{font:13px system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;fill:#57606a}
.title{font-size:19px;font-weight:600;fill:#1f2328}.small{font-size:12px}.page{fill:#ffffff}
.grid{stroke:#e4e8ec;stroke-width:1}.axis{stroke:#9aa4ae;stroke-width:1}.mark{stroke:#57606a;stroke-dasharray:4 3}
.line{fill:none;stroke-width:2;stroke-linejoin:round}.faint{fill:none;stroke-width:1;stroke-opacity:.4}
@media(prefers-color-scheme:dark){text{fill:#9aa4ae}.title{fill:#e8ecf0}.page{fill:#14181d}.grid{stroke:#262d35}
.axis{stroke:#55606b}.mark{stroke:#9aa4ae}}
"""


@dataclass(frozen=True)
class Series:
    """One line: points by rising x; a y that is not finite breaks it. faint: drawn thin, and not in the legend."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    faint: bool = False
    colour: int = 0

    def pieces(self, log_x: bool) -> Iterator[list[tuple[float, float]]]:
        """The line's unbroken parts."""
        piece: list[tuple[float, float]] = []
        for x, y in zip(self.x, self.y, strict=True):
            if math.isfinite(y) and math.isfinite(x) and (x > 0 or not log_x):
                piece.append((x, y))
            elif piece:
                yield piece
                piece = []
        if piece:
            yield piece


@dataclass(frozen=True)
class Chart:
    """Series, what the axes say, and vertical marks (x, label). top: y beyond it is cut off (a divergence, say)."""

    series: Sequence[Series]
    title: str
    x_label: str
    y_label: str
    subtitle: str = ""
    log_x: bool = False
    marks: Sequence[tuple[float, str]] = ()
    top: float | None = None

    def axes(self, left: float, right: float, bottom: float, top: float) -> tuple[Axis, Axis] | None:
        """Axes that hold every point, in the given pixels; None when there is none."""
        points = [p for line in self.series for piece in line.pieces(self.log_x) for p in piece]
        if not points:
            return None
        xs, ys = [p[0] for p in points], [p[1] for p in points if self.top is None or p[1] <= self.top]
        ys = ys or [p[1] for p in points]
        low, high = min(ys), max(ys)
        room = 0.05 * (high - low) or 0.5 * abs(low) or 1.0
        return Axis(min(xs), max(xs), left, right, self.log_x), Axis(low - room, high + room, bottom, top)

    def svg(self) -> str:
        """The picture's text."""
        parts = [f'<rect class="page" width="{WIDTH}" height="{HEIGHT}" rx="8"/>']
        parts += [_text(LEFT, 34, self.title, "title"), _text(LEFT, 55, self.subtitle)]
        axes = self.axes(LEFT, RIGHT, BOTTOM, TOP)
        if axes is None:
            parts.append(_text(LEFT, 110, "there is nothing to draw yet"))
        else:
            parts += self._frame(*axes) + self._lines(*axes) + self._legend()
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
            f'height="{HEIGHT}" role="img">\n<title>{escape(self.title)}</title>\n<desc>{escape(self.subtitle)}</desc>'
            f"\n<style>{STYLE}</style>\n"
        )
        return head + "\n".join(parts) + "\n</svg>\n"

    def _frame(self, across: Axis, up: Axis) -> list[str]:
        parts = []
        for tick in up.ticks():
            h = up.at(tick)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{h:.1f}" y2="{h:.1f}"/>')
            parts.append(_text(LEFT - 10, h + 4.5, figure(tick), anchor="end"))
        for tick in across.ticks(8):
            w = across.at(tick)
            parts.append(f'<line class="axis" x1="{w:.1f}" x2="{w:.1f}" y1="{BOTTOM}" y2="{BOTTOM + 5}"/>')
            parts.append(_text(w, BOTTOM + 22, figure(tick), anchor="middle"))
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{RIGHT}" y1="{BOTTOM}" y2="{BOTTOM}"/>')
        parts.append(_text((LEFT + RIGHT) / 2, HEIGHT - 14, self.x_label, anchor="middle"))
        parts.append(
            f'<text class="small" text-anchor="middle" transform="translate(20 {(TOP + BOTTOM) / 2:.0f}) '
            f'rotate(-90)">{escape(self.y_label)}</text>'
        )
        return parts

    def _lines(self, across: Axis, up: Axis) -> list[str]:
        parts = [
            f'<clipPath id="in"><rect x="{LEFT}" y="{TOP}" width="{RIGHT - LEFT}" height="{BOTTOM - TOP}"/></clipPath>',
            '<g clip-path="url(#in)">',
        ]
        for line in sorted(self.series, key=lambda s: not s.faint):
            kind, ink = ("faint" if line.faint else "line"), _ink(line)
            for piece in line.pieces(self.log_x):
                if len(piece) == 1:  # a path of one point draws nothing
                    (x, y), colour = piece[0], COLOURS[line.colour % len(COLOURS)]
                    parts.append(f'<circle cx="{across.at(x):.1f}" cy="{up.at(y):.1f}" r="3" fill="{colour}"/>')
                    continue
                path = "L".join(f"{across.at(x):.1f} {up.at(y):.1f}" for x, y in piece)
                parts.append(f'<path class="{kind}" {ink} d="M{path}"/>')
        parts.append("</g>")
        for x, label in self.marks:
            w = across.at(x)
            parts.append(f'<line class="mark" x1="{w:.1f}" x2="{w:.1f}" y1="{TOP}" y2="{BOTTOM}"/>')
            parts.append(_text(w + 6, TOP + 14, label, "small"))
        return parts

    def _legend(self) -> list[str]:
        """Above the picture; what finds no room there goes on in its first lines."""
        parts, at, h = [], float(LEFT), TOP - 14.0
        for line in (line for line in self.series if not line.faint):
            name = line.name if len(line.name) <= 40 else f"…{line.name[-39:]}"
            wide = 26 + 6.6 * len(name) + 22
            if at > LEFT and at + wide > RIGHT:
                at, h = float(LEFT) + 12, h + (28 if h < TOP else 17)
            parts.append(f'<path class="line" {_ink(line)} d="M{at:.1f} {h:.1f}h20"/>')
            parts.append(_text(at + 26, h + 4, name, "small"))
            at += wide
        return parts

    def characters(self, width: int = 72, height: int = 16) -> list[list[tuple[str, int | None]]]:
        """The picture as lines of (text, index of the line's colour or None): an axis of y, dots, an axis of x."""
        axes = self.axes(0, 2 * width - 1, 4 * height - 1, 0)
        if axes is None:
            return [[("there is nothing to draw yet", None)]]
        across, up = axes
        dots: dict[tuple[int, int], int] = {}
        owner: dict[tuple[int, int], int] = {}
        lines = [line for line in self.series if not line.faint] or list(self.series)
        for line in lines:
            for piece in line.pieces(self.log_x):
                for a, b in _stroke([(across.at(x), up.at(y)) for x, y in piece]):
                    if 0 <= a < 2 * width and 0 <= b < 4 * height:
                        cell = (b // 4, a // 2)
                        dots[cell] = dots.get(cell, 0) | BRAILLE[b % 4][a % 2]
                        owner[cell] = line.colour
        for x, _ in self.marks:
            for row in range(height):
                cell = (row, round(across.at(x)) // 2)
                if cell not in dots and 0 <= cell[1] < width:
                    dots[cell], owner[cell] = -1, -1
        labels = {round(up.at(tick)) // 4: figure(tick) for tick in up.ticks(max(2, height // 4))}
        found: list[list[tuple[str, int | None]]] = []
        for row in range(height):
            cells: list[tuple[str, int | None]] = [(f"{labels.get(row, ''):>9} │", None)]
            for column in range(width):
                bits, colour = dots.get((row, column), 0), owner.get((row, column))
                glyph = "┊" if bits < 0 else chr(0x2800 + bits) if bits else " "
                cells.append((glyph, None if colour == -1 else colour))
            found.append(cells)
        return found + [[(line, None)] for line in _foot(across, width)]

    def terminal(self, width: int = 72, height: int = 16) -> str:
        """Plain text; several lines are told apart by letters."""
        several = sum(not line.faint for line in self.series) > 1
        rows = []
        for cells in self.characters(width, height):
            rows.append("".join(_letter(text, colour, several) for text, colour in cells).rstrip())
        return "\n".join(rows)


def _letter(text: str, colour: int | None, several: bool) -> str:
    return LETTERS[colour % len(LETTERS)] if several and colour is not None and text != " " else text


def _ink(line: Series) -> str:
    dash = DASHES[line.colour // len(COLOURS) % len(DASHES)]
    return f'stroke="{COLOURS[line.colour % len(COLOURS)]}"' + (f' stroke-dasharray="{dash}"' if dash else "")


def _stroke(points: list[tuple[float, float]]) -> Iterator[tuple[int, int]]:
    """The dots of a polyline."""
    if len(points) == 1:
        yield round(points[0][0]), round(points[0][1])
    for (a, b), (c, d) in pairwise(points):
        steps = min(4096, max(1, math.ceil(max(abs(c - a), abs(d - b)))))
        for i in range(steps + 1):
            yield round(a + (c - a) * i / steps), round(b + (d - b) * i / steps)


def _foot(across: Axis, width: int) -> list[str]:
    line, ends = [" "] * (width + 12), 0
    for tick in across.ticks(max(2, width // 14)):
        label = figure(tick)
        at = min(11 + round(across.at(tick)) // 2 - len(label) // 2, len(line) - len(label))
        if at > ends:
            line[at : at + len(label)] = label
            ends = at + len(label)
    return [" " * 10 + "└" + "─" * width, "".join(line).rstrip()]


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    style = f' class="{kind}"' if kind else ""
    side = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}"{style}{side}>{escape(text)}</text>'
