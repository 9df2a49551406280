"""Exact products of matrices of long integers on float64 BLAS, and products of ball matrices made of them.

K. Ozaki, T. Ogita, S. Oishi, S. M. Rump, "Error-free transformations of matrix multiplication by using fast routines
of matrix multiplication and its applications", Numer. Algorithms 59 (2012).

A matrix is cut into digits of 22 bits: a = Σ_l digits[l]·2^(exponent − 22(l+1)) + remainder, |digit| ≤ 2^21. A product
of two digits is at most 2^42, so that up to 2^11 of them sum to at most 2^53: every partial sum that BLAS can form,
in any order, fused or not, is an integer of at most 53 bits, and exact. Digits are laid side by side, so that one BLAS
call forms all sums of products of equal weight. What is left out, and the balls' radii, are bounded in float64,
rounded up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat
from operator import mul
from typing import Any

import numpy as np
from flint import arb, ctx
from numpy.typing import NDArray

from cllm.errors import CertificateError
from cllm.spec.rounding import TINY, middles, radii, up
from cllm.spec.system import Floats, Shape

Digits = NDArray[np.float32]
Integers = NDArray[np.int64]
DIGIT = 22
HALF = 2 ** (DIGIT - 1)
LIMIT = 2**53 // HALF**2
"""So many products of two digits may be summed."""
BLOCK = 2**22
"""Entries of a BLAS result at a time."""


@dataclass(frozen=True)
class Sliced:
    """|a − Σ_l digits[l]·2^(exponent − 22(l+1))| ≤ rad (None: 0), and |a's midpoint| ≤ size, entry by entry."""

    digits: list[Digits]
    exponent: int
    size: Floats
    rad: Floats | None

    @property
    def T(self) -> Sliced:
        return self._each(np.transpose)

    def block(self, where: Any) -> Sliced:
        """The part a[where]."""
        return self._each(lambda x: x[where])

    def _each(self, f: Callable[[Any], Any]) -> Sliced:
        rad = None if self.rad is None else f(self.rad)
        return Sliced([f(d) for d in self.digits], self.exponent, f(self.size), rad)


def slice_floats(x: Floats) -> Sliced:
    """Exact digits of a float64 matrix, as many as its values need (two or three for typical float32 weights)."""
    size = np.abs(x)
    exponent = int(np.frexp(size.max(initial=0.0))[1]) + 1
    digits: list[Digits] = []
    rest = x
    while rest.any():
        unit = 2.0 ** (exponent - DIGIT * (len(digits) + 1))
        if unit < TINY:
            raise CertificateError("a weight matrix has entries too small beside its largest to be sliced")
        digit = np.rint(rest / unit)
        rest = rest - digit * unit  # exact: the low bits of `rest`
        digits.append(digit.astype(np.float32))
    return Sliced(digits, exponent, size, None)


