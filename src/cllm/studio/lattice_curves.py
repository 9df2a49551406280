"""The curves of the plane: where a number lies (as `cllm.lattice` maps it) and which number lies at a point.

World coordinates: y upwards. A cell of a grid is the unit square to the upper right of its lattice point, so that its
centre is the point + ½.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from cllm.errors import DomainError, LimitError, closest
from cllm.lattice import clocks, spirals
from cllm.lattice.angles import TAU
from cllm.lattice.hilbert_curve import hilbert, hilbert_inverse
from cllm.lattice.square_spiral import ulam, ulam_inverse
from cllm.lattice.tokens import token_prime
from cllm.studio.lattice_formula import formula
from cllm.studio.lattice_golden import nearest
from cllm.studio.lattice_values import MAX_N

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
HILBERT_ORDER = 20  # 4²⁰ > 10¹² cells; an even order, so it begins like every smaller even one
MAX_POINTS = 1_000_000
_ULAM_REACH = 1 << 20  # (2·2²⁰)² > 10¹²
_REACH = 1.1e6  # beyond this radius √n curves hold no n ≤ 10¹²
PRIME_POINTS = 400_000
HANDS = (0.56, 0.27, 0.12, 0.05)
"""Lengths of the clock abacus' four hands, joined end to end."""
LN3 = spirals.LN3


class Options(msgspec.Struct, frozen=True):
    """A curve's own settings. start: the number at the beginning (of grids and the ring clock).  modulus: the wheel's.
    lap: which 4,320,000 numbers the clock abacus shows.  x, y, polar, first, count: the own formula's."""

    start: int = 1
    modulus: int = 30
    lap: int = 0
    x: str = "sqrt(n)*cos(2*pi*sqrt(n))"
    y: str = "sqrt(n)*sin(2*pi*sqrt(n))"
    polar: bool = False
    first: int = 1
    count: int = 20_000

    def __post_init__(self) -> None:
        if not 0 <= self.start <= MAX_N or not 0 <= self.first <= MAX_N:
            raise DomainError(f"start: expected 0 … {MAX_N}, got {self.start if self.first <= MAX_N else self.first}")
        if not 2 <= self.modulus <= 100_000:
            raise DomainError(f"modulus: expected 2 … 100000, got {self.modulus}")
        if not 0 <= self.lap <= MAX_N // clocks.CLOCK_SIZE:
            raise DomainError(f"lap: expected 0 … {MAX_N // clocks.CLOCK_SIZE}, got {self.lap}")
        if not 1 <= self.count <= MAX_POINTS:
            raise LimitError(f"count: expected 1 … {MAX_POINTS}, got {self.count}")


class Sector(NamedTuple):
    """A cell of a ring: its number (−1: none), how far a point is from the cell's middle and the cell's half sizes,
    radially and along the ring."""

    n: IntArray
    across: FloatArray
    along: FloatArray
    half_across: FloatArray
    half_along: FloatArray


class Points(NamedTuple):
    """Scattered points, in the order in which they are drawn."""

    n: IntArray
    x: FloatArray
    y: FloatArray


class Curve(NamedTuple):
    """kind: "cells" (inverse of integer cells), "sectors", "dots" (inverse of points; radius: a dot's), or "points"
    (within a box).  home: the centre and width of the first view."""

    name: str
    title: str
    rule: str
    kind: str
    least: int
    home: tuple[float, float, float]
    place: Callable[[IntArray, Options], tuple[Any, Any]]
    inverse: Callable[..., Any] | None = None
    radius: Callable[[FloatArray], Any] | None = None
    within: Callable[..., Points] | None = None
    order: str = "by n"


# grids ----------------------------------------------------------------------------------------------------------------
def _ulam_place(n: IntArray, o: Options) -> tuple[Any, Any]:
    x, y = ulam(n - o.start + 1)
    return x + 0.5, y + 0.5


