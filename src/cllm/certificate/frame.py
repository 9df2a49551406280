"""The frame of the op-local certificate: the order of a step's kernel calls, tapes kept for the way back, and gradients
that nobody else may touch. The checks of each op are in `watch`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cllm import spec
from cllm.certificate.ledger import Ledger
from cllm.certificate.subjects import Subject
from cllm.engine.dispatch import Kernels
from cllm.model.step import Step
from cllm.spec.intervals import Interval, Intervals
from cllm.spec.tape import Tape, Var, recording


def order(layers: int, dropout: bool, blocks: int) -> Iterator[tuple[str, str]]:
    """(kernel, op) of every call of a step, in order: the step is static."""
    drop = ("dropout_apply",) if dropout else ()
    mask = ("dropout_mask",) if dropout else ()
    yield "embedding_forward", "embedding"
    for i in range(layers):
        yield "layernorm_forward", f"{i}.ln1"
        yield "linear_forward", f"{i}.attn.qkv"
        yield "attention_forward", f"{i}.attn"
        yield "linear_forward", f"{i}.attn.wo"
        yield from ((k, f"{i}.attn.drop") for k in mask + drop)
        yield "layernorm_forward", f"{i}.ln2"
        yield "linear_gelu_forward", f"{i}.ffn.w1"
        yield "linear_forward", f"{i}.ffn.w2"
        yield from ((k, f"{i}.ffn.drop") for k in mask + drop)
    yield "layernorm_forward", "lnf"
    for block in range(blocks):
        yield "linear_forward", f"head.{block}"
        yield "cross_entropy", f"loss.{block}"
        yield "linear_backward_weight", f"head.{block}"
        yield "linear_backward_input", f"head.{block}"
    yield "layernorm_backward", "lnf"
    for i in reversed(range(layers)):
        yield from ((k, f"{i}.ffn.drop") for k in drop)
        yield "linear_backward_weight", f"{i}.ffn.w2"
        yield "linear_gelu_backward_input", f"{i}.ffn.w2"
        yield "linear_backward_weight", f"{i}.ffn.w1"
        yield "linear_backward_input", f"{i}.ffn.w1"
        yield "layernorm_backward", f"{i}.ln2"
        yield from ((k, f"{i}.attn.drop") for k in drop)
        yield "linear_backward_weight", f"{i}.attn.wo"
        yield "linear_backward_input", f"{i}.attn.wo"
        yield "attention_backward", f"{i}.attn"
        yield "linear_backward_weight", f"{i}.attn.qkv"
        yield "linear_backward_input", f"{i}.attn.qkv"
        yield "layernorm_backward", f"{i}.ln1"
    yield "embedding_backward", "embedding"


class Frame:
    """What the checks of all ops share. `kernels` goes into a `Step`; a method `_<kernel>` checks the calls of one."""

    def __init__(self, subject: Subject, kernels: Kernels) -> None:
        self.subject = subject
        self.inner: Any = kernels
        self.S, self.ledger = Intervals(), Ledger(subject.unit)
        m = subject.config.model
        self.rows_of_head = 0
        self.calls: list[str] = []
        self.expected: Iterator[tuple[str, str]] = iter(())
        self.tapes: dict[str, tuple[Tape[Interval], list[Var[Interval]], Var[Interval]]] = {}
        self.seen: dict[str, list[Tensor]] = {}  # inputs of forward kernels, kept for their backward
        self.pulled: dict[str, list[Interval | None]] = {}
        self.final: dict[str, Tensor] = {}  # gradients as last checked
        self.losses: list[Interval] = []
        self.branch: Tensor | None = None  # what the last op of a branch returned
        self.stream: Tensor = torch.empty(0)  # the residual stream; on the way back, its gradient
        self.dn: list[Tensor] = []
        self.shape = subject.rows, subject.sequence, m.heads, m.head_width
        self.keep_p, self.attention_p = Fraction(m.dropout), Fraction(m.attention_dropout)
        watched: dict[str, Any] = {
            name: partial(self._call, name) for name in Kernels.__dataclass_fields__ if hasattr(self, f"_{name}")
        }
        self.kernels = replace(kernels, **watched)

    # ------------------------------------------------------------------------------------------------ the frame

    def attach(self, step: Step) -> None:
        """The step whose kernels these are; its gradients must be zero."""
        self.step, blocks = step, -(-self.subject.rows * self.subject.sequence // step.head_rows)
        m = self.subject.config.model
        self.expected = order(m.layers, bool(m.dropout), blocks)
        self.phase = "forward"
        for name in step.grads:
            self.final[name] = torch.zeros_like(step.grads[name])

    def _call(self, kernel: str, *args: Any, **kwargs: Any) -> None:
        name, op = next(self.expected, ("nothing more", "the end of the step"))
        if name != kernel:
            self.ledger.fault(op, f"the step called {kernel} where {name} was expected")
            getattr(self.inner, kernel)(*args, **kwargs)
            self.expected = iter(())
            return
        getattr(self, f"_{kernel}")(op, getattr(self.inner, kernel), *args, **kwargs)

    def _record(self, op: str, name: str, arrays: list[Any], **settings: Any) -> Interval:
        """Run the op's specification at these inputs; its tape is kept for the way back."""
        tape, T = recording(self.S)
        leaves = [tape.variable(self.S.lift(copied(a))) for a in arrays]
        y = spec.OPS[name].forward(T, *leaves, **settings)
        self.tapes[op] = tape, leaves, y
        value: Interval = y.value
        return value

    def _pull(self, op: str, g: Any) -> list[Interval]:
        """The cotangents of the recorded op's inputs, from the result's: an array, or an enclosure of it."""
        tape, leaves, y = self.tapes.pop(op)
        found = dict(tape.backward(y, g if isinstance(g, Interval) else self.S.lift(copied(g))))
        return [found[leaf.node] for leaf in leaves]

    def _accumulated(self, op: str, tensor: str, before: Tensor, after: Tensor, add: Interval) -> None:
        if before.any():
            add = self.S.add(self.S.lift(numpy_of(before)), like(add, self.S.lift(numpy_of(before))))
        self.ledger.value(op, tensor, numpy_of(after), add)

    def _gradients(
        self, op: str, parts: list[tuple[str, Tensor]], run: Callable[[], None], add: Callable[[], list[Interval]]
    ) -> None:
        """A kernel that adds to named gradients: their values before must be what was last checked."""
        for name, view in parts:
            if view.data_ptr() != self.step.grads[name].data_ptr():
                self.ledger.fault(op, f"the gradient of {name} is added somewhere else")
            self.ledger.wire(op, f"grad {name} before", numpy_of(self.step.grads[name]), numpy_of(self.final[name]))
        run()
        for (name, _), exact in zip(parts, add(), strict=True):
            after = self.step.grads[name]
            self._accumulated(op, f"grad {name}", self.final[name], after, exact)
            self.final[name] = after.clone()

    def _parameter(self, op: str, name: str, given: Tensor) -> None:
        mine = self.step.model.params[name]
        if given.data_ptr() != mine.data_ptr():
            self.ledger.wire(op, name, numpy_of(given), numpy_of(mine))


def numpy_of(x: Any) -> Any:
    return x.detach().numpy() if isinstance(x, Tensor) else x


def copied(x: Any) -> Any:
    """float64 of its own: a kernel's buffers are used again, and float64 would be shared with them."""
    return np.array(numpy_of(x), np.float64)


def names_of(op: str) -> tuple[list[str], list[str]]:
    """The weights and biases of a linear op; queries, keys and values are one matrix."""
    head, _, last = op.rpartition(".")
    if last == "qkv":
        return [f"{head}.w{c}" for c in "qkv"], [f"{head}.b{c}" for c in "qkv"]
    return [op], [f"{head}.b{last[1:]}"]


def split_rows(a: Interval, parts: int) -> list[Interval]:
    if parts == 1:
        return [a]
    return [Interval(m, r) for m, r in zip(np.split(a.mid, parts), np.split(a.radius(), parts), strict=True)]


def like(a: Interval, b: Interval) -> Interval:
    return Interval(a.mid.reshape(b.mid.shape), a.radius().reshape(b.mid.shape))
