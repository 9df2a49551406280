"""What balls and constants share: arithmetic that encloses, and comparisons that decide or raise."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeAlias

from flint import arb

from cllm.errors import DomainError, UndecidableError
from cllm.numbers.context import at, current_bits
from cllm.numbers.convert import to_arb
from cllm.numbers.decimals import ball_text

if TYPE_CHECKING:
    from cllm.numbers.ball import Ball

Number: TypeAlias = "EnclosedReal | Real | float | int | Fraction | Decimal | str | arb"


class DivisionByZeroError(DomainError, ZeroDivisionError):
    """A divisor that is exactly zero; both a DomainError and Python's ZeroDivisionError."""


def show(x: arb) -> str:
    """A ball for an error message, shortened to about 30 digits."""
    text = ball_text(x)
    return text if len(text) < 60 or x.rel_accuracy_bits() < 100 else str(at(110, x.str, 30))


def undecided(question: str, *enclosures: arb) -> UndecidableError:
    """The error of a question that the enclosures do not answer; shows them."""
    shown = ", ".join(show(e) for e in enclosures)
    return UndecidableError(
        f"{question} is not decided by the enclosure{'s' if len(enclosures) > 1 else ''} {shown}; "
        "raise the precision (with precision(bits): … or bits=…), or give an exact argument"
    )


def divide_arb(x: arb, y: arb, bits: int) -> arb:
    """x / y; the divisor must not contain zero."""
    if y.is_zero():
        raise DivisionByZeroError("division: the divisor is exactly 0; allowed: any nonzero divisor")
    if y.contains(0):
        raise undecided("division: whether the divisor is nonzero", y)
    return at(bits, arb.__truediv__, x, y)


class EnclosedReal:
    """A real number known through enclosures (`_enclosure(bits)` gives one); subclasses are Ball and Constant.

    `+ − × ÷ **` return a Ball at the precision of the context. `< <= > >= == !=` return the answer when every pair of
    points of the two enclosures gives the same one, else they raise UndecidableError: they never guess.
    """

    __slots__ = ()
    __array_ufunc__ = None  # numpy scalars leave the operation to us

    def _enclosure(self, bits: int) -> arb:
        raise NotImplementedError

    # arithmetic -------------------------------------------------------------------------------------------------
    def __add__(self, other: Any) -> Ball:
        result: Ball = _binary(arb.__add__, self, other)
        return result

    def __radd__(self, other: Any) -> Ball:
        result: Ball = _binary(arb.__add__, other, self)
        return result

    def __sub__(self, other: Any) -> Ball:
        result: Ball = _binary(arb.__sub__, self, other)
        return result

    def __rsub__(self, other: Any) -> Ball:
        result: Ball = _binary(arb.__sub__, other, self)
        return result

    def __mul__(self, other: Any) -> Ball:
        result: Ball = _binary(arb.__mul__, self, other)
        return result

    def __rmul__(self, other: Any) -> Ball:
        result: Ball = _binary(arb.__mul__, other, self)
        return result

    def __truediv__(self, other: Any) -> Ball:
        result: Ball = _divide(self, other)
        return result

    def __rtruediv__(self, other: Any) -> Ball:
        result: Ball = _divide(other, self)
        return result

    def __pow__(self, other: Any) -> Ball:
        result: Ball = _power(self, other)
        return result

    def __rpow__(self, other: Any) -> Ball:
        result: Ball = _power(other, self)
        return result

    def __floordiv__(self, other: Any) -> int:
        quotient: Ball = self / other
        return quotient.__floor__()

    def __rfloordiv__(self, other: Any) -> int:
        quotient: Ball = other / self
        return quotient.__floor__()

    def __mod__(self, other: Any) -> Ball:
        rest: Ball = self - _ball(other) * (self // other)
        return rest

    def __rmod__(self, other: Any) -> Ball:
        rest: Ball = _ball(other) - self * (other // self)
        return rest

    def __neg__(self) -> Ball:
        return _wrap(self._enclosure(current_bits()).neg(exact=True))

    def __pos__(self) -> Ball:
        return _wrap(self._enclosure(current_bits()))

    def __abs__(self) -> Ball:
        x = self._enclosure(current_bits())
        return _wrap(at(x.mid().man_exp()[0].bit_length() + 64, abs, x))

    # comparison -------------------------------------------------------------------------------------------------
    def _compared(self, other: Any) -> tuple[arb, arb] | None:
        try:
            bits = current_bits()
            return self._enclosure(bits), to_arb(other, bits)
        except TypeError:
            return None

    def __eq__(self, other: object) -> bool:
        if (pair := self._compared(other)) is None:
            return NotImplemented
        x, y = pair
        if x.is_exact() and y.is_exact():
            return bool(x == y)
        if not x.overlaps(y):
            return False
        raise undecided("whether two balls are equal (they overlap)", x, y)

    def __ne__(self, other: object) -> bool:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def __lt__(self, other: Any) -> bool:
        result: bool = self._ordered("<", other, arb.__lt__, arb.__ge__)
        return result

    def __le__(self, other: Any) -> bool:
        result: bool = self._ordered("<=", other, arb.__le__, arb.__gt__)
        return result

    def __gt__(self, other: Any) -> bool:
        result: bool = self._ordered(">", other, arb.__gt__, arb.__le__)
        return result

    def __ge__(self, other: Any) -> bool:
        result: bool = self._ordered(">=", other, arb.__ge__, arb.__lt__)
        return result

    def _ordered(self, sign: str, other: Any, surely: Any, surely_not: Any) -> Any:
        if (pair := self._compared(other)) is None:
            return NotImplemented
        if surely(*pair):
            return True
        if surely_not(*pair):
            return False
        raise undecided(f"x {sign} y", *pair)

    def __bool__(self) -> bool:
        x = self._enclosure(current_bits())
        if not x.contains(0):
            return True
        if x.is_zero():
            return False
        raise undecided("whether the number is nonzero", x)

    def __hash__(self) -> int:
        raise TypeError(f"unhashable type: {type(self).__name__}")


def _wrap(x: arb) -> Ball:
    from cllm.numbers.ball import Ball

    return Ball._of(x)


def _ball(x: Any) -> Ball:
    return _wrap(to_arb(x, current_bits()))


def _binary(operation: Any, x: Any, y: Any) -> Any:
    bits = current_bits()
    try:
        return _wrap(at(bits, operation, to_arb(x, bits), to_arb(y, bits)))
    except TypeError:
        return NotImplemented


def _divide(x: Any, y: Any) -> Any:
    bits = current_bits()
    try:
        return _wrap(divide_arb(to_arb(x, bits), to_arb(y, bits), bits))
    except TypeError:
        return NotImplemented


def _power(x: Any, y: Any) -> Any:
    from cllm.numbers.powers import power_arb

    bits = current_bits()
    try:
        return _wrap(power_arb(x, y, bits))
    except TypeError:
        return NotImplemented
