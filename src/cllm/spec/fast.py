"""The number system of balls in native arrays: `fixed` integers, products by `slices`, exp and tanh in C++.

A product is not formed before somebody looks at it. A weight's gradient is only ever read as floats with a bound
(`expansion`), for which the leading hundred bits of the digits are enough; whatever else looks gets all bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
from flint import arb, ctx
from numpy.typing import NDArray

from cllm.errors import CertificateError
from cllm.spec import elementary, fixed, native, slices
from cllm.spec.balls import BallArray, Balls, Expansion, working
from cllm.spec.fixed import Fixed
from cllm.spec.slices import Operand
from cllm.spec.system import Bools, Floats, Indices, Real, Shape, enclosure


class Array(BallArray):
    """A ball array whose integers are formed when looked at, once."""

    __slots__ = ("_fixed",)

    def __init__(self, shape: Shape, found: Fixed | None = None, exact: Floats | None = None) -> None:
        super().__init__(shape, exact=exact)
        self._fixed = found

    @property
    def fixed(self) -> Fixed:
        if self._fixed is None:
            self._fixed = self.form()
        return self._fixed

    def form(self) -> Fixed:
        assert self.exact is not None
        return fixed.from_floats(self.exact, fixed.working_limbs())

    def operand(self) -> Operand:
        if self.exact is not None:
            return slices.of_floats(self.exact)
        return slices.of_balls(self.fixed, int(ctx.prec))

    def leading(self) -> Fixed:
        return self.fixed.leading()

    @property
    def flat(self) -> list[arb]:
        return fixed.to_balls(self.fixed)

    def entry(self, i: int, j: int) -> arb:
        return fixed.to_balls(self.fixed[i : i + 1, j : j + 1])[0]

    def expansion(self) -> Expansion:
        return fixed.to_floats(self.leading())


class Product(Array):
    """a·b, kept as its factors until then."""

    __slots__ = ("a", "b")

    def __init__(self, a: Array, b: Array) -> None:
        super().__init__((a.shape[0], b.shape[1]))
        self.a, self.b = a, b

    def form(self) -> Fixed:
        return slices.product(self.a.operand(), self.b.operand(), fixed.working_limbs())

    def leading(self) -> Fixed:
        if self._fixed is not None:
            return self._fixed.leading()
        return slices.leading(self.a.operand(), self.b.operand(), fixed.working_limbs())

    def entry(self, i: int, j: int) -> arb:
        if self._fixed is not None:
            return super().entry(i, j)
        return Product(part(self.a, np.s_[i : i + 1, :]), part(self.b, np.s_[:, j : j + 1])).flat[0]


class Sum(Array):
    """a + b, where one of them is not formed yet."""

    __slots__ = ("a", "b")

    def __init__(self, a: Array, b: Array) -> None:
        super().__init__(a.shape)
        self.a, self.b = a, b

    def form(self) -> Fixed:
        return fixed.add(self.a.fixed, self.b.fixed)

    def leading(self) -> Fixed:
        return self._fixed.leading() if self._fixed is not None else fixed.add(self.a.leading(), self.b.leading())

    def entry(self, i: int, j: int) -> arb:
        return self.a.entry(i, j) + self.b.entry(i, j)


def part(a: Array, where: Any) -> Array:
    """The block a[where]."""
    if a.exact is not None:
        block = a.exact[where]
        return Array((block.shape[0], block.shape[1]), exact=block)
    return given(a.fixed[where])


def given(found: Fixed) -> Array:
    return Array(found.shape, found)


def waiting(a: Array) -> bool:
    return isinstance(a, Product | Sum) and a._fixed is None


class FastBalls:
    """The same balls as `Balls`, in native arrays. All work is done inside `working(bits)`."""

    keeps = 256

    def lift(self, x: NDArray[Any]) -> Array:
        exact = np.atleast_2d(np.asarray(x, np.float64))
        return Array((exact.shape[0], exact.shape[1]), exact=exact)

    def shape(self, a: Array) -> Shape:
        return a.shape

    def t(self, a: Array) -> Array:
        if isinstance(a, Product) and a._fixed is None:
            return Product(self.t(a.b), self.t(a.a))
        if a.exact is not None:
            return Array((a.shape[1], a.shape[0]), exact=a.exact.T)
        return given(a.fixed.T)

    def mm(self, a: Array, b: Array) -> Array:
        return Product(a, b)

    def add(self, a: Array, b: Array) -> Array:
        if a.shape == b.shape and (waiting(a) or waiting(b)):
            return Sum(a, b)
        return given(fixed.add(a.fixed, b.fixed))

    def sub(self, a: Array, b: Array) -> Array:
        return given(fixed.add(a.fixed, b.fixed, minus=True))

    def mul(self, a: Array, b: Array) -> Array:
        return given(fixed.mul(a.fixed, b.fixed))

    def neg(self, a: Array) -> Array:
        return given(fixed.add(fixed.zeros((1, 1), a.fixed.length), a.fixed, minus=True))

    def sq(self, a: Array) -> Array:
        return self.mul(a, a)

    def scale(self, a: Array, c: Real) -> Array:
        return given(fixed.mul(a.fixed, fixed.constant(c, a.fixed.length)))

    def plus(self, a: Array, c: Real) -> Array:
        return given(fixed.add(a.fixed, fixed.constant(c, a.fixed.length)))

    def rowsum(self, a: Array) -> Array:
        return given(fixed.rowsum(a.fixed))

    def colsum(self, a: Array) -> Array:
        return given(fixed.rowsum(a.fixed.T).T)

    def spread(self, a: Array, shape: Shape) -> Array:
        return given(a.fixed.spread(shape))

    def exp(self, a: Array) -> Array:
        return given(elementary.exp(a.fixed))

    def tanh(self, a: Array) -> Array:
        return given(elementary.tanh(a.fixed))

    def log(self, a: Array) -> Array:
        return given(elementary.by_arb(arb.log, a.fixed))

    def recip(self, a: Array) -> Array:
        return given(elementary.by_arb(lambda x: 1 / x, a.fixed))

    def rsqrt(self, a: Array) -> Array:
        return given(elementary.by_arb(arb.rsqrt, a.fixed))

    def sqrt(self, a: Array) -> Array:
        return given(elementary.by_arb(arb.sqrt, a.fixed))

    def erf(self, a: Array) -> Array:
        return given(elementary.by_arb(arb.erf, a.fixed))

    def cut(self, a: Array, corner: Shape, shape: Shape) -> Array:
        return part(a, np.s_[corner[0] : corner[0] + shape[0], corner[1] : corner[1] + shape[1]])

    def paste(self, shape: Shape, corners: Sequence[Shape], *parts: Array) -> Array:
        return given(fixed.paste(shape, corners, [p.fixed for p in parts], fixed.working_limbs()))

    def gather(self, a: Array, index: Indices) -> Array:
        return part(a, index)

    def scatter_rows(self, a: Array, index: Indices, m: int) -> Array:
        rows = [a.fixed[i : i + 1] for i in range(len(index))]
        return given(fixed.paste((m, a.shape[1]), [(i, 0) for i in index.tolist()], rows, a.fixed.length))

    def mask(self, a: Array, keep: Bools) -> Array:
        f = a.fixed
        limbs, rad = np.where(keep[..., None], f.limbs, np.uint64(0)), np.where(keep, f.rad, 0.0)
        return given(Fixed(limbs, f.exponent, f.bits, rad))

    def pick(self, a: Array, index: Indices) -> Array:
        return part(a, (np.arange(len(index))[:, None], index[:, None]))

    def place(self, a: Array, index: Indices, n: int) -> Array:
        f = fixed.zeros((len(index), n), a.fixed.length, a.fixed.exponent)
        rows = np.arange(len(index))
        f.limbs[rows, index], f.rad[rows, index] = a.fixed.limbs[:, 0], a.fixed.rad[:, 0]
        return given(Fixed(f.limbs, f.exponent, a.fixed.bits, f.rad))

    def peak(self, a: Array, keep: Bools | None = None) -> Array:
        middles = fixed.to_floats(a.fixed)[0]
        return self.lift(np.max(middles if keep is None else np.where(keep, middles, -np.inf), axis=1, keepdims=True))

    def at_least(self, a: Array, c: Real) -> Array:
        least = enclosure(c)
        return given(elementary.by_arb(lambda x: x.max(least), a.fixed))

    def call(self, f: Callable[..., Array], *args: Array) -> Array:
        return f(self, *args)


def self_test() -> None:
    """Raise CertificateError unless the native library says what `Balls` says, this machine's BLAS sums exactly, and
    denormals are kept."""
    if native.library() is None:
        raise CertificateError("the native library is not there")
    rng, fast, plain = np.random.default_rng(20), FastBalls(), Balls()
    functions: list[Callable[..., Any]] = [
        lambda S, x, w: S.mm(x, w),
        lambda S, x, w: S.mm(S.exp(x), w),
        lambda S, x, w: S.mm(S.t(w), S.mul(S.tanh(S.t(x)), S.t(x))),
        lambda S, x, w: S.sub(S.sq(S.scale(x, Fraction(1, 3))), S.plus(S.neg(S.exp(x)), 1)),
        lambda S, x, w: S.colsum(S.mul(S.rowsum(x), S.rsqrt(S.exp(x)))),
    ]
    for bits in (256, 384):
        with working(bits):
            x = rng.normal(size=(7, 700)) * 2.0 ** rng.integers(-20, 3, (7, 700))
            w = rng.normal(size=(700, 5)).astype(np.float32).astype(np.float64)
            for f in functions:
                found, expected = (f(S, S.lift(x), S.lift(w)).flat for S in (fast, plain))
                for y, z in zip(found, expected, strict=True):
                    if not (y.overlaps(z) and y.rad() < 2.0 ** (128 - bits)):
                        raise CertificateError(f"native arithmetic disagrees with arb: {y}, {z}")
    ones, out = np.full((64, slices.LIMIT), float(slices.HALF)), np.empty((64, 64))
    for less in (0, 1):
        if not (slices.multiply(ones - less, ones.T, out) == 2.0**53 - less * slices.LIMIT * slices.HALF).all():
            raise CertificateError("BLAS does not sum integers below 2^53 exactly")
    tiny = np.full((64, 64), 2.0**-530)
    if (
        not (slices.multiply(tiny, tiny, out) > 0).all()
        or not (tiny * tiny > 0).all()
        or not native.call("subnormals_survive")
    ):
        raise CertificateError("denormal numbers are flushed to zero")


def fastest() -> Any:
    """`FastBalls` where its self-test passes (once for each library), `Balls` otherwise."""
    return _fastest(native.library())


@cache
def _fastest(library: Any) -> Any:
    try:
        self_test()
    except CertificateError:
        return Balls()
    return FastBalls()
