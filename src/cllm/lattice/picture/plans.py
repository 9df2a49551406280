"""Every map as a scene: `scene("ulam", count=40_000, colour="prime")`."""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cllm.errors import DomainError, LimitError, closest
from cllm.lattice import clocks, spirals, surfaces
from cllm.lattice.angles import Polar
from cllm.lattice.folding import fold_ticks
from cllm.lattice.hilbert_curve import hilbert
from cllm.lattice.picture.colouring import Colouring, colour
from cllm.lattice.picture.scene import Cells, Dots, Scene
from cllm.lattice.square_spiral import ulam
from cllm.lattice.tokens import token_prime

MAX_COUNT = 4_000_000
_HOLE = 0.22  # of the radius, left free within the innermost ring of the clocks
_STRIDE = 1_650_113  # coprime to 4,320,000 and near 4,320,000/φ²: consecutive clock values spread evenly
_MAX_START = 10**14
IntArray = NDArray[np.int64]
Plane = tuple[Any, Any, dict[str, Any]]

DEFAULT_COUNT = {
    "ulam": 201 * 201,
    "hilbert": 4**8,
    "ring-clock": 8 * clocks.LAP,
    "folded-clock": 6 * clocks.LAP,
    "wheel": 1440,
    "map-361": 361 * 24,
    "crystalline": 6000,
    "crystalline-prime": 3000,
    "logarithmic": 900,
    "clock-abacus": 20_000,
    "torus": 9000,
    "sphere": 6000,
}


def _unit(points: Polar) -> tuple[Any, Any]:
    x, y = points.xy()
    reach = float(np.max(points.radius)) or 1.0
    return x / reach, y / reach


def _spacing(per_unit: Any, radius: Any, reach: float) -> Any:
    """A dot's size where `per_unit` points a unit of radius share a circle: a little under half their distance."""
    return np.clip(0.19 * np.sqrt(2 * np.pi * np.maximum(radius, 0.5) / per_unit) / reach, 0.0006, 0.009)


def _sacks(n: IntArray, o: dict[str, Any]) -> Plane:
    return (*_unit(spirals.sacks(n)), {"title": "Sacks spiral", "rule": "r = sqrt n, one turn from square to square"})


def _vogel(n: IntArray, o: dict[str, Any]) -> Plane:
    rule = "r = sqrt n, golden angle 137.508° a step"
    return (*_unit(spirals.vogel(n)), {"title": "Vogel spiral", "rule": rule})


def _archimedes(n: IntArray, o: dict[str, Any]) -> Plane:
    points = spirals.archimedes(n, step=o["step"] or 1.0)
    return (*_unit(points), {"title": "Archimedes spiral", "rule": f"r = n, {o['step'] or 1.0:g} radian a step"})


def _logarithmic(n: IntArray, o: dict[str, Any]) -> Plane:
    step, growth = o["step"] or np.pi / 30, 2.9 / max(int(n.max() - n.min()), 1)
    points = spirals.logarithmic(n - n.min(), step=step, growth=growth / step)
    about = {"title": "Logarithmic spiral", "rule": f"r grows e^{growth:.3g} and {np.degrees(step):.4g}° a step"}
    return (*_unit(points), {**about, "size": 0.0105 * points.radius / float(points.radius.max())})


def _crystalline(n: IntArray, o: dict[str, Any]) -> Plane:
    points = spirals.crystalline(n)
    reach = float(points.radius.max()) or 1.0
    rings = tuple(j / reach for j in range(1, int(reach) + 1))
    about = {"title": "Crystalline log map", "rule": "r = log3 n, angle nG", "circles": rings}
    return (*_unit(points), {**about, "size": _spacing(n * spirals.LN3, points.radius, reach)})


def _crystalline_prime(n: IntArray, o: dict[str, Any]) -> Plane:
    points = spirals.crystalline_prime(n)
    reach = float(points.radius.max()) or 1.0
    rings = tuple(j / reach for j in range(1, int(reach) + 1))
    about = {"title": "Crystalline log map of the primes", "rule": "r = log3 p_n, angle nG", "circles": rings}
    values = token_prime(n - 1)
    # p_n ≈ n ln n: log₃ p_n grows by about (1 + 1/ln n)/(n ln 3) a step
    size = _spacing(n * spirals.LN3 / (1 + 1 / np.log(n + 2)), points.radius, reach)
    return (*_unit(points), {**about, "values": values, "size": size})


def _wheel(n: IntArray, o: dict[str, Any]) -> Plane:
    m = o["modulus"]
    spokes = tuple(2 * np.pi * i / m for i in range(m)) if m <= 120 else ()
    about: dict[str, Any] = {
        "title": f"Modular wheel {m}",
        "rule": f"spoke n mod {m}, ring floor(n/{m})",
        "spokes": spokes,
    }
    points = _hollow(clocks.wheel_polar(n, m), 0.12)
    about["size"] = np.full(n.size, min(0.008, 0.24 / float(np.ptp(points.radius) + 1)))
    return (*_unit(points), about)


