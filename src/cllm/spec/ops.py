"""The registry of operations: each one's specification as a function of 2-D arrays over any number system.

A certificate attaches kernels to these names and compares `Op.local` with what a kernel and its backward return
for the same inputs. Settings (masks, indices, head counts) are keyword arguments and never differentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any, TypeVar

from cllm.spec import gpt, lattice, optimiser
from cllm.spec.system import Bools, System
from cllm.spec.tape import pullback

A = TypeVar("A")


@dataclass(frozen=True)
class Op:
    """forward(S, *arrays, **settings) → an array, or a tuple of arrays (then it is not differentiated)."""

    name: str
    inputs: tuple[str, ...]
    forward: Callable[..., Any]

    def local(self, S: System[A], arrays: Sequence[A], g: A, **settings: Any) -> tuple[A, list[A | None]]:
        """The op's value at these inputs, and the cotangents of its inputs for the cotangent g of its value."""
        return pullback(S, partial(self.forward, **settings), arrays, g)


def residual(S: System[A], x: A, y: A) -> A:
    """x + y."""
    return S.add(x, y)


def dropout(S: System[A], x: A, *, keep: Bools, p: float) -> A:
    """Kept values times 1/(1 − p), exact zeros elsewhere."""
    return gpt.dropout(S, x, keep, Fraction(p))


OPS: dict[str, Op] = {
    op.name: op
    for op in (
        Op("embedding", ("tok", "table"), gpt.embedding),
        Op("layernorm", ("x", "g", "b"), gpt.layernorm),
        Op("linear", ("x", "w", "b"), gpt.linear),
        Op("attention", ("q", "k", "v"), gpt.attention),
        Op("rope", ("x",), lattice.rope),
        Op("averaged", ("w",), lattice.averaged),
        Op("gelu_tanh", ("x",), gpt.gelu_tanh),
        Op("gelu_erf", ("x",), gpt.gelu_erf),
        Op("dropout", ("x",), dropout),
        Op("residual", ("x", "y"), residual),
        Op("cross_entropy", ("logits",), gpt.cross_entropy),
        Op("adamw", ("w", "g", "m", "v"), optimiser.adamw),
        Op("sgd", ("w", "g", "v"), optimiser.sgd),
    )
}
"""linear also takes (x, w) alone: the logits."""