def _ulam_inverse(a: IntArray, b: IntArray, o: Options) -> IntArray:
    inside = np.maximum(np.abs(a), np.abs(b)) < _ULAM_REACH
    n = np.asarray(ulam_inverse(np.where(inside, a, 0), np.where(inside, b, 0)))
    return np.where(inside, n + (o.start - 1), -1)


def _hilbert_place(n: IntArray, o: Options) -> tuple[Any, Any]:
    x, y = hilbert(n - o.start, HILBERT_ORDER)
    return x + 0.5, y + 0.5


def _hilbert_inverse(a: IntArray, b: IntArray, o: Options) -> IntArray:
    side = 1 << HILBERT_ORDER
    inside = (a >= 0) & (b >= 0) & (a < side) & (b < side)
    d = hilbert_inverse(np.where(inside, a, 0), np.where(inside, b, 0), HILBERT_ORDER)
    return np.where(inside, d + o.start, -1)


# rings ----------------------------------------------------------------------------------------------------------------
def _wheel_place(n: IntArray, o: Options) -> tuple[Any, Any]:
    return clocks.wheel_polar(n, o.modulus).xy()


def _wheel_inverse(x: FloatArray, y: FloatArray, o: Options) -> Sector:
    r = np.hypot(x, y)
    ring = np.rint(np.minimum(r, MAX_N)).astype(np.int64) - 1
    spokes = np.arctan2(y, x) * (o.modulus / TAU)
    spoke = np.rint(spokes)
    n = clocks.wheel_inverse(np.maximum(ring, 0), spoke.astype(np.int64) % o.modulus, o.modulus)
    arc = TAU * r / o.modulus
    return Sector(np.where(ring >= 0, n, -1), r - (ring + 1), (spokes - spoke) * arc, np.full_like(r, 0.5), arc / 2)


def _ring_place(n: IntArray, o: Options) -> tuple[Any, Any]:
    points = clocks.ring_clock_polar(n - o.start)
    return points.radius * np.sin(points.angle), points.radius * np.cos(points.angle)  # clockwise from twelve


def _ring_inverse(x: FloatArray, y: FloatArray, o: Options) -> Sector:
    r = np.hypot(x, y)
    row = np.rint(np.minimum(r, MAX_N)).astype(np.int64) - 1
    inside = row >= 0
    lap, ring = np.maximum(row, 0) // 4, np.maximum(row, 0) % 4
    size = np.array(clocks.RADICES)[ring]
    places = np.arctan2(x, y) * (size / TAU)
    place = np.rint(places)
    n = clocks.ring_clock_inverse(lap, ring, place.astype(np.int64) % size) + o.start
    arc = TAU * r / size
    return Sector(np.where(inside, n, -1), r - (row + 1), (places - place) * arc, np.full_like(r, 0.5), arc / 2)


# spirals --------------------------------------------------------------------------------------------------------------
def _sacks_place(n: IntArray, o: Options) -> tuple[Any, Any]:
    return spirals.sacks(n).xy()


def _sacks_inverse(x: FloatArray, y: FloatArray, o: Options) -> IntArray:
    r, turn = np.hypot(x, y), np.arctan2(y, x) / TAU
    turn = np.where(turn < 0, turn + 1, turn)
    whole = np.maximum(np.rint(np.minimum(r, 2 * _REACH) - turn), 0)
    # n = (whole + turn)², without the square's rounding
    w = whole.astype(np.int64)
    return np.asarray(w * w + np.rint((2 * whole + turn) * turn).astype(np.int64))


def _vogel_place(n: IntArray, o: Options) -> tuple[Any, Any]:
    return spirals.vogel(n).xy()


def _vogel_inverse(x: FloatArray, y: FloatArray, o: Options) -> IntArray:
    # the golden angle is −φ turns: the same lattice, mirrored
    found = nearest(
        x, y, np.square, lambda n: 0.5 / np.sqrt(np.maximum(n, 0.25)), lambda n: spirals.vogel(n).xy(), 0, MAX_N, -1
    )
    return np.where(np.hypot(x, y) < _REACH, found, -1)


