"""From balls to floats that bound them."""

from __future__ import annotations

import numpy as np
from flint import arb

from cllm.spec.system import Floats

TINY = 2.0**-1022
"""The least normal float64: more than the underflow error of any one operation."""


def up(x: Floats, roundings: int) -> Floats:
    """An upper bound of the exact value of an expression in + and × of numbers ≥ 0 whose computed value is x.

    `roundings`: at most so many roundings to nearest lie between any operand and x (n − 1 for a sum of n numbers in
    any order). Each loses a factor of at most 1 − 2⁻⁵³, and so do the two made here: (1 − 2⁻⁵³)^−(n+3) ≤
    1 + (n + 4)2⁻⁵², which is a float64. In underflow a rounding loses less than TINY instead; products that are
    then enlarged by more than `roundings` in all are not covered, and must not be passed.
    """
    return x * (1.0 + (roundings + 4) * 2.0**-52) + (roundings + 1) * TINY


def middles(flat: list[arb]) -> Floats:
    """The balls' midpoints as float64; |middle − midpoint| ≤ 2⁻⁵²|middle| + TINY."""
    return np.fromiter(map(float, flat), np.float64, len(flat))


def radii(flat: list[arb]) -> Floats:
    """The balls' radii, rounded up: 0 for exact zeros. (A radius has 30 bits: only one near underflow is rounded.)"""
    r = np.fromiter(map(float, map(arb.rad, flat)), np.float64, len(flat))
    for i in np.flatnonzero(r < TINY).tolist():
        r[i] = 0.0 if flat[i].is_zero() else TINY
    return r
