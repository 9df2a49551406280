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

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cllm.certificate.frame import Frame, names_of, numpy_of, split_rows
from cllm.certificate.ledger import Ledger
from cllm.certificate.subjects import Subject
from cllm.engine.dispatch import Kernels
from cllm.model.step import Step
from cllm.spec.intervals import Interval
from cllm.spec.philox import ATTENTION_OUTPUT, ATTENTION_PROBABILITIES, FEED_FORWARD_OUTPUT, kept
from cllm.spec.system import Bools

Run = Callable[..., None]
"""A kernel of the step that is watched."""


class Watch(Frame):
    """Kernels that check each of their calls; `finish` makes the last checks."""

    # ------------------------------------------------------------------------------------------------ forward

    def _embedding_forward(
        self, op: str, run: Run, tokens: Tensor, positions: Tensor | None, e: Tensor, p: Tensor, x: Tensor
    ) -> None:
        batch = self.subject.spec_batch
        self._places(op, tokens, positions)
        self._parameter(op, "tok", e)
        self._parameter(op, "pos", p)
        run(tokens, positions, e, p, x)
        index = {"tokens": batch.inputs_BT.ravel(), "positions": batch.positions_BT.ravel()}
        self.ledger.value(op, "x", numpy_of(x), self._record(op, "embedding", [e, p], **index))
        self.stream, self.branch = x.clone(), None

    def _places(self, op: str, tokens: Tensor, positions: Tensor | None) -> None:
        batch = self.subject.spec_batch
        self.ledger.wire(op, "tokens", numpy_of(tokens), batch.inputs_BT)
        columns = np.broadcast_to(np.arange(self.subject.sequence), batch.positions_BT.shape)
        self.ledger.wire(op, "positions", columns if positions is None else numpy_of(positions), batch.positions_BT)

    def _layernorm_forward(
        self, op: str, run: Run, x: Tensor, g: Tensor, b: Tensor, y: Tensor, mean: Tensor, rstd: Tensor
    ) -> None:
        if self.branch is None:
            self.ledger.wire(op, "x", numpy_of(x), numpy_of(self.stream))
        else:
            S = self.S
            total = S.add(S.lift(numpy_of(self.stream)), S.lift(numpy_of(self.branch)))
            self.ledger.value(f"residual before {op}", "x", numpy_of(x), total)
        self.stream = x.clone()
        self._parameter(op, f"{op}.g", g)
        self._parameter(op, f"{op}.b", b)
        run(x, g, b, y, mean, rstd)
        self.ledger.wire(op, "x after", numpy_of(x), numpy_of(self.stream))
        self.seen[op] = [self.stream]
        self.ledger.value(op, "y", numpy_of(y), self._record(op, "layernorm", [self.stream, g, b]))
        self.branch = y.clone()

    def _linear_forward(
        self, op: str, run: Run, x: Tensor, w: Tensor, b: Tensor | None, y: Tensor, residual: Tensor | None
    ) -> None:
        if op.startswith("head"):
            assert self.branch is not None
            start = self.rows_of_head
            self.rows_of_head += x.shape[0]
            self.ledger.wire(op, "x", numpy_of(x), numpy_of(self.branch[start : self.rows_of_head]))
            self._parameter(op, self.step.model.head, w)
        else:
            self._linear_inputs(op, x, w, b)
        if residual is not None:
            self.ledger.wire(op, "residual", numpy_of(residual), numpy_of(self.stream))
        run(x, w, b, y, residual)
        self.seen[op] = [x.clone()]
        exact = self._record(op, "linear", [x, w] if b is None else [x, w, b])
        if residual is not None:  # the branch joins the residual stream within the op
            exact = self.S.add(self.S.lift(numpy_of(self.stream)), exact)
        self.ledger.value(op, "y", numpy_of(y), exact)
        if residual is not None:
            self.stream, self.branch = y.clone(), None
        elif not op.startswith("head"):
            self.branch = y.clone()

    def _linear_inputs(self, op: str, x: Tensor, w: Tensor, b: Tensor | None) -> None:
        self.ledger.wire(op, "x", numpy_of(x), numpy_of(self.branch))
        weight, bias = names_of(op)
        self._parameter(op, weight[0], w)
        assert b is not None
        self._parameter(op, bias[0], b)

    def _linear_gelu_forward(
        self, op: str, run: Run, x: Tensor, w: Tensor, b: Tensor, pre: Tensor, post: Tensor
    ) -> None:
        self._linear_inputs(op, x, w, b)
        run(x, w, b, pre, post)
        self.seen[op] = [x.clone()]
        self.ledger.value(op, "y", numpy_of(pre), self._record(op, "linear", [x, w, b]))
        gelu = op.replace("w1", "gelu")  # at the pre-activation that was stored
        self.seen[gelu] = [pre.clone()]
        self.ledger.value(gelu, "y", numpy_of(post), self._record(gelu, self.subject.config.model.activation, [pre]))
        self.branch = post.clone()

    def _attention_settings(self, op: str) -> dict[str, Any]:
        batch, layer = self.subject.spec_batch, int(op.split(".")[0])
        draw = partial(kept, self.attention_p, (batch.seed, batch.step), layer=layer, site=ATTENTION_PROBABILITIES)
        T = batch.columns

        def keep(b: int, n: int) -> Bools:
            return draw(row=batch.first_row + b, head=n, positions=T, channels=T)

        allowed = [batch.allowed_TT(b) for b in range(batch.rows)]
        masked = {"keep": keep, "p": self.attention_p} if self.attention_p else {}
        return {"heads": self.shape[2], "allowed": allowed, **masked}

    def _attention_forward(
        self, op: str, run: Run, qkv: Tensor, heads: Tensor, lse: Tensor, scratch: Any, **kwargs: Any
    ) -> None:
        self.ledger.wire(op, "qkv", numpy_of(qkv), numpy_of(self.branch))
        run(qkv, heads, lse, scratch, **kwargs)
        self.seen[op] = [qkv.clone(), heads.clone()]
        exact = self._record(op, "attention", list(qkv.chunk(3, dim=1)), **self._attention_settings(op))
        self.branch = heads.clone()
        self.ledger.value(op, "o", numpy_of(self.branch), exact)

    def _dropout_mask(self, op: str, run: Run, key: Any, p: float, layer: int, site: int, mask: Tensor) -> None:
        run(key, p, layer, site, mask)
        self.ledger.wire(op, "mask", numpy_of(mask), self._mask(op).reshape(tuple(mask.shape)))

    def _mask(self, op: str) -> Bools:
        batch, (layer, branch, _) = self.subject.spec_batch, op.split(".")
        site = ATTENTION_OUTPUT if branch == "attn" else FEED_FORWARD_OUTPUT
        D = self.subject.config.model.width
        draw = partial(kept, self.keep_p, (batch.seed, batch.step), layer=int(layer), site=site, head=0)
        rows = range(batch.first_row, batch.first_row + batch.rows)
        return np.concatenate([draw(row=r, positions=batch.columns, channels=D) for r in rows])

    def _dropout_apply(self, op: str, run: Run, x: Tensor, mask: Tensor, p: float, y: Tensor) -> None:
        self.ledger.wire(op, "mask", numpy_of(mask), self._mask(op))
        given = x.clone()
        run(x, mask, p, y)
        if op not in self.tapes:
            self.ledger.wire(op, "x", numpy_of(given), numpy_of(self.branch))
            exact = self._record(op, "dropout", [given], keep=self._mask(op), p=float(self.keep_p))
            self.ledger.value(op, "y", numpy_of(y), exact)
        else:
            self.ledger.wire(op, "dy", numpy_of(given), numpy_of(self.stream))
            self.ledger.value(op, "dx", numpy_of(y), self._pull(op, given)[0])
        self.branch = y.clone()

    # ------------------------------------------------------------------------------------------------ loss

    def _cross_entropy(
        self, op: str, run: Run, z: Tensor, targets: Tensor, smoothing: float, loss: Tensor, lse: Tensor, dz: Tensor
    ) -> None:
        batch, start = self.subject.spec_batch, self.rows_of_head - z.shape[0]
        wanted = np.where(batch.valid_BT, batch.targets_BT, -1).ravel()[start : self.rows_of_head]
        self.ledger.wire(op, "targets", numpy_of(targets), wanted)
        valid = np.flatnonzero(wanted >= 0)
        given = z.clone()
        run(z, targets, smoothing, loss, lse, dz)
        self.dz = dz.clone()
        got = numpy_of(self.dz)
        ignored = np.ones(len(got), bool)
        ignored[valid] = False
        self.ledger.wire(op, "dz of ignored targets", got[ignored], np.zeros_like(got[ignored]))
        if not valid.size:
            return
        exact_smoothing = Fraction(self.subject.config.train.label_smoothing)
        exact = self._record(
            op, "cross_entropy", [numpy_of(given)[valid]], targets=wanted[valid], smoothing=exact_smoothing
        )
        self.ledger.value(op, "loss", np.array([[numpy_of(loss).astype(np.float64).sum()]]), exact)
        self.losses.append(exact)
        self.ledger.value(op, "dz", got[valid], self._pull(op, np.ones((1, 1)))[0])

    # ------------------------------------------------------------------------------------------------ backward

    def _incoming(self, op: str) -> Tensor:
        """The cotangent of a linear op's result, as the ops before it on the way back gave it."""
        if op.startswith("head"):
            return self.dz
        if op.endswith((".wo", ".w2")) and not self.keep_p:
            return self.stream
        assert self.branch is not None
        return self.branch

    def _linear_backward_weight(
        self, op: str, run: Run, dy: Tensor, x: Tensor, dw: Tensor, db: Tensor | None, *, add: bool = True
    ) -> None:
        if not add and dw.count_nonzero():
            self.ledger.fault(op, "writes over a gradient that something was added to")
        self.ledger.wire(op, "dy", numpy_of(dy), numpy_of(self._incoming(op)))
        self.ledger.wire(op, "x", numpy_of(x), numpy_of(self.seen[op][0]))
        pulled: list[Interval] = []

        weight, bias = ([self.step.model.head], []) if op.startswith("head") else names_of(op)
        joined = len(bias) > 1  # its biases are checked at the end: the step sets that of the keys to exactly zero

        def cotangents() -> list[Interval]:
            pulled[:] = self._pull(op, dy)
            return split_rows(pulled[1], len(weight)) + (pulled[2:] if bias and not joined else [])

        parts = list(zip(weight, dw.split(len(dw) // len(weight)), strict=True))
        if joined and (db is None or db.data_ptr() != self.step.grads[bias[0]].data_ptr()):
            self.ledger.fault(op, f"the gradient of {bias[0]} is added somewhere else")
        if bias and not joined:
            assert db is not None
            parts.append((bias[0], db))
        self._gradients(op, parts, lambda: run(dy, x, dw, db, add=add), cotangents)
        self.pulled[op] = [pulled[0]]
        if joined:
            self.pulled[f"{op} biases"] = list(split_rows(Interval(pulled[2].mid.T, pulled[2].radius().T), 3))

    def _linear_backward_input(self, op: str, run: Run, dy: Tensor, w: Tensor, dx: Tensor) -> None:
        self.ledger.wire(op, "dy", numpy_of(dy), numpy_of(self._incoming(op)))
        name = self.step.model.head if op.startswith("head") else names_of(op)[0][0]
        self._parameter(op, name, w)
        run(dy, w, dx)
        exact = self.pulled.pop(op)[0]
        assert exact is not None
        self.ledger.value(op, "dx", numpy_of(dx), exact)
        if op.startswith("head"):
            self.dn.append(dx.clone())
        else:
            self.branch = dx.clone()

    def _linear_gelu_backward_input(self, op: str, run: Run, dy: Tensor, w: Tensor, pre: Tensor, dpre: Tensor) -> None:
        gelu = op.replace("w2", "gelu")
        self.ledger.wire(op, "dy", numpy_of(dy), numpy_of(self._incoming(op)))
        self._parameter(op, names_of(op)[0][0], w)
        self.ledger.wire(gelu, "x", numpy_of(pre), numpy_of(self.seen[gelu][0]))
        run(dy, w, pre, dpre)
        dpost = self.pulled.pop(op)[0]
        assert dpost is not None
        self.ledger.value(gelu, "dx", numpy_of(dpre), self._pull(gelu, dpost)[0])
        self.branch = dpre.clone()

    def _attention_backward(
        self,
        op: str,
        run: Run,
        dheads: Tensor,
        qkv: Tensor,
        heads: Tensor,
        lse: Tensor,
        dqkv: Tensor,
        scratch: Any,
        **kwargs: Any,
    ) -> None:
        self.ledger.wire(op, "do", numpy_of(dheads), numpy_of(self.branch))
        for name, given, expected in zip(("qkv", "o"), (qkv, heads), self.seen[op], strict=True):
            self.ledger.wire(op, name, numpy_of(given), numpy_of(expected))
        given = dheads.clone()
        run(dheads, qkv, heads, lse, dqkv, scratch, **kwargs)
        parts = dqkv.chunk(3, dim=1)
        for name, engine, exact in zip(("dq", "dk", "dv"), parts, self._pull(op, given), strict=True):
            self.ledger.value(op, name, numpy_of(engine), exact)
        self.branch = dqkv.clone()

    def _layernorm_backward(
        self,
        op: str,
        run: Run,
        dy: Tensor,
        x: Tensor,
        mean: Tensor,
        rstd: Tensor,
        g: Tensor,
        dx: Tensor,
        rounded: Tensor | None,
        dg: Tensor,
        db: Tensor,
    ) -> None:
        if op == "lnf":
            self.phase, self.branch, self.stream = "backward", torch.cat(self.dn), torch.zeros_like(dx)
        self.ledger.wire(op, "dy", numpy_of(dy), numpy_of(self.branch))
        self.ledger.wire(op, "x", numpy_of(x), numpy_of(self.seen[op][0]))
        self.ledger.wire(f"residual behind {op}", "dx before", numpy_of(dx), numpy_of(self.stream))
        given, before = dy.clone(), self.stream
        pulled: list[Interval] = []

        def cotangents() -> list[Interval]:
            pulled[:] = self._pull(op, given)
            return pulled[1:]

        self._gradients(
            op, [(f"{op}.g", dg), (f"{op}.b", db)], lambda: run(dy, x, mean, rstd, g, dx, rounded, dg, db), cotangents
        )
        self._accumulated(op, "dx", before, dx, pulled[0])
        self.stream = dx.clone()

    def _embedding_backward(
        self, op: str, run: Run, dx: Tensor, tokens: Tensor, positions: Tensor | None, de: Tensor, dp: Tensor
    ) -> None:
        self._places(op, tokens, positions)
        self.ledger.wire(op, "dx", numpy_of(dx), numpy_of(self.stream))
        given = dx.clone()
        self._gradients(
            op, [("tok", de), ("pos", dp)], lambda: run(dx, tokens, positions, de, dp), lambda: self._pull(op, given)
        )

    # ------------------------------------------------------------------------------------------------ the end

    def finish(self) -> None:
        """What is left: the biases of queries, keys and values, the sum of the loss, the count of targets; and no
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
                    self.ledger.wire(op, f"grad {name}", numpy_of(grads[name]), np.zeros(grads[name].shape))
                else:
                    self.ledger.value(op, f"grad {name}", numpy_of(grads[name])[:, None], exact)
                self.final[name] = grads[name].clone()
        for name, checked in self.final.items():
            self.ledger.wire("gradients at the end", f"grad {name}", numpy_of(grads[name]), numpy_of(checked))
        total = self.S.lift(numpy_of(zero))
        for part in self.losses:
            total = self.S.add(total, part)
        self.ledger.value("loss", "sum", np.array([[self.step.sums.loss]]), total)
        valid = int(self.subject.spec_batch.valid_BT.sum())
        self.ledger.wire("loss", "valid targets", np.array(self.step.sums.valid), np.array(valid))


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
