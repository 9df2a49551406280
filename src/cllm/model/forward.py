"""The forward pass, written once: training, evaluation, prefill and cached decoding all run this code.

x = E[t] + P[pos]; per layer x += Drop(Wo·MHA(LN1 x)); x += Drop(FFN(LN2 x)); n = LN_f x.
The lattice options enter in three places: the position table (`position_table`), the turned embedding, and rotations
and a bias in the attention (docs/model.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cllm.engine.dispatch import Kernels
from cllm.engine.dropout import ATTENTION_OUTPUT, FEED_FORWARD_OUTPUT, Key
from cllm.model.activations import Activations, LayerActivations
from cllm.model.layout import POSITIONS_MIX, SYMMETRY_BIAS
from cllm.model.model import Model, Operands, Weights

# called with (layer, op, result) behind every op; how a non-finite value's birthplace is found
Probe = Callable[[int | None, str, Tensor], None]


@dataclass
class Cache:
    """Keys and values of the positions seen so far, appended in place: [L, B, H, S, K] each, `length` filled."""

    k_LBHSK: Tensor
    v_LBHSK: Tensor
    length: int = 0
    classes_BS: Tensor | None = None  # symmetry classes, where attention has a bias by them


def unseen(layer: int | None, op: str, result: Tensor) -> None:
    """The probe that looks at nothing."""


def joined_qkv(source: Operands, layer: int) -> Tensor:
    """Wq, Wk, Wv as one 3D×D matrix, of the parameters or of their gradients."""
    d = source[f"{layer}.attn.wq"].shape[1]
    return source.span(f"{layer}.attn.wq", f"{layer}.attn.wv", (3 * d, d))


def joined_bias(source: Weights | Operands, layer: int) -> Tensor:
    """Their biases as one vector."""
    d = source[f"{layer}.attn.bq"].shape[0]
    return source.span(f"{layer}.attn.bq", f"{layer}.attn.bv", (3 * d,))


@dataclass
class Pass:
    """What every layer of a forward pass needs: `layer` computes one layer into its activations.

    documents_BT: None for no mask.  dropout: None in evaluation.  cache: keys and values are appended to it and
    attention reads it.  positions_BT: None for the column number.  bias: symmetry classes and the table of the scores'
    bias (made by `forward`).
    """

    model: Model
    kernels: Kernels
    acts: Activations
    documents_BT: Tensor | None = None
    dropout: Key | None = None
    cache: Cache | None = None
    see: Probe = unseen
    positions_BT: Tensor | None = None
    bias: tuple[Tensor, Tensor] | None = None
    _normed: int | None = None  # the layer whose input was normed at the end of the one before

    def layer(self, i: int, x: Tensor, out: Tensor | None) -> None:
        """Layer i from its input x; the new residual stream goes to `out` (None: it is not needed)."""
        k, a, see, c = self.kernels, self.acts.layers[i], self.see, self.model.config
        p, w = self.model.params, self.model.operands
        if self._normed != i:
            k.layernorm_forward(x, p[f"{i}.ln1.g"], p[f"{i}.ln1.b"], a.ln1_ND, *a.ln1_stats)
        self._normed = None
        see(i, "ln1", a.ln1_ND)
        k.linear_forward(a.ln1_ND, joined_qkv(w, i), joined_bias(p, i), a.qkv_N3D, None)
        see(i, "attn.qkv", a.qkv_N3D)
        self.turn(a.qkv_N3D)
        self._attention(i, a)
        see(i, "attn", a.heads_ND)
        self._branch(
            i, ATTENTION_OUTPUT, a.heads_ND, w[f"{i}.attn.wo"], p[f"{i}.attn.bo"], x, a.mid_ND,
            f"{i}.ln2", a.ln2_ND, a.ln2_stats,
        )  # fmt: skip
        see(i, "attn.out", a.mid_ND)
        see(i, "ln2", a.ln2_ND)
        k.linear_gelu_forward(a.ln2_ND, w[f"{i}.ffn.w1"], p[f"{i}.ffn.b1"], a.pre_NF, a.post_NF)
        see(i, "ffn.w1", a.pre_NF)
        see(i, "ffn.gelu", a.post_NF)
        if out is not None:
            norm, normed, statistics = self._next_norm(i)
            self._branch(
                i, FEED_FORWARD_OUTPUT, a.post_NF, w[f"{i}.ffn.w2"], p[f"{i}.ffn.b2"], a.mid_ND, out,
                norm, normed, statistics,
            )  # fmt: skip
            self._normed = i + 1
            see(i, "ffn.w2", out)
        elif self.dropout is not None and c.dropout and a.masks is not None:
            k.dropout_mask(self.dropout, c.dropout, i, FEED_FORWARD_OUTPUT, a.masks[1])

    def turn(self, qkv_N3D: Tensor, *, inverse: bool = False) -> None:
        """Rotary positions: turn Q and K (or their gradients back) in place."""
        c, acts = self.model.config, self.acts
        if c.positions == "rope":
            cos, sin = self.model.tables["rope.cos"], self.model.tables["rope.sin"]
            shape = acts.batch, acts.sequence, c.heads
            self.kernels.rope(
                qkv_N3D, cos, sin, self.positions_BT, shape=shape, interleaved=c.rope_interleaved, inverse=inverse
            )

    def _attention(self, i: int, a: LayerActivations) -> None:
        k, cache, p = self.kernels, self.cache, self.model.config.attention_dropout
        scratch = self.acts.attention_scratch
        if cache is not None:
            keys, values = cache.k_LBHSK[i], cache.v_LBHSK[i]
            k.attention_cached(
                a.qkv_N3D, keys, values, a.heads_ND, a.lse_BHT, scratch, offset=cache.length, bias=self.bias
            )
            return
        dropout = (self.dropout, p, i) if self.dropout and p else None
        options = {"documents_BT": self.documents_BT, "dropout": dropout, "bias": self.bias}
        k.attention_forward(a.qkv_N3D, a.heads_ND, a.lse_BHT, scratch, **options)

    def _next_norm(self, i: int) -> tuple[str, Tensor, tuple[Tensor, Tensor]]:
        """The norm behind layer i: its name, and where its result and statistics go."""
        acts = self.acts
        if i + 1 == self.model.config.layers:
            return "lnf", acts.normed_ND, acts.normed_stats
        return f"{i + 1}.ln1", acts.layers[i + 1].ln1_ND, acts.layers[i + 1].ln1_stats

    def _branch(
        self, i: int, site: int, inner: Tensor, w: Tensor, b: Tensor, x: Tensor, out: Tensor,
        norm: str, normed: Tensor, statistics: tuple[Tensor, Tensor],
    ) -> None:  # fmt: skip
        """out = x + Drop(inner·Wᵀ + b): the end of a branch, joined to the residual stream; and the norm of it."""
        k, p, g, shift = self.kernels, self.model.config.dropout, *self._gains(norm)
        drops = self.dropout is not None and p
        if k.linear_norm_forward is not None and not drops:
            k.linear_norm_forward(inner, w, b, x, out, g, shift, normed, *statistics)
            return
        if not drops:
            k.linear_forward(inner, w, b, out, x)
        else:
            masks, branch = self.acts.layers[i].masks, self.acts.branch_ND
            assert masks is not None
            assert branch is not None
            k.linear_forward(inner, w, b, branch, None)
            mask = masks[0 if site == ATTENTION_OUTPUT else 1]
            k.dropout_mask(self.dropout, p, i, site, mask)
            k.dropout_apply(branch, mask.view_as(branch), p, branch)
            torch.add(x, branch, out=out)
        k.layernorm_forward(out, g, shift, normed, *statistics)

    def _gains(self, norm: str) -> tuple[Tensor, Tensor]:
        return self.model.params[f"{norm}.g"], self.model.params[f"{norm}.b"]


def position_table(model: Model, scratch_SD: Tensor | None) -> Tensor | None:
    """The table of additive positions [T, D]: learned, fixed, or a mix of both (written to `scratch_SD`); None for
    rotary positions."""
    c, p = model.config, model.params
    if c.positions == "learned":
        return p["pos"]
    if "positions.parts" not in model.tables:
        return model.tables.get("positions")
    assert scratch_SD is not None
    weights = mix_weights(model)
    torch.mul(p["pos"], weights[3], out=scratch_SD)
    for part, weight in zip(model.tables["positions.parts"], weights[:3], strict=True):
        torch.addcmul(scratch_SD, part, weight, out=scratch_SD)
    return scratch_SD


def mix_weights(model: Model) -> Tensor:
    """The weights of (spiral, clock, prime, learned) in a mix, [4]."""
    if model.config.positions_mix_trainable:
        return model.params[POSITIONS_MIX]
    return torch.tensor(model.config.positions_mix, dtype=torch.float64).to(model.dtype).to(model.device)


def symmetry_bias(model: Model) -> Tensor | None:
    """β·ln M by pair of classes [12, 12], in the precision of sums; None without a bias."""
    if model.symmetry is None:
        return None
    c = model.config
    beta = float(model.params[SYMMETRY_BIAS]) if c.symmetry_bias_trainable else c.symmetry_bias
    return (model.symmetry[1] * beta).to(model.dtype)


def forward(run: Pass, inputs_BT: Tensor, positions_BT: Tensor | None = None) -> Tensor:
    """Run all layers and return n = LN_f(x) as [N, D], one of the buffers.

    positions_BT: None for the column number (with a cache they must be given).
    """
    model, k, acts, see = run.model, run.kernels, run.acts, run.see
    layers = model.config.layers
    run.positions_BT, run.bias = positions_BT, _bias(run, inputs_BT)
    x = acts.layers[0].x_ND
    embedded = x if acts.embedded_ND is None else acts.embedded_ND
    table = position_table(model, acts.table_SD)
    k.embedding_forward(inputs_BT, positions_BT, model.operands["tok"], table, embedded)
    if acts.embedded_ND is not None:
        torch.mm(embedded, model.tables["transform"].t(), out=x)
    see(None, "embedding", x)
    for i in range(layers):
        out = acts.layers[i + 1].x_ND if i + 1 < layers else acts.last_ND
        run.layer(i, x, out)
        x = out
    if run.cache is not None:
        run.cache.length += inputs_BT.shape[1]
    see(None, "lnf", acts.normed_ND)
    return acts.normed_ND


def _bias(run: Pass, inputs_BT: Tensor) -> tuple[Tensor, Tensor] | None:
    """The classes of all keys and the scores' bias by pair of classes; with a cache the new classes are appended."""
    table = symmetry_bias(run.model)
    if table is None or run.model.symmetry is None:
        return None
    classes_BT = run.model.symmetry[0][inputs_BT]
    cache = run.cache
    if cache is None:
        return classes_BT, table
    assert cache.classes_BS is not None
    end = cache.length + inputs_BT.shape[1]
    cache.classes_BS[:, cache.length : end] = classes_BT
    return cache.classes_BS[:, :end].contiguous(), table
