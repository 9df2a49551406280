"""Exact products of matrices of long integers on float64 BLAS, and products of ball matrices made of them.

K. Ozaki, T. Ogita, S. Oishi, S. M. Rump, "Error-free transformations of matrix multiplication by using fast routines
of matrix multiplication and its applications", Numer. Algorithms 59 (2012).

A matrix is cut into digits of 22 bits: a = Σ_l digits[l]·2^(exponent − 22(l+1)) + remainder, |digit| ≤ 2^21. A product
of two digits is at most 2^42, so that up to 2^11 of them sum to at most 2^53: every partial sum that BLAS can form,
in any order, fused or not, is an integer of at most 53 bits, and exact. Digits are laid side by side, so that one BLAS
call forms all sums of products of equal weight. What is left out, and the balls' radii, are bounded in float64,
rounded up.

Weights are float32: two digits hold nearly all of them, and a third only the few that are tiny beside the largest.
Rows of digits that are all zero are left out, so that these few cost little.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from cllm.errors import CertificateError
from cllm.spec.fixed import LEADING, Fixed, extent, magnitude, room, unit
from cllm.spec.native import address, call
from cllm.spec.rounding import TINY, up
from cllm.spec.system import Floats

DIGIT = 22
HALF = 2 ** (DIGIT - 1)
LIMIT = 2**53 // HALF**2
"""So many products of two digits may be summed."""
WIDEST = 900
"""Bits between the largest and the last place of exact floats: scaling them does not leave float64's range."""
BLOCK = 2**23
"""Sums of digit products at a time."""
FEW = 4
"""Digits of the right factor up to which all orders are formed by one BLAS call."""
LEADING_ORDERS = 5
"""Orders of digit products that are enough for an `expansion`: about 100 bits."""


