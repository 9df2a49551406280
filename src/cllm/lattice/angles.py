"""n·c mod 1 for huge integers n and a fixed real c, in wrapping 64-bit integer arithmetic.

A float64 product n·c loses the fraction as n grows: at n = 10¹² only four decimals of the angle nG would be right.
Here c mod 1 is held as two 64-bit words, c ≈ (A·2⁶⁴ + B)/2¹²⁸, and

    frac(n·c)·2⁶⁴  ≈  n·A + ⌊n·B/2⁶⁴⌋   (mod 2⁶⁴),

with an error below 2 units of 2⁻⁶⁴ turn for every |n| < 2⁶³.
"""

from __future__ import annotations

from functools import lru_cache
from math import isqrt
from typing import Any, NamedTuple

import numpy as np
from flint import arb
from numpy.typing import ArrayLike, NDArray

from cllm.errors import DomainError
from cllm.numbers.context import flint_precision

FloatArray = NDArray[np.float64]
TAU = 6.283185307179586


class TurnRate(NamedTuple):
    """A real number of turns per step, mod 1, as a 128-bit fraction."""

    high: int
    low: int


def rate_from_fixed(value: int) -> TurnRate:
    """The rate value/2¹²⁸ mod 1."""
    value %= 1 << 128
    return TurnRate(value >> 64, value & ((1 << 64) - 1))


GOLDEN = rate_from_fixed((isqrt(5 << 256) + (1 << 128)) >> 1)
"""φ turns a step: the angle nG = 2πφn."""

GOLDEN_ANGLE = rate_from_fixed(-((isqrt(5 << 256) + (1 << 128)) >> 1) - 1)
"""1/φ² = 2 − φ turns a step: the golden angle of Vogel's spiral."""


@lru_cache(maxsize=64)
def rate_from_radians(step: float) -> TurnRate:
    """The rate of `step` radians (this exact float64) a step."""
    with flint_precision(1300):  # covers every finite float64, integer part included
        scaled = (arb(step) / (2 * arb.pi()) * arb(2) ** 128).floor().unique_fmpz()
    if scaled is None:
        raise DomainError(f"rate_from_radians: expected a finite step, got {step!r}")
    return rate_from_fixed(int(scaled))


def as_int64(name: str, n: ArrayLike, low: int | None = None, high: int | None = None) -> NDArray[np.int64]:
    """`n` as an int64 array, or DomainError naming the function and the allowed integers."""
    array = np.asarray(n)
    if array.dtype.kind not in "iu":
        whole = array.dtype.kind == "O" and all(isinstance(v, int) for v in array.ravel().tolist())
        if array.size and not whole:
            raise DomainError(f"{name}: expected integers, got an array of {array.dtype}")
    if array.size:
        smallest, largest = int(array.min()), int(array.max())
        low = -(1 << 63) + 1 if low is None else low
        high = (1 << 63) - 1 if high is None else high
        if smallest < low or largest > high:
            wrong = smallest if smallest < low else largest
            raise DomainError(f"{name}: expected integers from {low} to {high}, got {wrong}")
    return array.astype(np.int64, copy=False)


def phase(n: ArrayLike, rate: TurnRate) -> NDArray[np.uint64]:
    """frac(n·rate) in units of 2⁻⁶⁴ turn, as uint64; n an integer array, negative allowed."""
    m = as_int64("phase", n).view(np.uint64) if np.ndim(n) else as_int64("phase", n).astype(np.uint64)
    high, low = np.uint64(rate.high), rate.low
    # ⌊n·low/2⁶⁴⌋ from 32-bit halves; for a negative n the wrapped value is n + 2⁶⁴, which adds `low` too much
    b1, b0 = np.uint64(low >> 32), np.uint64(low & 0xFFFFFFFF)
    half, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    n1, n0 = m >> half, m & mask
    cross = n1 * b0 + ((n0 * b0) >> half)
    middle = n0 * b1 + (cross & mask)
    top = n1 * b1 + (cross >> half) + (middle >> half)
    with np.errstate(over="ignore"):
        result: NDArray[np.uint64] = m * high + top
        if bool(np.any(m >> np.uint64(63))):
            result = result - np.where(m >> np.uint64(63), np.uint64(low), np.uint64(0))
    return result


def turns(n: ArrayLike, rate: TurnRate) -> FloatArray:
    """frac(n·rate) as float64 in [0, 1)."""
    return np.asarray((phase(n, rate) >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def angle(n: ArrayLike, rate: TurnRate) -> FloatArray:
    """n·rate turns as an angle in [0, 2π), float64, right to a few 10⁻¹⁶ for every int64 n."""
    return turns(n, rate) * TAU


def floor_sqrt(n: NDArray[np.int64]) -> NDArray[np.int64]:
    """Elementwise ⌊√n⌋ of an int64 array ≥ 0, exact."""
    root = np.sqrt(n.astype(np.float64)).astype(np.int64)
    root = np.minimum(root, 3037000499)  # the largest r with r² < 2⁶³
    root -= root * root > n
    following = np.minimum(root + 1, 3037000499)
    return np.asarray(np.where((following > root) & (following * following <= n), following, root))


class Polar(NamedTuple):
    """Points of the plane: radius and angle (radians, counter-clockwise from the x axis), float64 arrays."""

    radius: Any
    angle: Any

    def xy(self) -> tuple[Any, Any]:
        """The same points as (x, y)."""
        return self.radius * np.cos(self.angle), self.radius * np.sin(self.angle)
