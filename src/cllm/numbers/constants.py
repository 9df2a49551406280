"""Constants as exact objects: `pi` is the number itself, enclosed as finely as each use asks for.

>>> from cllm.numbers import pi, Ball
>>> pi.digits(30), pi(bits=64).contains(Ball("3.14159265358979323846264338328"))
('3.14159265358979323846264338328', True)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flint import arb

from cllm.errors import UndecidableError
from cllm.numbers.ball import Ball
from cllm.numbers.context import at, current_bits, resolve_bits
from cllm.numbers.convert import to_arb
from cllm.numbers.limits import MAX_PRECISION_BITS, check_precision
from cllm.numbers.operators import EnclosedReal, undecided
from cllm.numbers.printing import ball_decimal

_UNPROVEN_EXTRA_BITS = 1 << 14  # how much closer than the digits asked for a possibly rational constant is looked at


class Constant(EnclosedReal):
    """An exact real number with a name.

    `pi()` and `pi(bits=1000)` are balls; in arithmetic (`2*pi`) the precision of the context is used; `digits`,
    `bounds`, `float`, formatting and comparisons raise the precision themselves until the answer is decided. For the
    constants whose irrationality is not known (Euler's γ, Catalan's) that search is capped.
    """

    def __init__(self, name: str, compute: Callable[[], arb], doc: str, irrational: bool = True) -> None:
        self.name = name
        self._compute = compute
        self.irrational = irrational
        self.__doc__ = doc

    def _enclosure(self, bits: int) -> arb:
        return at(bits + 8, self._compute)

    def __call__(self, *, bits: int | None = None) -> Ball:
        """The ball of the constant at `bits` bits (the context's where not given)."""
        return Ball._of(self._enclosure(resolve_bits(bits)))

    def digits(self, n: int) -> str:
        """Rounded to nearest to `n` significant digits, all proven."""
        text: str = self._decided(n * 10 // 3 + 8, lambda x: _exactly(x, n))
        return text

    def bounds(self, n: int = 20) -> tuple[str, str]:
        """(lower, upper): decimals of `n` digits, one unit of the last apart, with the constant between them."""
        return Ball._of(self._enclosure(check_precision(n * 10 // 3 + 32))).bounds(n)

    def _decided(self, bits: int, answer: Callable[[arb], Any]) -> Any:
        """`answer` of finer and finer enclosures until it raises UndecidableError no more."""
        cap = MAX_PRECISION_BITS if self.irrational else bits + _UNPROVEN_EXTRA_BITS
        extra = 32
        while True:
            try:
                return answer(self._enclosure(check_precision(bits + extra)))
            except UndecidableError:
                extra *= 2
                if bits + extra > cap:
                    raise

    def _ordered(self, sign: str, other: Any, surely: Any, surely_not: Any) -> Any:
        """Against anything exact or another constant the precision is raised until the order is decided."""
        if other is self:
            return sign in ("<=", ">=")

        refinable = isinstance(other, Constant) or not isinstance(other, (EnclosedReal, arb))

        def answer(x: arb) -> bool:
            y = to_arb(other, max(current_bits(), x.mid().man_exp()[0].bit_length()))
            if surely(x, y):
                return True
            if surely_not(x, y):
                return False
            raise undecided(f"{self.name} {sign} y", x, y)

        try:
            exact = to_arb(other, current_bits()).is_exact()
        except TypeError:
            return NotImplemented
        if refinable or exact:
            return self._decided(current_bits(), answer)
        return answer(self._enclosure(current_bits()))

    def __eq__(self, other: object) -> bool:
        if other is self:
            return True
        try:
            return not (self < other or self > other)
        except TypeError:
            return NotImplemented

    def __hash__(self) -> int:
        return hash(("cllm.numbers", self.name))

    def __float__(self) -> float:
        value: float = self._decided(64, lambda x: Ball._of(x).nearest_float())
        return value

    def __floor__(self) -> int:
        value: int = self._decided(64, lambda x: Ball._of(x).__floor__())
        return value

    def __ceil__(self) -> int:
        return self.__floor__() + 1 if self.irrational else self().__ceil__()

    __trunc__ = __floor__
    __int__ = __floor__

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"cllm.numbers.{self.name}"

    def __format__(self, spec: str) -> str:
        if not spec:
            return self.name
        text: str = self._decided(64 + 4 * len(spec), lambda x: format(Ball._of(x), spec))
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        return _by_name, (self.name,)


def _exactly(x: arb, n: int) -> str:
    decimal = ball_decimal(x, n)
    if len(decimal.digits) < n:
        raise undecided(f"digit {n}", x)
    return decimal.text()


def _by_name(name: str) -> Constant:
    return CONSTANTS[name]


def _sqrt(n: int) -> Callable[[], arb]:
    return lambda: arb(n).sqrt()


pi = Constant("pi", arb.pi, "π, the half circumference of the unit circle; transcendental (Lindemann 1882).")
e = Constant("e", arb.const_e, "e = exp(1); transcendental (Hermite 1873).")
phi = Constant("phi", lambda: (arb(5).sqrt() + 1) / 2, "The golden ratio (1 + √5)/2.")
ln2 = Constant("ln2", arb.const_log2, "ln 2; transcendental (Lindemann).")
ln3 = Constant("ln3", lambda: arb(3).log(), "ln 3; transcendental (Lindemann).")
ln10 = Constant("ln10", arb.const_log10, "ln 10; transcendental (Lindemann).")
sqrt2 = Constant("sqrt2", _sqrt(2), "√2.")
sqrt3 = Constant("sqrt3", _sqrt(3), "√3.")
sqrt5 = Constant("sqrt5", _sqrt(5), "√5.")
euler_gamma = Constant("euler_gamma", arb.const_euler, "Euler's constant γ; not known to be irrational.", False)
catalan = Constant("catalan", arb.const_catalan, "Catalan's constant; not known to be irrational.", False)

CONSTANTS: dict[str, Constant] = {
    c.name: c for c in (pi, e, phi, ln2, ln3, ln10, sqrt2, sqrt3, sqrt5, euler_gamma, catalan)
}  # fmt: skip
