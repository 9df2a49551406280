"""Arrays of balls as long integers of one common exponent, and arithmetic on them in C++ (`spec/native`).

An array costs 8 bytes for every 64 bits and 8 for the radius, a quarter of what a list of `arb` takes, and no object
is made for an entry. What is given up is relative precision of entries that are small beside the largest one of their
array: the last place is common to all. Nothing else: every rounding goes into the radius, as with any ball.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from operator import mul as times
from typing import Any

import numpy as np
from flint import arb, ctx
from numpy.typing import NDArray

from cllm.errors import CertificateError
from cllm.spec.native import View, address, call
from cllm.spec.rounding import TINY, middles, radii, up
from cllm.spec.system import Floats, Real, Shape, enclosure

LEADING = 3
"""Limbs that are enough for an `expansion` (two float64)."""


def working_limbs() -> int:
    """Limbs for FLINT's working precision, and one more: what the common exponent costs does not show then."""
    return -(-int(ctx.prec) // 64) + 1


def room(limbs: int) -> int:
    """Bits that an entry may have: two below the sign, so that a carry does not reach it."""
    return 64 * limbs - 2


def unit(exponent: int) -> float:
    """2^exponent, or the next larger float64 that is not subnormal."""
    return math.ldexp(1.0, max(exponent, -1022)) if exponent < 1024 else math.inf


@dataclass(frozen=True, slots=True)
class Fixed:
    """m×n balls: integer·2^exponent ± rad, |integer| ≤ 2^bits. bits = −1: all integers are 0.

    limbs: m×n×L, two's complement, lowest limb first; rad: m×n. Neither is ever written to; any strides.
    """

    limbs: NDArray[np.uint64]
    exponent: int
    bits: int
    rad: Floats

    @property
    def shape(self) -> Shape:
        m, n = self.rad.shape
        return m, n

    @property
    def length(self) -> int:
        """Limbs of an entry."""
        return int(self.limbs.shape[2])

    @property
    def top(self) -> int:
        """|entry| ≤ 2^top; very low when all are 0."""
        return self.exponent + self.bits if self.bits >= 0 else -(2**40)

    @property
    def T(self) -> Fixed:
        return Fixed(self.limbs.transpose(1, 0, 2), self.exponent, self.bits, self.rad.T)

    def __getitem__(self, where: Any) -> Fixed:
        """The part [where], which must leave two axes."""
        return Fixed(self.limbs[where], self.exponent, self.bits, self.rad[where])

    def spread(self, shape: Shape) -> Fixed:
        limbs = np.broadcast_to(self.limbs, (*shape, self.length))
        return Fixed(limbs, self.exponent, self.bits, np.broadcast_to(self.rad, shape))

    def leading(self) -> Fixed:
        """The highest limbs that are used, LEADING at most; what is cut off goes into the radius."""
        end = max(-(-(self.bits + 2) // 64), min(LEADING, self.length))
        cut = max(end - LEADING, 0)
        exponent = self.exponent + 64 * cut
        exact = ~self.limbs[..., :cut].any(axis=2)
        rad = np.where(exact, self.rad, up(self.rad + unit(exponent), 1))
        return Fixed(self.limbs[..., cut:end], exponent, max(self.bits - 64 * cut, min(self.bits, 0)), rad)

    def view(self) -> Any:
        """For the C functions; valid as long as self is."""
        (row, column, last), (rad_row, rad_column) = self.limbs.strides, self.rad.strides
        assert last == 8 or self.length == 1
        found = View(address(self.limbs), address(self.rad), row // 8, column // 8, rad_row // 8, rad_column // 8)
        return ctypes.byref(found)


def _empty(shape: Shape, limbs: int) -> Fixed:
    return Fixed(np.empty((*shape, limbs), np.uint64), 0, -1, np.empty(shape))


def zeros(shape: Shape, limbs: int, exponent: int = 0) -> Fixed:
    return Fixed(np.zeros((*shape, limbs), np.uint64), exponent, -1, np.zeros(shape))


def _broadcast(a: Fixed, b: Fixed) -> tuple[Fixed, Fixed]:
    if a.length != b.length:
        raise CertificateError(f"arrays of {a.length} and {b.length} limbs meet")
    shape = max(a.shape[0], b.shape[0]), max(a.shape[1], b.shape[1])
    return a.spread(shape), b.spread(shape)


def add(a: Fixed, b: Fixed, *, minus: bool = False) -> Fixed:
    """a ± b."""
    a, b = _broadcast(a, b)
    exponent = max(min(a.exponent, b.exponent), max(a.top, b.top) + 1 - room(a.length))
    out = _empty(a.shape, a.length)
    bits = _add(a, b, out, exponent, minus)
    return Fixed(out.limbs, exponent, bits, out.rad)


def _add(a: Fixed, b: Fixed, out: Fixed, exponent: int, minus: bool = False) -> int:
    sa, sb = (f.exponent - exponent if f.bits >= 0 else 0 for f in (a, b))
    return call("add", *a.shape, a.length, a.view(), sa, b.view(), sb, int(minus), unit(exponent), out.view())


def mul(a: Fixed, b: Fixed) -> Fixed:
    """a·b, entry by entry."""
    a, b = _broadcast(a, b)
    right = max(max(a.bits, 0) + max(b.bits, 0) - room(a.length), 0)
    exponent = a.exponent + b.exponent + right
    out = _empty(a.shape, a.length)
    bits = call(
        "mul", *a.shape, a.length, a.view(), a.exponent, b.view(), b.exponent, right, unit(exponent), out.view()
    )  # fmt: skip
    return Fixed(out.limbs, exponent, bits, out.rad)


def rowsum(a: Fixed) -> Fixed:
    """m×1."""
    (m, n), L = a.shape, a.length
    right = max(max(a.bits, 0) + n.bit_length() - room(L), 0)
    exponent, out = a.exponent + right, _empty((m, 1), L)
    bits = call("rowsum", m, n, L, a.view(), right, unit(exponent), out.view())
    return Fixed(out.limbs, exponent, bits, out.rad)


def paste(shape: Shape, corners: Any, parts: list[Fixed], limbs: int) -> Fixed:
    """The sum of the parts, each placed with its first entry at its corner of an array of exact zeros."""
    top = max((p.top for p in parts), default=0) + len(parts).bit_length()
    exponent = max(min((p.exponent for p in parts if p.bits >= 0), default=0), top - room(limbs))
    out, bits = zeros(shape, limbs, exponent), -1
    for (i, j), part in zip(corners, parts, strict=True):
        (m, n) = part.shape
        where = np.s_[i : i + m, j : j + n]
        place = Fixed(out.limbs[where], exponent, 0, out.rad[where])
        bits = max(bits, _add(place, part, place, exponent))
    return Fixed(out.limbs, exponent, bits, out.rad)


def magnitude(a: Fixed) -> Floats:
    """Upper bounds of |a|."""
    out = np.empty(a.shape)
    call("magnitude", *a.shape, a.length, a.view(), a.exponent, address(out))
    return out


def to_floats(a: Fixed) -> tuple[Floats, Floats, Floats]:
    """(high, low, rad): |a − (high + low)| ≤ rad."""
    high, low, rad = (np.empty(a.shape) for _ in range(3))
    call("to_floats", *a.shape, a.length, a.view(), a.exponent, address(high), address(low), address(rad))
    return high, low, rad


def extent(x: Floats) -> tuple[int, int]:
    """(top, low): every |x| < 2^top and a multiple of 2^low."""
    x, found = np.ascontiguousarray(x), np.empty(2, np.int64)
    call("range", x.size, address(x), address(found))
    return int(found[0]), int(found[1])


def from_floats(x: Floats, limbs: int, at: tuple[int, int] | None = None) -> Fixed:
    """The floats as integers: exact when they lie less than room(limbs) bits apart. at: their extent, when known."""
    top, low = at or extent(x.T if x.flags.f_contiguous else x)
    exponent, out = max(low, top - room(limbs)), _empty((x.shape[0], x.shape[1]), limbs)
    row, column = (s // 8 for s in x.strides)
    bits = call("from_floats", *out.shape, limbs, address(x), row, column, exponent, unit(exponent), out.view())
    return Fixed(out.limbs, exponent, bits, out.rad)


def constant(c: Real, limbs: int) -> Fixed:
    """1×1."""
    x = enclosure(c)
    integer, exponent = map(int, x.mid().man_exp())
    right = max(integer.bit_length() - room(limbs), 0)
    rad = radii([x]) if x.rad() > 0 else np.zeros(1)
    if right:
        rad = up(rad + unit(exponent + right), 1)
    return _from_integers([integer >> right], (1, 1), exponent + right, rad, limbs)


def _from_integers(values: list[int], shape: Shape, exponent: int, rad: Floats, limbs: int) -> Fixed:
    data = b"".join([v.to_bytes(8 * limbs, "little", signed=True) for v in values])
    bits = max((v.bit_length() for v in values), default=-1)
    packed = np.frombuffer(data, "<u8").reshape(*shape, limbs)
    return Fixed(packed, exponent, bits if any(values) else -1, rad.reshape(shape))


def from_balls(flat: list[arb], shape: Shape, limbs: int) -> Fixed:
    """Balls, row by row, cut to the places of the largest."""
    middle, rad = middles(flat), radii(flat)
    if not np.isfinite(middle).all():
        raise CertificateError("balls that are not finite: raise the precision")
    exponent = int(np.frexp(max(np.abs(middle).max(initial=0.0), TINY))[1]) + 1 - room(limbs)
    with ctx.workprec(max(x.bits() for x in flat) + 64 * limbs + 64 if flat else 64):  # rounded by `floor` alone
        scaled = map(times, map(arb.mid, flat), repeat(arb(2) ** -exponent))
        whole = [int(z.fmpz()) for z in map(arb.floor, scaled)]
    rad = np.where(rad == 0, rad, up(rad + unit(exponent), 1))  # `radii` gives 0 to zeros only
    return _from_integers(whole, shape, exponent, rad, limbs)


def to_balls(a: Fixed) -> list[arb]:
    """Row by row, at FLINT's working precision."""
    data, size = a.limbs.tobytes(), 8 * a.length
    integer = partial(int.from_bytes, byteorder="little", signed=True)
    whole = [arb(integer(data[i : i + size])) for i in range(0, len(data), size)]
    scaled = map(times, whole, repeat(arb(2) ** a.exponent))
    return list(map(arb, scaled, a.rad.ravel().tolist()))
