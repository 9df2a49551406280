"""BigFixed: the number n/2^s, with every operation and elementary function correctly rounded at its scale."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

from flint import arb, fmpz

from cllm.errors import DomainError, LimitError
from cllm.numbers.convert import exact_rational
from cllm.numbers.decimals import fixed_decimals, format_between
from cllm.numbers.exact_cases import Verdict
from cllm.numbers.limits import MAX_INTEGER_BITS, brief, check_precision
from cllm.numbers.operators import DivisionByZeroError, EnclosedReal
from cllm.numbers.round_modes import divide_rounded, resolve_rounding, round_ratio
from cllm.numbers.ziv import rounded_enclosure

Exact = (int, Fraction, float, Decimal)  # what operators mix with; numpy scalars come through numbers.Real


class BigFixed:
    """n/2^scale_bits as a real number type.

    `+ − × ÷ **` and every elementary function (`exp(x)`, `sqrt(x)`, …) give the exact result rounded once to the
    larger scale of the operands; an int, Fraction, float or Decimal operand takes part exactly. The mode is the
    context's (`with rounding("floor"): …`), nearest-even unless set. `//` and `divmod` give exact ints and remainders.
    Compares and hashes like the equal int or Fraction.

    Raises:
        DomainError: a numerator that is no integer, a negative scale, a function outside its domain.
        LimitError: a scale or numerator beyond `cllm.numbers.limits`.

    >>> from cllm.numbers import BigFixed, sqrt
    >>> x = BigFixed.from_string("2", 200)
    >>> f"{sqrt(x):.50f}"
    '1.41421356237309504880168872420969807856967187537695'
    """

    __slots__ = ("_n", "_s")
    __array_ufunc__ = None  # numpy scalars leave the operation to us
    _n: fmpz
    _s: int

    def __init__(self, n: int | fmpz = 0, scale_bits: int = 0) -> None:
        if not isinstance(n, (numbers.Integral, fmpz)):
            raise DomainError(
                f"BigFixed: the numerator must be an integer, got {brief(n)}; use BigFixed.from_value(x, scale_bits)"
            )
        if scale_bits < 0:
            raise DomainError(f"BigFixed: scale_bits must be >= 0, got {scale_bits}")
        check_precision(max(4, scale_bits), "BigFixed: scale_bits")
        self._n = n if isinstance(n, fmpz) else fmpz(int(n))
        self._s = int(scale_bits)
        if self._n.bit_length() > MAX_INTEGER_BITS:
            raise LimitError(
                f"BigFixed: a numerator of {self._n.bit_length()} bits is beyond the limit of {MAX_INTEGER_BITS}"
            )

    @classmethod
    def from_value(cls, x: Any, scale_bits: int, rounding: str | None = None) -> BigFixed:
        """Any exact number, text (decimal or fraction) or irrational constant, correctly rounded to n/2^scale_bits.

        Raises:
            DomainError: a Ball (it stands for a set) or something that is no real number.
        """
        mode = resolve_rounding(rounding)
        hook: Callable[[int], arb] | None = getattr(x, "_enclosure", None)
        if getattr(x, "irrational", None) is not None and hook is not None:
            case = Verdict(None, bool(x.irrational))
            return cls(rounded_enclosure(hook, 3, scale_bits, mode, case, x.name), scale_bits)
        value = exact_rational(x)
        if value is None:
            raise DomainError(f"BigFixed: expected an exact number, got {brief(x)}")
        return cls(round_ratio(value, scale_bits, mode), scale_bits)

    @classmethod
    def from_string(cls, text: str, scale_bits: int, rounding: str | None = None) -> BigFixed:
        """A decimal ("-1.25e-3") or fraction ("22/7"), correctly rounded."""
        if not isinstance(text, str):
            raise DomainError(f"BigFixed.from_string: expected text, got {brief(text)}")
        value = exact_rational(text)
        if value is None:
            raise DomainError(
                f"BigFixed.from_string: {brief(text)} is no decimal or fraction of moderate size; expected 1.5e-3, 22/7"
            )
        return cls(round_ratio(value, scale_bits, resolve_rounding(rounding)), scale_bits)

    # parts --------------------------------------------------------------------------------------------------------
    @property
    def n(self) -> int:
        """The integer n of n/2^scale_bits."""
        return int(self._n)

    @property
    def scale_bits(self) -> int:
        """s of n/2^s."""
        return self._s

    @property
    def ulp(self) -> Fraction:
        """The spacing 2^-scale_bits."""
        return Fraction(1, 1 << self._s)

    def as_fraction(self) -> Fraction:
        """The exact value."""
        return Fraction(int(self._n), 1 << self._s)

    def as_integer_ratio(self) -> tuple[int, int]:
        """(numerator, denominator) in lowest terms."""
        return self.as_fraction().as_integer_ratio()

    @property
    def numerator(self) -> int:
        return self.as_fraction().numerator

    @property
    def denominator(self) -> int:
        return self.as_fraction().denominator

    @property
    def real(self) -> BigFixed:
        return self

    @property
    def imag(self) -> int:
        return 0

    def conjugate(self) -> BigFixed:
        return self

    def is_integer(self) -> bool:
        """Whether the value is an integer."""
        return self.denominator == 1

    def _enclosure(self, bits: int) -> arb:
        return arb((self._n, -self._s))

    def rescale(self, scale_bits: int, rounding: str | None = None) -> BigFixed:
        """The same value at another scale: exact upward, correctly rounded downward."""
        if scale_bits >= self._s:
            return BigFixed(self._n << (scale_bits - self._s), scale_bits)
        mode = resolve_rounding(rounding)
        return BigFixed(divide_rounded(self._n, fmpz(1) << (self._s - scale_bits), mode), scale_bits)

    # arithmetic -------------------------------------------------------------------------------------------------
    def _aligned(self, other: BigFixed) -> tuple[fmpz, fmpz, int]:
        s = max(self._s, other._s)
        return self._n << (s - self._s), other._n << (s - other._s), s

    def _rounded(self, exact: Fraction) -> BigFixed:
        return BigFixed(round_ratio(exact, self._s, resolve_rounding(None)), self._s)

    def __add__(self, other: Any) -> BigFixed:
        if isinstance(other, BigFixed):
            x, y, s = self._aligned(other)
            return BigFixed(x + y, s)
        if isinstance(other, (int, fmpz)):
            return BigFixed(self._n + (fmpz(other) << self._s), self._s)
        value = _operand(other)
        return NotImplemented if value is None else self._rounded(self.as_fraction() + value)

    __radd__ = __add__

    def __sub__(self, other: Any) -> BigFixed:
        if isinstance(other, BigFixed):
            x, y, s = self._aligned(other)
            return BigFixed(x - y, s)
        value = _operand(other)
        return NotImplemented if value is None else self._rounded(self.as_fraction() - value)

    def __rsub__(self, other: Any) -> BigFixed:
        value = _operand(other)
        return NotImplemented if value is None else self._rounded(value - self.as_fraction())

    def __mul__(self, other: Any) -> BigFixed:
        if isinstance(other, BigFixed):
            s, drop = max(self._s, other._s), min(self._s, other._s)
            return BigFixed(divide_rounded(self._n * other._n, fmpz(1) << drop, resolve_rounding(None)), s)
        value = _operand(other)
        return NotImplemented if value is None else self._rounded(self.as_fraction() * value)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> BigFixed:
        value = _operand(other)
        if value is None:
            return NotImplemented
        scale = max(self._s, other._s) if isinstance(other, BigFixed) else self._s
        return _quotient(self.as_fraction(), value, scale)

    def __rtruediv__(self, other: Any) -> BigFixed:
        value = _operand(other)
        return NotImplemented if value is None else _quotient(value, self.as_fraction(), self._s)

    def __floordiv__(self, other: Any) -> int:
        value = _operand(other)
        return NotImplemented if value is None else _floor_quotient(self.as_fraction(), value)

    def __rfloordiv__(self, other: Any) -> int:
        value = _operand(other)
        return NotImplemented if value is None else _floor_quotient(value, self.as_fraction())

    def __mod__(self, other: Any) -> BigFixed:
        value = _operand(other)
        if value is None:
            return NotImplemented
        x = self.as_fraction()
        rest = x - _floor_quotient(x, value) * value
        scale = max(self._s, other._s) if isinstance(other, BigFixed) else self._s
        return BigFixed(round_ratio(rest, scale, resolve_rounding(None)), scale)

    def __rmod__(self, other: Any) -> BigFixed:
        value = _operand(other)
        if value is None:
            return NotImplemented
        y = self.as_fraction()
        return self._rounded(value - _floor_quotient(value, y) * y)

    def __divmod__(self, other: Any) -> tuple[int, BigFixed]:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> tuple[int, BigFixed]:
        return other // self, other % self

    def __pow__(self, other: Any) -> BigFixed:
        result: BigFixed = _power(self, other)
        return result

    def __rpow__(self, other: Any) -> BigFixed:
        result: BigFixed = _power(other, self)
        return result

    def __neg__(self) -> BigFixed:
        return BigFixed(-self._n, self._s)

    def __pos__(self) -> BigFixed:
        return self

    def __abs__(self) -> BigFixed:
        return BigFixed(abs(self._n), self._s)

    # comparison ---------------------------------------------------------------------------------------------------
    def _order(self, other: Any) -> int | None:
        if isinstance(other, BigFixed):
            x, y, _ = self._aligned(other)
            return int(x > y) - int(x < y)
        if isinstance(other, float) and not math.isfinite(other):
            return None if math.isnan(other) else -1 if other > 0 else 1
        value = _operand(other)
        if value is None:
            return None
        mine = self.as_fraction()
        return (mine > value) - (mine < value)

    def __eq__(self, other: object) -> bool:
        order = self._order(other)
        return NotImplemented if order is None else order == 0

    def __lt__(self, other: Any) -> bool:
        order = self._order(other)
        return NotImplemented if order is None else order < 0

    def __le__(self, other: Any) -> bool:
        order = self._order(other)
        return NotImplemented if order is None else order <= 0

    def __gt__(self, other: Any) -> bool:
        order = self._order(other)
        return NotImplemented if order is None else order > 0

    def __ge__(self, other: Any) -> bool:
        order = self._order(other)
        return NotImplemented if order is None else order >= 0

    def __bool__(self) -> bool:
        return bool(self._n != 0)

    def __hash__(self) -> int:
        return hash(self.as_fraction())

    # to other types -----------------------------------------------------------------------------------------------
    def __float__(self) -> float:
        """The nearest double."""
        return float(self.as_fraction())

    def __complex__(self) -> complex:
        return complex(float(self))

    def __floor__(self) -> int:
        return int(self._n >> self._s)

    def __ceil__(self) -> int:
        return -int(-self._n >> self._s)

    def __trunc__(self) -> int:
        return self.__floor__() if self._n >= 0 else self.__ceil__()

    __int__ = __trunc__

    def __round__(self, digits: int | None = None) -> Any:
        """The nearest integer, ties to even; with `digits`, the nearest decimal as a BigFixed at this scale."""
        if digits is None:
            return int(divide_rounded(self._n, fmpz(1) << self._s, "nearest-even"))
        return self._rounded(round(self.as_fraction(), digits))

    # text -----------------------------------------------------------------------------------------------------------
    def __str__(self) -> str:
        """As many decimals as give the same number back from `from_string` at this scale."""
        decimals = -(-self._s * 30103 // 100000)
        text = fixed_decimals(self._n, fmpz(1) << self._s, decimals)
        whole, point, part = text.partition(".")
        return f"{whole}.{part.rstrip('0') or '0'}" if point else text

    def __repr__(self) -> str:
        return f"BigFixed({self._n}, {self._s})"

    def __format__(self, spec: str) -> str:
        """`.50f`, `.20e`, `.20g` with fill, width, sign and grouping: the exact value, correctly rounded."""
        if not spec:
            return str(self)
        ratio = (self._n, fmpz(1) << self._s)
        return format_between(ratio, ratio, spec, "BigFixed") or ""

    def __reduce__(self) -> tuple[Any, ...]:
        return BigFixed, (int(self._n), self._s)


def _operand(x: Any) -> Fraction | None:
    """An exact operand, or None when the operation is another type's business (balls, constants, arrays)."""
    if isinstance(x, EnclosedReal) or not isinstance(x, (*Exact, numbers.Real)):
        return None
    return exact_rational(x)


def _quotient(x: Fraction, y: Fraction, scale: int) -> BigFixed:
    if y == 0:
        raise DivisionByZeroError("BigFixed division: the divisor is 0; allowed: any nonzero divisor")
    return BigFixed(round_ratio(x / y, scale, resolve_rounding(None)), scale)


def _floor_quotient(x: Fraction, y: Fraction) -> int:
    if y == 0:
        raise DivisionByZeroError("BigFixed // and %: the divisor is 0; allowed: any nonzero divisor")
    return x // y


def _power(x: Any, y: Any) -> Any:
    if any(_operand(v) is None for v in (x, y)):
        return NotImplemented
    from cllm.numbers.functions import power

    return power.rounded(x, y, scale_bits=max(v.scale_bits for v in (x, y) if isinstance(v, BigFixed)))


numbers.Rational.register(BigFixed)  # so that Fraction(x), statistics and comparisons take it as the exact number it is
