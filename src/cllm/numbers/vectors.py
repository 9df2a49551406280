"""Arrays of balls: floats in bulk to balls and back, and elementwise arithmetic on them.

Every float64 and float32 is a ball of radius 0, so going in is exact, and going out again gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from flint import arb
from numpy.typing import ArrayLike, NDArray

from cllm.errors import DomainError
from cllm.numbers.ball import Ball
from cllm.numbers.context import current_bits, flint_precision, resolve_bits
from cllm.numbers.convert import to_arb
from cllm.numbers.elementary import Elementary
from cllm.numbers.operators import DivisionByZeroError, Number, undecided

Floats = NDArray[np.float64]


def float_array_to_arbs(array: ArrayLike) -> tuple[list[arb], tuple[int, ...]]:
    """The elements in C order as exact flint balls, and the shape.

    Raises:
        DomainError: nan or infinity (the first index is named), or a type that is no real number.
    """
    values = np.asarray(array)
    if values.dtype.kind in "iu":
        return [arb(n) for n in values.ravel().tolist()], values.shape
    if values.dtype.kind != "f" or values.dtype.itemsize > 8:
        raise DomainError(f"expected float64, float32, float16 or integers, got an array of {values.dtype}")
    finite = np.isfinite(values)
    if not finite.all():
        where = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise DomainError(f"the element at index {where} is {values[where]}; expected finite numbers")
    return list(map(arb, values.astype(np.float64, copy=False).ravel().tolist())), values.shape


def arbs_to_float64(balls: list[arb]) -> Floats:
    """The doubles nearest to the midpoints."""
    return np.fromiter(map(float, balls), np.float64, len(balls))


def arbs_to_float32(balls: list[arb]) -> NDArray[np.float32]:
    """The single floats nearest to the midpoints (no double rounding: ties made by the first one are undone)."""
    doubles = arbs_to_float64(balls)
    tied = np.flatnonzero((doubles.view(np.uint64) & np.uint64(0x1FFFFFFF)) == np.uint64(0x10000000))
    for i in tied.tolist():
        middle, double = balls[i].mid(), arb(float(doubles[i]))
        if middle != double:
            doubles[i] = np.nextafter(doubles[i], np.inf if middle > double else -np.inf)
    with np.errstate(over="ignore"):
        return doubles.astype(np.float32)


class BallVector:
    """An array of balls of any shape, in C order.

    `+ − × ÷` work elementwise with another of the same shape, or with one number; `apply` maps a function.

    >>> import numpy as np
    >>> from cllm.numbers import BallVector, exp
    >>> v = BallVector(np.array([0.5, 0.25]))
    >>> print(exp(v[0]).digits(20), (v * 3).to_array())
    1.6487212707001281468 [1.5  0.75]
    """

    __slots__ = ("_balls", "shape")
    __array_ufunc__ = None

    def __init__(self, array: ArrayLike | Iterable[Number]) -> None:
        if isinstance(array, (list, tuple)) and not all(isinstance(x, (int, float, list, tuple)) for x in array):
            self._balls = [to_arb(x, current_bits()) for x in array]
            self.shape: tuple[int, ...] = (len(self._balls),)
        else:
            self._balls, self.shape = float_array_to_arbs(np.asarray(array))

    @classmethod
    def of(cls, balls: list[arb], shape: tuple[int, ...] | None = None) -> BallVector:
        """Wrap flint balls without copying them."""
        vector = object.__new__(cls)
        vector._balls = balls
        vector.shape = (len(balls),) if shape is None else shape
        if int(np.prod(vector.shape, dtype=np.int64)) != len(balls):
            raise DomainError(f"BallVector: {len(balls)} balls do not fill the shape {vector.shape}")
        return vector

    @property
    def flint(self) -> list[arb]:
        """The python-flint balls in C order (not a copy)."""
        return self._balls

    def __len__(self) -> int:
        return len(self._balls)

    def __iter__(self) -> Iterator[Ball]:
        return map(Ball._of, self._balls)

    def __getitem__(self, index: int | tuple[int, ...]) -> Ball:
        if isinstance(index, tuple):
            flat = int(np.ravel_multi_index(index, self.shape))
            return Ball._of(self._balls[flat])
        return Ball._of(self._balls[index])

    def __repr__(self) -> str:
        return f"BallVector(shape={self.shape})"

    # out ----------------------------------------------------------------------------------------------------------
    def to_array(self, dtype: type[np.float64] | type[np.float32] = np.float64) -> NDArray[Any]:
        """The floats nearest to the midpoints, in the same shape."""
        flat = arbs_to_float32(self._balls) if np.dtype(dtype) == np.float32 else arbs_to_float64(self._balls)
        return flat.reshape(self.shape)

    def bounds(self) -> tuple[Floats, Floats]:
        """(lower, upper): doubles with every number between them."""
        with flint_precision(53):
            low, high = ([float(getattr(x, side)()) for x in self._balls] for side in ("lower", "upper"))
        return np.array(low).reshape(self.shape), np.array(high).reshape(self.shape)

    def radii(self) -> Floats:
        """The radii, as the doubles nearest to them."""
        return np.array([float(x.rad()) for x in self._balls]).reshape(self.shape)

    def contains(self, array: ArrayLike) -> NDArray[np.bool_]:
        """Elementwise: whether the exact float lies in the ball."""
        others, shape = float_array_to_arbs(array)
        if shape != self.shape:
            raise DomainError(f"contains: got the shape {shape}; expected {self.shape}")
        inside = [x.contains(y) for x, y in zip(self._balls, others, strict=True)]
        return np.array(inside, dtype=np.bool_).reshape(shape)

    # arithmetic -----------------------------------------------------------------------------------------------------
    def _elementwise(self, operation: Callable[[arb, arb], arb], other: Any, swapped: bool = False) -> Any:
        bits = current_bits()
        if isinstance(other, BallVector):
            if other.shape != self.shape:
                raise DomainError(f"arrays of the shapes {self.shape} and {other.shape}; expected equal shapes")
            with flint_precision(bits):
                return BallVector.of(list(map(operation, self._balls, other._balls)), self.shape)
        if isinstance(other, np.ndarray):
            return self._elementwise(operation, BallVector(other), swapped)
        try:
            y = to_arb(other, bits)
        except TypeError:
            return NotImplemented
        with flint_precision(bits):
            if swapped:
                return BallVector.of([operation(y, x) for x in self._balls], self.shape)
            return BallVector.of([operation(x, y) for x in self._balls], self.shape)

    def __add__(self, other: Any) -> BallVector:
        result: BallVector = self._elementwise(arb.__add__, other)
        return result

    __radd__ = __add__

    def __sub__(self, other: Any) -> BallVector:
        result: BallVector = self._elementwise(arb.__sub__, other)
        return result

    def __rsub__(self, other: Any) -> BallVector:
        result: BallVector = self._elementwise(arb.__sub__, other, swapped=True)
        return result

    def __mul__(self, other: Any) -> BallVector:
        result: BallVector = self._elementwise(arb.__mul__, other)
        return result

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> BallVector:
        result: BallVector = self._elementwise(_divide, other)
        return result

    def __rtruediv__(self, other: Any) -> BallVector:
        result: BallVector = self._elementwise(_divide, other, swapped=True)
        return result

    def __neg__(self) -> BallVector:
        return BallVector.of([x.neg(exact=True) for x in self._balls], self.shape)

    def apply(self, function: Elementary, *, bits: int | None = None) -> BallVector:
        """An elementary function of every element."""
        work = resolve_bits(bits)
        return BallVector.of([function.enclose((x,), work) for x in self._balls], self.shape)

    def sum(self, *, bits: int | None = None) -> Ball:
        """Σ of all elements."""
        with flint_precision(resolve_bits(bits)):
            return Ball._of(sum(self._balls, arb(0)))

    def dot(self, other: BallVector, *, bits: int | None = None) -> Ball:
        """Σ xᵢ·yᵢ over all elements."""
        if other.shape != self.shape:
            raise DomainError(f"dot: shapes {self.shape} and {other.shape}; expected equal shapes")
        with flint_precision(resolve_bits(bits)):
            return Ball._of(sum(map(arb.__mul__, self._balls, other._balls), arb(0)))

    def __reduce__(self) -> tuple[Any, ...]:
        parts = [Ball._of(x).mantissa_exponent() for x in self._balls]
        return _restore, (parts, self.shape)


def _restore(parts: list[tuple[int, int, int, int]], shape: tuple[int, ...]) -> BallVector:
    return BallVector.of([Ball.from_mantissa_exponent(*p).flint for p in parts], shape)


def _divide(x: arb, y: arb) -> arb:
    if y.contains(0):
        if y.is_zero():
            raise DivisionByZeroError("division: a divisor is exactly 0; allowed: nonzero divisors")
        raise undecided("division: whether the divisor is nonzero", y)
    return x / y
