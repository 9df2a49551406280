"""Reverse-mode differentiation over the primitives, for any number system.

`Tape(S)` offers the primitives of the system S on recorded variables. RULES is all the calculus there is: for each
primitive, which values its pull-back needs ("a", "b": its operands, "y": its result; nothing else is kept alive),
and one function per operand, from the cotangent g of the result to the cotangent of that operand.
Nothing is ever written in place: contributions to a cotangent are collected, and added once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Generic, NamedTuple, TypeVar, cast

from cllm.errors import UsageError
from cllm.spec.system import TWO_OVER_SQRT_PI, Shape, System

A = TypeVar("A")
HALF = Fraction(1, 2)


class Saved(NamedTuple):
    """What a pull-back sees: a, b, y where the rule asks for them; shapes; the primitive's plain arguments k."""

    a: Any
    b: Any
    y: Any
    shapes: list[Shape]
    k: tuple[Any, ...]


class Block(NamedTuple):
    """A cotangent that is zero outside one block: what the pull-back of `cut` returns."""

    corner: Shape
    g: Any


class Rule(NamedTuple):
    saves: str
    pulls: tuple[Callable[[Any, Any, Saved], Any], ...]


def fit(S: System[A], g: A, shape: Shape) -> A:
    """The adjoint of broadcasting `shape` to the shape of g."""
    if S.shape(g)[0] != shape[0]:
        g = S.colsum(g)
    return S.rowsum(g) if S.shape(g)[1] != shape[1] else g


# fmt: off
RULES: dict[str, Rule] = {
    "t":       Rule("", (lambda S, g, v: S.t(g),)),
    "mm":      Rule("ab", (lambda S, g, v: S.mm(g, S.t(v.b)), lambda S, g, v: S.mm(S.t(v.a), g))),
    "add":     Rule("", (lambda S, g, v: fit(S, g, v.shapes[0]), lambda S, g, v: fit(S, g, v.shapes[1]))),
    "sub":     Rule("", (lambda S, g, v: fit(S, g, v.shapes[0]), lambda S, g, v: fit(S, S.neg(g), v.shapes[1]))),
    "mul":     Rule("ab", (lambda S, g, v: fit(S, S.mul(g, v.b), v.shapes[0]),
                           lambda S, g, v: fit(S, S.mul(g, v.a), v.shapes[1]))),
    "neg":     Rule("", (lambda S, g, v: S.neg(g),)),
    "sq":      Rule("a", (lambda S, g, v: S.scale(S.mul(g, v.a), 2),)),
    "scale":   Rule("", (lambda S, g, v: S.scale(g, v.k[0]),)),
    "plus":    Rule("", (lambda S, g, v: g,)),
    "rowsum":  Rule("", (lambda S, g, v: S.spread(g, v.shapes[0]),)),
    "colsum":  Rule("", (lambda S, g, v: S.spread(g, v.shapes[0]),)),
    "spread":  Rule("", (lambda S, g, v: fit(S, g, v.shapes[0]),)),
    "exp":     Rule("y", (lambda S, g, v: S.mul(g, v.y),)),
    "log":     Rule("a", (lambda S, g, v: S.mul(g, S.recip(v.a)),)),
    "recip":   Rule("y", (lambda S, g, v: S.neg(S.mul(g, S.sq(v.y))),)),
    "rsqrt":   Rule("y", (lambda S, g, v: S.scale(S.mul(g, S.mul(v.y, S.sq(v.y))), -HALF),)),
    "sqrt":    Rule("y", (lambda S, g, v: S.scale(S.mul(g, S.recip(v.y)), HALF),)),
    "tanh":    Rule("y", (lambda S, g, v: S.mul(g, S.plus(S.neg(S.sq(v.y)), 1)),)),
    "erf":     Rule("a", (lambda S, g, v: S.scale(S.mul(g, S.exp(S.neg(S.sq(v.a)))), TWO_OVER_SQRT_PI),)),
    "cut":     Rule("", (lambda S, g, v: Block(v.k[0], g),)),
    "gather":  Rule("", (lambda S, g, v: S.scatter_rows(g, v.k[0], v.shapes[0][0]),)),
    "scatter_rows": Rule("", (lambda S, g, v: S.gather(g, v.k[0]),)),
    "mask":    Rule("", (lambda S, g, v: S.mask(g, v.k[0]),)),
    "pick":    Rule("", (lambda S, g, v: S.place(g, v.k[0], v.shapes[0][1]),)),
    "place":   Rule("", (lambda S, g, v: S.pick(g, v.k[0]),)),
}
# fmt: on
# `paste` and `call` take any number of operands, and are methods of the tape; `peak` is a constant by
# definition, and `at_least` belongs to the optimiser, which is not differentiated.


class Var(Generic[A]):
    """A value, and the tape's node that made it (−1: a constant)."""

    __slots__ = ("node", "value")

    def __init__(self, value: A, node: int) -> None:
        self.value, self.node = value, node


@dataclass(slots=True)
class Node:
    """One recorded operation: where its cotangents go, and how they are made from its own."""

    shape: Shape
    parents: list[int]
    pull: Callable[[Any], Sequence[Any]]


