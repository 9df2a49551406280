"""What a picture shows, before any pixel: dots at exact places or cells of an exact grid, guides, and words."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cllm.lattice.picture.colouring import Legend
from cllm.lattice.picture.palette import Colours


@dataclass(frozen=True)
class Dots:
    """Points in the unit disc (y upwards), in drawing order: n the integers, radius in units of the picture's side."""

    n: NDArray[np.int64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    radius: NDArray[np.float64]
    colours: Colours
    bright: NDArray[np.bool_]


@dataclass(frozen=True)
class Cells:
    """A grid of side `side`: the integer n stands in column `column`, row `row` (row 0 on top)."""

    side: int
    n: NDArray[np.int64]
    column: NDArray[np.int64]
    row: NDArray[np.int64]
    colours: Colours


@dataclass(frozen=True)
class Scene:
    """A picture: `dots` or `cells`, guide circles (radii) and spokes (angles) in the unit disc, words, parameters."""

    title: str
    caption: str
    legend: Legend
    dots: Dots | None = None
    cells: Cells | None = None
    circles: tuple[float, ...] = ()
    spokes: tuple[float, ...] = ()
    hand: tuple[float, float] | None = None
    quadrant: bool = False  # the points fill the first quadrant only
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many integers are drawn."""
        shown = self.dots if self.dots is not None else self.cells
        return 0 if shown is None else int(shown.n.size)

    def first(self, count: int) -> Scene:
        """The same picture with only the first `count` integers."""
        if self.dots is not None:
            d = self.dots
            s = slice(count)
            return replace(self, dots=Dots(d.n[s], d.x[s], d.y[s], d.radius[s], d.colours[s], d.bright[s]))
        if self.cells is not None:
            c = self.cells
            s = slice(count)
            return replace(self, cells=Cells(c.side, c.n[s], c.column[s], c.row[s], c.colours[s]))
        return self


@dataclass(frozen=True)
class Frame:
    """Where a scene lies on a picture `width` × `height` pixels: the plot is the square at (left, top)."""

    width: int
    height: int
    left: int
    top: int
    plot: int
    cell: int = 0  # pixels a cell, for cells

    @classmethod
    def of(cls, scene: Scene, size: int) -> Frame:
        """Room for a title above and caption and legend below a plot of about `size` pixels."""
        plot, cell = size, 0
        if scene.cells is not None:
            cell = max(1, size // scene.cells.side)
            plot = cell * scene.cells.side
        # the words grow with the plot, so their room does too
        room = max(size, plot)
        head, foot, side = round(room * 0.085) + 12, round(room * 0.095) + 16, round(room * 0.04)
        return cls(plot + 2 * side, plot + head + foot, side, head, plot, cell)

    def place(self, scene: Scene, x: Any, y: Any) -> tuple[Any, Any]:
        """Picture coordinates (pixels, y down) of points of the unit disc, or of the unit square for a quadrant."""
        if scene.quadrant:
            return self.left + x * self.plot, self.top + (1 - y) * self.plot
        half = self.plot / 2
        return self.left + half + x * half, self.top + half - y * half

    def scale(self, scene: Scene) -> float:
        """Pixels to one unit of the plane."""
        return self.plot if scene.quadrant else self.plot / 2
