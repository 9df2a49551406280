"""The explicit training step: forward, loss and hand-written backward over buffers allocated once.

`accumulate` adds loss sums, valid-target counts and gradient *sums* of a micro-batch; the caller divides once by the
valid targets of the whole step (training/optimiser.py). The same buffers serve `evaluate`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cllm.engine.buffers import Flat
from cllm.engine.dispatch import Kernels, select
from cllm.engine.dropout import Key
from cllm.model.batch import Batch, Derived, derive, pad_rows
from cllm.model.forward import Activations, Probe, forward, joined_qkv
from cllm.model.model import Model

HEAD_ROWS = 512  # rows of logits that exist at a time


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


class Step:
    """One model, one (batch, sequence) shape, all memory of its training step.

    model: its parameters are read, never written here.  batch, sequence: rows of a micro-batch and tokens a row.
    label_smoothing, document_mask: as in the run file.  gradients: False for a step that only evaluates.

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
        gradients: bool = True,
        kernels: Kernels | None = None,
    ) -> None:
        c = model.config
        if sequence > c.context:
            raise ValueError(f"sequence {sequence} is longer than the model's context {c.context}")
        self.model, self.batch, self.sequence = model, batch, sequence
        self.label_smoothing, self.document_mask = label_smoothing, document_mask
        self.kernels = kernels or select(model.dtype, c.activation)
        self.sums = Sums()
        self.acts = acts = Activations(model, batch, sequence, keep=gradients)
        new, n = acts.arena.new, batch * sequence
        self.head_rows = min(n, HEAD_ROWS)
        self._logits_RV = new("logits", self.head_rows, c.vocab)
        self._loss_N, self._lse_R = new("logits", n), new("logits", self.head_rows)
        self.gradients = gradients
        if gradients:
            self.grads = Flat(model.layout, model.dtype, model.device)
            self._dx_ND, self._dy_ND = new("backward", n, c.width), new("backward", n, c.width)
            self._dff_NF = new("backward", n, c.ff)
            self._dqkv_3BHTK = new("backward", 3, batch, c.heads, sequence, c.head_width)

    def zero(self) -> None:
        """Forget the sums: once at the beginning of a step."""
        self.sums = Sums()
        if self.gradients:
            self.grads.data.zero_()

    def accumulate(self, batch: Batch, dropout: Key | None = None, probe: Probe | None = None) -> Sums:
        """Add loss, valid targets and gradient sums of one micro-batch of at most `batch` rows; returns the sums
        so far. dropout: seed and step, when the model has dropout (its first row is the batch's)."""
        if not self.gradients:
            raise ValueError("this step was built with gradients=False: it only evaluates")
        if dropout is not None:
            dropout = Key(dropout.seed, dropout.step, batch.first_row)
        d = derive(self._fit(batch), self.document_mask, self.model.device)
        normed = forward(
            self.model,
            self.kernels,
            self.acts,
            d.inputs_BT,
            positions_BT=d.positions_BT,
            documents_BT=d.documents_BT,
            dropout=dropout,
            probe=probe,
        )
        see: Probe = probe or (lambda layer, op, tensor: None)
        self._head(normed, d.targets_BT.reshape(-1))
        see(None, "loss", self._loss_N)
        see(None, "head backward", self._dy_ND)
        self._backward(d.inputs_BT, d.positions_BT, d.documents_BT, dropout, see)
        self.sums = Sums(self.sums.loss + float(self._loss_N.sum(dtype=torch.float64)), self.sums.valid + d.valid)
        return self.sums

    def evaluate(self, batch: Batch, model: Model | None = None) -> Evaluation:
        """Loss, rank and ignored targets of each position, without gradients (and without label smoothing).

        model: another model of the same shape (a moving average of the weights) to evaluate in these buffers.
        """
        rows = batch.tokens_BT1.shape[0]
        d = derive(self._fit(batch), self.document_mask, self.model.device)
        model = model or self.model
        normed, targets = self._normed(d, model), d.targets_BT.reshape(-1)
        losses, ranks = torch.empty_like(self._loss_N), torch.empty_like(targets)
        e_VD = model.params[model.head]
        for start in range(0, normed.shape[0], self.head_rows):
            part = slice(start, start + self.head_rows)
            n, target = normed[part], targets[part]
            z, lse = self._logits_RV[: n.shape[0]], self._lse_R[: n.shape[0]]
            self.kernels.linear_forward(n, e_VD, None, z)
            self.kernels.cross_entropy_forward(z, target, 0.0, losses[part], lse)
            ranks[part] = (z > z.gather(1, target.clamp_min(0).unsqueeze(1))).sum(dim=1)
        shape = d.targets_BT.shape
        return Evaluation(losses.view(shape)[:rows], ranks.view(shape)[:rows], d.targets_BT[:rows])

    def logits(self, batch: Batch) -> Tensor:
        """Evaluation: the logits [rows, T, V] of every position, freshly allocated."""
        d = derive(self._fit(batch), self.document_mask, self.model.device)
        normed = self._normed(d, self.model)
        out = torch.empty(normed.shape[0], self.model.config.vocab, dtype=normed.dtype, device=normed.device)
        self.kernels.linear_forward(normed, self.model.params[self.model.head], None, out)
        return out.view(*d.inputs_BT.shape, -1)[: batch.tokens_BT1.shape[0]]

    @property
    def bytes_by_part(self) -> dict[str, int]:
        """Bytes of the activation and scratch buffers; with gradients, those of the gradient buffer too."""
        parts = self.acts.bytes_by_part
        if self.gradients:
            parts["gradients"] = self.grads.data.numel() * self.grads.data.element_size()
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
        return forward(
            model, self.kernels, self.acts, d.inputs_BT, positions_BT=d.positions_BT, documents_BT=d.documents_BT
        )

    def _head(self, normed_ND: Tensor, targets_N: Tensor) -> None:
        """Loss per row into `_loss_N`, dn into `_dy_ND`, and the gradient of the output matrix, a block of rows at
        a time: the full N×V logits never exist."""
        k, name = self.kernels, self.model.head
        e_VD = self.model.params[name]
        for start in range(0, normed_ND.shape[0], self.head_rows):
            rows = slice(start, start + self.head_rows)
            n, targets = normed_ND[rows], targets_N[rows]
            z, lse = self._logits_RV[: n.shape[0]], self._lse_R[: n.shape[0]]
            k.linear_forward(n, e_VD, None, z)
            k.cross_entropy_forward(z, targets, self.label_smoothing, self._loss_N[rows], lse)
            k.cross_entropy_backward(z, targets, self.label_smoothing, lse)
            k.linear_backward_weight(z, n, self.grads[name], None)
            k.linear_backward_input(z, e_VD, self._dy_ND[rows])

    def _backward(
        self,
        inputs_BT: Tensor,
        positions_BT: Tensor | None,
        documents_BT: Tensor | None,
        dropout: Key | None,
        see: Probe,
    ) -> None:
        """From dn in `_dy_ND` through all layers; `_dx_ND` carries the gradient of the residual stream."""
        model, k, acts, c = self.model, self.kernels, self.acts, self.model.config
        p, g, dx, dy = model.params, self.grads, self._dx_ND, self._dy_ND
        dx.zero_()
        k.layernorm_backward(dy, acts.last_ND, *acts.normed_stats, p["lnf.g"], dx, g["lnf.g"], g["lnf.b"])
        see(None, "lnf backward", dx)
        for i in reversed(range(c.layers)):
            a = acts.layers[i]
            # feed-forward branch: x = mid + Drop(W2·gelu(W1·LN2(mid)))
            dy = self._branch(a.masks[1] if a.masks else None, dropout)
            k.linear_backward_weight(dy, a.post_NF, g[f"{i}.ffn.w2"], g[f"{i}.ffn.b2"])
            k.linear_backward_input(dy, p[f"{i}.ffn.w2"], self._dff_NF)
            see(i, "ffn.w2 backward", self._dff_NF)
            k.activation_backward(a.pre_NF, self._dff_NF)
            see(i, "ffn.gelu backward", self._dff_NF)
            k.linear_backward_weight(self._dff_NF, a.ln2_ND, g[f"{i}.ffn.w1"], g[f"{i}.ffn.b1"])
            k.linear_backward_input(self._dff_NF, p[f"{i}.ffn.w1"], self._dy_ND)
            see(i, "ffn.w1 backward", self._dy_ND)
            k.layernorm_backward(
                self._dy_ND, a.mid_ND, *a.ln2_stats, p[f"{i}.ln2.g"], dx, g[f"{i}.ln2.g"], g[f"{i}.ln2.b"]
            )
            see(i, "ln2 backward", dx)
            # attention branch: mid = x + Drop(Wo·MHA(LN1(x)))
            dy = self._branch(a.masks[0] if a.masks else None, dropout)
            k.linear_backward_weight(dy, a.heads_ND, g[f"{i}.attn.wo"], g[f"{i}.attn.bo"])
            k.linear_backward_input(dy, p[f"{i}.attn.wo"], acts.branch_ND)
            see(i, "attn.out backward", acts.branch_ND)
            acts.o_BHTK.copy_(acts.branch_ND.view(self.batch, self.sequence, c.heads, -1).transpose(1, 2))
            k.attention_backward(
                acts.o_BHTK,
                *a.qkv_3BHTK,
                a.lse_BHT,
                *self._dqkv_3BHTK,
                acts.blocks,
                documents_BT=documents_BT,
                dropout=(dropout, c.attention_dropout, i) if dropout and c.attention_dropout else None,
            )
            see(i, "attn backward", self._dqkv_3BHTK)
            joint = acts.joint_N3D
            joint.view(self.batch, self.sequence, 3, c.heads, -1).copy_(self._dqkv_3BHTK.permute(1, 3, 0, 2, 4))
            w, _ = joined_qkv(p, i)
            dw, _ = joined_qkv(g, i)
            k.linear_backward_weight(joint, a.ln1_ND, dw, None)
            # the key bias shifts all scores of a query alike: its gradient is exactly 0, and stays so
            bias = joint.sum(dim=0).view(3, -1)
            g[f"{i}.attn.bq"].add_(bias[0])
            g[f"{i}.attn.bv"].add_(bias[2])
            k.linear_backward_input(joint, w, self._dy_ND)
            see(i, "attn.qkv backward", self._dy_ND)
            k.layernorm_backward(
                self._dy_ND, a.x_ND, *a.ln1_stats, p[f"{i}.ln1.g"], dx, g[f"{i}.ln1.g"], g[f"{i}.ln1.b"]
            )
            see(i, "ln1 backward", dx)
        k.embedding_backward(dx, inputs_BT, positions_BT, g["tok"], g["pos"])

    def _branch(self, mask: Tensor | None, dropout: Key | None) -> Tensor:
        """The gradient that enters a residual branch: dx itself, or dx through the branch's dropout."""
        if mask is None or dropout is None:
            return self._dx_ND
        self.kernels.dropout_apply(self._dx_ND, mask.view_as(self._dx_ND), self.model.config.dropout, self._dy_ND)
        return self._dy_ND
