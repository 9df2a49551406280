"""Balls whose large matrix products run on float64 BLAS, exactly, by `slices`.

A product is not formed before somebody looks at it. A weight's gradient is only ever read as floats with a bound
(`expansion`), for which the leading hundred bits of the digits are enough; whatever else looks gets all bits.
"""

from __future__ import annotations

from functools import cache
from operator import add

import numpy as np
from flint import arb, arb_mat, ctx

from cllm.errors import CertificateError
from cllm.spec import slices
from cllm.spec.balls import BallArray, Balls, Expansion, working
from cllm.spec.rounding import TINY, up
from cllm.spec.slices import Sliced

WORTHWHILE = 2**23
"""Products of fewer multiplications than this are left to `arb_mat`."""


class Deferred(BallArray):
    """A ball array that is formed when looked at."""

    __slots__ = ()

    def form(self) -> list[arb]:
        raise NotImplementedError

    @property
    def formed(self) -> bool:
        return self._flat is not None

    @property
    def flat(self) -> list[arb]:
        if self._flat is None:
            self._flat = self.form()
        return self._flat


class Product(Deferred):
    """a·b, kept as its factors until then."""

    __slots__ = ("a", "b")

    def __init__(self, a: Sliced, b: Sliced) -> None:
        super().__init__((a.size.shape[0], b.size.shape[1]))
        self.a, self.b = a, b

    def form(self) -> list[arb]:
        return slices.balls(self.a, self.b)

    def entry(self, i: int, j: int) -> arb:
        return slices.balls(self.a.block(np.s_[i : i + 1]), self.b.block(np.s_[:, j : j + 1]))[0]

    def expansion(self) -> Expansion:
        return super().expansion() if self.formed else slices.expansion(self.a, self.b)


class Sum(Deferred):
    """a + b, where one of them is not formed yet."""

    __slots__ = ("a", "b")

    def __init__(self, a: BallArray, b: BallArray) -> None:
        super().__init__(a.shape)
        self.a, self.b = a, b

    def form(self) -> list[arb]:
        return list(map(add, self.a.flat, self.b.flat))

    def entry(self, i: int, j: int) -> arb:
        return self.a.entry(i, j) + self.b.entry(i, j)

    def expansion(self) -> Expansion:
        if self.formed:
            return super().expansion()
        (h1, l1, r1), (h2, l2, r2) = _with_low(self.a), _with_low(self.b)
        high, e = slices.two_sum(h1, h2)
        low = (l1 + l2) + e
        rounded = (np.abs(l1) + np.abs(l2) + np.abs(e)) * 2.0**-51 + 2 * TINY
        return high, low, up(r1 + r2 + rounded, 6)


class Transposed(Deferred):
    """The transpose of `source`, sharing its digits."""

    __slots__ = ("source",)

    def __init__(self, source: BallArray) -> None:
        super().__init__((source.shape[1], source.shape[0]))
        self.source = source
        self.exact = None if source.exact is None else source.exact.T

    def form(self) -> list[arb]:
        n, flat = self.source.shape[1], self.source.flat
        return [x for j in range(n) for x in flat[j::n]]

    def entry(self, i: int, j: int) -> arb:
        return self.source.entry(j, i)

    def expansion(self) -> Expansion:
        high, low, rad = self.source.expansion()
        return high.T, None if low is None else low.T, rad.T


def _with_low(a: BallArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The expansion of a with its second term, which balls do not have by themselves."""
    high, low, rad = a.expansion()
    if low is not None:
        return high, low, rad
    low, flat = np.zeros(high.size), a.flat
    for i in np.flatnonzero(high).tolist():
        low[i] = float(flat[i] - float(high.flat[i]))
    low = low.reshape(a.shape)
    return high, low, up(rad + np.abs(low) * 2.0**-52 + TINY * (high != 0), 3)


def sliced(a: BallArray) -> Sliced:
    """The digits of a, at FLINT's working precision; made once."""
    if isinstance(a, Transposed):
        return sliced(a.source).T
    if a.slices is None:
        a.slices = slices.slice_balls(a.flat, a.shape, ctx.prec) if a.exact is None else slices.slice_floats(a.exact)
    found: Sliced = a.slices
    return found


class FastBalls(Balls):
    """`Balls`, with another way to multiply large matrices."""

    def mm(self, a: BallArray, b: BallArray) -> BallArray:
        if a.shape[0] * a.shape[1] * b.shape[1] < WORTHWHILE:
            return super().mm(a, b)
        return Product(sliced(a), sliced(b))

    def t(self, a: BallArray) -> BallArray:
        if isinstance(a, Transposed):
            return a.source
        if isinstance(a, Product) and not a.formed:
            return Product(a.b.T, a.a.T)
        return Transposed(a)

    def add(self, a: BallArray, b: BallArray) -> BallArray:
        waiting = any(isinstance(x, Deferred) and not x.formed for x in (a, b))
        return Sum(a, b) if waiting and a.shape == b.shape else super().add(a, b)


def self_test() -> None:
    """Raise CertificateError unless this machine's BLAS forms the products exactly and keeps denormals."""
    rng = np.random.default_rng(20)
    with working(256):
        x = rng.normal(size=(7, 700)) * 2.0 ** rng.integers(-20, 20, (7, 700))
        w = rng.normal(size=(700, 5)).astype(np.float32).astype(np.float64)
        x_balls = [arb(v).exp() for v in (x / np.abs(x).max()).ravel().tolist()]
        found = slices.balls(slices.slice_balls(x_balls, x.shape, 256), slices.slice_floats(w))
        expected = (arb_mat(7, 700, x_balls) * arb_mat(700, 5, w.ravel().tolist())).entries()
        if not all(f.overlaps(e) and f.rad() < 1e-60 for f, e in zip(found, expected, strict=True)):
            raise CertificateError("sliced products disagree with arb_mat")
    ones = np.full((64, slices.LIMIT), float(slices.HALF))
    if (
        not ((ones @ ones.T) == 2.0**53).all()
        or not ((ones - 1) @ ones.T == 2.0**53 - slices.LIMIT * slices.HALF).all()
    ):
        raise CertificateError("BLAS does not sum integers below 2^53 exactly")
    tiny = np.full((64, 64), 2.0**-530)
    if not ((tiny @ tiny) > 0).all() or not (tiny * tiny > 0).all():
        raise CertificateError("denormal numbers are flushed to zero")


@cache
def fastest() -> Balls:
    """`FastBalls` where its self-test passes (once per process), `Balls` otherwise."""
    try:
        self_test()
    except CertificateError:
        return Balls()
    return FastBalls()