def _map361(n: IntArray, o: dict[str, Any]) -> Plane:
    points = clocks.wheel_polar(n, 361)
    return (*_unit(_hollow(points, 0.6)), {"title": "361-map", "rule": "angle 2 pi (n mod 361)/361, ring floor(n/361)"})


def _hollow(points: Polar, part: float) -> Polar:
    """Rings moved outwards by a part of the largest radius, so that the innermost are not crowded."""
    return Polar(points.radius + part * float(points.radius.max()), points.angle)


def _clockwise(points: Polar, reach: float) -> tuple[Any, Any]:
    """Twelve o'clock on top, running clockwise, as clocks do."""
    return points.radius / reach * np.sin(points.angle), points.radius / reach * np.cos(points.angle)


def _ring_clock(n: IntArray, o: dict[str, Any]) -> Plane:
    points = clocks.ring_clock_polar(n)
    shift = _HOLE * float(points.radius.max())
    points = _hollow(points, _HOLE)
    reach = float(points.radius.max())
    circles = tuple(float(r) for r in np.unique(points.radius) / reach)
    sizes = np.minimum(0.007, 0.2 / (reach - shift))
    about = {"title": "Ring clock", "rule": "rings of 12, 60, 60, 100 places, lap after lap", "circles": circles}
    return (*_clockwise(points, reach), {**about, "size": np.full(n.size, sizes)})


def _folded_clock(n: IntArray, o: dict[str, Any]) -> Plane:
    lap, which, place = clocks.ring_clock(n)
    sizes = np.array(clocks.RADICES)
    folded, quadrant = np.empty(n.size), np.empty(n.size, dtype=np.int64)
    for ring, size in enumerate(clocks.RADICES):
        on = which == ring
        value = fold_ticks(place[on], size)
        folded[on], quadrant[on] = value.value * (2 * np.pi / sizes[ring]), value.quadrant
    # the four quadrants fall on each other; a quarter of a ring's breadth tells them apart
    rings = 4.0 * lap + which + 1
    rings = rings + _HOLE * float(rings.max())
    radius = rings + 0.2 * quadrant
    reach = float(radius.max()) * 1.02
    circles = tuple(float(r) for r in np.unique(rings) / reach)
    rule = "rings 12, 60, 60, 100 folded to one quadrant, polarity + - + -"
    about: dict[str, Any] = {"title": "Folded clock", "rule": rule, "circles": circles, "quadrant": True}
    about["size"] = np.full(n.size, 0.13 / reach)
    return radius / reach * np.cos(folded), radius / reach * np.sin(folded), about


def _clock_abacus(n: IntArray, o: dict[str, Any]) -> Plane:
    values = (n * _STRIDE) % clocks.CLOCK_SIZE
    hands = clocks.clock_angles(values)
    lengths = np.array([0.56, 0.27, 0.12, 0.05])
    about = {
        "title": "Clock abacus",
        "rule": f"four hands (12, 60, 60, 100) joined end to end, values {_STRIDE:,} apart",
        "values": values,
    }
    return (lengths * np.sin(hands)).sum(-1), (lengths * np.cos(hands)).sum(-1), about


def _seen(xyz: Any, tilt: float, about: dict[str, Any]) -> Plane:
    """Parallel projection from above at an angle; `depth` 0 (far) … 1 (near)."""
    c, s = np.cos(tilt), np.sin(tilt)
    y, z = xyz[:, 1] * s + xyz[:, 2] * c, xyz[:, 2] * s - xyz[:, 1] * c
    reach = float(np.max(np.hypot(xyz[:, 0], y))) or 1.0
    depth = (z - z.min()) / (float(np.ptp(z)) or 1.0)
    return xyz[:, 0] / reach, y / reach, {**about, "depth": depth}


def _torus(n: IntArray, o: dict[str, Any]) -> Plane:
    return _seen(surfaces.torus_point(n), 0.85, {"title": "Torus", "rule": "angles nG and 2 pi n/12"})


def _sphere(n: IntArray, o: dict[str, Any]) -> Plane:
    count = int(n.size)
    xyz = surfaces.fibonacci_sphere(np.arange(count), count)
    return _seen(xyz, 0.35, {"title": "Fibonacci sphere", "rule": f"{count} points, golden angle"})


DOT_MAPS: dict[str, Callable[[IntArray, dict[str, Any]], Plane]] = {
    "sacks": _sacks,
    "vogel": _vogel,
    "archimedes": _archimedes,
    "logarithmic": _logarithmic,
    "crystalline": _crystalline,
    "crystalline-prime": _crystalline_prime,
    "wheel": _wheel,
    "ring-clock": _ring_clock,
    "clock-abacus": _clock_abacus,
    "folded-clock": _folded_clock,
    "map-361": _map361,
    "torus": _torus,
    "sphere": _sphere,
}
CELL_MAPS = ("ulam", "hilbert")
MAPS = (*CELL_MAPS, *DOT_MAPS)
"""Every map that can be drawn."""


