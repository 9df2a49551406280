"""The forward pass, written once: training, evaluation, prefill and cached decoding all run this code.

x = E[t] + P[pos]; per layer x += Drop(Wo·MHA(LN1 x)); x += Drop(FFN(LN2 x)); n = LN_f x.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cllm.engine.attention import Blocks
from cllm.engine.buffers import Arena
from cllm.engine.dispatch import Kernels
from cllm.engine.dropout import ATTENTION_OUTPUT, FEED_FORWARD_OUTPUT, Key
from cllm.model.model import Model, Weights

# called with (layer, op, result) behind every op; how a non-finite value's birthplace is found
Probe = Callable[[int | None, str, Tensor], None]


@dataclass
class LayerActivations:
    """What one layer keeps for its backward."""

    x_ND: Tensor  # the layer's input
    ln1_ND: Tensor
    ln1_stats: tuple[Tensor, Tensor]  # mean, 1/σ
    qkv_3BHTK: Tensor
    lse_BHT: Tensor
    heads_ND: Tensor  # attention output before Wo
    mid_ND: Tensor  # residual stream behind the attention
    ln2_ND: Tensor
    ln2_stats: tuple[Tensor, Tensor]
    pre_NF: Tensor
    post_NF: Tensor
    masks: tuple[Tensor, Tensor] | None  # dropout of attention and feed-forward output


@dataclass
class Cache:
    """Keys and values of the positions seen so far, appended in place: [L, B, H, S, K] each, `length` filled."""

    k_LBHSK: Tensor
    v_LBHSK: Tensor
    length: int = 0


@dataclass
class Activations:
    """All buffers of a forward pass for one (B, T), allocated once.

    keep: a set per layer, for the backward; otherwise all layers share one set.
    """

    model: Model
    batch: int
    sequence: int
    keep: bool
    keys: int | None = None  # longest key sequence; default: the sequence
    arena: Arena = field(init=False)

    def __post_init__(self) -> None:
        model, c = self.model, self.model.config
        self.arena = arena = Arena(model.dtype, model.device)
        b, t, d, f, h = self.batch, self.sequence, c.width, c.ff, c.heads
        n = b * t

        def layer() -> LayerActivations:
            x = arena.new("residual stream", n, d)
            return LayerActivations(
                x_ND=x,
                ln1_ND=arena.new("layer norm", n, d),
                ln1_stats=(arena.new("layer norm", n, 1), arena.new("layer norm", n, 1)),
                qkv_3BHTK=arena.new("attention", 3, b, h, t, c.head_width),
                lse_BHT=arena.new("attention", b, h, t),
                heads_ND=arena.new("attention", n, d),
                mid_ND=arena.new("residual stream", n, d) if self.keep else x,
                ln2_ND=arena.new("layer norm", n, d),
                ln2_stats=(arena.new("layer norm", n, 1), arena.new("layer norm", n, 1)),
                pre_NF=arena.new("feed-forward", n, f),
                post_NF=arena.new("feed-forward", n, f),
                masks=(
                    arena.new("dropout masks", b, t, d, dtype=torch.bool),
                    arena.new("dropout masks", b, t, d, dtype=torch.bool),
                )
                if self.keep and c.dropout
                else None,
            )

        self.layers = [layer() for _ in range(c.layers)] if self.keep else [layer()] * c.layers
        self.last_ND = arena.new("residual stream", n, d) if self.keep else self.layers[0].x_ND
        self.normed_ND = arena.new("layer norm", n, d)
        self.normed_stats = (arena.new("layer norm", n, 1), arena.new("layer norm", n, 1))
        self.joint_N3D = arena.new("scratch", n, 3 * d)
        self.branch_ND = arena.new("scratch", n, d)
        self.o_BHTK = arena.new("scratch", b, h, t, c.head_width)
        self.blocks = Blocks(b, h, t, self.keys or t, backward=self.keep, dtype=model.dtype, device=model.device)

    @property
    def bytes_by_part(self) -> dict[str, int]:
        parts = dict(self.arena.bytes_by_part)
        parts["scratch"] += self.blocks.bytes
        return parts


def split_heads(joint_N3D: Tensor, qkv_3BHTK: Tensor) -> None:
    """[N, 3D] → [3, B, H, T, K]."""
    _, b, h, t, k = qkv_3BHTK.shape
    qkv_3BHTK.copy_(joint_N3D.view(b, t, 3, h, k).permute(2, 0, 3, 1, 4))


def merge_heads(o_BHTK: Tensor, out_ND: Tensor) -> None:
    """[B, H, T, K] → [N, D]."""
    b, h, t, k = o_BHTK.shape
    out_ND.view(b, t, h, k).copy_(o_BHTK.transpose(1, 2))


def joined_qkv(source: Weights, layer: int) -> tuple[Tensor, Tensor]:
    """Wq, Wk, Wv as one 3D×D matrix and their biases as one vector, of the parameters or of their gradients."""
    d = source[f"{layer}.attn.wq"].shape[1]
    return (
        source.span(f"{layer}.attn.wq", f"{layer}.attn.wv", (3 * d, d)),
        source.span(f"{layer}.attn.bq", f"{layer}.attn.bv", (3 * d,)),
    )


def forward(
    model: Model,
    kernels: Kernels,
    acts: Activations,
    inputs_BT: Tensor,
    *,
    positions_BT: Tensor | None = None,
    documents_BT: Tensor | None = None,
    dropout: Key | None = None,
    cache: Cache | None = None,
    probe: Probe | None = None,
) -> Tensor:
    """Run the layers and return n = LN_f(x) as [N, D], a view of the buffers.

    positions_BT: None for the column number.  documents_BT: None for no mask.  dropout: None in evaluation.
    cache: keys and values are appended to it and attention reads it (positions must be given then).
    """
    p, c, k = model.params, model.config, kernels
    see: Probe = probe or (lambda layer, op, tensor: None)
    x = acts.layers[0].x_ND
    k.embedding_forward(inputs_BT, positions_BT, p["tok"], p["pos"], x)
    see(None, "embedding", x)
    for i, a in enumerate(acts.layers):
        k.layernorm_forward(x, p[f"{i}.ln1.g"], p[f"{i}.ln1.b"], a.ln1_ND, *a.ln1_stats)
        see(i, "ln1", a.ln1_ND)
        w, b = joined_qkv(p, i)
        k.linear_forward(a.ln1_ND, w, b, acts.joint_N3D)
        see(i, "attn.qkv", acts.joint_N3D)
        split_heads(acts.joint_N3D, a.qkv_3BHTK)
        keys, values, offset = a.qkv_3BHTK[1], a.qkv_3BHTK[2], 0
        if cache is not None:
            offset = cache.length
            cache.k_LBHSK[i][:, :, offset : offset + keys.shape[2]] = keys
            cache.v_LBHSK[i][:, :, offset : offset + keys.shape[2]] = values
            keys, values = cache.k_LBHSK[i], cache.v_LBHSK[i]
        k.attention_forward(
            a.qkv_3BHTK[0],
            keys,
            values,
            acts.o_BHTK,
            a.lse_BHT,
            acts.blocks,
            documents_BT=documents_BT,
            offset=offset,
            dropout=(dropout, c.attention_dropout, i) if dropout and c.attention_dropout else None,
        )
        see(i, "attn", acts.o_BHTK)
        merge_heads(acts.o_BHTK, a.heads_ND)
        k.linear_forward(a.heads_ND, p[f"{i}.attn.wo"], p[f"{i}.attn.bo"], acts.branch_ND)
        see(i, "attn.out", acts.branch_ND)
        _drop(k, acts, a, i, ATTENTION_OUTPUT, dropout, c.dropout)
        torch.add(x, acts.branch_ND, out=a.mid_ND)
        k.layernorm_forward(a.mid_ND, p[f"{i}.ln2.g"], p[f"{i}.ln2.b"], a.ln2_ND, *a.ln2_stats)
        see(i, "ln2", a.ln2_ND)
        k.linear_forward(a.ln2_ND, p[f"{i}.ffn.w1"], p[f"{i}.ffn.b1"], a.pre_NF)
        see(i, "ffn.w1", a.pre_NF)
        k.activation_forward(a.pre_NF, a.post_NF)
        see(i, "ffn.gelu", a.post_NF)
        k.linear_forward(a.post_NF, p[f"{i}.ffn.w2"], p[f"{i}.ffn.b2"], acts.branch_ND)
        see(i, "ffn.w2", acts.branch_ND)
        _drop(k, acts, a, i, FEED_FORWARD_OUTPUT, dropout, c.dropout)
        x = acts.layers[i + 1].x_ND if i + 1 < c.layers else acts.last_ND
        torch.add(a.mid_ND, acts.branch_ND, out=x)
        see(i, "residual", x)
    if cache is not None:
        cache.length += inputs_BT.shape[1]
    k.layernorm_forward(x, p["lnf.g"], p["lnf.b"], acts.normed_ND, *acts.normed_stats)
    see(None, "lnf", acts.normed_ND)
    return acts.normed_ND


def _drop(k: Kernels, acts: Activations, a: LayerActivations, layer: int, site: int, key: Key | None, p: float) -> None:
    """Dropout of the branch about to join the residual stream, in place."""
    if key is None or not p:
        return
    assert a.masks is not None
    mask = a.masks[0 if site == ATTENTION_OUTPUT else 1]
    k.dropout_mask(key, p, layer, site, mask)
    k.dropout_apply(acts.branch_ND, mask.view_as(acts.branch_ND), p, acts.branch_ND)
