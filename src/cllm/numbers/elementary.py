"""What an elementary function is here: an enclosure, a domain that is decided beforehand, and its exact values."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any, overload

from flint import arb

from cllm.errors import DomainError, LimitError, UsageError
from cllm.numbers.ball import Ball
from cllm.numbers.context import at, resolve_bits
from cllm.numbers.convert import to_arb
from cllm.numbers.limits import MAX_PRECISION_BITS
from cllm.numbers.operators import EnclosedReal, Number, show, undecided

if TYPE_CHECKING:
    from cllm.numbers.fixed import BigFixed

Decision = bool | None  # None: the enclosures do not decide


class Elementary:
    """A real function of one or two real arguments, as a callable object.

    Called with ints, Fractions, text, floats, constants or balls it returns a Ball that contains the value at every
    point of the arguments' balls, at `bits` bits (the context's where not given). Exact arguments are worked on with
    more bits until the result has that many (huge, tiny, near-pole arguments). Called with a BigFixed it returns the
    correctly rounded BigFixed.

    Raises:
        DomainError: the argument is outside `domain`.
        UndecidableError: the ball of the argument lies partly outside, or holds a pole.
    """

    def __init__(
        self,
        name: str,
        compute: Callable[..., arb],
        doc: str,
        domain: str = "all real numbers",
        inside: Callable[..., Decision] | None = None,
        arity: tuple[int, int] = (1, 1),
    ) -> None:
        self.name = self.__name__ = self.__qualname__ = name
        self.__module__ = "cllm.numbers.functions"  # where pickle finds it
        self.domain = domain
        self.arity = arity
        self.__doc__ = f"{doc}\n\nDomain: {domain}."
        self._compute = compute
        self._inside = inside

    def __repr__(self) -> str:
        return f"cllm.numbers.{self.name}"

    def __reduce__(self) -> str:
        return self.name

    @overload
    def __call__(self, x: BigFixed, *more: BigFixed | int | Fraction) -> BigFixed: ...
    @overload
    def __call__(self, x: Number, *more: Number, bits: int | None = None) -> Ball: ...

    def __call__(self, x: Any, *more: Any, bits: int | None = None) -> Ball | BigFixed:
        args = (x, *more)
        scales = [a.scale_bits for a in args if hasattr(a, "scale_bits")]
        if scales and not any(isinstance(a, (EnclosedReal, arb)) for a in args):
            if bits is not None:
                raise UsageError(
                    f"{self.name}: bits= does not go with a BigFixed (its scale is the precision); use Ball(x)"
                )
            return self.rounded(*args, scale_bits=max(scales))
        return Ball._of(self.enclose(args, resolve_bits(bits)))

    def rounded(self, *args: Any, scale_bits: int, rounding: str | None = None) -> BigFixed:
        """The value at exact arguments (BigFixed, int, Fraction, float, Decimal), correctly rounded to n/2^scale_bits.

        Raises:
            DomainError: outside the domain, or an argument that is not exact.
            UndecidableError: a possibly exact or half-way case that no theorem settles, at the cap of the search.
            LimitError: the integer part is too large.
        """
        from cllm.numbers.ziv import correctly_rounded

        self._check_arity(args)
        return correctly_rounded(self, args, scale_bits, rounding)

    def _check_arity(self, args: tuple[Any, ...]) -> None:
        least, most = self.arity
        if not least <= len(args) <= most:
            count = f"{least}" if least == most else f"{least} or {most}"
            raise UsageError(f"{self.name}: got {len(args)} arguments; expected {count}")

    def enclose(self, args: tuple[Any, ...], bits: int) -> arb:
        """The flint ball of the value; see the class."""
        self._check_arity(args)
        refinable = all(_refinable(a) for a in args)
        most = min(4 * bits + 1024 + _length(args), MAX_PRECISION_BITS + 1024) if refinable else bits + 16
        work = bits + 16
        while True:
            enclosures = [to_arb(a, work) for a in args]
            last = work >= most
            decision = at(work, self._inside, *enclosures) if self._inside else True
            if decision is False:
                raise self.outside(enclosures)
            if decision is None:
                if last:
                    raise undecided(
                        f"{self.name}: whether the argument lies in the domain ({self.domain})", *enclosures
                    )
                work = min(2 * work, most)
                continue
            y = at(work, self._compute, *enclosures)
            good = y.is_finite() and (y.rel_accuracy_bits() >= bits or not refinable)
            if good or (last and y.is_finite()):
                return y
            if last:
                raise self._not_finite(enclosures, y)
            missing = bits - y.rel_accuracy_bits() if y.is_finite() else work
            work = min(most, work + max(64, min(missing, work)))

    def outside(self, enclosures: list[arb]) -> DomainError:
        """The error of an argument outside the domain."""
        shown = ", ".join(show(x) for x in enclosures)
        return DomainError(f"{self.name}: got {shown}; allowed: {self.domain}")

    def _not_finite(self, enclosures: list[arb], y: arb) -> Exception:
        if all(x.is_exact() for x in enclosures):
            shown = ", ".join(show(x) for x in enclosures)
            return LimitError(
                f"{self.name}({shown}) is beyond what can be enclosed: the exponent of the result is too large, or "
                "more bits are needed (bits=…)"
            )
        return undecided(f"{self.name}: whether the argument avoids every pole", *enclosures)


def _refinable(x: object) -> bool:
    """Whether asking again at a higher precision gives a finer enclosure (everything but a ball with a radius)."""
    if isinstance(x, Ball):
        return x.is_exact
    return not isinstance(x, arb) or bool(x.is_exact())


def _length(args: tuple[Any, ...]) -> int:
    """How many bits the arguments are long: as many may cancel against a pole, a zero or a boundary close by."""
    lengths = [0]
    for x in args:
        if isinstance(x, Fraction):
            lengths.append(x.numerator.bit_length() + x.denominator.bit_length())
        elif isinstance(x, (int, float)):
            lengths.append(max(int(x).bit_length(), 1100 if isinstance(x, float) else 0))
        else:
            hook = x if isinstance(x, arb) else to_arb(x, 64)
            lengths.append(hook.mid().man_exp()[0].bit_length() + min(abs(int(hook.mid().man_exp()[1])), 1 << 20))
    return 2 * max(lengths)


def decide(*, yes: bool, no: bool) -> Decision:
    """True when surely inside, False when surely outside, None when the enclosure does not say."""
    return True if yes else False if no else None
