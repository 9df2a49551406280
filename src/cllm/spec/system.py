"""The number-system protocol: the primitives in which the specification is written.

A value is a 2-D array of real numbers; what represents a real number is the system's business: a float64
(`floats`), a ball of proven radius (`balls`), a float64 interval (`intervals`), or a recorded variable (`tape`).
Binary primitives broadcast 1×n, m×1 and 1×1 operands and nothing else. Indices, masks and shapes are plain
numpy data, never differentiated. Structural primitives come in adjoint pairs: cut/paste, gather/scatter_rows,
pick/place, spread/rowsum+colsum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol, TypeVar

import flint
import numpy as np
from numpy.typing import NDArray

A = TypeVar("A")
Shape = tuple[int, int]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Named:
    """A real constant that is not rational: `ball()` encloses it at FLINT's current precision."""

    name: str
    ball: Callable[[], flint.arb]


Real = int | Fraction | Named
"""Constants of the formulas are exact: integers, rationals, or named reals; never floats."""

SQRT_2_OVER_PI = Named("sqrt(2/pi)", lambda: (2 / flint.arb.pi()).sqrt())
SQRT_HALF = Named("sqrt(1/2)", lambda: flint.arb(2).rsqrt())
TWO_OVER_SQRT_PI = Named("2/sqrt(pi)", lambda: 2 * flint.arb.pi().rsqrt())


def inverse_sqrt(n: int) -> Named:
    """1/√n for a positive integer."""
    return Named(f"1/sqrt({n})", lambda: flint.arb(n).rsqrt())


def enclosure(c: Real) -> flint.arb:
    """A ball around the constant, at FLINT's current precision."""
    if isinstance(c, Named):
        return c.ball()
    return flint.arb(flint.fmpq(c.numerator, c.denominator))


class System(Protocol[A]):
    """What a number system offers. Shapes: a, b are m×n unless said otherwise."""

    def lift(self, x: NDArray[Any]) -> A:
        """The array of exactly these floats (1-D becomes 1×n)."""

    def shape(self, a: A) -> Shape: ...

    # linear algebra and arithmetic
    def t(self, a: A) -> A: ...
    def mm(self, a: A, b: A) -> A: ...
    def add(self, a: A, b: A) -> A: ...
    def sub(self, a: A, b: A) -> A: ...
    def mul(self, a: A, b: A) -> A: ...
    def neg(self, a: A) -> A: ...
    def sq(self, a: A) -> A: ...
    def scale(self, a: A, c: Real) -> A:
        """c·a."""

    def plus(self, a: A, c: Real) -> A:
        """a + c, entry by entry."""

    def rowsum(self, a: A) -> A:
        """m×1."""

    def colsum(self, a: A) -> A:
        """1×n."""

    def spread(self, a: A, shape: Shape) -> A:
        """Broadcast a 1×n, m×1 or 1×1 array to `shape`."""

    # elementary functions, entry by entry
    def exp(self, a: A) -> A: ...
    def log(self, a: A) -> A: ...
    def recip(self, a: A) -> A: ...
    def rsqrt(self, a: A) -> A: ...
    def sqrt(self, a: A) -> A: ...
    def tanh(self, a: A) -> A: ...
    def erf(self, a: A) -> A: ...

    # structure
    def cut(self, a: A, corner: Shape, shape: Shape) -> A:
        """The block of `shape` whose first entry is a[corner]."""

    def paste(self, shape: Shape, corners: Sequence[Shape], *parts: A) -> A:
        """The sum of the parts, each placed with its first entry at its corner of an array of exact zeros."""

    def gather(self, a: A, index: Indices) -> A:
        """Row i is a[index[i]]."""

    def scatter_rows(self, a: A, index: Indices, m: int) -> A:
        """m×n: row index[i] receives the sum of the rows a[i]; the others are exact zeros."""

    def mask(self, a: A, keep: Bools) -> A:
        """a where `keep`, exact zeros elsewhere."""

    def pick(self, a: A, index: Indices) -> A:
        """m×1: a[i, index[i]]."""

    def place(self, a: A, index: Indices, n: int) -> A:
        """m×n from m×1: a[i] at column index[i], exact zeros elsewhere."""

    def peak(self, a: A, keep: Bools | None = None) -> A:
        """m×1 of floats near the largest kept entry of each row: taken as exact constants, so that
        c + log Σ exp(a − c), which does not depend on c, can be computed without overflow."""

    def at_least(self, a: A, c: Real) -> A:
        """max(a, c), entry by entry; not differentiated."""

    def call(self, f: Callable[..., A], *args: A) -> A:
        """f(self, *args). A tape keeps only the arguments, and runs f again on the way back."""
