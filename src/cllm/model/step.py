"""The explicit training step: forward, loss and hand-written backward over buffers allocated once.

`accumulate` adds loss sums, valid-target counts and gradient *sums* of a micro-batch; the caller divides once by the
valid targets of the whole step (training/optimiser.py). The same buffers serve `evaluate`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cllm.engine import cross_entropy
from cllm.engine.buffers import ALIGN, WIDER, Flat, matrix_in
from cllm.engine.compact import Mixed
from cllm.engine.dispatch import Kernels, select
from cllm.engine.dropout import Key
from cllm.model.activations import RECOMPUTE, Activations
from cllm.model.batch import Batch, Derived, derive, pad_rows
from cllm.model.forward import Pass, Probe, forward, joined_bias, joined_qkv, mix_weights, unseen
from cllm.model.layout import POSITIONS_MIX, SYMMETRY_BIAS, hidden_matrix
from cllm.model.model import Model
from cllm.model.tables import CLASSES, averaged

# Rows of logits that exist at a time: packing the output matrix for each block of them costs time, they cost memory.
HEAD_ROWS, FEW_HEAD_ROWS = 2048, 512


def _aligned(elements: int) -> int:
    return -(-elements // ALIGN) * ALIGN


@dataclass
class Sums:
    """Sums over the valid targets of a step so far: loss in nats, and how many targets."""

    loss: float = 0.0
    valid: int = 0

    @property
    def mean(self) -> float:
        return self.loss / max(self.valid, 1)


@dataclass(frozen=True)
class Evaluation:
    """Per target [rows, T]: loss in nats (0 where ignored), how many tokens scored higher, target (−1 = ignored)."""

    losses_BT: Tensor
    ranks_BT: Tensor
    targets_BT: Tensor


class Sink(Protocol):
    """Who uses gradients while the backward still runs (training/fused.py)."""

    takes: frozenset[str]
    """The tensors that it updates."""

    done: set[str]
    """Those that need no update any more in this step."""

    squares: float
    """Σ g² of those that were complete."""

    @property
    def half_made(self) -> bool:
        """Whether the step stopped after some tensors were updated."""

    def buffers(self, room: Tensor) -> Mixed:
        """The gradient buffers; `room`: flat memory in the precision of sums, free while the backward runs."""

    def arm(self, lr: float) -> None:
        """Before a step that is to update the weights: its rate."""

    def begin(self, sums: Sums) -> None:
        """The loss and the valid targets are known; the backward begins."""

    def complete(self, *names: str) -> None:
        """In this backward, neither the gradients nor the weights of these tensors are needed any more."""


class Watcher(Protocol):
    """Who is told when gradients are complete (training/distributed/reduce.py)."""

    def complete(self, *names: str) -> None:
        """In this backward, the gradients of these tensors will not be written any more."""


class Step:
    """One model, one (batch, sequence) shape, all memory of its training step.

    model: its parameters are read, never written here.  batch, sequence: rows of a micro-batch and tokens a row.
    label_smoothing, document_mask, recompute: as in the run file.  gradients: False for a step that only evaluates.
    grads: the buffers to use for them (default: float32, or float64).  sink: brings its own, and is told when each
    gradient is complete.  head_rows: rows of logits that exist at a time (default: 2048; without gradients 512).
    The attribute `reducer` is told of complete gradients, too, while it is set; `products` are the tensors whose
    gradients are matrix products, written by a step's first micro-batch.

    >>> from cllm.config import load
    >>> config = load(preset="nano")
    >>> model = Model(config.model).initialise(seed=1)
    >>> step = Step(model, batch=2, sequence=8)
    >>> sums = step.accumulate(Batch.of(torch.arange(18).view(2, 9)))
    >>> sums.valid, step.grads["0.attn.wq"].shape
    (16, torch.Size([32, 32]))
    """

    def __init__(
        self,
        model: Model,
        batch: int,
        sequence: int,
        *,
        label_smoothing: float = 0.0,
        document_mask: bool = False,
        recompute: str = "none",
        gradients: bool = True,
        kernels: Kernels | None = None,
        grads: Flat | Mixed | None = None,
        sink: Sink | None = None,
        head_rows: int | None = None,
    ) -> None:
        c = model.config
        if sequence > c.context:
            raise ValueError(f"sequence {sequence} is longer than the model's context {c.context}")
        if recompute not in RECOMPUTE:
            raise ValueError(f"recompute: got {recompute!r}, expected one of {', '.join(RECOMPUTE)}")
        self.model, self.batch, self.sequence, self.recompute = model, batch, sequence, recompute
        self.label_smoothing, self.document_mask, self.sink = label_smoothing, document_mask, sink
        self.reducer: Watcher | None = None
        self.kernels = kernels or select(model.operand, c.activation, model.device)
        self.sums = Sums()
        self.acts = acts = Activations(model, self.kernels, batch, sequence, keep=gradients, recompute=recompute)
        new, n, operand = acts.arena.new, batch * sequence, model.operand
        self.head_rows = min(n, head_rows or (HEAD_ROWS if gradients else FEW_HEAD_ROWS))
        self._logits_RV = new("logits", self.head_rows, c.vocab)
        self._loss_N, self._lse_R = new("logits", n), new("logits", self.head_rows)
        self.gradients = gradients
        self._fresh = sink is not None  # the gradients of the matrices hold nothing yet; a sink's never do
        self.products = frozenset([model.head, *(e.name for e in model.layout.entries if hidden_matrix(e.name))])
        if gradients:
            branch, rest = self._branch_room(sink is not None)
            if sink is not None:
                grads = sink.buffers(rest)
            self.grads: Flat | Mixed = Flat(model.layout, model.dtype, model.device) if grads is None else grads
            # the gradient of the residual stream, and what the products take of it
            self._dx_ND = new("backward", n, c.width)
            self._rounded_ND = new("backward", n, c.width, dtype=operand) if operand != model.dtype else None
            self._dy_ND = new("backward", n, c.width, dtype=operand)
            self._dbias_CC = new("backward", CLASSES, CLASSES) if c.symmetry_bias_trainable else None
            # of the two branches of a layer, one after the other
            self._dff_NF = matrix_in(branch, 0, n, c.ff, operand, apart=c.ff + WIDER)
            self._dqkv_N3D = matrix_in(branch, 0, n, 3 * c.width, operand)
            self._dheads_ND = matrix_in(branch, _aligned(3 * n * c.width), n, c.width, operand)

    def _branch_room(self, sink: bool) -> tuple[Tensor, Tensor]:
        """Flat memory for the gradients within a branch, and what is left of the logits: these are used up by then, and
        their end is taken where they are large enough. A sink is left the larger part."""
        c, n, logits = self.model.config, self.batch * self.sequence, self._logits_RV.view(-1)
        elements = max(_aligned(n * (c.ff + WIDER)), _aligned(3 * n * c.width) + _aligned(n * c.width))
        cells = _aligned(-(-elements * self.model.operand.itemsize // self.model.dtype.itemsize))
        start = (logits.numel() - cells) // ALIGN * ALIGN
        if start < (cells if sink else 0):
            return self.acts.arena.new("backward", cells), logits
        return logits[start : start + cells], logits[:start]

    def zero(self) -> None:
        """Forget the sums: once at the beginning of a step."""
        self.sums = Sums()
        if self.gradients:
            self.zero_gradients()

    def zero_gradients(self) -> None:
        """Forget the gradient sums. Those that are products hold what they held until the next micro-batch, which
        writes them: zeros would be written, and read again, for nothing."""
        self.grads.zero_(but=self.products)
        self._fresh = True

    def accumulate(self, batch: Batch, dropout: Key | None = None, probe: Probe | None = None) -> Sums:
        """Add loss, valid targets and gradient sums of one micro-batch of at most `batch` rows; returns the sums
        so far. dropout: seed and step, when the model has dropout (its first row is the batch's)."""
        if not self.gradients:
            raise ValueError("this step was built with gradients=False: it only evaluates")
        if dropout is not None:
            dropout = Key(dropout.seed, dropout.step, batch.first_row)
        d = derive(self._fit(batch), self.document_mask, self.model.device)

        def count() -> None:
            self.sums = Sums(self.sums.loss + float(self._loss_N.sum(dtype=torch.float64)), self.sums.valid + d.valid)
            if self.sink is not None:
                self.sink.begin(self.sums)

        self.passes(d, dropout, probe or unseen, count)
        return self.sums

    def passes(
        self, d: Derived, dropout: Key | None, see: Probe = unseen, behind_loss: Callable[[], None] | None = None
    ) -> Tensor:
        """Forward and backward of a micro-batch that is on the device, without waiting for it: gradient sums are
        added, `sums` stays. Returns the losses [B·T] (0 where ignored), a buffer.

        dropout: with its first row.  behind_loss: called before the backward, when the losses are on their way.
        """
        run = Pass(self.model, self.kernels, self.acts, d.documents_BT, dropout, see=see)
        normed = forward(run, d.inputs_BT, d.positions_BT)
        self._head(normed, d.targets_BT.reshape(-1))
        see(None, "loss", self._loss_N)
        see(None, "head backward", self._dy_ND)
        if behind_loss is not None:
            behind_loss()
        self._backward(d.inputs_BT, d.positions_BT, run)
        self._fresh = self.sink is not None
        return self._loss_N

    def evaluate(self, batch: Batch, model: Model | None = None) -> Evaluation:
        """Loss, rank and ignored targets of each position, without gradients (and without label smoothing).

        model: another model of the same shape (a moving average of the weights) to evaluate in these buffers.
        """
        rows = batch.tokens_BT1.shape[0]
        d = derive(self._fit(batch), self.document_mask, self.model.device)
        model = model or self.model
        normed, targets = self._normed(d, model), d.targets_BT.reshape(-1)
        losses, ranks = torch.empty_like(self._loss_N), torch.empty_like(targets)
        e_VD = model.operands[model.head]
        for start in range(0, normed.shape[0], self.head_rows):
            part = slice(start, start + self.head_rows)
            n, target = normed[part], targets[part]
            z, lse = self._logits_RV[: n.shape[0]], self._lse_R[: n.shape[0]]
            self.kernels.linear_forward(n, e_VD, None, z, None)
            self.kernels.cross_entropy(z, target, 0.0, losses[part], lse, None)
            ranks[part] = (z > z.gather(1, target.clamp_min(0).unsqueeze(1))).sum(dim=1)
        shape = d.targets_BT.shape
        return Evaluation(losses.view(shape)[:rows], ranks.view(shape)[:rows], d.targets_BT[:rows])

    def logits(self, batch: Batch) -> Tensor:
        """Evaluation: the logits [rows, T, V] of every position, freshly allocated."""
        d = derive(self._fit(batch), self.document_mask, self.model.device)
        normed = self._normed(d, self.model)
        out = torch.empty(normed.shape[0], self.model.config.vocab, dtype=self.model.dtype, device=normed.device)
        self.kernels.linear_forward(normed, self.model.operands[self.model.head], None, out, None)
        return out.view(*d.inputs_BT.shape, -1)[: batch.tokens_BT1.shape[0]]

    @property
    def bytes_by_part(self) -> dict[str, int]:
        """Bytes of the activation and scratch buffers; with gradients, those of the gradient buffer too."""
        parts = self.acts.bytes_by_part
        if self.gradients:
            parts["gradients"] = self.grads.nbytes
        return parts

    def _fit(self, batch: Batch) -> Batch:
        rows, columns = batch.tokens_BT1.shape
        if columns != self.sequence + 1 or rows > self.batch:
            raise ValueError(
                f"batch of {rows} rows of {columns} tokens; this step takes at most {self.batch} rows of "
                f"{self.sequence + 1} (sequence + 1)"
            )
        return pad_rows(batch, self.batch)

    def _normed(self, d: Derived, model: Model) -> Tensor:
        return forward(Pass(model, self.kernels, self.acts, d.documents_BT), d.inputs_BT, d.positions_BT)

    def _head(self, normed_ND: Tensor, targets_N: Tensor) -> None:
        """Loss per row into `_loss_N`, dn into `_dy_ND`, and the gradient of the output matrix, a block of rows at
        a time: the full N×V logits never exist."""
        k, name = self.kernels, self.model.head
        e_VD = self.model.operands[name]
        for start in range(0, normed_ND.shape[0], self.head_rows):
            rows = slice(start, start + self.head_rows)
            n, targets = normed_ND[rows], targets_N[rows]
            z, lse = self._logits_RV[: n.shape[0]], self._lse_R[: n.shape[0]]
            k.linear_forward(n, e_VD, None, z, None)
            dz = cross_entropy.in_place(z, self.model.operand)
            k.cross_entropy(z, targets, self.label_smoothing, self._loss_N[rows], lse, dz)
            self._product(dz, n, self.grads[name], None, again=start > 0)
            k.linear_backward_input(dz, e_VD, self._dy_ND[rows])

    def _backward(self, inputs_BT: Tensor, positions_BT: Tensor | None, run: Pass) -> None:
        """From dn in `_dy_ND` through all layers; `_dx_ND` carries the gradient of the residual stream."""
        model, k, acts, see = self.model, self.kernels, self.acts, run.see
        p, g, dx, rounded = model.params, self.grads, self._dx_ND, self._rounded_ND
        if model.head != "tok":
            self._done(model.head)
        if self._dbias_CC is not None:
            self._dbias_CC.zero_()
        dx.zero_()
        k.layernorm_backward(
            self._dy_ND, acts.last_ND, *acts.normed_stats, p["lnf.g"], dx, rounded, g["lnf.g"], g["lnf.b"]
        )
        self._done("lnf.g", "lnf.b")
        see(None, "lnf backward", dx)
        for i in reversed(range(model.config.layers)):
            if self.recompute == "layer" and i + 1 < model.config.layers:  # the last one is still there
                run.layer(i, acts.layers[i].x_ND, None)
            self._feed_forward_backward(i, run)
            self._attention_backward(i, run)
        self._embedding_backward(inputs_BT, positions_BT)

    def _embedding_backward(self, inputs_BT: Tensor, positions_BT: Tensor | None) -> None:
        """x = (E[t] + P[pos])·Tᵀ, T the lattice transform where it is on; P learned, fixed, or a mix of both."""
        model, k, g, dx, acts = self.model, self.kernels, self.grads, self._dx_ND, self.acts
        c, names = model.config, ["tok"]
        if acts.embedded_ND is not None:
            dx = torch.mm(dx, model.tables["transform"], out=acts.embedded_ND)
        dp = g["pos"] if c.positions == "learned" else acts.table_SD
        if acts.table_SD is not None:
            acts.table_SD.zero_()
        k.embedding_backward(dx, inputs_BT, positions_BT, g["tok"], dp)
        if acts.table_SD is not None:  # P = Σ w·part + w₄·learned
            g["pos"].addcmul_(acts.table_SD, mix_weights(model)[3])
            if c.positions_mix_trainable:
                parts = [*model.tables["positions.parts"], model.params["pos"]]
                g[POSITIONS_MIX].add_(torch.stack([(part * acts.table_SD).sum() for part in parts]))
                names.append(POSITIONS_MIX)
        if c.symmetry_bias_trainable:
            assert model.symmetry is not None
            assert self._dbias_CC is not None
            g[SYMMETRY_BIAS].add_((self._dbias_CC.double() * model.symmetry[1]).sum())
            names.append(SYMMETRY_BIAS)
        self._done(*names, *(["pos"] if "pos" in g else []))

    def _feed_forward_backward(self, i: int, run: Pass) -> None:
        """x = mid + Drop(W2·gelu(W1·LN2(mid)))"""
        k, a, see = self.kernels, self.acts.layers[i], run.see
        p, w, g, dff = self.model.params, self.model.operands, self.grads, self._dff_NF
        dy = self._branch(a.masks[1] if a.masks else None, run.dropout)
        if self.recompute in ("gelu", "norms"):
            k.gelu_forward(a.pre_NF, a.post_NF)
        self._product(dy, a.post_NF, g[f"{i}.ffn.w2"], g[f"{i}.ffn.b2"])
        k.linear_gelu_backward_input(dy, w[f"{i}.ffn.w2"], a.pre_NF, dff)
        self._done(f"{i}.ffn.w2", f"{i}.ffn.b2")
        see(i, "ffn.gelu backward", dff)
        if self.recompute == "norms":
            k.layernorm_forward(a.mid_ND, p[f"{i}.ln2.g"], p[f"{i}.ln2.b"], a.ln2_ND, *a.ln2_stats)
        self._product(dff, a.ln2_ND, g[f"{i}.ffn.w1"], g[f"{i}.ffn.b1"])
        k.linear_backward_input(dff, w[f"{i}.ffn.w1"], self._dy_ND)
        self._done(f"{i}.ffn.w1", f"{i}.ffn.b1")
        see(i, "ffn.w1 backward", self._dy_ND)
        self._norm_backward(i, "ln2", a.mid_ND, a.ln2_stats)
        see(i, "ln2 backward", self._dx_ND)

    def _attention_backward(self, i: int, run: Pass) -> None:
        """mid = x + Drop(Wo·MHA(LN1(x)))"""
        k, a, see, c = self.kernels, self.acts.layers[i], run.see, self.model.config
        p, w, g = self.model.params, self.model.operands, self.grads
        dy = self._branch(a.masks[0] if a.masks else None, run.dropout)
        self._product(dy, a.heads_ND, g[f"{i}.attn.wo"], g[f"{i}.attn.bo"])
        k.linear_backward_input(dy, w[f"{i}.attn.wo"], self._dheads_ND)
        self._average(f"{i}.attn.wo")
        self._done(f"{i}.attn.wo", f"{i}.attn.bo")
        see(i, "attn.out backward", self._dheads_ND)
        k.attention_backward(
            self._dheads_ND,
            a.qkv_N3D,
            a.heads_ND,
            a.lse_BHT,
            self._dqkv_N3D,
            self.acts.attention_scratch,
            documents_BT=run.documents_BT,
            dropout=(run.dropout, c.attention_dropout, i) if run.dropout and c.attention_dropout else None,
            bias=run.bias,
            dbias_CC=self._dbias_CC,
        )
        run.turn(self._dqkv_N3D, inverse=True)
        see(i, "attn backward", self._dqkv_N3D)
        if self.recompute == "norms":
            k.layernorm_forward(a.x_ND, p[f"{i}.ln1.g"], p[f"{i}.ln1.b"], a.ln1_ND, *a.ln1_stats)
        self._product(self._dqkv_N3D, a.ln1_ND, joined_qkv(g, i), joined_bias(g, i))
        if c.positions != "rope":
            # the key bias shifts all scores of a query alike: its gradient is exactly 0, and not the rounding of a sum
            g[f"{i}.attn.bk"].zero_()
        k.linear_backward_input(self._dqkv_N3D, joined_qkv(w, i), self._dy_ND)
        self._average(f"{i}.attn.wv")
        self._done(*(f"{i}.attn.{kind}{part}" for kind in "wb" for part in "qkv"))
        see(i, "attn.qkv backward", self._dy_ND)
        self._norm_backward(i, "ln1", a.x_ND, a.ln1_stats)
        see(i, "ln1 backward", self._dx_ND)

    def _product(self, dy: Tensor, x: Tensor, dw: Tensor, db: Tensor | None, *, again: bool = False) -> None:
        """dW of a linear map: added to what is there, or written where nothing is. again: this pass has begun it."""
        self.kernels.linear_backward_weight(dy, x, dw, db, add=again or not self._fresh)

    def _norm_backward(self, i: int, name: str, x_ND: Tensor, stats: tuple[Tensor, Tensor]) -> None:
        p, g, key = self.model.params, self.grads, f"{i}.{name}"
        self.kernels.layernorm_backward(
            self._dy_ND, x_ND, *stats, p[f"{key}.g"], self._dx_ND, self._rounded_ND, g[f"{key}.g"], g[f"{key}.b"]
        )
        self._done(f"{key}.g", f"{key}.b")

    def _branch(self, mask: Tensor | None, dropout: Key | None) -> Tensor:
        """The gradient that enters a residual branch: dx as an operand, or dx through the branch's dropout."""
        if mask is None or dropout is None:
            return self._dx_ND if self._rounded_ND is None else self._rounded_ND
        self.kernels.dropout_apply(self._dx_ND, mask.view_as(self._dx_ND), self.model.config.dropout, self._dy_ND)
        return self._dy_ND

    def _average(self, name: str) -> None:
        """The gradient of a matrix that is kept equal to its average over D12 (a projection, its own transpose)."""
        if self.model.is_averaged(name):
            self.grads[name].copy_(averaged(self.grads[name]))

    def _done(self, *names: str) -> None:
        """In this backward, neither the gradients nor the weights of these tensors are needed any more."""
        if self.sink is not None:
            self.sink.complete(*names)
        if self.reducer is not None:
            self.reducer.complete(*names)
