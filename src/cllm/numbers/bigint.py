"""BigInt: an integer that behaves like int, computes with FLINT, and refuses absurd sizes by name."""

from __future__ import annotations

import numbers
import operator
import re
from fractions import Fraction
from typing import Any

from flint import arb, fmpz

from cllm.errors import DomainError
from cllm.numbers.bases import check_base, parse_integer, to_base, to_digits
from cllm.numbers.bases import from_digits as _from_digits
from cllm.numbers.limits import brief, check_integer_bits
from cllm.numbers.operators import DivisionByZeroError

_SPEC = re.compile(r"(?:(.)?([<>^=]))?([-+ ])?(#)?(0)?(\d+)?([,_])?([bdoxXn])?")


class BigInt:
    """An integer of any size up to `limits.MAX_INTEGER_BITS`.

    `BigInt(x)` takes int, numpy integers, integral text in a base (2..36 or 60), and exact whole numbers (Fraction,
    float). Operators follow int (`//` and `%` floor, `**` with a modulus, shifts, bits), except that `/` gives the
    exact Fraction. Equal to, hashes like and mixes with int.

    >>> from cllm.numbers import BigInt
    >>> BigInt("1,24,51,10", base=60), f"{BigInt(10) ** 12:,}", BigInt(7) / 2
    (BigInt(305470), '1,000,000,000,000', Fraction(7, 2))
    """

    __slots__ = ("_z",)
    __array_ufunc__ = None  # numpy scalars leave the operation to us
    _z: fmpz

    def __init__(self, x: Any = 0, base: int = 10) -> None:
        if isinstance(x, fmpz):
            self._z = x
        elif isinstance(x, str):
            self._z = parse_integer(x, base)
        elif isinstance(x, BigInt):
            self._z = x._z
        else:
            self._z = _whole(x)

    @classmethod
    def from_digits(cls, digits: list[int], base: int) -> BigInt:
        """Σ dᵢ·base^…, most significant first, any base ≥ 2."""
        return cls(_from_digits(digits, base))

    # parts and text -----------------------------------------------------------------------------------------------
    def digits(self, base: int = 10) -> list[int]:
        """The digits of |n|, most significant first, in any base ≥ 2."""
        return to_digits(self._z, base)

    def to_base(self, base: int) -> str:
        """Text in base 2..36 (letters after 9) or 60 ("1,24,51,10")."""
        return to_base(self._z, check_base(base))

    def __str__(self) -> str:
        return str(self._z.str())

    def __repr__(self) -> str:
        return f"BigInt({self._z.str()})"

    def __format__(self, spec: str) -> str:
        match = _SPEC.fullmatch(spec)
        if match is None:
            return format(Fraction(int(self)) if spec.endswith("%") else _real(self), spec)
        fill, align, sign, alternate, zero, width, grouping, kind = match.groups()
        base = {"b": 2, "o": 8, "x": 16, "X": 16}.get(kind or "d", 10)
        body = abs(self._z).str(base=base)
        if grouping:
            body = re.sub(rf"(?<=\w)(?=(?:\w{{{3 if base == 10 else 4}}})+$)", grouping, body)
        prefix = f"0{kind}" if alternate and base != 10 else ""
        if kind == "X":
            body, prefix = body.upper(), prefix.upper()
        lead = ("-" if self._z < 0 else {"+": "+", " ": " "}.get(sign or "", "")) + prefix
        columns = int(width or 0)
        if zero and not align:
            fill, align = "0", "="
        if align == "=":
            return lead + body.rjust(columns - len(lead), fill or " ")
        return f"{lead + body:{fill or ' '}{align or '>'}{columns}}" if columns else lead + body

    @property
    def numerator(self) -> BigInt:
        return self

    @property
    def denominator(self) -> int:
        return 1

    @property
    def real(self) -> BigInt:
        return self

    @property
    def imag(self) -> int:
        return 0

    def conjugate(self) -> BigInt:
        return self

    def as_integer_ratio(self) -> tuple[int, int]:
        return int(self._z), 1

    def is_integer(self) -> bool:
        return True

    def bit_length(self) -> int:
        """Bits of |n| without sign and leading zeros."""
        return int(self._z.bit_length())

    def bit_count(self) -> int:
        """Ones in the binary digits of |n|."""
        return int(self._z).bit_count()

    def _enclosure(self, bits: int) -> arb:
        return arb(self._z)

    # arithmetic -----------------------------------------------------------------------------------------------------
    def __add__(self, other: Any) -> Any:
        return BigInt(self._z + z) if (z := _integer(other)) is not None else _other(operator.add, self, other)

    def __radd__(self, other: Any) -> Any:
        return BigInt(z + self._z) if (z := _integer(other)) is not None else _other(operator.add, other, self)

    def __sub__(self, other: Any) -> Any:
        return BigInt(self._z - z) if (z := _integer(other)) is not None else _other(operator.sub, self, other)

    def __rsub__(self, other: Any) -> Any:
        return BigInt(z - self._z) if (z := _integer(other)) is not None else _other(operator.sub, other, self)

    def __mul__(self, other: Any) -> Any:
        z = _integer(other)
        if z is None:
            return _other(operator.mul, self, other)
        check_integer_bits(self._z.bit_length() + z.bit_length(), "product")
        return BigInt(self._z * z)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        z = _integer(other)
        return _other(operator.truediv, self, other) if z is None else _fraction(self._z, z)

    def __rtruediv__(self, other: Any) -> Any:
        z = _integer(other)
        return _other(operator.truediv, other, self) if z is None else _fraction(z, self._z)

    def __floordiv__(self, other: Any) -> Any:
        z = _integer(other)
        return _other(operator.floordiv, self, other) if z is None else BigInt(_divmod(self._z, z)[0])

    def __rfloordiv__(self, other: Any) -> Any:
        z = _integer(other)
        return _other(operator.floordiv, other, self) if z is None else BigInt(_divmod(z, self._z)[0])

    def __mod__(self, other: Any) -> Any:
        z = _integer(other)
        return _other(operator.mod, self, other) if z is None else BigInt(_divmod(self._z, z)[1])

    def __rmod__(self, other: Any) -> Any:
        z = _integer(other)
        return _other(operator.mod, other, self) if z is None else BigInt(_divmod(z, self._z)[1])

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> Any:
        return other // self, other % self

    def truncated_divmod(self, other: Any) -> tuple[BigInt, BigInt]:
        """Quotient rounded toward zero and the remainder with the sign of the dividend (as in C)."""
        z = _whole(other)
        quotient, rest = _divmod(abs(self._z), abs(z))
        return (
            BigInt(-quotient if (self._z < 0) != (z < 0) else quotient),
            BigInt(-rest if self._z < 0 else rest),
        )

    def __pow__(self, other: Any, modulus: Any = None) -> Any:
        z = _integer(other)
        if modulus is not None:
            from cllm.numbers.theory import modpow

            return modpow(self, BigInt(_whole(other)), BigInt(_whole(modulus)))
        if z is None:
            return _other(operator.pow, self, other)
        if z < 0:
            if self._z == 0:
                raise DivisionByZeroError("power: 0 to a negative exponent; allowed: base ≠ 0 or exponent >= 0")
            return Fraction(1, int(self ** BigInt(-z)))
        if self._z in (0, 1, -1):
            return BigInt(1 if z == 0 else abs(self._z) if z % 2 == 0 else self._z)
        check_integer_bits(_log2_floor(self._z) * float(int(z)) if z.bit_length() < 1000 else 1e300, "power")
        return BigInt(self._z ** int(z))

    def __rpow__(self, other: Any) -> Any:
        z = _integer(other)
        return _other(operator.pow, other, self) if z is None else BigInt(z) ** self

    def __neg__(self) -> BigInt:
        return BigInt(-self._z)

    def __pos__(self) -> BigInt:
        return self

    def __abs__(self) -> BigInt:
        return BigInt(abs(self._z))

    def __invert__(self) -> BigInt:
        return BigInt(-self._z - 1)

    def __lshift__(self, other: Any) -> BigInt:
        shift = _shift(other)
        check_integer_bits(self._z.bit_length() + shift if self._z != 0 else 0, "shift")
        return BigInt(self._z << shift if self._z != 0 else self._z)

    def __rlshift__(self, other: Any) -> BigInt:
        return BigInt(other) << self

    def __rshift__(self, other: Any) -> BigInt:
        return BigInt(self._z >> min(_shift(other), self._z.bit_length() + 1))

    def __rrshift__(self, other: Any) -> BigInt:
        return BigInt(other) >> self

    def __and__(self, other: Any) -> BigInt:
        return BigInt(self._z & _whole(other))

    __rand__ = __and__

    def __or__(self, other: Any) -> BigInt:
        return BigInt(self._z | _whole(other))

    __ror__ = __or__

    def __xor__(self, other: Any) -> BigInt:
        return BigInt(self._z ^ _whole(other))

    __rxor__ = __xor__

    # roots ----------------------------------------------------------------------------------------------------------
    def isqrt(self) -> BigInt:
        """⌊√n⌋, n ≥ 0."""
        return self.root(2)[0]

    def root(self, k: int) -> tuple[BigInt, BigInt]:
        """(r, rest) with n = r^k + rest and |r| as large as possible without passing |n|; negative n for odd k."""
        if k < 1 or (self._z < 0 and k % 2 == 0):
            raise DomainError(f"root: n = {self!r:.60}, k = {k}; allowed: k >= 1, and n >= 0 where k is even")
        size = abs(self._z)
        r = fmpz(0 if size == 0 else 1) if k >= size.bit_length() else size.root(int(k))
        r = -r if self._z < 0 else r
        return BigInt(r), BigInt(self._z - (r if k >= size.bit_length() else r**k))

    def is_square(self) -> bool:
        """Whether n is the square of an integer."""
        return bool(self._z.is_square())

    def is_perfect_power(self) -> bool:
        """Whether n = m^k with integers m and k ≥ 2."""
        return bool(self._z.is_perfect_power())

    # comparison and conversion ------------------------------------------------------------------------------------
    def __eq__(self, other: object) -> bool:
        return bool(self._z == z) if (z := _integer(other)) is not None else _compare(operator.eq, self, other)

    def __lt__(self, other: Any) -> bool:
        return bool(self._z < z) if (z := _integer(other)) is not None else _compare(operator.lt, self, other)

    def __le__(self, other: Any) -> bool:
        return bool(self._z <= z) if (z := _integer(other)) is not None else _compare(operator.le, self, other)

    def __gt__(self, other: Any) -> bool:
        return bool(self._z > z) if (z := _integer(other)) is not None else _compare(operator.gt, self, other)

    def __ge__(self, other: Any) -> bool:
        return bool(self._z >= z) if (z := _integer(other)) is not None else _compare(operator.ge, self, other)

    def __hash__(self) -> int:
        return hash(int(self._z))

    def __bool__(self) -> bool:
        return bool(self._z != 0)

    def __int__(self) -> int:
        return int(self._z)

    __index__ = __int__
    __trunc__ = __int__
    __floor__ = __int__
    __ceil__ = __int__

    def __float__(self) -> float:
        return float(int(self._z))

    def __complex__(self) -> complex:
        return complex(int(self._z))

    def __round__(self, digits: int | None = None) -> BigInt:
        return BigInt(round(int(self._z), digits)) if digits is not None else self

    def __reduce__(self) -> tuple[Any, ...]:
        return BigInt, (int(self._z),)


