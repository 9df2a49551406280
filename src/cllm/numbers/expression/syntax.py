"""Text → tree: a tokenizer and a Pratt parser (Pratt, "Top down operator precedence", POPL 1973). Never `eval`.

Grammar, from loosest to tightest::

    statement  = name "=" sum | sum
    sum        = product (("+" | "-") product)*
    product    = unary (("*" | "·" | "×" | "/" | "÷" | "//" | "%" | "mod") unary)*
    unary      = ("-" | "+" | "√") unary | power
    power      = postfix (("^" | "**") unary)?          right-associative: 2^3^2 = 2^9; -2^2 = -4
    postfix    = atom "!"*
    atom       = number | name | name "(" sum ("," sum)* ")" | "(" sum ")" | "|" sum "|"
    number     = 12 | 1_000 | 1.5 | .5 | 2e-30 | 0xff | 0b101 | 0o17
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from flint import fmpq, fmpz

from cllm.errors import LimitError, UsageError
from cllm.numbers.convert import EXACT_EXPONENT, parse_decimal

MAX_TEXT = 1_000_000  # characters
MAX_DEPTH = 150  # nesting (sums and products of any length are not nested), well under the interpreter's stack

_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<number>0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+"
    r"|(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[^\W\d]\w*)|(?P<sign>\*\*|//|[-+*/·×÷−%^!(),=|√])"
)
_SAME = {"·": "*", "×": "*", "÷": "/", "−": "-", "**": "^", "mod": "%"}
_BINARY = {"+": 10, "-": 10, "*": 20, "/": 20, "//": 20, "%": 20, "^": 40}
_UNARY = 30


class ExpressionError(UsageError):
    """An expression that cannot be read or uses an unknown name; `start`, `end`: positions in `text`."""

    def __init__(self, message: str, text: str, start: int, end: int) -> None:
        super().__init__(f"{message}\n{marked(text, start, end)}")
        self.message, self.text, self.start, self.end = message, text, start, end


def marked(text: str, start: int, end: int) -> str:
    """The line with carets under the characters start … end−1; long lines are cut around them."""
    first = max(0, start - 60)
    line = text[first : max(end, start + 1) + 60].replace("\n", " ")
    lead = "… " if first else ""
    return f"  {lead}{line}\n  {' ' * (len(lead) + start - first)}{'^' * max(1, min(end - start, 80))}"


@dataclass(frozen=True, slots=True)
class Token:
    kind: str  # number, name, sign or end
    text: str
    start: int
    end: int


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """A part of an expression; `start` and `end` are where it stands in the text."""

    start: int
    end: int
    depth: int = field(default=1, kw_only=True)


@dataclass(frozen=True, eq=False, slots=True)
class Number(Node):
    """An exact rational; a decimal is the fraction it denotes."""

    value: fmpq


@dataclass(frozen=True, eq=False, slots=True)
class Name(Node):
    name: str


@dataclass(frozen=True, eq=False, slots=True)
class Call(Node):
    """A function or operator (`+`, `neg`, `!`, …) applied to arguments."""

    name: str
    args: tuple[Node, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Assignment(Node):
    name: str
    value: Node


def call(name: str, start: int, end: int, *args: Node) -> Call:
    """A call node; first arguments are evaluated without recursion, so only the others deepen the tree.

    Raises:
        LimitError: more than MAX_DEPTH deep.
    """
    first = args[0].depth if args else 1
    depth = max([first, *(1 + a.depth for a in args[1:])])
    if depth > MAX_DEPTH:
        raise LimitError(f"expression: nested more than {MAX_DEPTH} deep; name a part with a variable of exact value")
    return Call(start, end, name, args, depth=depth)


def tokens(text: str) -> Iterator[Token]:
    """The tokens of `text`, the last of kind "end".

    Raises:
        ExpressionError: a character that belongs to no token.
        LimitError: more than MAX_TEXT characters.
    """
    if len(text) > MAX_TEXT:
        raise LimitError(f"expression: {len(text)} characters; the limit is {MAX_TEXT}")
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ExpressionError(f"unexpected character {text[at]!r}", text, at, at + 1)
        kind = match.lastgroup or ""
        if kind != "space":
            word = _SAME.get(match[0], match[0])
            yield Token("sign" if match[0] == "mod" else kind, word, at, match.end())
        at = match.end()
    yield Token("end", "", at, at)


def parse(text: str) -> Node:
    """The tree of one statement.

    Raises:
        ExpressionError: with the position of the first character that does not fit.
        LimitError: too long, or nested more than MAX_DEPTH deep.
    """
    return _Parser(text).statement()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(tokens(text))
        self.at = 0
        self.nesting = 0

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def take(self) -> Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def is_sign(self, *signs: str) -> bool:
        return self.token.kind == "sign" and self.token.text in signs

    def error(self, message: str, token: Token | None = None) -> ExpressionError:
        token = token or self.token
        return ExpressionError(message, self.text, token.start, token.end)

    def expected(self, what: str) -> ExpressionError:
        got = "the end" if self.token.kind == "end" else repr(self.token.text)
        return self.error(f"expected {what}, got {got}")

    def statement(self) -> Node:
        if self.token.kind == "end":
            raise self.expected("an expression")
        first = self.token
        if first.kind == "name" and self.tokens[self.at + 1].text == "=":
            self.at += 2
            value = self.expression(0)
            self.finish()
            return Assignment(first.start, value.end, first.text, value, depth=value.depth)
        node = self.expression(0)
        self.finish()
        return node

    def finish(self) -> None:
        if self.token.kind == "end":
            return
        if self.is_sign("="):
            raise self.error("only a plain name can stand before '='")
        if self.token.kind in ("number", "name") or self.is_sign("("):
            raise self.error("expected an operator here; write products with '*': 2*pi, 3*(x + 1)")
        raise self.expected("an operator or the end")

    def expression(self, least: int) -> Node:
        self.nesting += 1
        if self.nesting > MAX_DEPTH:
            raise LimitError(f"expression: nested more than {MAX_DEPTH} deep\n{self._here()}")
        left = self.prefix()
        while self.token.kind == "sign" and self.token.text in _BINARY and _BINARY[self.token.text] > least:
            sign = self.take().text
            right = self.expression(_UNARY - 1 if sign == "^" else _BINARY[sign])
            left = call(sign, left.start, right.end, left, right)
        self.nesting -= 1
        return left

    def _here(self) -> str:
        return marked(self.text, self.token.start, self.token.end)

    def prefix(self) -> Node:
        if self.is_sign("-", "+", "√"):
            token = self.take()
            inner = self.expression(_UNARY)
            if token.text == "+":
                return inner
            return call("neg" if token.text == "-" else "sqrt", token.start, inner.end, inner)
        node = self.atom()
        while self.is_sign("!"):
            node = call("!", node.start, self.take().end, node)
        return node

    def atom(self) -> Node:
        token = self.token
        if token.kind == "number":
            self.at += 1
            return Number(token.start, token.end, self.number(token))
        is_mod = self.is_sign("%") and self.text[token.start : token.end] == "mod"
        if is_mod and self.tokens[self.at + 1].text == "(":
            token = Token("name", "mod", token.start, token.end)  # mod(7, 3), where no operator can stand
        if token.kind == "name":
            self.at += 1
            if not self.is_sign("("):
                return Name(token.start, token.end, token.text)
            args = self.arguments()
            return call(token.text, token.start, self.tokens[self.at - 1].end, *args)
        if self.is_sign("(", "|"):
            opening = self.take().text
            inner = self.expression(0)
            if not self.is_sign(")" if opening == "(" else "|"):
                raise self.expected(f"'{')' if opening == '(' else '|'}'")
            end = self.take().end
            return inner if opening == "(" else call("abs", token.start, end, inner)
        raise self.expected("a number, a name or '('")

    def arguments(self) -> list[Node]:
        self.take()
        found: list[Node] = []
        if self.is_sign(")"):
            self.take()
            return found
        while True:
            found.append(self.expression(0))
            if self.is_sign(")"):
                self.take()
                return found
            if not self.is_sign(","):
                raise self.expected("',' or ')'")
            self.take()

    def number(self, token: Token) -> fmpq:
        text = token.text.replace("_", "")
        if text[:2].lower() in ("0x", "0b", "0o"):
            if len(text) == 2:
                raise self.error("expected digits after the prefix", token)
            return fmpq(int(text, 0))
        decimal = parse_decimal(text)
        if decimal is None:
            raise self.error("this is not a number", token)
        mantissa, exponent = decimal
        if abs(exponent) > EXACT_EXPONENT:
            raise LimitError(
                f"the decimal exponent {exponent} is beyond the limit of ±{EXACT_EXPONENT}\n"
                f"{marked(self.text, token.start, token.end)}"
            )
        power = fmpz(10) ** abs(exponent)
        return fmpq(mantissa * power) if exponent >= 0 else fmpq(mantissa, power)
