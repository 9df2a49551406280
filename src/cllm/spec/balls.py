"""The number system of balls: every value is enclosed by FLINT (Arb) to the working precision.

F. Johansson, "Arb: efficient arbitrary-precision midpoint-radius interval arithmetic", IEEE Trans. Comp. 2017.
A ball array is a flat list of `arb`, row by row, or a float64 array that is exact (weights, before they are used).
Balls are immutable, so lists may share them; lists are never changed after they are made.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, repeat
from operator import add, mul, neg, pos, sub
from typing import Any

import numpy as np
from flint import arb, arb_mat, ctx
from numpy.typing import NDArray

from cllm.spec.rounding import middles, radii
from cllm.spec.system import Bools, Floats, Indices, Real, Shape, enclosure

ZERO = arb(0)
LEADING = 128
"""Bits that are enough for an `expansion`."""


Expansion = tuple[Floats, Floats | None, Floats]
"""(high, low, rad), each m×n: |x − (high + low)| ≤ rad; with low = None, |x − high| ≤ rad + 2⁻⁵²|high| + TINY."""


class BallArray:
    """An m×n array of balls; or of exact floats that become balls when looked at."""

    __slots__ = ("_flat", "exact", "shape")

    def __init__(self, shape: Shape, flat: list[arb] | None = None, exact: Floats | None = None) -> None:
        self.shape, self._flat, self.exact = shape, flat, exact

    @property
    def flat(self) -> list[arb]:
        if self._flat is None:
            assert self.exact is not None
            return list(map(arb, self.exact.ravel().tolist()))
        return self._flat

    def row(self, i: int) -> list[arb]:
        if self.exact is not None:
            return list(map(arb, self.exact[i].tolist()))
        n = self.shape[1]
        return self.flat[i * n : (i + 1) * n]

    def entry(self, i: int, j: int) -> arb:
        return arb(self.exact[i, j]) if self.exact is not None else self.flat[i * self.shape[1] + j]

    def matrix(self) -> arb_mat:
        return arb_mat(*self.shape, self.flat if self.exact is None else self.exact.ravel().tolist())

    def expansion(self) -> Expansion:
        """The balls as floats with a bound."""
        flat = self.flat
        return middles(flat).reshape(self.shape), None, radii(flat).reshape(self.shape)


class Product(BallArray):
    """a·b, formed when looked at. A weight's gradient is only ever read as floats with a bound (`expansion`): factors
    rounded to LEADING bits are enough, and a third of the work."""

    __slots__ = ("a", "b")

    def __init__(self, a: BallArray, b: BallArray) -> None:
        super().__init__((a.shape[0], b.shape[1]))
        self.a, self.b = a, b

    @property
    def flat(self) -> list[arb]:
        if self._flat is None:
            self._flat = (self.a.matrix() * self.b.matrix()).entries()
        return self._flat

    def entry(self, i: int, j: int) -> arb:
        if self._flat is not None:
            return super().entry(i, j)
        column = [self.b.entry(k, j) for k in range(self.b.shape[0])]
        return sum(map(mul, self.a.row(i), column), ZERO)

    def expansion(self) -> Expansion:
        if self._flat is not None:
            return super().expansion()
        with ctx.workprec(LEADING):
            a, b = (BallArray(x.shape, list(map(pos, x.flat))) for x in (self.a, self.b))
            return BallArray(self.shape, (a.matrix() * b.matrix()).entries()).expansion()


def _spread(a: BallArray, shape: Shape) -> list[arb]:
    flat, (m, n) = a.flat, shape
    if a.shape[0] != m:
        flat = flat * m
    if a.shape[1] != n:
        flat = list(chain.from_iterable(map(repeat, flat, repeat(n))))
    return flat


class Balls:
    """Values are `BallArray`s. All work is done inside `working(bits)`."""

    keeps = 128
    """Tokens of a step up to which memory is the lesser concern: see `gradient.enclose`."""

    def lift(self, x: NDArray[Any]) -> BallArray:
        exact = np.atleast_2d(np.asarray(x, np.float64))
        return BallArray((exact.shape[0], exact.shape[1]), exact=exact)

    def shape(self, a: BallArray) -> Shape:
        return a.shape

    def t(self, a: BallArray) -> BallArray:
        m, n = a.shape
        if a.exact is not None:
            return BallArray((n, m), exact=a.exact.T)
        if isinstance(a, Product) and a._flat is None:
            return Product(self.t(a.b), self.t(a.a))
        flat = a.flat
        return BallArray((n, m), list(chain.from_iterable(flat[j::n] for j in range(n))))

    def mm(self, a: BallArray, b: BallArray) -> BallArray:
        return Product(a, b)

    def _each(self, f: Callable[[arb], arb], a: BallArray) -> BallArray:
        return BallArray(a.shape, list(map(f, a.flat)))

    def _both(self, f: Callable[[arb, arb], arb], a: BallArray, b: BallArray) -> BallArray:
        shape = max(a.shape[0], b.shape[0]), max(a.shape[1], b.shape[1])
        return BallArray(shape, list(map(f, _spread(a, shape), _spread(b, shape))))

    def add(self, a: BallArray, b: BallArray) -> BallArray:
        return self._both(add, a, b)

    def sub(self, a: BallArray, b: BallArray) -> BallArray:
        return self._both(sub, a, b)

    def mul(self, a: BallArray, b: BallArray) -> BallArray:
        return self._both(mul, a, b)

    def neg(self, a: BallArray) -> BallArray:
        return self._each(neg, a)

    def sq(self, a: BallArray) -> BallArray:
        flat = a.flat
        return BallArray(a.shape, list(map(mul, flat, flat)))

    def scale(self, a: BallArray, c: Real) -> BallArray:
        return BallArray(a.shape, list(map(mul, a.flat, repeat(enclosure(c)))))

    def plus(self, a: BallArray, c: Real) -> BallArray:
        return BallArray(a.shape, list(map(add, a.flat, repeat(enclosure(c)))))

    def rowsum(self, a: BallArray) -> BallArray:
        (m, n), flat = a.shape, a.flat
        return BallArray((m, 1), [sum(flat[i * n : (i + 1) * n], ZERO) for i in range(m)])

    def colsum(self, a: BallArray) -> BallArray:
        (_, n), flat = a.shape, a.flat
        return BallArray((1, n), [sum(flat[j::n], ZERO) for j in range(n)])

    def spread(self, a: BallArray, shape: Shape) -> BallArray:
        return BallArray(shape, _spread(a, shape))

    def exp(self, a: BallArray) -> BallArray:
        return self._each(arb.exp, a)

    def log(self, a: BallArray) -> BallArray:
        return self._each(arb.log, a)

    def recip(self, a: BallArray) -> BallArray:
        return self._each(lambda x: 1 / x, a)

    def rsqrt(self, a: BallArray) -> BallArray:
        return self._each(arb.rsqrt, a)

    def sqrt(self, a: BallArray) -> BallArray:
        return self._each(arb.sqrt, a)

    def tanh(self, a: BallArray) -> BallArray:
        return self._each(arb.tanh, a)

    def erf(self, a: BallArray) -> BallArray:
        return self._each(arb.erf, a)

    def cut(self, a: BallArray, corner: Shape, shape: Shape) -> BallArray:
        (i, j), (m, n), width, flat = corner, shape, a.shape[1], a.flat
        starts = range(i * width + j, (i + m) * width + j, width)
        return BallArray(shape, list(chain.from_iterable(flat[s : s + n] for s in starts)))

    def paste(self, shape: Shape, corners: Sequence[Shape], *parts: BallArray) -> BallArray:
        y = [ZERO] * (shape[0] * shape[1])
        for (i, j), part in zip(corners, parts, strict=True):
            n = part.shape[1]
            for r in range(part.shape[0]):
                s, row = (i + r) * shape[1] + j, part.row(r)
                old = y[s : s + n]
                y[s : s + n] = row if all(o is ZERO for o in old) else map(add, old, row)
        return BallArray(shape, y)

    def gather(self, a: BallArray, index: Indices) -> BallArray:
        rows = (a.row(i) for i in index.tolist())
        return BallArray((len(index), a.shape[1]), list(chain.from_iterable(rows)))

    def scatter_rows(self, a: BallArray, index: Indices, m: int) -> BallArray:
        n = a.shape[1]
        return self.paste(
            (m, n), [(i, 0) for i in index.tolist()], *(BallArray((1, n), a.row(r)) for r in range(len(index)))
        )

    def mask(self, a: BallArray, keep: Bools) -> BallArray:
        return BallArray(a.shape, [x if k else ZERO for x, k in zip(a.flat, keep.ravel().tolist(), strict=True)])

    def pick(self, a: BallArray, index: Indices) -> BallArray:
        n, flat = a.shape[1], a.flat
        return BallArray((len(index), 1), [flat[i * n + j] for i, j in enumerate(index.tolist())])

    def place(self, a: BallArray, index: Indices, n: int) -> BallArray:
        return self.paste((len(index), n), list(enumerate(index.tolist())), *(BallArray((1, 1), [x]) for x in a.flat))

    def peak(self, a: BallArray, keep: Bools | None = None) -> BallArray:
        middles = np.fromiter(map(float, a.flat), np.float64).reshape(a.shape)
        return self.lift(np.max(middles if keep is None else np.where(keep, middles, -np.inf), axis=1, keepdims=True))

    def at_least(self, a: BallArray, c: Real) -> BallArray:
        least = enclosure(c)
        return self._each(lambda x: x.max(least), a)

    def call(self, f: Callable[..., BallArray], *args: BallArray) -> BallArray:
        return f(self, *args)


@contextmanager
def working(bits: int) -> Iterator[None]:
    """FLINT's precision set to `bits`, its threads to the machine's, and the cyclic collector off: balls by the
    million, none of them in a cycle, would be walked over and over. All three are put back at the end."""
    before = ctx.prec, ctx.threads, gc.isenabled()
    ctx.prec, ctx.threads = bits, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    gc.disable()
    try:
        yield
    finally:
        ctx.prec, ctx.threads = before[:2]
        if before[2]:
            gc.enable()