def slice_balls(flat: list[arb], shape: Shape, bits: int) -> Sliced:
    """Digits of the midpoints, down to 2^−bits of the largest, or to an eighth of what most of the radii are: digits
    below the radii say nothing. The remainder goes into the radius."""
    middle = middles(flat)
    largest = float(np.abs(middle).max(initial=0.0))
    if not np.isfinite(largest):
        raise CertificateError("balls that are not finite: raise the precision")
    exponent = int(np.frexp(max(largest, TINY))[1]) + 2
    rad = radii(flat)
    if floor := float(np.quantile(rad, 0.1)) if len(flat) else 0.0:
        bits = min(bits, max(exponent + 3 - int(np.frexp(floor)[1]), DIGIT))
    count = -(-bits // DIGIT)
    with ctx.workprec(DIGIT * count + 64):  # so that nothing here is rounded but by `floor`
        scaled = map(mul, map(arb.mid, flat), repeat(arb(2) ** (DIGIT * count - exponent)))
        whole = [int(z.fmpz()) for z in map(arb.floor, scaled)]
    limbs = -(-DIGIT * count // 64)
    bias = HALF * ((2 ** (DIGIT * count) - 1) // (2**DIGIT - 1))  # half a digit in each place: digits become balanced
    packed = np.frombuffer(b"".join([(n + bias).to_bytes(8 * limbs, "little") for n in whole]), "<u8")
    packed = packed.reshape(-1, limbs)
    digits = []
    for place in range(count - 1, -1, -1):
        limb, shift = divmod(DIGIT * place, 64)
        digit = packed[:, limb] >> np.uint64(shift)
        if shift + DIGIT > 64:
            digit = digit | packed[:, limb + 1] << np.uint64(64 - shift)
        digits.append(((digit & np.uint64(2**DIGIT - 1)).astype(np.float32) - np.float32(HALF)).reshape(shape))
    rad = up(rad + 2.0 ** (exponent - DIGIT * count), 2)
    size = up(np.abs(middle), 2)
    return Sliced(digits, exponent, size.reshape(shape), rad.reshape(shape))


def sums(a: Sliced, b: Sliced, orders: int) -> Iterator[tuple[slice, Integers]]:
    """(rows, C): C[s] = Σ_{i+j=s} a.digits[i] @ b.digits[j] for s < orders, exactly, for a block of the rows."""
    (m, k), n = a.size.shape, b.size.shape[1]
    na, nb = len(a.digits), min(len(b.digits), orders)
    width = max(1, LIMIT // nb)
    step = max(1, BLOCK // (orders * n))
    for top in range(0, m, step):
        rows = slice(top, min(m, top + step))
        height = rows.stop - top
        total = np.zeros((orders, height, n), np.int64)
        for start in range(0, k, width):
            inner = slice(start, min(k, start + width))
            if (inner.stop - start) * nb > LIMIT:
                raise CertificateError("sums of digit products would exceed 2^53: lower the precision")
            left_side = np.stack([d[rows, inner] for d in a.digits[:orders]], axis=1).astype(np.float64, order="C")
            right_side = np.stack([d[inner] for d in b.digits[:nb]][::-1]).astype(np.float64, order="C")
            for order in range(orders):
                first, last = max(0, order - nb + 1), min(na, order + 1)  # digits of a; of b: order − first, …
                lhs = left_side[:, first:last].reshape(height, -1)
                rhs = right_side[nb - 1 - order + first : nb - 1 - order + last].reshape(-1, n)
                total[order] += (lhs @ rhs).astype(np.int64)
        yield rows, total


def left_out(a: Sliced, b: Sliced, orders: int) -> float:
    """A bound of Σ over the digit products of order ≥ `orders`, which `sums` leaves out."""
    na, nb = len(a.digits), len(b.digits)
    if orders >= na + nb - 1:
        return 0.0
    terms = 2 * min(na, nb) * a.size.shape[1] * HALF**2  # twice the first order left out bounds all the orders
    return float(np.ldexp(float(terms), a.exponent + b.exponent - DIGIT * (orders + 2)) + TINY)


def radius(a: Sliced, b: Sliced) -> Floats:
    """The radius of the product that comes from those of a and b: |a|·rad_b + rad_a·(|b| + rad_b)."""
    k = a.size.shape[1]
    rad = np.zeros((a.size.shape[0], b.size.shape[1]))
    size_b = b.size
    if b.rad is not None:
        rad += a.size @ b.rad
        size_b = size_b + b.rad
    if a.rad is not None:
        rad += a.rad @ size_b
    bound: Floats = up(rad, k + 5) + 4 * k * TINY
    return bound


def balls(a: Sliced, b: Sliced) -> list[arb]:
    """The ball product, flat, row by row, at the precision of the operands' digits."""
    if len(a.digits) < len(b.digits):
        n = b.size.shape[1]
        columns = balls(b.T, a.T)
        m = a.size.shape[0]
        return [columns[j * m + i] for i in range(m) for j in range(n)]
    orders = max(min(len(a.digits) + len(b.digits) - 1, len(a.digits) + 1), 1)
    rad = up(radius(a, b) + left_out(a, b, orders), 2)
    found: list[arb] = []
    if not b.digits:
        return [arb(0, r) for r in rad.ravel().tolist()]
    scale = repeat(arb(2) ** (a.exponent + b.exponent - DIGIT * (orders + 1)))
    for rows, total in sums(a, b, orders):
        exact = map(mul, map(arb, integers(total.reshape(orders, -1))), scale)
        found += map(arb, exact, rad[rows].ravel().tolist())
    return found


def integers(total: Integers) -> list[int]:
    """Σ_s total[s]·2^(22(S−1−s)) for each column."""
    count = len(total)
    limbs = -(-(DIGIT * count + 64) // 64)
    packed = np.zeros((total.shape[1], limbs), np.uint64)
    carry = np.zeros(total.shape[1], np.int64)
    for place, row in enumerate(total[::-1]):
        carry = carry + row
        limb, shift = divmod(DIGIT * place, 64)
        digit = (carry & (2**DIGIT - 1)).astype(np.uint64)
        packed[:, limb] |= digit << np.uint64(shift)
        if shift + DIGIT > 64:
            packed[:, limb + 1] |= digit >> np.uint64(64 - shift)
        carry = carry >> DIGIT
    limb, shift = divmod(DIGIT * count, 64)  # the signed rest, extended to the end
    packed[:, limb] |= carry.astype(np.uint64) << np.uint64(shift)
    for high in range(limb + 1, limbs):
        packed[:, high] = (carry >> (64 - shift) if shift and high == limb + 1 else carry >> 63).astype(np.uint64)
    data, size = packed.tobytes(), 8 * limbs
    return [int.from_bytes(data[i : i + size], "little", signed=True) for i in range(0, len(data), size)]


def expansion(a: Sliced, b: Sliced, orders: int = 5) -> tuple[Floats, Floats, Floats]:
    """(high, low, rad): |product − (high + low)| ≤ rad, from the leading `orders` only: about 100 bits.

    With M ≥ |C_s|, each step adds two numbers exactly (Knuth's two-sum; the error term is ≤ 2⁻⁵² M) and rounds two
    additions of numbers ≤ 2⁻⁵¹ M; earlier errors shrink by 2⁻²²: in all less than 2⁻¹⁰² M.
    """
    shape = a.size.shape[0], b.size.shape[1]
    high, low, rad = np.zeros(shape), np.zeros(shape), radius(a, b)
    if not a.digits or not b.digits:
        return high, low, rad
    orders = min(orders, len(a.digits) + len(b.digits) - 1)
    unit = float(np.ldexp(1.0, a.exponent + b.exponent - 2 * DIGIT))
    if not TINY < unit < 1 / TINY:
        raise CertificateError("gradients outside the range of float64")
    for rows, total in sums(a, b, orders):
        h, l = np.zeros(total.shape[1:]), np.zeros(total.shape[1:])
        for c in total[::-1]:
            first = c.astype(np.float64)
            rest = (c - first.astype(np.int64)).astype(np.float64)
            h, e = two_sum(first, h * 2.0**-DIGIT)
            l = (l * 2.0**-DIGIT + e) + rest
        h, l = two_sum(h, l)
        high[rows], low[rows] = h * unit, l * unit
        rad[rows] += float(np.abs(total).max()) * unit * 2.0**-101 + 4 * TINY
    return high, low, up(rad + left_out(a, b, orders), 4)


def two_sum(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """(s, e): s = fl(a + b), s + e = a + b exactly."""
    s = a + b
    z = s - a
    return s, (a - (s - z)) + (b - z)
