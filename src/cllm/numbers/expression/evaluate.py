"""Tree → value. Rationals stay exact; everything else is an enclosure, computed again with more bits until proven."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

from flint import arb, fmpq, fmpz

from cllm.errors import CllmError, DomainError, LimitError, UndecidableError, closest
from cllm.numbers.bases import to_digits
from cllm.numbers.bigint import BigInt
from cllm.numbers.context import at
from cllm.numbers.convert import dyadic, endpoints
from cllm.numbers.exact_cases import verdict
from cllm.numbers.expression.names import INTEGERS, NAMED_CONSTANTS, REALS, SPECIAL, known_names, resolve, to_fraction
from cllm.numbers.expression.syntax import Assignment, Call, ExpressionError, Name, Node, Number, marked
from cllm.numbers.limits import check_integer_bits
from cllm.numbers.operators import DivisionByZeroError, divide_arb, show, undecided
from cllm.numbers.powers import power_arb
from cllm.numbers.round_modes import round_dyadic
from cllm.numbers.towers import damped_tower

_TEN = fmpq(10)
_BOUNDARY_SCALE = 1 << 16  # a rational power with a larger power-of-two denominator is kept as an enclosure


@dataclass(frozen=True)
class Special:
    """A result that is no real number: kind "truth", "factors", "list" or "text"."""

    kind: str
    value: Any


Value: TypeAlias = "fmpq | arb | Special"


class Evaluator:
    """One evaluation at a fixed precision; shared parts of the tree (variables) are computed once."""

    def __init__(self, text: str, variables: Mapping[str, Node], bits: int) -> None:
        self.text, self.variables, self.bits = text, variables, bits
        self.seen: dict[int, Value] = {}

    def value(self, node: Node) -> Value:
        """The value of a part.

        Raises:
            ExpressionError: an unknown name or wrong number of arguments.
            DomainError, UndecidableError, LimitError: from the functions; the message points into the text.
        """
        spine: list[Call] = []  # long sums are left-deep: walked by a loop, not by recursion
        while isinstance(node, Call) and node.args and id(node) not in self.seen:
            spine.append(node)
            node = node.args[0]
        value = self._leaf(node)
        for call in reversed(spine):
            value = self.seen[id(call)] = self._applied(call, [value, *map(self.value, call.args[1:])])
        return value

    def _leaf(self, node: Node) -> Value:
        if isinstance(node, Number):
            return node.value
        if isinstance(node, Assignment):
            return self.value(node.value)
        if isinstance(node, Name):
            return self._named(node)
        assert isinstance(node, Call)
        return self.seen[id(node)] if id(node) in self.seen else self._applied(node, [])

    def _applied(self, node: Call, args: list[Value]) -> Value:
        try:
            return self._call(node, args)
        except ExpressionError:
            raise
        except CllmError as error:
            raise _located(error, self.text, node) from None

    def _named(self, node: Name) -> Value:
        if node.name in self.variables:
            return self.value(self.variables[node.name])
        constant = NAMED_CONSTANTS.get(resolve(node.name))
        if constant is not None:
            return constant._enclosure(self.bits)
        if resolve(node.name) in (*REALS, *INTEGERS, *SPECIAL):
            raise ExpressionError(f"{node.name} is a function; write {node.name}(…)", self.text, node.start, node.end)
        hint = closest(node.name, [*self.variables, *known_names()])
        raise ExpressionError(f"unknown name {node.name!r}{hint}", self.text, node.start, node.end)

    def _call(self, node: Call, args: list[Value]) -> Value:
        operation = _OPERATORS.get(node.name)
        if operation is not None:
            return operation(self.bits, *map(_real, args))
        name = resolve(node.name)
        if name in INTEGERS:
            function = INTEGERS[name]
            self._check_count(node, len(args), function.arity)
            result = function.apply(*(_integer(a, name) for a in args))
            return fmpq(BigInt(result)._z) if function.result == "exact" else Special(function.result, result)
        if name in SPECIAL:
            self._check_count(node, len(args), SPECIAL[name])
            return _SPECIAL[name](self.bits, *map(_real, args))
        if name in REALS:
            self._check_count(node, len(args), REALS[name].arity)
            return _elementary(name, self.bits, *map(_real, args))
        if name in NAMED_CONSTANTS or node.name in self.variables:
            message = f"{node.name} is not a function; write {node.name}*(…)"
            raise ExpressionError(message, self.text, node.start, node.start + len(node.name))
        hint = closest(node.name, known_names())
        raise ExpressionError(
            f"unknown function {node.name!r}{hint}", self.text, node.start, node.start + len(node.name)
        )

    def _check_count(self, node: Call, got: int, arity: tuple[int, int]) -> None:
        least, most = arity
        if not least <= got <= most:
            count = f"{least}" if least == most else f"{least} or more" if most > 100 else f"{least} to {most}"
            raise ExpressionError(
                f"{node.name}: got {got} arguments; expected {count}", self.text, node.start, node.end
            )


def _located(error: CllmError, text: str, node: Node) -> CllmError:
    """The same error with the place in the text; the innermost place wins."""
    if hasattr(error, "start"):
        return error
    located = type(error)(f"{error}\n{marked(text, node.start, node.end)}")
    located.start, located.end = node.start, node.end  # type: ignore[attr-defined]
    return located


def _real(x: Value) -> fmpq | arb:
    if isinstance(x, Special):
        raise DomainError(f"a {x.kind} result cannot be calculated with; expected a number")
    return x


def _integer(x: Value, name: str) -> BigInt:
    x = _real(x)
    if isinstance(x, arb) or x.q != 1:
        shown = str(x) if isinstance(x, fmpq) else show(x)
        raise DomainError(f"{name}: got {shown:.60}; expected an exact integer")
    return BigInt(x.p)


def _arb(x: fmpq | arb, bits: int) -> arb:
    if isinstance(x, arb):
        return x
    q = x.q
    if q & (q - 1) == 0:
        return arb((x.p, 1 - q.bit_length()))
    return at(bits, arb, x)


# operators ------------------------------------------------------------------------------------------------------------
def _arithmetic(exact: Callable[[Any, Any], Any], enclosed: Callable[[Any, Any], Any]) -> Callable[..., Value]:
    def apply(bits: int, x: fmpq | arb, y: fmpq | arb) -> Value:
        if isinstance(x, fmpq) and isinstance(y, fmpq):
            check_integer_bits(x.height_bits() + y.height_bits(), "the exact result")
            value: Value = exact(x, y)
            return value
        if exact is fmpq.__mul__ and any(isinstance(v, fmpq) and v == 0 for v in (x, y)):
            return fmpq(0)
        result: Value = at(bits, enclosed, _arb(x, bits), _arb(y, bits))
        return result

    return apply


def _divide(bits: int, x: fmpq | arb, y: fmpq | arb) -> Value:
    if isinstance(y, fmpq) and y == 0:
        raise DivisionByZeroError("division by 0; allowed: any nonzero divisor")
    if isinstance(x, fmpq) and isinstance(y, fmpq):
        check_integer_bits(x.height_bits() + y.height_bits(), "the exact quotient")
        return x / y
    return divide_arb(_arb(x, bits), _arb(y, bits), bits)


def _floor_divide(bits: int, x: fmpq | arb, y: fmpq | arb) -> Value:
    return _floor(bits, _real(_divide(bits, x, y)))


def _modulo(bits: int, x: fmpq | arb, y: fmpq | arb) -> Value:
    quotient = _floor_divide(bits, x, y)
    return _SUBTRACT(bits, x, _MULTIPLY(bits, quotient, y))


def _negate(bits: int, x: fmpq | arb) -> Value:
    return x.neg(exact=True) if isinstance(x, arb) else -x


def _magnitude(bits: int, x: fmpq | arb) -> Value:
    return at(bits, abs, x) if isinstance(x, arb) else max(x, -x)


def _power(bits: int, x: fmpq | arb, y: fmpq | arb) -> Value:
    if isinstance(x, fmpq) and isinstance(y, fmpq) and y.q == 1:
        if y < 0 and x == 0:
            raise DivisionByZeroError("0 to a negative power; allowed: base ≠ 0 or exponent >= 0")
        if x == 0 or abs(x) == 1 or y == 0:
            return fmpq(1) if y == 0 or x == 1 or (x == -1 and y.p % 2 == 0) else x
        size = (x.height_bits() - 1 or 1) * abs(float(int(y.p))) if y.p.bit_length() < 1000 else 1e300
        check_integer_bits(size, "power")
        top, bottom, k = x.p, x.q, abs(int(y.p))
        return fmpq(top**k, bottom**k) if y > 0 else fmpq(bottom**k, top**k)
    if isinstance(x, fmpq) and isinstance(y, fmpq):
        return _elementary("power", bits, x, y)
    return power_arb(to_fraction(x) if isinstance(x, fmpq) else x, to_fraction(y) if isinstance(y, fmpq) else y, bits)


def _factorial(bits: int, x: fmpq | arb) -> Value:
    if isinstance(x, fmpq) and x.q == 1 and x >= 0:
        return fmpq(INTEGERS["factorial"].apply(BigInt(x.p))._z)
    return _elementary("gamma", bits, _real(_ADD(bits, x, fmpq(1))))


def _elementary(name: str, bits: int, *args: fmpq | arb) -> Value:
    function = REALS[name]
    exact = [to_fraction(a) if isinstance(a, fmpq) else a for a in args]
    enclosed = function.enclose(tuple(exact), bits)  # decides the domain first
    if all(isinstance(a, Fraction) for a in exact):
        size = dyadic(at(32, enclosed.abs_upper))
        check_integer_bits(size[0].bit_length() + size[1] if name in ("gamma", "power") else 0, name)
        found = verdict(name, tuple(a for a in exact if isinstance(a, Fraction)), _BOUNDARY_SCALE).value
        if found is not None:
            return fmpq(found.numerator, found.denominator)
    return enclosed


# functions of exact values and enclosures ----------------------------------------------------------------------
def _rounded(mode: str) -> Callable[..., Value]:
    def apply(bits: int, x: fmpq | arb) -> Value:
        if isinstance(x, fmpq):
            return fmpq(x.floor() if mode == "floor" else x.ceil() if mode == "ceiling" else _nearest(x))
        ends = [round_dyadic(*_bounded(end), mode) for end in endpoints(x)]
        if ends[0] != ends[1]:
            raise undecided(f"{mode}: which integer", x)
        return fmpq(ends[0])

    return apply


def _nearest(x: fmpq) -> fmpz:
    from cllm.numbers.round_modes import divide_rounded

    return divide_rounded(x.p, x.q, "nearest-even")


def _bounded(end: arb) -> tuple[int, int]:
    m, e = dyadic(end)
    check_integer_bits(m.bit_length() + e, "the integer part")
    return m, e


_floor = _rounded("floor")


def _frac(bits: int, x: fmpq | arb) -> Value:
    return _SUBTRACT(bits, x, _floor(bits, x))


def _sgn(bits: int, x: fmpq | arb) -> Value:
    if isinstance(x, fmpq):
        return fmpq(int(x > 0) - int(x < 0))
    if x.contains(0):
        raise undecided("sgn: the sign", x)
    return fmpq(1 if x > 0 else -1)


def _extreme(enclosed: Callable[[arb, arb], arb], larger: bool) -> Callable[..., Value]:
    def apply(bits: int, *args: fmpq | arb) -> Value:
        best = args[0]
        for x in args[1:]:
            if isinstance(best, fmpq) and isinstance(x, fmpq):
                best = x if (x > best) == larger else best
            else:
                best = at(bits, enclosed, _arb(best, bits), _arb(x, bits))
        return best

    return apply


def _damped(bits: int, base: fmpq | arb, height: fmpq | arb) -> Value:
    levels = int(_integer(height, "damped_tower: height"))
    exact = to_fraction(base) if isinstance(base, fmpq) else base
    return fmpq(1) if levels == 0 else damped_tower(exact, levels, bits=bits).flint


def _base60(bits: int, x: fmpq | arb, places: fmpq | arb = _TEN) -> Value:
    """Sexagesimal text: integer places by commas, then ";" and `places` fractional ones, truncated toward zero."""
    n = int(_integer(places, "base60: places"))
    if not 0 <= n <= 100_000:
        raise LimitError(f"base60: {n} places; allowed: 0 to 100000")
    negative = _sgn(bits, x) == -1
    scaled = _MULTIPLY(bits, _magnitude(bits, x), fmpq(fmpz(60) ** n))
    whole = _floor(bits, _real(scaled))
    assert isinstance(whole, fmpq)
    more = "" if isinstance(scaled, fmpq) and scaled == whole else "…"
    digits = [0] * n + to_digits(whole.p, 60)
    split = len(digits) - n
    part = digits[split:]
    if not more:
        while part and part[-1] == 0:
            part.pop()
    head = digits[:split]
    while len(head) > 1 and head[0] == 0:
        head.pop(0)
    text = ",".join(map(str, head)) + (";" + ",".join(map(str, part)) if part else "")
    return Special("text", ("-" if negative else "") + text + more)


_ADD = _arithmetic(fmpq.__add__, arb.__add__)
_SUBTRACT = _arithmetic(fmpq.__sub__, arb.__sub__)
_MULTIPLY = _arithmetic(fmpq.__mul__, arb.__mul__)

_OPERATORS: dict[str, Callable[..., Value]] = {
    "+": _ADD, "-": _SUBTRACT, "*": _MULTIPLY, "/": _divide, "//": _floor_divide, "%": _modulo,
    "^": _power, "neg": _negate, "!": _factorial,
}  # fmt: skip
_SPECIAL: dict[str, Callable[..., Value]] = {
    "abs": _magnitude,
    "sgn": _sgn, "floor": _floor, "ceil": _rounded("ceiling"), "round": _rounded("nearest-even"), "frac": _frac,
    "min": _extreme(arb.min, False), "max": _extreme(arb.max, True), "mod": _modulo, "damped_tower": _damped,
    "base60": _base60,
}  # fmt: skip

__all__ = ["Evaluator", "Special", "UndecidableError", "Value"]