def scene(
    name: str,
    *,
    count: int | None = None,
    start: int | None = None,
    scheme: str | None = None,
    modulus: int = 30,
    step: float | None = None,
) -> Scene:
    """The scene of `count` integers from `start` (1, or 0 for clocks and wheels) under a colouring.

    Ulam pictures round the count up to a full odd square and Hilbert pictures to a power of four; Ulam's centre is
    `start`.  The colouring is "prime" where not given ("gap" for crystalline-prime).  `modulus` is the wheel's and the
    residue colouring's; `step` the angle (radians) of archimedes and logarithmic.

    Raises:
        DomainError: an unknown map or colouring, a start or count out of range.
        LimitError: more than 4,000,000 integers, or integers above 10¹⁴.
    """
    if name not in MAPS:
        raise DomainError(f"scene: unknown map {name!r}; known: {', '.join(MAPS)}{closest(name, MAPS)}")
    first = start if start is not None else 0 if name in ("ring-clock", "folded-clock", "wheel", "map-361") else 1
    scheme = scheme or ("gap" if name == "crystalline-prime" else "prime")
    least = 1 if name in ("crystalline", "crystalline-prime", "ulam") else 0
    total = int(count if count is not None else DEFAULT_COUNT.get(name, 10_000))
    if first < least:
        raise DomainError(f"scene: {name} starts at {least} or above, got start={first}")
    if total < 1:
        raise DomainError(f"scene: count is at least 1, got {total}")
    if total > MAX_COUNT or first + total > _MAX_START:
        raise LimitError(f"scene: at most {MAX_COUNT} integers, all below 10^14; got count={total} from start={first}")
    if name in CELL_MAPS:
        return _cells(name, first, total, scheme, modulus)
    if step is not None and not 0 < abs(step) < float("inf"):
        raise DomainError(f"scene: step must be a finite angle in radians, not 0, got {step}")
    n = np.arange(first, first + total, dtype=np.int64)
    options: dict[str, Any] = {"modulus": modulus, "step": step}
    x, y, about = DOT_MAPS[name](n, options)
    values = about.get("values", n)
    shades = colour(values, scheme, 12 if name != "wheel" and modulus == 30 else modulus)
    dots = _dots(values, x, y, shades, about.get("depth"), about.get("size"))
    return Scene(
        title=about["title"],
        caption=_caption(first, total, shades, about["rule"]),
        legend=shades.legend,
        dots=dots,
        circles=about.get("circles", ()),
        spokes=about.get("spokes", ()),
        quadrant=about.get("quadrant", False),
        parameters={"map": name, "start": first, "count": total, "colour": scheme, "modulus": modulus},
    )


def _dots(n: IntArray, x: Any, y: Any, shades: Colouring, depth: Any, size: Any) -> Dots:
    size = min(0.009, 0.36 / sqrt(n.size)) if size is None else size
    radius = np.where(shades.bright, size, 0.55 * size)
    colours = shades.colours
    if depth is not None:
        near = 0.35 + 0.65 * depth
        radius, colours = radius * (0.6 + 0.6 * depth), np.rint(colours * near[:, None]).astype(np.uint8)
    return Dots(n, np.asarray(x), np.asarray(y), radius, colours, shades.bright)


def _cells(name: str, first: int, total: int, scheme: str, modulus: int) -> Scene:
    if name == "ulam":
        side = isqrt(total - 1) + 1 if total > 1 else 1
        side += 1 - side % 2
        index = np.arange(1, side * side + 1, dtype=np.int64)
        x, y = ulam(index)
        column, row, n = x + side // 2, side // 2 - y, index - 1 + first
        title, rule = "Ulam spiral", f"{side} x {side}, {first} at the centre"
    else:
        order = max(1, (total - 1).bit_length() + 1 >> 1)
        side = 1 << order
        index = np.arange(side * side, dtype=np.int64)
        x, y = hilbert(index, order)
        column, row, n = x, side - 1 - y, index + first
        title, rule = "Hilbert curve", f"order {order}, {first} at the lower left"
    shades = colour(n, scheme, 12 if modulus == 30 else modulus)
    if scheme == "prime":
        shades = shades._replace(legend=(shades.legend[0],))
    return Scene(
        title=title,
        caption=_caption(first, n.size, shades, rule),
        legend=shades.legend,
        cells=Cells(side, n, column, row, shades.colours),
        parameters={"map": name, "start": first, "count": int(n.size), "colour": scheme, "modulus": modulus},
    )


def _caption(first: int, total: int, shades: Colouring, rule: str) -> str:
    return f"n = {first:,} … {first + total - 1:,}  ·  {rule}  ·  colour: {shades.title}"