def _integer(x: Any) -> fmpz | None:
    """The operand as an fmpz when it is of an integer type (so that the result is a BigInt)."""
    if isinstance(x, BigInt):
        return x._z
    if isinstance(x, int):
        return fmpz(x)
    return fmpz(int(x)) if isinstance(x, numbers.Integral) else x if isinstance(x, fmpz) else None


def _whole(x: Any) -> fmpz:
    """Any exact whole number as an fmpz."""
    z = _integer(x)
    if z is not None:
        return z
    ratio = getattr(x, "as_integer_ratio", None)
    try:
        numerator, denominator = ratio() if ratio is not None else (0, 0)
    except (ValueError, OverflowError):
        denominator = 0
    if denominator != 1:
        raise DomainError(f"BigInt: expected a whole number, got {brief(x)}; round it first (floor, ceil, round)")
    return fmpz(int(numerator))


def _other(operation: Any, x: Any, y: Any) -> Any:
    """Mixed with Fraction, float, Decimal, … as int is."""
    plain = [int(v) if isinstance(v, BigInt) else v for v in (x, y)]
    if all(isinstance(v, (int, float, complex, Fraction)) for v in plain) or _is_decimal(*plain):
        return operation(*plain)
    return NotImplemented


def _is_decimal(*values: Any) -> bool:
    from decimal import Decimal

    return any(isinstance(v, Decimal) for v in values)


