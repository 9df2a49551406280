"""The op-local certificate: every kernel call of a step against the specification of its op, and every wire between.

`Watch` wraps a step's kernels. Each call is checked when it happens, at the kernel's own inputs:

- *Value*: forward results against the op's specification in interval arithmetic; backward results against its
  pull-back, made by the tape from the forward specification at the inputs the forward kernel saw.
- *Wire*: what a kernel is given must be, bit for bit, what the ops before it returned, or what the specification
  derives from the raw rows (tokens, positions, targets, dropout masks). Residual sums are checked as ops.

So a fault is named where it arises. A step all of whose ops and wires hold is the composition that the specification
describes, up to the rounding of each op.

The budgets are those of `ledger`.
"""

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
from cllm.certificate.subject import Subject
from cllm.engine.dispatch import Kernels
from cllm.model.step import Step
from cllm.spec.intervals import Interval, Intervals
from cllm.spec.philox import ATTENTION_OUTPUT, ATTENTION_PROBABILITIES, FEED_FORWARD_OUTPUT, kept
from cllm.spec.system import Bools
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
        yield "linear_forward", f"{i}.ffn.w1"
        yield "activation_forward", f"{i}.ffn.gelu"
        yield "linear_forward", f"{i}.ffn.w2"
        yield from ((k, f"{i}.ffn.drop") for k in mask + drop)
    yield "layernorm_forward", "lnf"
    for block in range(blocks):
        yield "linear_forward", f"head.{block}"
        yield "cross_entropy_forward", f"loss.{block}"
        yield "cross_entropy_backward", f"loss.{block}"
        yield "linear_backward_weight", f"head.{block}"
        yield "linear_backward_input", f"head.{block}"
    yield "layernorm_backward", "lnf"
    for i in reversed(range(layers)):
        yield from ((k, f"{i}.ffn.drop") for k in drop)
        yield "linear_backward_weight", f"{i}.ffn.w2"
        yield "linear_backward_input", f"{i}.ffn.w2"
        yield "activation_backward", f"{i}.ffn.gelu"
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


