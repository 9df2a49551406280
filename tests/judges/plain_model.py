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
class Lattice:
    """The lattice options as plain numbers, float64.

    table [T, D]: fixed additive positions.  parts [3, T, D] and weights: of a mix (weights None: the parameter).
    cos, sin [T, K/2]: rotary.  classes [V], log_m [12, 12], beta (None: the parameter): the bias.  turn [D, D].
    """

    table: Tensor | None = None
    parts: Tensor | None = None
    weights: tuple[float, ...] | None = None
    cos: Tensor | None = None
    sin: Tensor | None = None
    interleaved: bool = False
    classes: Tensor | None = None
    log_m: Tensor | None = None
    beta: float | None = None
    turn: Tensor | None = None
    averaged: bool = False

    def positions(self, p: Mapping[str, Tensor]) -> Tensor | None:
        if self.cos is not None:
            return None
        if self.parts is not None:
            w = p["positions.mix"] if self.weights is None else torch.tensor(self.weights, dtype=torch.float64)
            return sum(w[k] * self.parts[k] for k in range(3)) + w[3] * p["pos"]
        return p["pos"] if self.table is None else self.table

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """Complex numbers times e^{i·angle}: x [B, H, T, K]."""
        if self.cos is None:
            return x
        spin = torch.complex(self.cos, self.sin)[positions][:, None]
        if self.interleaved:
            z = torch.complex(x[..., 0::2], x[..., 1::2]) * spin
            return torch.stack((z.real, z.imag), dim=-1).flatten(-2)
        half = x.shape[-1] // 2
        z = torch.complex(x[..., :half], x[..., half:]) * spin
        return torch.cat((z.real, z.imag), dim=-1)

    def scores(self, p: Mapping[str, Tensor], inputs: Tensor) -> Tensor | None:
        """What is added to the scores, [B, 1, T, T]."""
        if self.classes is None:
            return None
        beta = p["symmetry.beta"][0] if self.beta is None else self.beta
        c = self.classes[inputs]
        return (beta * self.log_m[c[:, :, None], c[:, None, :]])[:, None]

    def matrix(self, w: Tensor) -> Tensor:
        """The average over the 24 elements of D12, element by element."""
        if not self.averaged:
            return w
        total = torch.zeros_like(w)
        for flip in (0, 1):
            for k in range(12):
                a = torch.tensor(2 * torch.pi * k / 12, dtype=torch.float64)
                plane = torch.stack((torch.stack((a.cos(), -a.sin())), torch.stack((a.sin(), a.cos()))))
                plane = plane @ torch.diag(torch.tensor([1.0, -1.0 if flip else 1.0], dtype=torch.float64))
                out = torch.block_diag(*[plane] * (w.shape[0] // 2))
                into = torch.block_diag(*[plane] * (w.shape[1] // 2))
                total = total + out.T @ w @ into
        return total / 24


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
    lattice: Lattice | None = None,
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

    lattice = lattice or Lattice()
    table, added = lattice.positions(p), lattice.scores(p, batch.inputs)
    x = ops.embedding(batch.inputs, batch.positions, p["tok"], table) if table is not None else p["tok"][batch.inputs]
    x = x if lattice.turn is None else x @ lattice.turn.T
    for i in range(layers):
        n = ops.layernorm(x, p[f"{i}.ln1.g"], p[f"{i}.ln1.b"])
        w = {c: p[f"{i}.attn.w{c}"] if c in "qk" else lattice.matrix(p[f"{i}.attn.w{c}"]) for c in "qkvo"}
        q, k, v = (split(ops.linear(n, w[c], p[f"{i}.attn.b{c}"])) for c in "qkv")
        q, k = (lattice.rotate(a, batch.positions) for a in (q, k))
        keep = drop.attention_mask(i, (b, heads, t, t)) if drop else None
        o = ops.attention(q, k, v, batch.allowed, keep, drop.attention if drop else 0.0, added)
        o = o.transpose(1, 2).reshape(b, t, d)
        x = x + dropped(ops.linear(o, w["o"], p[f"{i}.attn.bo"]), i, 2)
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
