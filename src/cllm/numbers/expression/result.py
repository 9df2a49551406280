"""Results with their proof, and the sheet of variables that the command line and the studio share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from flint import arb, fmpq, fmpz

from cllm.errors import CllmError, DomainError, UndecidableError
from cllm.numbers.ball import Ball
from cllm.numbers.decimals import Decimal10, ratio_decimal
from cllm.numbers.expression.evaluate import Evaluator, Special, Value
from cllm.numbers.expression.names import NAMED_CONSTANTS, known_names, resolve, to_fraction
from cllm.numbers.expression.syntax import Assignment, Call, ExpressionError, Name, Node, Number, call, parse
from cllm.numbers.limits import check_precision
from cllm.numbers.printing import ball_bounds, ball_decimal

DEFAULT_DIGITS = 30
_MORE_ROUNDS = 4  # the precision is doubled this often before fewer digits than asked are given
_LONG_EXACT = 10_000  # digits of a numerator or denominator that are still written out


@dataclass(frozen=True)
class Result:
    """The value of an expression.

    kind: "integer", "rational", "real", "truth", "factors", "list" or "text". text: at most `digits` significant
    digits, each proven, rounded to nearest. exact: "p/q" or the integer, where the value is rational and not too long
    to write. lower, upper: decimals with the value between them (reals). proven: how many digits are proven.
    """

    kind: str
    text: str
    exact: str | None
    lower: str | None
    upper: str | None
    proven: int | None
    bits: int
    name: str | None
    raw: Value

    @property
    def fraction(self) -> Fraction | None:
        """The exact value, where rational."""
        return to_fraction(self.raw) if isinstance(self.raw, fmpq) else None

    @property
    def ball(self) -> Ball:
        """The enclosure, where the value is a real number."""
        if isinstance(self.raw, Special):
            raise DomainError(f"a {self.kind} result has no enclosure; expected a number")
        return Ball(self.raw if isinstance(self.raw, arb) else to_fraction(self.raw), bits=self.bits)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: numbers are text, because JSON's numbers are doubles."""
        found: dict[str, Any] = {"kind": self.kind, "text": self.text}
        if isinstance(self.raw, Special):
            found["value"] = _plain(self.raw)
        for key in ("exact", "lower", "upper", "proven", "name"):
            if getattr(self, key) is not None:
                found[key] = getattr(self, key)
        return found


def _plain(x: Special) -> Any:
    if x.kind == "factors":
        return [[str(p), k] for p, k in x.value.items()]
    return [str(d) for d in x.value] if x.kind == "list" else x.value


def _special(x: Special, name: str | None, bits: int) -> Result:
    if x.kind == "factors":
        text = " · ".join(f"{p}^{k}" if k > 1 else str(p) for p, k in x.value.items()) or "1"
    elif x.kind == "list":
        text = ", ".join(map(str, x.value))
    else:
        text = str(x.value).lower() if x.kind == "truth" else x.value
    return Result(x.kind, text, None, None, None, None, bits, name, x)


def _rational(x: fmpq, digits: int, name: str | None, bits: int) -> Result:
    integer = x.q == 1
    size = max(x.p.bit_length(), x.q.bit_length()) * 3 // 10
    exact = str(x) if size <= max(_LONG_EXACT, digits + 10) else None
    decimal = ratio_decimal(x.p, x.q, digits, "nearest")
    short = integer and exact is not None and len(exact.lstrip("-")) <= digits
    text = exact if short and exact is not None else decimal.text()
    if text != exact and _is(x, decimal):
        whole = decimal.exponent + 1 if decimal.exponent < digits else 1
        shown = decimal.digits.rstrip("0").ljust(whole, "0")
        text = replace(decimal, digits=shown).text()
    low = ratio_decimal(x.p, x.q, digits, "floor").text()
    high = ratio_decimal(x.p, x.q, digits, "ceiling").text()
    return Result("integer" if integer else "rational", text, exact, low, high, digits, bits, name, x)


def _is(x: fmpq, decimal: Decimal10) -> bool:
    """Whether the decimal is the exact value."""
    power = decimal.exponent + 1 - len(decimal.digits)
    if abs(power) > _LONG_EXACT:
        return False
    value = fmpq(fmpz(decimal.digits)) * (fmpq(10) ** power)
    return bool(abs(x.p) * value.q == value.p * x.q)