def _crystalline_place(n: IntArray, o: Options) -> tuple[Any, Any]:
    return spirals.crystalline(n).xy()


def _crystalline_inverse(x: FloatArray, y: FloatArray, o: Options) -> IntArray:
    found = nearest(
        x, y, lambda r: np.exp(np.minimum(r, 39.0) * LN3), lambda n: 1 / (n * LN3),
        lambda n: spirals.crystalline(n).xy(), 1, MAX_N,
    )  # fmt: skip
    return np.where(np.hypot(x, y) < np.log(1.01 * MAX_N) / LN3, found, -1)


def _crystalline_radius(n: FloatArray) -> Any:
    r = np.log(n) / LN3
    return 0.36 * np.sqrt(TAU * np.maximum(r, 0.35) / (n * LN3))


# scattered points -----------------------------------------------------------------------------------------------------
def _archimedes_place(n: IntArray, o: Options) -> tuple[Any, Any]:
    return spirals.archimedes(n).xy()


def _archimedes_within(box: tuple[float, float, float, float], o: Options) -> Points:
    x0, y0, x1, y1 = box
    near = float(np.hypot(max(x0, 0, -x1), max(y0, 0, -y1)))
    far = float(np.hypot(max(abs(x0), abs(x1)), max(abs(y0), abs(y1))))
    low, high = max(int(near), 0), min(int(far) + 1, MAX_N)
    if high - low > 1 << 23:
        raise LimitError(f"this tile would need {high - low} numbers; zoom in")
    parts = [np.empty((0, 3))]
    for first in range(low, high + 1, 1 << 20):
        n = np.arange(first, min(first + (1 << 20), high + 1), dtype=np.int64)
        x, y = spirals.archimedes(n).xy()
        keep = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
        parts.append(np.stack((n[keep].astype(np.float64), x[keep], y[keep]), axis=-1))
    found = np.concatenate(parts)
    return Points(found[:, 0].astype(np.int64), found[:, 1], found[:, 2])


def _abacus_place(n: IntArray, o: Options) -> tuple[Any, Any]:
    hands = clocks.clock_angles(n % clocks.CLOCK_SIZE)
    lengths = np.array(HANDS)
    return (lengths * np.sin(hands)).sum(-1), (lengths * np.cos(hands)).sum(-1)


@lru_cache(maxsize=1)
def _abacus_points() -> tuple[FloatArray, FloatArray]:
    """x and y of all 4,320,000 values, hand by hand: sums of four short tables."""
    found = []
    for wave in (np.sin, np.cos):
        total = np.zeros(1)
        for size, length in zip(clocks.RADICES, HANDS, strict=True):
            total = (total[:, None] + length * wave(np.arange(size) * (TAU / size))).ravel()
        found.append(total)
    return found[0], found[1]


def _abacus_within(box: tuple[float, float, float, float], o: Options) -> Points:
    x, y = _abacus_points()
    where = np.flatnonzero((x >= box[0]) & (x <= box[2]) & (y >= box[1]) & (y <= box[3]))
    return Points(where + o.lap * clocks.CLOCK_SIZE, x[where], y[where])


def _prime_map_place(n: IntArray, o: Options) -> tuple[Any, Any]:
    return spirals.crystalline_prime(n).xy()


@lru_cache(maxsize=1)
def _prime_map_points() -> Points:
    index = np.arange(1, PRIME_POINTS + 1, dtype=np.int64)
    x, y = spirals.crystalline_prime(index).xy()
    return Points(np.asarray(token_prime(index - 1)), x, y)


def _boxed(points: Points, box: tuple[float, float, float, float]) -> Points:
    n, x, y = points
    keep = (x >= box[0]) & (x <= box[2]) & (y >= box[1]) & (y <= box[3])
    return Points(n[keep], x[keep], y[keep])


def _prime_map_within(box: tuple[float, float, float, float], o: Options) -> Points:
    return _boxed(_prime_map_points(), box)


def _own_place(n: IntArray, o: Options) -> tuple[Any, Any]:
    a, b = formula(o.x)(n), formula(o.y)(n)
    return (a * np.cos(b), a * np.sin(b)) if o.polar else (a, b)