class Tape(Generic[A]):
    """A system whose values are `Var`s of the system S. Use `recording` for the typed view of it.

    recompute: whether `call` keeps only its arguments and runs again on the way back, or is recorded as it runs.
    """

    def __init__(self, S: System[A], *, recompute: bool = True) -> None:
        self.S, self.recompute = S, recompute
        self.nodes: list[Node | None] = []

    def variable(self, value: A) -> Var[A]:
        """A leaf, whose gradient can be asked for."""
        return self._record(value, [], lambda g: [])

    def constant(self, value: A) -> Var[A]:
        return Var(value, -1)

    def lift(self, x: Any) -> Var[A]:
        return self.constant(self.S.lift(x))

    def shape(self, a: Var[A]) -> Shape:
        return self.S.shape(a.value)

    def peak(self, a: Var[A], keep: Any = None) -> Var[A]:
        return self.constant(self.S.peak(a.value, keep))

    def paste(self, shape: Shape, corners: Sequence[Shape], *parts: Var[A]) -> Var[A]:
        S, shapes = self.S, [self.shape(p) for p in parts]
        y = S.paste(shape, corners, *(p.value for p in parts))
        return self._record(y, parts, lambda g: [S.cut(g, c, s) for c, s in zip(corners, shapes, strict=True)])

    def call(self, f: Callable[..., Any], *args: Var[A]) -> Var[A]:
        if not self.recompute:
            found: Var[A] = f(self, *args)
            return found
        S, values, live = self.S, [a.value for a in args], [a.node >= 0 for a in args]
        y = S.call(f, *values)
        return self._record(y, args, lambda g: pullback(S, f, values, g, live)[1])

    def __getattr__(self, name: str) -> Callable[..., Var[A]]:
        if name not in RULES:
            raise AttributeError(name)
        rule = RULES[name]
        arity = len(rule.pulls)

        def primitive(*args: Any) -> Var[A]:
            operands, k = args[:arity], args[arity:]
            values = [o.value for o in operands]
            y = getattr(self.S, name)(*values, *k)
            kept = {n: x for n, x in zip("ab", values, strict=False) if n in rule.saves}
            v = Saved(
                kept.get("a"), kept.get("b"), y if "y" in rule.saves else None,
                [self.S.shape(x) for x in values], k,
            )  # fmt: skip
            live = [o.node >= 0 for o in operands]
            return self._record(
                y,
                operands,
                lambda g: [p(self.S, g, v) if on else None for p, on in zip(rule.pulls, live, strict=True)],
            )

        return primitive

    def _record(self, y: A, operands: Sequence[Var[A]], pull: Callable[[Any], Sequence[Any]]) -> Var[A]:
        if operands and all(o.node < 0 for o in operands):
            return self.constant(y)
        self.nodes.append(Node(self.S.shape(y), [o.node for o in operands], pull))
        return Var(y, len(self.nodes) - 1)

    def backward(self, y: Var[A], g: A) -> Iterator[tuple[int, A]]:
        """Pull g back from y. Yields (node, cotangent) of each leaf as soon as it is complete; the tape is used up.

        A leaf is complete when everything recorded after it has been pulled back, so leaves made at their first use
        come out early and can be freed. Leaves that y does not depend on give exact zeros.
        """
        S = self.S
        waiting: defaultdict[int, list[Any]] = defaultdict(list, {y.node: [g]})
        for i in range(len(self.nodes) - 1, -1, -1):
            node, self.nodes[i] = self.nodes[i], None
            assert node is not None, "a tape can be pulled back once"
            parts = waiting.pop(i, [])
            if not node.parents:
                yield i, _total(S, node.shape, parts)
            elif parts:
                for parent, part in zip(node.parents, node.pull(_total(S, node.shape, parts)), strict=True):
                    if parent >= 0:
                        waiting[parent].append(part)
            del node, parts


def _total(S: System[A], shape: Shape, parts: list[Any]) -> A:
    """The sum of the contributions to a cotangent."""
    blocks = [p for p in parts if isinstance(p, Block)]
    whole = [p for p in parts if not isinstance(p, Block)]
    if blocks or not whole:
        whole.append(S.paste(shape, [b.corner for b in blocks], *(b.g for b in blocks)))
    total = whole[0]
    for p in whole[1:]:
        total = S.add(total, p)
    return cast(A, total)


def recording(S: System[A], *, recompute: bool = True) -> tuple[Tape[A], System[Var[A]]]:
    """A new tape over S, and the same object seen as a number system."""
    tape = Tape(S, recompute=recompute)
    return tape, cast("System[Var[A]]", tape)


def pullback(
    S: System[A], f: Callable[..., Any], values: Sequence[A], g: A, live: Sequence[bool] | None = None
) -> tuple[A, list[A | None]]:
    """y = f(S, *values) and the cotangents gᵀ·∂y/∂values (None where not `live`)."""
    tape, T = recording(S)
    live = live or [True] * len(values)
    args = [tape.variable(v) if on else tape.constant(v) for v, on in zip(values, live, strict=True)]
    y = f(T, *args)
    found = dict(tape.backward(y, g)) if y.node >= 0 else {}
    return y.value, [found.get(a.node) for a in args]


class Leaves(Mapping[str, Var[A]]):
    """Named parameters as leaves of a tape, each lifted at its first use (see `Tape.backward`)."""

    def __init__(self, tape: Tape[A], params: Mapping[str, Any]) -> None:
        self.tape, self.params = tape, params
        self.made: dict[str, Var[A]] = {}

    def __getitem__(self, name: str) -> Var[A]:
        if name not in self.params:
            raise UsageError(f"parameter {name} is missing; there are: {', '.join(self.params)}")
        if name not in self.made:
            self.made[name] = self.tape.variable(self.tape.S.lift(self.params[name]))
        return self.made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.params)

    def __len__(self) -> int:
        return len(self.params)

    def name_of(self) -> dict[int, str]:
        """Node number → name, for those used."""
        return {v.node: n for n, v in self.made.items()}
