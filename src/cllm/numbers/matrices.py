"""Matrices of balls over FLINT's arb_mat: float arrays in, certified products, solutions and determinants out."""

from __future__ import annotations

from typing import Any

import numpy as np
from flint import arb, arb_mat
from numpy.typing import ArrayLike, NDArray

from cllm.errors import DomainError, UndecidableError
from cllm.numbers.ball import Ball
from cllm.numbers.context import current_bits, flint_precision, resolve_bits
from cllm.numbers.convert import to_arb
from cllm.numbers.vectors import BallVector, float_array_to_arbs


class BallMatrix:
    """A rows × columns matrix of balls; `BallMatrix(array)` is exact for float64, float32 and integer arrays.

    `@ + −` and multiplication by a number work at the precision of the context; every entry of a result contains the
    exact value.

    >>> import numpy as np
    >>> from cllm.numbers import BallMatrix
    >>> h = BallMatrix(np.array([[2.0, 1.0], [1.0, 3.0]]))
    >>> print((h @ h)[0, 1], h.det())
    5 5
    """

    __slots__ = ("_matrix",)
    __array_ufunc__ = None

    def __init__(self, array: ArrayLike | BallVector) -> None:
        balls, shape = (array.flint, array.shape) if isinstance(array, BallVector) else float_array_to_arbs(array)
        if len(shape) != 2:
            raise DomainError(f"BallMatrix: got an array of shape {shape}; expected two dimensions")
        self._matrix = arb_mat(shape[0], shape[1], balls)

    @classmethod
    def of(cls, matrix: arb_mat) -> BallMatrix:
        """Wrap a flint matrix."""
        wrapped = object.__new__(cls)
        wrapped._matrix = matrix
        return wrapped

    @property
    def flint(self) -> arb_mat:
        """The python-flint matrix."""
        return self._matrix

    @property
    def shape(self) -> tuple[int, int]:
        return self._matrix.nrows(), self._matrix.ncols()

    @property
    def T(self) -> BallMatrix:
        """The transpose."""
        return BallMatrix.of(self._matrix.transpose())

    def __getitem__(self, index: tuple[int, int]) -> Ball:
        return Ball._of(self._matrix[index])

    def __repr__(self) -> str:
        return f"BallMatrix(shape={self.shape})"

    def vector(self) -> BallVector:
        """The entries as a BallVector of the same shape."""
        return BallVector.of(self._matrix.entries(), self.shape)

    def to_array(self, dtype: type[np.float64] | type[np.float32] = np.float64) -> NDArray[Any]:
        """The floats nearest to the midpoints."""
        return self.vector().to_array(dtype)

    def contains(self, array: ArrayLike) -> bool:
        """Whether every exact float lies in its ball."""
        return bool(self.vector().contains(array).all())

    def __matmul__(self, other: Any) -> BallMatrix:
        right = other if isinstance(other, BallMatrix) else BallMatrix(other)
        if self.shape[1] != right.shape[0]:
            raise DomainError(f"matrix product of {self.shape} and {right.shape}: the inner sizes differ")
        with flint_precision(current_bits()):
            return BallMatrix.of(self._matrix * right._matrix)

    def __rmatmul__(self, other: Any) -> BallMatrix:
        return BallMatrix(other) @ self

    def _same(self, other: BallMatrix) -> arb_mat:
        if self.shape != other.shape:
            raise DomainError(f"matrices of the shapes {self.shape} and {other.shape}; expected equal shapes")
        return other._matrix

    def __add__(self, other: Any) -> BallMatrix:
        right = self._same(other if isinstance(other, BallMatrix) else BallMatrix(other))
        with flint_precision(current_bits()):
            return BallMatrix.of(self._matrix + right)

    def __sub__(self, other: Any) -> BallMatrix:
        right = self._same(other if isinstance(other, BallMatrix) else BallMatrix(other))
        with flint_precision(current_bits()):
            return BallMatrix.of(self._matrix - right)

    def __mul__(self, scalar: Any) -> BallMatrix:
        try:
            factor: arb = to_arb(scalar, current_bits())
        except TypeError:
            return NotImplemented
        with flint_precision(current_bits()):
            return BallMatrix.of(self._matrix * factor)

    __rmul__ = __mul__

    def det(self, *, bits: int | None = None) -> Ball:
        """The determinant."""
        self._square("det")
        with flint_precision(resolve_bits(bits)):
            return Ball._of(self._matrix.det())

    def inverse(self, *, bits: int | None = None) -> BallMatrix:
        """The inverse.

        Raises:
            UndecidableError: singular, or not proven regular at this precision.
        """
        self._square("inverse")
        with flint_precision(resolve_bits(bits)):
            try:
                return BallMatrix.of(self._matrix.inv())
            except ZeroDivisionError:
                raise UndecidableError(
                    "inverse: the matrix is singular, or not proven regular at this precision; raise it with bits=…"
                ) from None

    def solve(self, right: BallMatrix, *, bits: int | None = None) -> BallMatrix:
        """The X with self @ X = right; raises as `inverse` does."""
        self._square("solve")
        with flint_precision(resolve_bits(bits)):
            try:
                return BallMatrix.of(self._matrix.solve(right._matrix))
            except ZeroDivisionError:
                raise UndecidableError(
                    "solve: the matrix is singular, or not proven regular at this precision; raise it with bits=…"
                ) from None

    def _square(self, what: str) -> None:
        if self.shape[0] != self.shape[1]:
            raise DomainError(f"{what}: the matrix has the shape {self.shape}; expected a square one")

    def __reduce__(self) -> tuple[Any, ...]:
        return BallMatrix, (self.vector(),)
