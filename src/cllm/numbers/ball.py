"""Ball: a real number known as midpoint ± radius, computed with rigorous error bounds by Arb (in FLINT).

Johansson, "Arb: efficient arbitrary-precision midpoint-radius interval arithmetic", IEEE Trans. Comput. 66 (2017).
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from flint import arb, fmpq

from cllm.errors import LimitError
from cllm.numbers.context import at, current_bits, resolve_bits
from cllm.numbers.convert import dyadic, endpoints, exact_rational, restore, to_arb, with_radius
from cllm.numbers.decimals import ball_text
from cllm.numbers.operators import EnclosedReal, Number, undecided
from cllm.numbers.printing import ball_bounds, ball_digits, ball_fixed

_EXACT_BITS = 1 << 24  # beyond this, turning an exact ball into a ratio of integers is refused


class Ball(EnclosedReal):
    """A set {m + r : |r| ≤ radius} that certainly contains the number meant.

    `Ball(x)` takes int, Fraction, Decimal, float (its exact binary value), numpy scalars, BigInt, BigFixed, constants
    and text: `Ball("0.1")` contains one tenth, which `Ball(0.1)` does not. Integers, floats and dyadic fractions are
    exact (radius 0), all else is enclosed at `bits` bits (the context's where not given). `radius` adds an uncertainty.

    Raises:
        DomainError: nan, infinity, a negative radius, text that is no number.

    >>> from cllm.numbers import Ball
    >>> Ball("0.1").contains("1/10"), Ball(0.1).contains("1/10")
    (True, False)
    """

    __slots__ = ("_arb",)
    _arb: arb

    def __init__(self, x: Number = 0, radius: Number = 0, *, bits: int | None = None) -> None:
        work = resolve_bits(bits)
        value = to_arb(x, work)
        margin = to_arb(radius, work)
        self._arb = value if margin.is_zero() else with_radius(value, margin)

    @classmethod
    def _of(cls, x: arb) -> Ball:
        """Wrap a flint ball; anything infinite or undefined is refused here, so that no Ball is ever such."""
        if not x.is_finite():
            raise LimitError(
                f"the enclosure {x} is not finite: the exact result is too large, or the precision too low for the "
                "argument; raise the precision (with precision(bits): … or bits=…)"
            )
        ball = object.__new__(cls)
        ball._arb = x
        return ball

    @classmethod
    def between(cls, lower: Number, upper: Number, *, bits: int | None = None) -> Ball:
        """The smallest ball at `bits` bits that contains both ends."""
        work = resolve_bits(bits)
        return cls._of(at(work, arb.union, to_arb(lower, work), to_arb(upper, work)))

    def _enclosure(self, bits: int) -> arb:
        return self._arb

    # parts --------------------------------------------------------------------------------------------------------
    @property
    def flint(self) -> arb:
        """The python-flint object."""
        return self._arb

    @property
    def middle(self) -> Ball:
        """The midpoint, exactly."""
        return Ball._of(self._arb.mid())

    @property
    def radius(self) -> Ball:
        """The radius, exactly."""
        return Ball._of(self._arb.rad())

    @property
    def lower(self) -> Ball:
        """An exact number below every point of the ball."""
        return Ball._of(endpoints(self._arb)[0])

    @property
    def upper(self) -> Ball:
        """An exact number above every point of the ball."""
        return Ball._of(endpoints(self._arb)[1])

    @property
    def is_exact(self) -> bool:
        """Whether the radius is zero."""
        return bool(self._arb.is_exact())

    @property
    def accuracy_bits(self) -> int:
        """log₂(|midpoint| / radius) rounded down: about how many leading bits are known."""
        return int(self._arb.rel_accuracy_bits())

    def mantissa_exponent(self) -> tuple[int, int, int, int]:
        """(m, e, r, f) with the ball being m·2^e ± r·2^f, exactly; what saving and pickling use."""
        return (*dyadic(self._arb.mid()), *dyadic(self._arb.rad()))

    @classmethod
    def from_mantissa_exponent(cls, m: int, e: int, r: int = 0, f: int = 0) -> Ball:
        """The ball m·2^e ± r·2^f; the inverse of `mantissa_exponent`."""
        return cls._of(restore(m, e, r, f))

    def as_fraction(self) -> Fraction:
        """The exact value of a ball of radius 0.

        Raises:
            UndecidableError: the radius is not zero.
            LimitError: the ratio would have more than 2²⁴ bits.
        """
        if not self._arb.is_exact():
            raise undecided("which rational number this is", self._arb)
        m, e = dyadic(self._arb)
        if abs(e) > _EXACT_BITS:
            raise LimitError(f"as_fraction: 2^{e} as a ratio of integers is beyond the limit of 2^±{_EXACT_BITS}")
        return Fraction(m << e) if e >= 0 else Fraction(m, 1 << -e)

    # sets ---------------------------------------------------------------------------------------------------------
    def contains(self, x: Number) -> bool:
        """Whether the number (or the whole ball) `x` lies in this ball; rationals and decimals are compared exactly."""
        rational = None if isinstance(x, (EnclosedReal, arb)) else exact_rational(x)
        if rational is not None:
            return self._holds(fmpq(rational.numerator, rational.denominator))
        return bool(self._arb.contains(to_arb(x, self._work_bits())))

    __contains__ = contains

    def _holds(self, x: fmpq) -> bool:
        """|x − m| ≤ r in exact integers (flint's own test would first round x to a ball)."""
        m, e, r, f = self.mantissa_exponent()
        if max(abs(e), abs(f)) > _EXACT_BITS:
            return bool(self._arb.contains(at(self._work_bits(), arb, x)))
        two = fmpq(2)
        return bool(abs(x - fmpq(m) * two**e) <= fmpq(r) * two**f)

    def overlaps(self, x: Number) -> bool:
        """Whether this ball and `x` have a point in common."""
        return bool(self._arb.overlaps(to_arb(x, self._work_bits())))

    def union(self, x: Number) -> Ball:
        """A ball containing both."""
        bits = self._work_bits()
        return Ball._of(at(bits, self._arb.union, to_arb(x, bits)))

    def intersection(self, x: Number) -> Ball:
        """A ball containing every common point.

        Raises:
            UndecidableError: there is none.
        """
        bits = self._work_bits()
        other = to_arb(x, bits)
        if not self._arb.overlaps(other):
            raise undecided("the intersection is empty: which point two disjoint balls share", self._arb, other)
        return Ball._of(at(bits, self._arb.intersection, other))

    def _work_bits(self) -> int:
        """Enough bits to tell a rational from the ends of this ball."""
        ends = sum(dyadic(part)[0].bit_length() for part in (self._arb.mid(), self._arb.rad()))
        return max(current_bits(), 2 * ends + 64)

    # to other types -------------------------------------------------------------------------------------------------
    def __float__(self) -> float:
        """The double nearest to the midpoint. `nearest_float` raises instead when the ball does not decide it."""
        return float(self._arb)

    def nearest_float(self) -> float:
        """The double nearest to the number meant, proven.

        Raises:
            UndecidableError: the ball holds points that round to different doubles.
        """
        low, high = (float(end) for end in endpoints(self._arb))
        if low != high:
            raise undecided(f"which double is nearest ({low!r} or {high!r})", self._arb)
        return low

    def _integer(self, name: str, rounded: Callable[[int, int], int]) -> int:
        low, high = (rounded(*self._dyadic_within_limit(end)) for end in endpoints(self._arb))
        if low != high:
            raise undecided(f"{name}: which integer", self._arb)
        return low

    def _dyadic_within_limit(self, end: arb) -> tuple[int, int]:
        m, e = dyadic(end)
        if e > _EXACT_BITS:
            raise LimitError(f"the integer part has more than {e} bits; the limit is {_EXACT_BITS}")
        return m, e

    def __floor__(self) -> int:
        return self._integer("floor", lambda m, e: m << e if e >= 0 else m >> -e)

    def __ceil__(self) -> int:
        return self._integer("ceil", lambda m, e: m << e if e >= 0 else -(-m >> -e))

    def __trunc__(self) -> int:
        return self.__floor__() if self._arb >= 0 else self.__ceil__() if self._arb <= 0 else self._straddling()

    def _straddling(self) -> int:
        if self._arb > -1 and self._arb < 1:
            return 0
        raise undecided("trunc: which integer", self._arb)

    __int__ = __trunc__

    def __round__(self, digits: int | None = None) -> Any:
        """The nearest integer (ties to even), or a Fraction rounded to `digits` decimals."""
        low, high = (round(Ball._of(end).as_fraction(), digits) for end in endpoints(self._arb))
        if low != high:
            raise undecided("round: which value", self._arb)
        return low

    # text ---------------------------------------------------------------------------------------------------------
    def digits(self, n: int | None = None) -> str:
        """The number rounded to nearest to `n` significant decimal digits, every one of them proven.

        Where the ball does not prove `n` digits, as many as it does prove are given; `None` asks for all of them.
        Every point of the ball rounds (to nearest, ties to even) to the decimal returned.

        Raises:
            UndecidableError: not one digit is proven (the ball contains 0, for example).
        """
        return ball_digits(self._arb, n)

    def bounds(self, n: int = 20) -> tuple[str, str]:
        """(lower, upper) as decimals of `n` significant digits, rounded outward: the number lies between them."""
        return ball_bounds(self._arb, n)

    def __str__(self) -> str:
        return ball_text(self._arb)

    def __repr__(self) -> str:
        return f"Ball('{self}')"

    def __format__(self, spec: str) -> str:
        """`""` as str; `".30f"` 30 proven decimals; `".30g"` 30 proven significant digits, else UndecidableError."""
        if not spec:
            return str(self)
        return ball_fixed(self._arb, spec)

    # identity -----------------------------------------------------------------------------------------------------
    def is_identical(self, other: Ball) -> bool:
        """Whether midpoint and radius are the same: a question about the balls, always decided."""
        return self.mantissa_exponent() == other.mantissa_exponent()

    def __hash__(self) -> int:
        """Equal to the hash of the equal int or Fraction; only exact balls have one."""
        if not self._arb.is_exact():
            raise TypeError(f"unhashable: {self} has a radius, so its equality may be undecidable")
        return hash(self.as_fraction())

    def __reduce__(self) -> tuple[Any, ...]:
        return Ball.from_mantissa_exponent, self.mantissa_exponent()

    def __copy__(self) -> Ball:
        return self

    def __deepcopy__(self, memo: object) -> Ball:
        return self
