"""Clocks: the clock abacus, the ring clock, modular wheels and the 361-map; all exact in integers, with inverses.

The clock abacus writes v in mixed radix, most significant digit first, (12, 60, 60, 100): hours, minutes, seconds and
hundredths of a half day; a bijection of 0 … 4,319,999.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from cllm.errors import DomainError
from cllm.lattice.angles import TAU, FloatArray, Polar, as_int64

RADICES = (12, 60, 60, 100)
"""Radices of the clock abacus, most significant first, and the sizes of the ring clock's rings."""
CLOCK_SIZE = prod(RADICES)
"""4,320,000: the number of clock values."""
LAP = sum(RADICES)
"""232: positions in one lap of the ring clock."""


def clock_digits(v: ArrayLike) -> Any:
    """The four digits of each 0 ≤ v < 4,320,000, most significant first: int64 [..., 4]."""
    m = as_int64("clock_digits", v, low=0, high=CLOCK_SIZE - 1)
    digits = np.empty((4, *m.shape), dtype=np.int64)
    for place in (3, 2, 1):
        quotient = m // RADICES[place]
        digits[place] = m - quotient * RADICES[place]
        m = quotient
    digits[0] = m
    return np.moveaxis(digits, 0, -1)


def clock_value(digits: ArrayLike) -> Any:
    """v from its digits [..., 4]: the exact inverse of `clock_digits`."""
    d = np.asarray(digits)
    if d.ndim == 0 or d.shape[-1] != 4:
        raise DomainError(f"clock_value: expected an array [..., 4] of digits, got shape {d.shape}")
    value = np.zeros(d.shape[:-1], dtype=np.int64)
    for place, radix in enumerate(RADICES):
        value = value * radix + as_int64("clock_value", d[..., place], low=0, high=radix - 1)
    return value


def clock_angles(v: ArrayLike) -> FloatArray:
    """The 4-D clock: the angle 2π·digit/radix of each of the four hands, float64 [..., 4]."""
    return np.asarray(clock_digits(v) * (TAU / np.array(RADICES, dtype=np.float64)))


def clock_angles_inverse(angles: ArrayLike) -> Any:
    """v from the four hand angles (rounded to the nearest tick)."""
    a = np.asarray(angles, dtype=np.float64)
    radices = np.array(RADICES)
    return clock_value(np.rint(a * radices / TAU).astype(np.int64) % radices)


class RingPlace(NamedTuple):
    """A place on the ring clock: lap 0,1,2…; ring 0…3 (12, 60, 60, 100 places); place on the ring."""

    lap: Any
    ring: Any
    place: Any


def ring_clock(i: ArrayLike) -> RingPlace:
    """The place of index i ≥ 0: twelve on the first ring, then 60, 60, 100, then the next lap further out."""
    m = as_int64("ring_clock", i, low=0)
    lap = m // LAP
    j = m - lap * LAP
    which = (j >= 12).astype(np.int64) + (j >= 72) + (j >= 132)
    place = j - np.array([0, 12, 72, 132], dtype=np.int64)[which]
    return RingPlace(lap, which, place)


def ring_clock_inverse(lap: ArrayLike, ring: ArrayLike, place: ArrayLike) -> Any:
    """The index of a place: the exact inverse of `ring_clock`."""
    which = as_int64("ring_clock_inverse", ring, low=0, high=3)
    where = as_int64("ring_clock_inverse", place, low=0)
    if bool(np.any(where >= np.array(RADICES)[which])):
        raise DomainError("ring_clock_inverse: the place is not on its ring (sizes 12, 60, 60, 100)")
    return as_int64("ring_clock_inverse", lap, low=0) * LAP + np.array([0, 12, 72, 132])[which] + where


def ring_clock_polar(i: ArrayLike) -> Polar:
    """The ring clock as points: radius 4·lap + ring + 1, angle 2π·place/size."""
    lap, which, place = ring_clock(i)
    sizes = np.array(RADICES, dtype=np.float64)
    return Polar((4 * lap + which + 1).astype(np.float64), place * (TAU / sizes)[which])


def wheel(n: ArrayLike, modulus: int = 30) -> tuple[Any, Any]:
    """The modular wheel: (ring, spoke) = (⌊n/m⌋, n mod m), int64; n of any sign."""
    modulus = _modulus("wheel", modulus)
    m = as_int64("wheel", n)
    ring = m // modulus
    return ring, m - ring * modulus


def wheel_inverse(ring: ArrayLike, spoke: ArrayLike, modulus: int = 30) -> Any:
    """n from ring and spoke: the exact inverse of `wheel`."""
    modulus = _modulus("wheel_inverse", modulus)
    spokes = as_int64("wheel_inverse", spoke, low=0, high=modulus - 1)
    return as_int64("wheel_inverse", ring) * modulus + spokes


def wheel_polar(n: ArrayLike, modulus: int = 30) -> Polar:
    """The modular wheel as points, n ≥ 0: radius ⌊n/m⌋ + 1, angle 2π(n mod m)/m."""
    ring, spoke = wheel(as_int64("wheel_polar", n, low=0), modulus)
    return Polar((ring + 1).astype(np.float64), spoke * (TAU / modulus))


def map361(v: ArrayLike) -> FloatArray:
    """The 361-map: the angle 2π(v mod 361)/361, float64 (361 = 19²).  With ⌊v/361⌋ (`wheel`) it has an inverse."""
    return np.asarray(wheel(v, 361)[1] * (TAU / 361))


def _modulus(name: str, modulus: int) -> int:
    if not 1 <= int(modulus) <= 1 << 31:
        raise DomainError(f"{name}: the modulus is from 1 to 2^31, got {modulus}")
    return int(modulus)