def _compare(operation: Any, x: BigInt, y: Any) -> Any:
    if isinstance(y, (float, complex, Fraction)) or _is_decimal(y):
        return operation(int(x), y)
    return NotImplemented


def _fraction(x: fmpz, y: fmpz) -> Fraction:
    if y == 0:
        raise DivisionByZeroError("division: the divisor is 0; allowed: any nonzero divisor")
    return Fraction(int(x), int(y))


def _divmod(x: fmpz, y: fmpz) -> tuple[fmpz, fmpz]:
    if y == 0:
        raise DivisionByZeroError("division: the divisor is 0; allowed: any nonzero divisor")
    quotient, rest = divmod(x, y)
    return quotient, rest


def _shift(x: Any) -> int:
    shift = int(_whole(x))
    if shift < 0:
        raise DomainError(f"shift: got {shift}; expected a count >= 0")
    return shift


def _log2_floor(z: fmpz) -> float:
    """A lower bound of log₂|z| for |z| ≥ 2, close enough to estimate sizes."""
    size = z.bit_length()
    return size - 1 + (float(int(abs(z) >> (size - 20))) / 2**19 - 1) * 0.99 if size > 20 else size - 1 + 1e-9


def _real(x: BigInt) -> Any:
    from cllm.numbers.fixed import BigFixed

    return BigFixed(x._z, 0)


numbers.Integral.register(BigInt)