class Watch:
    """Kernels that check each of their calls. `watch.kernels` goes into a `Step`; `finish` makes the last checks."""

    def __init__(self, subject: Subject, kernels: Kernels) -> None:
        self.subject, self.inner = subject, kernels
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
        self.keep_p = Fraction(m.dropout)
        self.kernels = replace(
            kernels,
            **{name: partial(self._call, name) for name in kernels.__dataclass_fields__ if hasattr(self, f"_{name}")},
        )

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
        leaves = [tape.variable(self.S.lift(_copied(a))) for a in arrays]
        y = spec.OPS[name].forward(T, *leaves, **settings)
        self.tapes[op] = tape, leaves, y
        value: Interval = y.value
        return value

    def _pull(self, op: str, g: Any) -> list[Interval]:
        """The cotangents of the recorded op's inputs."""
        tape, leaves, y = self.tapes.pop(op)
        found = dict(tape.backward(y, self.S.lift(_copied(g))))
        return [found[leaf.node] for leaf in leaves]

    def _accumulated(self, op: str, tensor: str, before: Tensor, after: Tensor, add: Interval) -> None:
        if before.any():
            add = self.S.add(self.S.lift(_numpy(before)), _like(add, self.S.lift(_numpy(before))))
        self.ledger.value(op, tensor, _numpy(after), add)

    def _gradient(self, op: str, name: str, view: Tensor, run: Callable[[], None], add: Callable[[], Interval]) -> None:
        """A kernel that adds to one named gradient: its value before must be what was last checked."""
        self._gradients(op, [(name, view)], run, lambda: [add()])

    def _gradients(
        self, op: str, parts: list[tuple[str, Tensor]], run: Callable[[], None], add: Callable[[], list[Interval]]
    ) -> None:
        for name, view in parts:
            if view.data_ptr() != self.step.grads[name].data_ptr():
                self.ledger.fault(op, f"the gradient of {name} is added somewhere else")
            self.ledger.wire(op, f"grad {name} before", _numpy(self.step.grads[name]), _numpy(self.final[name]))
        run()
        for (name, _), exact in zip(parts, add(), strict=True):
            after = self.step.grads[name]
            self._accumulated(op, f"grad {name}", self.final[name], after, exact)
            self.final[name] = after.clone()

    def _parameter(self, op: str, name: str, given: Tensor) -> None:
        mine = self.step.model.params[name]
        if given.data_ptr() != mine.data_ptr():
            self.ledger.wire(op, name, _numpy(given), _numpy(mine))

    # ------------------------------------------------------------------------------------------------ forward

    def _embedding_forward(self, op: str, run: Any, tokens: Tensor, positions: Tensor | None, e, p, x) -> None:
        batch = self.subject.spec_batch
        self._places(op, tokens, positions)
        self._parameter(op, "tok", e)
        self._parameter(op, "pos", p)
        run(tokens, positions, e, p, x)
        index = {"tokens": batch.inputs_BT.ravel(), "positions": batch.positions_BT.ravel()}
        self.ledger.value(op, "x", _numpy(x), self._record(op, "embedding", [e, p], **index))
        self.stream, self.branch = x.clone(), None

    def _places(self, op: str, tokens: Tensor, positions: Tensor | None) -> None:
        batch = self.subject.spec_batch
        self.ledger.wire(op, "tokens", _numpy(tokens), batch.inputs_BT)
        columns = np.broadcast_to(np.arange(self.subject.sequence), batch.positions_BT.shape)
        self.ledger.wire(op, "positions", columns if positions is None else _numpy(positions), batch.positions_BT)

    def _layernorm_forward(self, op: str, run: Any, x, g, b, y, mean, rstd) -> None:
        if self.branch is None:
            self.ledger.wire(op, "x", _numpy(x), _numpy(self.stream))
        else:
            S = self.S
            total = S.add(S.lift(_numpy(self.stream)), S.lift(_numpy(self.branch)))
            self.ledger.value(f"residual before {op}", "x", _numpy(x), total)
        self.stream = x.clone()
        self._parameter(op, f"{op}.g", g)
        self._parameter(op, f"{op}.b", b)
        run(x, g, b, y, mean, rstd)
        self.ledger.wire(op, "x after", _numpy(x), _numpy(self.stream))
        self.seen[op] = [self.stream]
        self.ledger.value(op, "y", _numpy(y), self._record(op, "layernorm", [self.stream, g, b]))
        self.branch = y.clone()

    def _linear_forward(self, op: str, run: Any, x, w, b, y) -> None:
        if op.startswith("head"):
            assert self.branch is not None
            start = self.rows_of_head
            self.rows_of_head += x.shape[0]
            self.ledger.wire(op, "x", _numpy(x), _numpy(self.branch[start : self.rows_of_head]))
            self._parameter(op, "tok" if self.subject.config.model.tied else "head.w", w)
        else:
            self.ledger.wire(op, "x", _numpy(x), _numpy(self.branch))
            weight, bias = _names(op)
            self._parameter(op, weight[0], w)
            self._parameter(op, bias[0], b)
        run(x, w, b, y)
        self.seen[op] = [x.clone()]
        self.ledger.value(op, "y", _numpy(y), self._record(op, "linear", [x, w] if b is None else [x, w, b]))
        if not op.startswith("head"):
            self.branch = y.clone()

    def _attention_settings(self, op: str) -> dict[str, Any]:
        batch, layer = self.subject.spec_batch, int(op.split(".")[0])
        draw = partial(kept, self.keep_p, (batch.seed, batch.step), layer=layer, site=ATTENTION_PROBABILITIES)
        T = batch.columns

        def keep(b: int, n: int) -> Bools:
            return draw(row=batch.first_row + b, head=n, positions=T, channels=T)

        allowed = [batch.allowed_TT(b) for b in range(batch.rows)]
        masked = {"keep": keep, "p": self.keep_p} if self.keep_p else {}
        return {"heads": self.shape[2], "allowed": allowed, **masked}

    def _attention_forward(self, op: str, run: Any, q, k, v, o, lse, blocks, **kwargs: Any) -> None:
        assert self.branch is not None
        b, t, h, width = self.shape
        joint = self.branch.view(b, t, 3, h, width).permute(2, 0, 3, 1, 4)
        for name, given, expected in zip("qkv", (q, k, v), joint, strict=True):
            self.ledger.wire(op, name, _numpy(given), _numpy(expected))
        run(q, k, v, o, lse, blocks, **kwargs)
        self.seen[op] = [q.clone(), k.clone(), v.clone()]
        exact = self._record(op, "attention", [_merge(x) for x in (q, k, v)], **self._attention_settings(op))
        self.branch = _merge(o)
        self.ledger.value(op, "o", _numpy(self.branch), exact)

    def _activation_forward(self, op: str, run: Any, x, y) -> None:
        self.ledger.wire(op, "x", _numpy(x), _numpy(self.branch))
        run(x, y)
        self.seen[op] = [x.clone()]
        self.ledger.value(op, "y", _numpy(y), self._record(op, self.subject.config.model.activation, [x]))
        self.branch = y.clone()

    def _dropout_mask(self, op: str, run: Any, key, p, layer, site, mask) -> None:
        run(key, p, layer, site, mask)
        self.ledger.wire(op, "mask", _numpy(mask), self._mask(op).reshape(tuple(mask.shape)))

    def _mask(self, op: str) -> Bools:
        batch, (layer, branch, _) = self.subject.spec_batch, op.split(".")
        site = ATTENTION_OUTPUT if branch == "attn" else FEED_FORWARD_OUTPUT
        D = self.subject.config.model.width
        draw = partial(kept, self.keep_p, (batch.seed, batch.step), layer=int(layer), site=site, head=0)
        rows = range(batch.first_row, batch.first_row + batch.rows)
        return np.concatenate([draw(row=r, positions=batch.columns, channels=D) for r in rows])

    def _dropout_apply(self, op: str, run: Any, x, mask, p, y) -> None:
        self.ledger.wire(op, "mask", _numpy(mask), self._mask(op))
        given = x.clone()
        run(x, mask, p, y)
        if op not in self.tapes:
            self.ledger.wire(op, "x", _numpy(given), _numpy(self.branch))
            exact = self._record(op, "dropout", [given], keep=self._mask(op), p=float(self.keep_p))
            self.ledger.value(op, "y", _numpy(y), exact)
        else:
            self.ledger.wire(op, "dy", _numpy(given), _numpy(self.stream))
            self.ledger.value(op, "dx", _numpy(y), self._pull(op, given)[0])
        self.branch = y.clone()

    # ------------------------------------------------------------------------------------------------ loss

    def _cross_entropy_forward(self, op: str, run: Any, z, targets, smoothing, loss, lse) -> None:
        batch, start = self.subject.spec_batch, self.rows_of_head - z.shape[0]
        wanted = np.where(batch.valid_BT, batch.targets_BT, -1).ravel()[start : self.rows_of_head]
        self.ledger.wire(op, "targets", _numpy(targets), wanted)
        valid = np.flatnonzero(wanted >= 0)
        given = z.clone()
        run(z, targets, smoothing, loss, lse)
        self.seen[op] = [given]
        self.valid = valid
        if not valid.size:
            return
        exact_smoothing = Fraction(self.subject.config.train.label_smoothing)
        exact = self._record(op, "cross_entropy", [_numpy(given)[valid]], targets=wanted[valid], smoothing=exact_smoothing)
        self.ledger.value(op, "loss", np.array([[_numpy(loss).astype(np.float64).sum()]]), exact)
        self.losses.append(exact)

    def _cross_entropy_backward(self, op: str, run: Any, z, targets, smoothing, lse) -> None:
        self.ledger.wire(op, "logits", _numpy(z), _numpy(self.seen[op][0]))
        run(z, targets, smoothing, lse)
        dz = _numpy(z)
        ignored = np.ones(len(dz), bool)
        ignored[self.valid] = False
        self.ledger.wire(op, "dz of ignored targets", dz[ignored], np.zeros_like(dz[ignored]))
        if self.valid.size:
            self.ledger.value(op, "dz", dz[self.valid], self._pull(op, np.ones((1, 1)))[0])
        self.branch = self.branch if self.phase == "forward" else None
        self.dz = z.clone()

    # ------------------------------------------------------------------------------------------------ backward

    def _incoming(self, op: str) -> Tensor:
        """The cotangent of a linear op's result, as the ops before it on the way back gave it."""
        if op.startswith("head"):
            return self.dz
        if op.endswith((".wo", ".w2")) and not self.keep_p:
            return self.stream
        assert self.branch is not None
        return self.branch

    def _linear_backward_weight(self, op: str, run: Any, dy, x, dw, db) -> None:
        self.ledger.wire(op, "dy", _numpy(dy), _numpy(self._incoming(op)))
        self.ledger.wire(op, "x", _numpy(x), _numpy(self.seen[op][0]))
        pulled: list[Interval] = []

        def cotangents() -> list[Interval]:
            pulled[:] = self._pull(op, dy)
            return _split(pulled[1], len(weight)) + (pulled[2:] if db is not None else [])

        if op.startswith("head"):
            weight, bias = ["tok" if self.subject.config.model.tied else "head.w"], []
        else:
            weight, bias = _names(op)
        parts = list(zip(weight, dw.split(len(dw) // len(weight)), strict=True))
        parts += [(bias[0], db)] if db is not None else []
        self._gradients(op, parts, lambda: run(dy, x, dw, db), cotangents)
        self.pulled[op] = [pulled[0]]
        if db is None and bias:  # the step sums dy itself, and leaves the key bias at exactly zero
            self.pulled[f"{op} biases"] = list(_split(Interval(pulled[2].mid.T, pulled[2].radius().T), 3))

    def _linear_backward_input(self, op: str, run: Any, dy, w, dx) -> None:
        self.ledger.wire(op, "dy", _numpy(dy), _numpy(self._incoming(op)))
        name = ("tok" if self.subject.config.model.tied else "head.w") if op.startswith("head") else _names(op)[0][0]
        self._parameter(op, name, w)
        run(dy, w, dx)
        exact = self.pulled.pop(op)[0]
        assert exact is not None
        self.ledger.value(op, "dx", _numpy(dx), exact)
        if op.startswith("head"):
            self.dn.append(dx.clone())
        else:
            self.branch = dx.clone()

    def _activation_backward(self, op: str, run: Any, x, dy) -> None:
        self.ledger.wire(op, "x", _numpy(x), _numpy(self.seen[op][0]))
        self.ledger.wire(op, "dy", _numpy(dy), _numpy(self.branch))
        given = dy.clone()
        run(x, dy)
        self.ledger.value(op, "dx", _numpy(dy), self._pull(op, given)[0])
        self.branch = dy.clone()

    def _attention_backward(self, op: str, run: Any, do, q, k, v, lse, dq, dk, dv, blocks, **kwargs: Any) -> None:
        self.ledger.wire(op, "do", _numpy(_merge(do)), _numpy(self.branch))
        for name, given, expected in zip("qkv", (q, k, v), self.seen[op], strict=True):
            self.ledger.wire(op, name, _numpy(given), _numpy(expected))
        given = _merge(do)
        run(do, q, k, v, lse, dq, dk, dv, blocks, **kwargs)
        merged = [_merge(x) for x in (dq, dk, dv)]
        for name, engine, exact in zip(("dq", "dk", "dv"), merged, self._pull(op, given), strict=True):
            self.ledger.value(op, name, _numpy(engine), exact)
        self.branch = torch.cat(merged, dim=1)

    def _layernorm_backward(self, op: str, run: Any, dy, x, mean, rstd, g, dx, dg, db) -> None:
        if op == "lnf":
            self.phase, self.branch, self.stream = "backward", torch.cat(self.dn), torch.zeros_like(dx)
        self.ledger.wire(op, "dy", _numpy(dy), _numpy(self.branch))
        self.ledger.wire(op, "x", _numpy(x), _numpy(self.seen[op][0]))
        self.ledger.wire(f"residual behind {op}", "dx before", _numpy(dx), _numpy(self.stream))
        given, before = dy.clone(), self.stream
        pulled: list[Interval] = []

        def cotangents() -> list[Interval]:
            pulled[:] = self._pull(op, given)
            return pulled[1:]

        self._gradients(
            op, [(f"{op}.g", dg), (f"{op}.b", db)], lambda: run(dy, x, mean, rstd, g, dx, dg, db), cotangents
        )
        self._accumulated(op, "dx", before, dx, pulled[0])
        self.stream = dx.clone()

    def _embedding_backward(self, op: str, run: Any, dx, tokens, positions, de, dp) -> None:
        self._places(op, tokens, positions)
        self.ledger.wire(op, "dx", _numpy(dx), _numpy(self.stream))
        given = dx.clone()
        self._gradients(
            op, [("tok", de), ("pos", dp)], lambda: run(dx, tokens, positions, de, dp), lambda: self._pull(op, given)
        )

    # ------------------------------------------------------------------------------------------------ the end

    def finish(self) -> None:
        """What no kernel does: the biases of queries and values, the sum of the loss, the count of targets; and no
        gradient may have changed since it was checked."""
        left = next(self.expected, None)
        if left is not None:
            self.ledger.fault(left[1], f"the step never called {left[0]}")
            return
        grads, zero = self.step.grads, torch.zeros(())
        for i in reversed(range(self.subject.config.model.layers)):
            op = f"{i}.attn.qkv"
            for c, exact in zip("qkv", self.pulled.pop(f"{op} biases"), strict=True):
                assert exact is not None
                name = f"{i}.attn.b{c}"
                if c == "k":
                    self.ledger.wire(op, f"grad {name}", _numpy(grads[name]), np.zeros(grads[name].shape))
                else:
                    self.ledger.value(op, f"grad {name}", _numpy(grads[name])[:, None], exact)
                self.final[name] = grads[name].clone()
        for name, checked in self.final.items():
            self.ledger.wire("gradients at the end", f"grad {name}", _numpy(grads[name]), _numpy(checked))
        total = self.S.lift(_numpy(zero))
        for part in self.losses:
            total = self.S.add(total, part)
        self.ledger.value("loss", "sum", np.array([[self.step.sums.loss]]), total)
        valid = int(self.subject.spec_batch.valid_BT.sum())
        self.ledger.wire("loss", "valid targets", np.array(self.step.sums.valid), np.array(valid))


def _numpy(x: Any) -> Any:
    return x.detach().numpy() if isinstance(x, Tensor) else x


def _copied(x: Any) -> Any:
    """float64 of its own: a kernel's buffers are used again, and float64 would be shared with them."""
    return np.array(_numpy(x), np.float64)


def _merge(x_BHTK: Tensor) -> Tensor:
    """[B, H, T, K] → [B·T, D], channel c of head c // K."""
    return x_BHTK.transpose(1, 2).flatten(2).flatten(0, 1).clone()


def _names(op: str) -> tuple[list[str], list[str]]:
    """The weights and biases of a linear op; queries, keys and values are one matrix."""
    head, _, last = op.rpartition(".")
    if last == "qkv":
        return [f"{head}.w{c}" for c in "qkv"], [f"{head}.b{c}" for c in "qkv"]
    return [op], [f"{head}.b{last[1:]}"]


def _split(a: Interval, parts: int) -> list[Interval]:
    if parts == 1:
        return [a]
    return [Interval(m, r) for m, r in zip(np.split(a.mid, parts), np.split(a.radius(), parts), strict=True)]


def _like(a: Interval, b: Interval) -> Interval:
    return Interval(a.mid.reshape(b.mid.shape), a.radius().reshape(b.mid.shape))


def watch(subject: Subject, kernels: Kernels | None = None, step: type[Step] = Step) -> Ledger:
    """Run the engine's step once with every op and wire checked."""
    plain = kernels or subject.engine_step().kernels
    watching = Watch(subject, plain)
    running = subject.engine_step(watching.kernels, step)
    watching.attach(running)
    running.zero()
    running.accumulate(subject.engine_batch, subject.key)
    watching.finish()
    return watching.ledger