@dataclass(frozen=True)
class Operand:
    """A matrix to be cut: |a − Σ_l digits[l]·2^(exponent − 22(l+1))| ≤ rad (None: 0) for l < count; |a| ≤ size."""

    values: Fixed | Floats
    exponent: int
    count: int
    size: Floats
    rad: Floats | None

    @property
    def shape(self) -> tuple[int, int]:
        m, n = self.size.shape
        return m, n

    @property
    def T(self) -> Operand:
        return Operand(self.values.T, self.exponent, self.count, self.size.T, None if self.rad is None else self.rad.T)

    @property
    def by_rows(self) -> bool:
        """Whether it is stored row by row."""
        stored = self.values.limbs if isinstance(self.values, Fixed) else self.values
        return stored.strides[0] >= stored.strides[1]

    def digits(self, where: tuple[slice, slice], out: Floats) -> None:
        """The leading out.shape[1] digits of the block `where`, into out[row, digit, column]."""
        block, places = self.values[where], out.shape[1]
        if not self.by_rows:  # in the order in which it is stored
            block, out = block.T, out.transpose(2, 1, 0)
        (m, n), (row, place, column) = block.shape, (s // 8 for s in out.strides)
        left = DIGIT * places - self.exponent
        if isinstance(block, Fixed):
            left += block.exponent
            call("digits", m, n, block.length, block.view(), left, places, address(out), row, place, column)
        else:
            strides = (s // 8 for s in block.strides)
            rest = call("float_digits", m, n, address(block), *strides, left, places, address(out), row, place, column)
            if rest and places == self.count:
                raise CertificateError("digits do not hold all of the floats")


def of_balls(a: Fixed, bits: int) -> Operand:
    """Digits down to 2^−bits of the largest, or to an eighth of what most of the radii are: digits below the radii say
    nothing. The remainder goes into the radius."""
    size = magnitude(a)
    if not np.isfinite(size).all():
        raise CertificateError("balls that are not finite: raise the precision")
    if a.bits < 0 or not size.any():
        return Operand(a, 0, 0, size, a.rad)
    exponent = min(a.top, int(np.frexp(size.max())[1])) + 1  # a part of an array may be far smaller than the whole
    if floor := float(np.quantile(a.rad, 0.1)):
        bits = min(bits, max(exponent + 3 - int(np.frexp(floor)[1]), DIGIT))
    count = -(-bits // DIGIT)
    lost = unit(exponent - DIGIT * count)
    zero = size == 0
    return Operand(
        a, exponent, count, np.where(zero, 0.0, up(size + lost, 1)), np.where(zero, 0.0, up(a.rad + lost, 1))
    )


def of_floats(x: Floats) -> Operand:
    """All digits of exact floats, as many as their values need (two or three for typical float32 weights)."""
    top, low = extent(x.T if x.flags.f_contiguous else x)
    count = -(-(top + 1 - low) // DIGIT) if x.any() else 0
    if top - low > WIDEST or not -WIDEST < top < WIDEST:
        raise CertificateError("a weight matrix has entries too small beside its largest to be sliced")
    return Operand(x, top + 1, count, np.abs(x), None)


def multiply(a: Floats, b: Floats, out: Floats) -> Floats:
    """out = a·b on torch's BLAS, whose threads are those of the native library; numpy's own wait busily beside them."""
    torch.mm(torch.from_numpy(a), torch.from_numpy(b), out=torch.from_numpy(out))
    return out


def _right(b: Operand, inner: slice, count: int) -> tuple[Floats, list[np.ndarray]]:
    """Digits count − 1, …, 0 of b[inner] below each other, and which rows of each digit 0, 1, … are there."""
    k, n = inner.stop - inner.start, b.shape[1]
    below = np.empty((count * k, n)) if b.by_rows else np.empty((n, count * k)).T
    (row, column) = below.strides
    places = np.lib.stride_tricks.as_strided(below[(count - 1) * k :], (k, count, n), (row, -k * row, column))
    b.digits((inner, slice(None)), places)
    rows = [np.arange(k)] * count
    top = (count - 1) * k
    if count <= FEW:
        for digit in range(1, count):
            part = below[(count - 1 - digit) * k : (count - digit) * k]
            used = np.flatnonzero(part.any(axis=1))
            rows[digit] = used
            below[top - len(used) : top] = part[used]
            top -= len(used)
    else:
        top = 0
    return below[top:], rows


def sums(a: Operand, b: Operand, orders: int) -> Iterator[tuple[slice, Floats]]:
    """(rows, C): Σ_c C[c, s] = Σ_{i+j=s} a.digits[i] @ b.digits[j] for s < orders, for a block of the rows. The chunks
    c are of the inner index; each C is an integer, and exact."""
    (m, k), n = a.shape, b.shape[1]
    na, nb = min(a.count, orders), min(b.count, orders)
    width = LIMIT // nb
    if not width:
        raise CertificateError("sums of digit products would exceed 2^53: lower the precision")
    inners = [slice(start, min(k, start + width)) for start in range(0, k, width)]
    rights = [_right(b, inner, nb) for inner in inners]
    step = max(1, BLOCK // (len(inners) * orders * n))
    for top in range(0, m, step):
        rows = slice(top, min(m, top + step))
        height = rows.stop - top
        total = np.empty((len(inners), orders, height, n))
        for out, inner, (right, used) in zip(total, inners, rights, strict=True):
            if not sum(map(len, used)) <= LIMIT:
                raise CertificateError("sums of digit products would exceed 2^53")
            length = inner.stop - inner.start
            left = np.zeros((height, nb - 1 + max(na, orders), length))  # digit i at place i + nb − 1
            a.digits((rows, inner), left[:, nb - 1 : nb - 1 + na])
            if nb <= FEW:
                wide = np.empty((orders, height, len(right)))
                end = len(right)
                for digit, kept in enumerate(used):
                    source = left[:, nb - 1 - digit : nb - 1 - digit + orders].transpose(1, 0, 2)
                    start = end - len(kept)
                    wide[:, :, start:end] = source if len(kept) == length else source[:, :, kept]
                    end = start
                multiply(wide.reshape(orders * height, -1), right, out.reshape(orders * height, n))
            else:
                for order in range(orders):
                    first, last = max(0, nb - 1 - order), min(nb, nb - 1 - order + na)
                    lhs = left[:, order + first : order + last].reshape(height, -1)
                    multiply(lhs, right[first * length : last * length], out[order])
        yield rows, total


def left_out(a: Operand, b: Operand, orders: int) -> float:
    """A bound of what `sums` leaves out. With U = k·2^(42 + exponents − 22(orders + 2)): U for each pair of digits of
    order `orders`, U for all the higher orders, and 2U each for what lies below the last digits of a and of b."""
    if orders >= a.count + b.count - 1:
        return 0.0
    terms = (min(a.count, b.count, orders) + 5) * a.shape[1] * HALF**2
    return float(np.ldexp(float(terms), a.exponent + b.exponent - DIGIT * (orders + 2)) + TINY)


def radius(a: Operand, b: Operand) -> Floats:
    """The radius of the product that comes from those of a and b: |a|·rad_b + rad_a·|b|."""
    factors = [(x, y) for x, y in ((a.size, b.rad), (a.rad, b.size)) if x is not None and y is not None]
    if not factors:
        return np.zeros((a.shape[0], b.shape[1]))
    left, right = (np.concatenate(f, axis=axis) for f, axis in zip(zip(*factors, strict=True), (1, 0), strict=True))
    k = left.shape[1]
    bound: Floats = up(multiply(left, right, np.empty((len(left), right.shape[1]))), k + 5) + 4 * k * TINY
    return bound


def product(a: Operand, b: Operand, limbs: int, orders: int | None = None) -> Fixed:
    """a·b; orders: of digit products that are formed; None: all that say something."""
    if a.count < b.count:
        return product(b.T, a.T, limbs, orders).T
    shape = m, n = a.shape[0], b.shape[1]
    if not b.count:
        return Fixed(np.zeros((m, n, limbs), np.uint64), 0, -1, radius(a, b))
    full = a.count + b.count - 1
    orders = min(full, a.count + 1 if orders is None else orders)
    lowest = a.exponent + b.exponent - DIGIT * (orders + 1)
    top = a.exponent + b.exponent - 1 + a.shape[1].bit_length()  # |Σ ab| ≤ k 2^(exponents − 2), and what is left out
    exponent = max(lowest, top - room(limbs))
    found, bits = np.empty((m, n, limbs), np.uint64), -1
    for rows, total in sums(a, b, orders):
        chunks, _, height, _ = total.shape
        out = found[rows]
        bits = max(
            bits,
            call("recombine", height, n, limbs, chunks, orders, address(total), lowest - exponent, address(out)),
        )
    lost = left_out(a, b, orders) + (unit(exponent) if exponent > lowest else 0.0)
    rad = radius(a, b)
    return Fixed(found, exponent, bits, (up(rad + lost, 2) if lost else rad).reshape(shape))


def leading(a: Operand, b: Operand, limbs: int) -> Fixed:
    """a·b to about 100 bits."""
    return product(a, b, min(limbs, LEADING), LEADING_ORDERS)
