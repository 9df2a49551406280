"""The number system of float64 intervals, for checks of one operation at a time.

An `Interval` is midpoint ± radius, both float64: the exact value x satisfies |x − mid| ≤ rad. Radii are computed in
float64 too and enlarged by more than their own roundings (`rounding.up`), so no rounding mode is ever changed.
What is assumed of float64: + − × / √ of numpy are correctly rounded (IEEE 754), and a matrix product sums its
products in some order, fused or not (S. M. Rump, "Fast and parallel interval arithmetic", BIT 39, 1999; N. Higham,
"Accuracy and Stability of Numerical Algorithms", §3). Elementary functions are tables of Taylor polynomials whose
coefficients are Arb's balls (`taylor`); no mathematical library is trusted.

Through a whole model these radii would grow beyond use; for one operation at given inputs they stay near 2⁻⁵³.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cllm.spec import taylor
from cllm.spec.rounding import TINY, up
from cllm.spec.system import Bools, Floats, Indices, Real, Shape, enclosure

U = 2.0**-53


class Interval(NamedTuple):
    """mid ± rad, [m, n] each; rad = None: exact. A radius of inf or nan (compare as: not ≤) means nothing is known."""

    mid: Floats
    rad: Floats | None

    def radius(self) -> Floats:
        return np.zeros(self.mid.shape) if self.rad is None else self.rad


def _sum(*terms: Floats | None) -> Floats:
    """The sum of the radii that are there (unrounded upward: for use inside `up`)."""
    return sum((t for t in terms if t is not None), np.zeros(()))


class Intervals:
    """Values are `Interval`s."""

    def lift(self, x: NDArray[Any]) -> Interval:
        return Interval(np.atleast_2d(np.asarray(x, np.float64)), None)

    def constant(self, c: Real) -> tuple[float, float]:
        """A float64 near the constant, and a bound of its distance."""
        ball = enclosure(c)
        mid = float(ball)
        off = ball - mid
        return mid, 0.0 if off.is_zero() else float(taylor.upper([off])[0])

    def shape(self, a: Interval) -> Shape:
        return a.mid.shape[0], a.mid.shape[1]

    def t(self, a: Interval) -> Interval:
        return _structure(lambda x: x.T, a)

    def mm(self, a: Interval, b: Interval) -> Interval:
        k = a.mid.shape[1]
        size_a, size_b = np.abs(a.mid), np.abs(b.mid)
        # |fl(AB) − AB| ≤ γ_k |A||B| with γ_k ≤ (k + 1)u for k < 2²⁵, and k underflows
        rad = (k + 1) * U * (size_a @ size_b)
        if b.rad is not None:
            rad += size_a @ b.rad
            size_b = size_b + b.rad
        if a.rad is not None:
            rad += a.rad @ size_b
        return Interval(a.mid @ b.mid, up(rad, k + 5) + 4 * k * TINY)

    def add(self, a: Interval, b: Interval) -> Interval:
        mid = a.mid + b.mid
        return Interval(mid, up(_sum(U * np.abs(mid), a.rad, b.rad), 3))

    def sub(self, a: Interval, b: Interval) -> Interval:
        return self.add(a, self.neg(b))

    def mul(self, a: Interval, b: Interval) -> Interval:
        mid = a.mid * b.mid
        rad = U * np.abs(mid)
        if b.rad is not None:
            rad = rad + np.abs(a.mid) * b.rad
        if a.rad is not None:
            rad = rad + a.rad * (np.abs(b.mid) if b.rad is None else np.abs(b.mid) + b.rad)
        return Interval(mid, up(rad, 5))

    def neg(self, a: Interval) -> Interval:
        return Interval(-a.mid, a.rad)

    def sq(self, a: Interval) -> Interval:
        return self.mul(a, a)

    def scale(self, a: Interval, c: Real) -> Interval:
        mid, rad = self.constant(c)
        return self.mul(a, Interval(np.full((1, 1), mid), np.full((1, 1), rad) if rad else None))

    def plus(self, a: Interval, c: Real) -> Interval:
        mid, rad = self.constant(c)
        return self.add(a, Interval(np.full((1, 1), mid), np.full((1, 1), rad) if rad else None))

    def rowsum(self, a: Interval) -> Interval:
        return self._total(a, 1)

    def colsum(self, a: Interval) -> Interval:
        return self._total(a, 0)

    def _total(self, a: Interval, axis: int) -> Interval:
        n = a.mid.shape[axis]
        rad = n * U * np.sum(np.abs(a.mid), axis=axis, keepdims=True)
        if a.rad is not None:
            rad = rad + np.sum(a.rad, axis=axis, keepdims=True)
        return Interval(np.sum(a.mid, axis=axis, keepdims=True), up(rad, n + 3))

    def spread(self, a: Interval, shape: Shape) -> Interval:
        return _structure(lambda x: np.broadcast_to(x, shape), a)

    def exp(self, a: Interval) -> Interval:
        mid, rad = taylor.exp(a.mid)
        if a.rad is not None:
            # |e^(x+r) − e^x| ≤ e^x (r + r²) for |r| ≤ 1
            growth = np.where(a.rad <= 1.0, a.rad + a.rad * a.rad, np.inf)
            rad = up(rad + (mid + rad) * growth, 5)
        return Interval(mid, rad)

    def log(self, a: Interval) -> Interval:
        mid, rad = taylor.log(a.mid)
        if a.rad is not None:
            with np.errstate(divide="ignore", invalid="ignore"):
                # |ln x − ln y| ≤ |x − y| / min(x, y)
                rad = up(rad + np.where(a.mid > a.rad, a.rad / _least(a), np.inf), 4)
        return Interval(mid, rad)

    def recip(self, a: Interval) -> Interval:
        with np.errstate(divide="ignore", invalid="ignore"):
            mid = 1.0 / a.mid
            rad = U * np.abs(mid)
            if a.rad is not None:
                rad = rad + np.abs(mid) * (1.0 + 4 * U) * (a.rad / _least(a))
        return Interval(mid, up(rad, 6))

    def sqrt(self, a: Interval) -> Interval:
        """Of an interval that reaches below 0 by its radius only: of its part ≥ 0."""
        with np.errstate(invalid="ignore", divide="ignore"):
            mid = np.sqrt(np.maximum(a.mid, 0.0))
            rad = U * mid
            if a.rad is not None:
                slope = a.rad / np.maximum(mid, 1e-300)  # |√x − √y| ≤ |x − y|/√x, and ≤ √|x − y|
                rad = rad + np.minimum(slope, np.sqrt(a.rad))
            known = a.mid >= -a.radius()
        return Interval(mid, np.where(known, up(rad, 6), np.inf))

    def rsqrt(self, a: Interval) -> Interval:
        return self.recip(self.sqrt(a))

    def tanh(self, a: Interval) -> Interval:
        mid, rad = taylor.tanh(a.mid)
        return Interval(mid, rad if a.rad is None else up(rad + a.rad, 2))  # |tanh′| ≤ 1

    def erf(self, a: Interval) -> Interval:
        mid, rad = taylor.erf(a.mid)
        return Interval(mid, rad if a.rad is None else up(rad + 1.1875 * a.rad, 3))  # |erf′| ≤ 2/√π < 19/16

    def cut(self, a: Interval, corner: Shape, shape: Shape) -> Interval:
        (i, j), (m, n) = corner, shape
        return _structure(lambda x: x[i : i + m, j : j + n], a)

    def paste(self, shape: Shape, corners: Sequence[Shape], *parts: Interval) -> Interval:
        mid, rad = np.zeros(shape), np.zeros(shape)
        for (i, j), part in zip(corners, parts, strict=True):
            here = np.s_[i : i + part.mid.shape[0], j : j + part.mid.shape[1]]
            old = Interval(mid[here], rad[here])
            # where nothing was yet, the part is copied; otherwise the two are added
            fresh = (mid[here] == 0.0) & (rad[here] == 0.0)
            total = self.add(old, part)
            mid[here], rad[here] = total.mid, np.where(fresh, part.radius(), total.radius())
        return Interval(mid, rad)

    def gather(self, a: Interval, index: Indices) -> Interval:
        return _structure(lambda x: x[index], a)

    def scatter_rows(self, a: Interval, index: Indices, m: int) -> Interval:
        mid, rad, size = (np.zeros((m, a.mid.shape[1])) for _ in range(3))
        np.add.at(mid, index, a.mid)
        np.add.at(rad, index, a.radius())
        np.add.at(size, index, np.abs(a.mid))
        count = np.bincount(index, minlength=m)[:, None]
        return Interval(mid, np.where(count == 0, 0.0, up(rad + (count - 1) * U * size, int(count.max()) + 3)))

    def mask(self, a: Interval, keep: Bools) -> Interval:
        return _structure(lambda x: np.where(keep, x, 0.0), a)

    def pick(self, a: Interval, index: Indices) -> Interval:
        rows = np.arange(len(index))
        return _structure(lambda x: x[rows, index][:, None], a)

    def place(self, a: Interval, index: Indices, n: int) -> Interval:
        def put(x: Floats) -> Floats:
            y = np.zeros((len(index), n))
            y[np.arange(len(index)), index] = x[:, 0]
            return y

        return _structure(put, a)

    def peak(self, a: Interval, keep: Bools | None = None) -> Interval:
        kept = a.mid if keep is None else np.where(keep, a.mid, -np.inf)
        return self.lift(np.max(kept, axis=1, keepdims=True))

    def at_least(self, a: Interval, c: Real) -> Interval:
        mid, rad = self.constant(c)
        return Interval(np.maximum(a.mid, mid), up(a.radius() + rad, 2))

    def call(self, f: Callable[..., Interval], *args: Interval) -> Interval:
        return f(self, *args)


def _structure(f: Callable[[Floats], Floats], a: Interval) -> Interval:
    """A primitive that only moves entries, or puts exact zeros."""
    return Interval(f(a.mid), None if a.rad is None else f(a.rad))


def _least(a: Interval) -> Floats:
    """A lower bound of |x|, 0 (so that what is divided by it is infinite) where the interval reaches 0."""
    assert a.rad is not None
    return np.maximum((np.abs(a.mid) - a.rad) * (1.0 - 4 * U) - TINY, 0.0)
