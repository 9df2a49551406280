"""The whole model as plain formulas under autograd, from raw token rows: an independent reading of the definition.

Targets, positions, document masks and dropout masks are derived here again, by loops over rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from judges import plain_ops as ops
from judges.philox_reference import attention_keep, hidden_keep


@dataclass(frozen=True)
class Drop:
    """Dropout of a step: seed, step, first row, probability on hidden sites and on attention."""

    seed: int
    step: int
    first_row: int
    hidden: float
    attention: float

    def hidden_mask(self, layer: int, site: int, shape: tuple[int, ...]) -> Tensor | None:
        if not self.hidden:
            return None
        return hidden_keep(self.hidden, self.seed, self.step, self.first_row, layer, site, shape)

    def attention_mask(self, layer: int, shape: tuple[int, ...]) -> Tensor | None:
        if not self.attention:
            return None
        return attention_keep(self.attention, self.seed, self.step, self.first_row, layer, shape)


@dataclass(frozen=True)
class Read:
    """What a batch of raw rows means: [B, T] each; targets −1 where ignored; allowed [B, 1, T, T]."""

    inputs: Tensor
    targets: Tensor
    positions: Tensor
    allowed: Tensor


def read(tokens: Tensor, documents: Tensor, document_mask: bool) -> Read:
    rows, columns = tokens.shape
    t = columns - 1
    inputs, targets, positions = [], [], []
    for row, of in zip(tokens.tolist(), documents.tolist(), strict=True):
        inputs.append(row[:t])
        targets.append([])
        positions.append([])
        for i in range(t):
            pad = of[i] == -1 or of[i + 1] == -1
            targets[-1].append(-1 if pad or (document_mask and of[i] != of[i + 1]) else row[i + 1])
            positions[-1].append(i - of.index(of[i]) if document_mask else i)
    allowed = ops.allowed_keys(documents[:, :t] if document_mask else None, rows, t)
    return Read(torch.tensor(inputs), torch.tensor(targets), torch.tensor(positions), allowed)


@dataclass(frozen=True)
class Outcome:
    logits: Tensor  # [B, T, V]
    losses: Tensor  # [B·T], 0 where ignored
    valid: int
    gradients: dict[str, Tensor]  # of the sum of the losses


def evaluate(
    weights: Mapping[str, Tensor],
    layers: int,
    heads: int,
    batch: Read,
    *,
    activation: str = "gelu_tanh",
    smoothing: float = 0.0,
    drop: Drop | None = None,
) -> Outcome:
    """Loss sum and the gradients of every tensor, in float64."""
    p = {name: w.double().clone().requires_grad_() for name, w in weights.items()}
    b, t = batch.inputs.shape
    d = p["tok"].shape[1]

    def dropped(x: Tensor, layer: int, site: int) -> Tensor:
        mask = drop.hidden_mask(layer, site, (b, t, d)) if drop else None
        return x if mask is None else ops.dropout(x, mask, drop.hidden)

    def split(x: Tensor) -> Tensor:
        return x.view(b, t, heads, d // heads).transpose(1, 2)

    x = ops.embedding(batch.inputs, batch.positions, p["tok"], p["pos"])
    for i in range(layers):
        n = ops.layernorm(x, p[f"{i}.ln1.g"], p[f"{i}.ln1.b"])
        q, k, v = (split(ops.linear(n, p[f"{i}.attn.w{c}"], p[f"{i}.attn.b{c}"])) for c in "qkv")
        keep = drop.attention_mask(i, (b, heads, t, t)) if drop else None
        o = ops.attention(q, k, v, batch.allowed, keep, drop.attention if drop else 0.0)
        o = o.transpose(1, 2).reshape(b, t, d)
        x = x + dropped(ops.linear(o, p[f"{i}.attn.wo"], p[f"{i}.attn.bo"]), i, 2)
        n = ops.layernorm(x, p[f"{i}.ln2.g"], p[f"{i}.ln2.b"])
        h = ops.gelu(ops.linear(n, p[f"{i}.ffn.w1"], p[f"{i}.ffn.b1"]), activation)
        x = x + dropped(ops.linear(h, p[f"{i}.ffn.w2"], p[f"{i}.ffn.b2"]), i, 3)
    n = ops.layernorm(x, p["lnf.g"], p["lnf.b"])
    logits = ops.linear(n, p.get("head.w", p["tok"]), None)
    losses = ops.cross_entropy(logits.view(b * t, -1), batch.targets.reshape(-1), smoothing)
    if losses.requires_grad:
        found = torch.autograd.grad(losses.sum(), list(p.values()), allow_unused=True, materialize_grads=True)
    else:
        found = tuple(torch.zeros_like(w) for w in p.values())
    return Outcome(logits.detach(), losses.detach(), int((batch.targets >= 0).sum()), dict(zip(p, found, strict=True)))
