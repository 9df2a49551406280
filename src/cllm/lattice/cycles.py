"""Cycles as named constants, and the transducer between clock steps and frequencies."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from cllm.errors import DomainError, closest


class Cycle(NamedTuple):
    """A named cycle: its value, its unit and what it is."""

    name: str
    value: Fraction
    unit: str
    meaning: str


CYCLES = {
    cycle.name: cycle
    for cycle in (
        Cycle("saros", Fraction(223), "synodic months", "eclipses repeat after it"),
        Cycle("metonic", Fraction(235), "synodic months", "nearly 19 tropical years"),
        Cycle("metonic_years", Fraction(19), "tropical years", "nearly 235 synodic months"),
        Cycle("month", Fraction(31), "days", "the longest calendar month"),
        Cycle("week", Fraction(7), "days", "the week"),
        Cycle("year", Fraction(12), "months", "the calendar year; hours of the clock face"),
        Cycle("schumann", Fraction(783, 100), "Hz", "nominal first resonance of the Earth's cavity"),
        Cycle("gamma", Fraction(40), "Hz", "nominal gamma rhythm of the electroencephalogram"),
    )
}

REFERENCE = 432.0
"""Hz of step 0 of the transducer: a convention."""


def cycle(name: str) -> Cycle:
    """A cycle by name."""
    if name not in CYCLES:
        raise DomainError(f"cycle: unknown name {name!r}; known: {', '.join(CYCLES)}{closest(name, CYCLES)}")
    return CYCLES[name]


def transducer(x: ArrayLike) -> Any:
    """f(x) = 432·2^{x/12} Hz, float64: twelve equal steps to the octave."""
    steps = np.asarray(x, dtype=np.float64)
    with np.errstate(over="ignore", under="ignore"):
        f = REFERENCE * np.exp2(steps / 12)
    if not bool(np.all(np.isfinite(f) & (f > 0))):
        raise DomainError("transducer: 432·2^{x/12} leaves float64; x is from about −12800 to 12180")
    return f


def transducer_inverse(frequency: ArrayLike) -> Any:
    """x = 12·log₂(f/432), f > 0."""
    f = np.asarray(frequency, dtype=np.float64)
    if f.size and not bool(np.all(f > 0)):
        raise DomainError("transducer_inverse: frequencies must be positive")
    return 12 * np.log2(f / REFERENCE)