@lru_cache(maxsize=4)
def _own_points(o: Options) -> Points:
    n = np.arange(o.first, o.first + o.count, dtype=np.int64)
    x, y = _own_place(n, o)
    good = np.isfinite(x) & np.isfinite(y)
    return Points(n[good], x[good], y[good])


def _own_within(box: tuple[float, float, float, float], o: Options) -> Points:
    return _boxed(_own_points(o), box)


def own_home(o: Options) -> tuple[float, float, float]:
    """The view that holds nearly all points of an own formula."""
    points = _own_points(o)
    if not points.n.size:
        raise DomainError(f"formula: no finite point for n = {o.first} … {o.first + o.count - 1}")
    (x0, x1), (y0, y1) = np.percentile(points.x, (0.5, 99.5)), np.percentile(points.y, (0.5, 99.5))
    width = max(float(x1 - x0), 1.3 * float(y1 - y0)) or 1.0
    return float(x0 + x1) / 2, float(y0 + y1) / 2, 1.35 * width


def own_home_of(options: dict[str, Any]) -> tuple[float, float, float]:
    """The same, for settings as they come from a request."""
    return own_home(msgspec.convert(options, Options))


CURVES: dict[str, Curve] = {
    curve.name: curve
    for curve in (
        Curve("ulam", "Ulam spiral", "square spiral, counter-clockwise from the centre", "cells", 1, (0, 0, 201),
              _ulam_place, _ulam_inverse),
        Curve("sacks", "Sacks spiral", "r = √n, one turn from square to square", "dots", 0, (0, 0, 90),
              _sacks_place, _sacks_inverse, lambda n: np.full_like(n, 0.38)),
        Curve("archimedes", "p → (p, p)", "r = n, angle n radians", "points", 0, (0, 0, 12_000),
              _archimedes_place, within=_archimedes_within),
        Curve("hilbert", "Hilbert curve", "order 20: neighbours in n are neighbours in the plane", "cells", 0,
              (64, 64, 150), _hilbert_place, _hilbert_inverse),
        Curve("wheel", "Modular wheel", "spoke n mod m, ring ⌊n/m⌋", "sectors", 0, (0, 0, 90),
              _wheel_place, _wheel_inverse),
        Curve("ring-clock", "Ring clock", "rings of 12, 60, 60, 100 places, lap after lap", "sectors", 0, (0, 0, 70),
              _ring_place, _ring_inverse),
        Curve("clock-abacus", "Clock abacus", "four hands (12, 60, 60, 100) joined end to end", "points", 0,
              (0, 0, 2.6), _abacus_place, within=_abacus_within),
        Curve("crystalline", "Crystalline log map", "r = log₃ n, angle nG = 2πφn", "dots", 1, (0, 0, 18),
              _crystalline_place, _crystalline_inverse, _crystalline_radius),
        Curve("crystalline-prime", "Crystalline map of the primes", "r = log₃ pₙ, angle nG", "points", 1,
              (0, 0, 30), _prime_map_place, within=_prime_map_within),
        Curve("vogel", "Vogel spiral", "r = √n, golden angle a step: the sunflower", "dots", 0, (0, 0, 90),
              _vogel_place, _vogel_inverse, lambda n: np.full_like(n, 0.66)),
        Curve("formula", "Own formula", "x and y, or r and θ, as expressions of n", "points", 0, (0, 0, 100),
              _own_place, within=_own_within),
    )
}  # fmt: skip
"""Every curve by name."""


def curve(name: str) -> Curve:
    """The curve called so. Raises DomainError."""
    if name not in CURVES:
        raise DomainError(f"curve: unknown curve {name!r}; known: {', '.join(CURVES)}{closest(name, CURVES)}")
    return CURVES[name]


def least_of(chosen: Curve, o: Options) -> int:
    """The smallest number on a curve."""
    return o.start if chosen.name in ("ulam", "hilbert", "ring-clock") else chosen.least