class Sheet:
    """Variables and their values: assignments are remembered, `ans` is the last number.

    >>> from cllm.numbers.expression import Sheet
    >>> sheet = Sheet()
    >>> _ = sheet.evaluate("r = sqrt(2)")
    >>> sheet.evaluate("r^2 + 1/3", digits=12).text
    '2.33333333333'
    """

    def __init__(self) -> None:
        self.variables: dict[str, Node] = {}

    def names(self) -> list[str]:
        """Everything that can be typed: variables, constants and functions."""
        return sorted({*self.variables, *known_names()})

    def evaluate(self, text: str, digits: int = DEFAULT_DIGITS) -> Result:
        """Evaluate one statement to `digits` proven significant digits.

        The precision is raised until the digits are proven. A value that cannot be told from 0 (or from a rounding
        boundary) within the search is given with fewer digits.

        Raises:
            ExpressionError: the text cannot be read; `start` and `end` say where.
            DomainError, UndecidableError, LimitError: as the functions do, with the place in the text.
        """
        if digits < 1:
            raise DomainError(f"digits: got {digits}; expected at least 1")
        tree = parse(text)
        name = tree.name if isinstance(tree, Assignment) else None
        if name is not None and (resolve(name) in known_names()):
            message = f"{name!r} is already a {'constant' if resolve(name) in NAMED_CONSTANTS else 'function'}"
            raise ExpressionError(f"{message}; choose another name", text, tree.start, tree.start + len(name))
        result = self._proven(text, tree, name, digits)
        if not isinstance(result.raw, Special):
            stored = self._stored(tree, result.raw)
            self.variables["ans"] = stored
            if name is not None:
                self.variables[name] = stored
        elif name is not None:
            raise DomainError(f"{name}: only numbers can be assigned; the value is of the kind {result.kind!r}")
        return result

    def _proven(self, text: str, tree: Node, name: str | None, digits: int) -> Result:
        bits = check_precision(digits * 10 // 3 + 40, f"{digits} digits")
        error: CllmError | None = None
        best: Result | None = None
        for _ in range(_MORE_ROUNDS):
            try:
                value = Evaluator(text, self.variables, bits).value(tree)
                if isinstance(value, Special):
                    return _special(value, name, bits)
                if isinstance(value, fmpq):
                    return _rational(value, digits, name, bits)
                best = _enclosed(value, digits, name, bits)
                if best.proven == digits:
                    return best
            except UndecidableError as undecidable:
                error = undecidable
            bits = check_precision(2 * bits, f"{digits} digits")
        if best is not None:
            return best
        assert error is not None
        raise error

    def _stored(self, tree: Node, value: Value) -> Node:
        """What a variable keeps: an exact number, or the tree with today's variables put in."""
        if isinstance(value, fmpq):
            return Number(0, 0, value)
        node = tree.value if isinstance(tree, Assignment) else tree
        return self._closed(node)

    def _closed(self, node: Node) -> Node:
        spine: list[Call] = []
        while isinstance(node, Call) and node.args:
            spine.append(node)
            node = node.args[0]
        if isinstance(node, Name) and node.name in self.variables:
            node = self.variables[node.name]
        for part in reversed(spine):
            node = call(part.name, part.start, part.end, node, *map(self._closed, part.args[1:]))
        return node


def _enclosed(x: arb, digits: int, name: str | None, bits: int) -> Result:
    low, high = ball_bounds(x, digits + 2)
    try:
        decimal = ball_decimal(x, digits)
        text, proven = decimal.text(), len(decimal.digits)
        if x.is_exact():
            proven = digits
    except UndecidableError:
        text, proven = f"between {ball_bounds(x, 3)[0]} and {ball_bounds(x, 3)[1]}", 0
    return Result("real", text, None, low, high, proven, bits, name, x)


def evaluate(text: str, digits: int = DEFAULT_DIGITS) -> Result:
    """Evaluate one expression without variables; see `Sheet.evaluate`.

    >>> from cllm.numbers.expression import evaluate
    >>> evaluate("ln(2)^(1/3)", digits=30).text
    '0.884997044500517718746050941263'
    """
    return Sheet().evaluate(text, digits)
