"""The number system of plain float64 arrays: no guarantee, and a model for the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cllm.spec.system import Bools, Floats, Indices, Real, Shape, enclosure

_erf = np.frompyfunc(math.erf, 1, 1)


class Float64:
    """Values are float64 arrays [m, n]."""

    def lift(self, x: NDArray[Any]) -> Floats:
        return np.atleast_2d(np.asarray(x, np.float64))

    def shape(self, a: Floats) -> Shape:
        return a.shape[0], a.shape[1]

    def t(self, a: Floats) -> Floats:
        return a.T

    def mm(self, a: Floats, b: Floats) -> Floats:
        return a @ b

    def add(self, a: Floats, b: Floats) -> Floats:
        return a + b

    def sub(self, a: Floats, b: Floats) -> Floats:
        return a - b

    def mul(self, a: Floats, b: Floats) -> Floats:
        return a * b

    def neg(self, a: Floats) -> Floats:
        return -a

    def sq(self, a: Floats) -> Floats:
        return a * a

    def scale(self, a: Floats, c: Real) -> Floats:
        return a * float(enclosure(c))

    def plus(self, a: Floats, c: Real) -> Floats:
        return a + float(enclosure(c))

    def rowsum(self, a: Floats) -> Floats:
        total: Floats = np.sum(a, axis=1, keepdims=True)
        return total

    def colsum(self, a: Floats) -> Floats:
        total: Floats = np.sum(a, axis=0, keepdims=True)
        return total

    def spread(self, a: Floats, shape: Shape) -> Floats:
        return np.broadcast_to(a, shape)

    def exp(self, a: Floats) -> Floats:
        return np.exp(a)

    def log(self, a: Floats) -> Floats:
        return np.log(a)

    def recip(self, a: Floats) -> Floats:
        return 1.0 / a

    def rsqrt(self, a: Floats) -> Floats:
        return 1.0 / np.sqrt(a)

    def sqrt(self, a: Floats) -> Floats:
        return np.sqrt(a)

    def tanh(self, a: Floats) -> Floats:
        return np.tanh(a)

    def erf(self, a: Floats) -> Floats:
        return np.asarray(_erf(a), np.float64)

    def cut(self, a: Floats, corner: Shape, shape: Shape) -> Floats:
        (i, j), (m, n) = corner, shape
        return a[i : i + m, j : j + n]

    def paste(self, shape: Shape, corners: Sequence[Shape], *parts: Floats) -> Floats:
        y = np.zeros(shape)
        for (i, j), part in zip(corners, parts, strict=True):
            y[i : i + part.shape[0], j : j + part.shape[1]] += part
        return y

    def gather(self, a: Floats, index: Indices) -> Floats:
        return a[index]

    def scatter_rows(self, a: Floats, index: Indices, m: int) -> Floats:
        y = np.zeros((m, a.shape[1]))
        np.add.at(y, index, a)
        return y

    def mask(self, a: Floats, keep: Bools) -> Floats:
        return np.where(keep, a, 0.0)

    def pick(self, a: Floats, index: Indices) -> Floats:
        return a[np.arange(len(index)), index][:, None]

    def place(self, a: Floats, index: Indices, n: int) -> Floats:
        y = np.zeros((len(index), n))
        y[np.arange(len(index)), index] = a[:, 0]
        return y

    def peak(self, a: Floats, keep: Bools | None = None) -> Floats:
        peak: Floats = np.max(a if keep is None else np.where(keep, a, -np.inf), axis=1, keepdims=True)
        return peak

    def at_least(self, a: Floats, c: Real) -> Floats:
        return np.maximum(a, float(enclosure(c)))

    def call(self, f: Callable[..., Floats], *args: Floats) -> Floats:
        return f(self, *args)
