"""How far rounding can move the results of a whole training step: the ops' bounds, carried through the network.

Composing the ops' bounds by absolute values is rigorous but useless here: two layers, forward and backward, make it
about 1e13·u, because every cancellation of a layer norm or a softmax is forgotten. So the errors are carried by the
derivative itself. To first order the error of an output is Σ_i J_i·δ_i over all roundings δ_i of all ops, with
|δ_i| ≤ e_i, the a priori bound of the op at its exact inputs (judges/bounds.py). The roundings are modelled as
independent with mean zero, as in Higham & Mary, "A new approach to probabilistic rounding error analysis" (SIAM J. Sci.
Comput. 41, 2019); then by Hoeffding's inequality

    P(|Σ J_i·δ_i| > λ·s) ≤ 2·exp(−λ²/2),      s² = Σ J_i²·e_i².

s is measured: the explicit step is evaluated with every op's output moved by ±e_i, signs at random, with a unit
roundoff u₀ = 2⁻³⁶, far above float64's and far below where curvature matters; the root mean square of the changes
estimates s·u₀/u. λ = 8 (2·exp(−32) ≈ 3e-14) leaves room for the error of that estimate and for roundings that are
not independent, whose true size is well below e_i.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from judges import bounds as B
from judges.bounds import Bounded
from judges.plain_model import Drop, Read

PROBE = 2.0**-36  # u₀
SAMPLES = 8
LAMBDA = 8.0


def explicit_step(
    weights: Mapping[str, Tensor],
    layers: int,
    heads: int,
    batch: Read,
    *,
    activation: str = "gelu_tanh",
    smoothing: float = 0.0,
    drop: Drop | None = None,
    signs: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Logits, losses per row and all gradients in float64; with `signs`, every op's output is moved by ± its bound."""

    def r(x: Bounded) -> Bounded:
        if signs is None:
            return Bounded(x.v, x.u)
        sign = torch.randint(2, x.v.shape, generator=signs).double().mul_(2).sub_(1)
        return Bounded(x.v + sign * x.e, x.u)

    def rs(xs: tuple[Bounded, ...]) -> list[Bounded]:
        return [r(x) for x in xs]

    p = {name: Bounded(w, PROBE) for name, w in weights.items()}
    b, t = batch.inputs.shape
    vocab, d = weights["tok"].shape
    n_rows, k = b * t, d // heads
    tokens, positions, targets = (x.reshape(-1) for x in (batch.inputs, batch.positions, batch.targets))
    allowed = batch.allowed.expand(b, heads, t, t)
    head = "head.w" if "head.w" in p else "tok"
    rate = drop.attention if drop else 0.0

    def split(x: Bounded) -> Bounded:
        return x.reshape(b, t, heads, k).transpose(1, 2)

    def merge(x: Bounded) -> Bounded:
        return x.transpose(1, 2).reshape(n_rows, d)

    def mask(layer: int, site: int) -> Tensor | None:
        found = drop.hidden_mask(layer, site, (b, t, d)) if drop else None
        return None if found is None else found.view(n_rows, d)

    def dropped(x: Bounded, keep: Tensor | None) -> Bounded:
        return x if keep is None else r(B.dropout(x, keep, drop.hidden))

    x = r(B.embedding_forward(tokens, positions, p["tok"], p["pos"]))
    kept = []
    for i in range(layers):
        w = {name.removeprefix(f"{i}."): v for name, v in p.items() if name.startswith(f"{i}.")}
        ln1, *stats1 = rs(B.layernorm_forward(x, w["ln1.g"], w["ln1.b"]))
        qkv = [split(r(B.linear_forward(ln1, w[f"attn.w{c}"], w[f"attn.b{c}"]))) for c in "qkv"]
        keep = drop.attention_mask(i, (b, heads, t, t)) if drop else None
        o, lse = rs(B.attention_forward(*qkv, allowed, keep, rate))
        o, mask1, mask2 = merge(o), mask(i, 2), mask(i, 3)
        mid = r(x + dropped(r(B.linear_forward(o, w["attn.wo"], w["attn.bo"])), mask1))
        ln2, *stats2 = rs(B.layernorm_forward(mid, w["ln2.g"], w["ln2.b"]))
        pre = r(B.linear_forward(ln2, w["ffn.w1"], w["ffn.b1"]))
        found = B.gelu(pre, activation)
        if activation == "gelu_tanh":  # the engine's form and the judge's
            found = tuple(B.either(a, b) for a, b in zip(found, B.gelu_textbook(pre), strict=True))
        post, slope = rs(found)
        kept.append((w, x, ln1, stats1, qkv, lse, keep, o, mask1, mid, ln2, stats2, post, slope, mask2))
        x = r(mid + dropped(r(B.linear_forward(post, w["ffn.w2"], w["ffn.b2"])), mask2))
    n, *stats = rs(B.layernorm_forward(x, p["lnf.g"], p["lnf.b"]))
    logits = r(B.linear_forward(n, p[head], None))
    losses, _, dz = rs(B.cross_entropy(logits, targets, smoothing))

    g: dict[str, Bounded] = {}
    dn, g[head], _ = rs(B.linear_backward(dz, n, p[head]))
    dx, g["lnf.g"], g["lnf.b"] = rs(B.layernorm_backward(dn, x, *stats, p["lnf.g"]))
    for i in reversed(range(layers)):
        w, x, ln1, stats1, qkv, lse, keep, o, mask1, mid, ln2, stats2, post, slope, mask2 = kept[i]
        layer: dict[str, Bounded] = {}
        dpost, layer["ffn.w2"], layer["ffn.b2"] = rs(B.linear_backward(dropped(dx, mask2), post, w["ffn.w2"]))
        dln2, layer["ffn.w1"], layer["ffn.b1"] = rs(B.linear_backward(r(dpost * slope), ln2, w["ffn.w1"]))
        dmid, layer["ln2.g"], layer["ln2.b"] = rs(B.layernorm_backward(dln2, mid, *stats2, w["ln2.g"]))
        dx = r(dx + dmid)
        do, layer["attn.wo"], layer["attn.bo"] = rs(B.linear_backward(dropped(dx, mask1), o, w["attn.wo"]))
        dqkv = [merge(y) for y in rs(B.attention_backward(split(do), *qkv, lse, allowed, keep, rate))]
        for c, dy in zip("qkv", dqkv, strict=True):
            _, layer[f"attn.w{c}"], layer[f"attn.b{c}"] = rs(B.linear_backward(dy, ln1, w[f"attn.w{c}"]))
        joint = Bounded.cat([w[f"attn.w{c}"] for c in "qkv"], 0)
        dln1 = r(Bounded.cat(dqkv, 1) @ joint)  # one product of length 3D
        dprevious, layer["ln1.g"], layer["ln1.b"] = rs(B.layernorm_backward(dln1, x, *stats1, w["ln1.g"]))
        dx = r(dx + dprevious)
        g |= {f"{i}.{name}": bound for name, bound in layer.items()}
    g["tok"] = r(B.scatter(dx, tokens, g.get("tok", Bounded(torch.zeros(vocab, d), PROBE))))
    g["pos"] = r(B.scatter(dx, positions, Bounded(torch.zeros_like(weights["pos"]), PROBE)))
    return {"logits": logits.v, "losses": losses.v} | {name: g[name].v for name in weights}


def sensitivity(
    weights: Mapping[str, Tensor], layers: int, heads: int, batch: Read, **options: object
) -> dict[str, Tensor]:
    """λ·s/u of every logit, loss and gradient entry: times a unit roundoff it is the bound on the entry's error."""
    middle = explicit_step(weights, layers, heads, batch, **options)
    squares = {name: torch.zeros_like(x) for name, x in middle.items()}
    for sample in range(SAMPLES):
        signs = torch.Generator().manual_seed(sample)
        moved = explicit_step(weights, layers, heads, batch, signs=signs, **options)
        for name, x in moved.items():
            squares[name] += (x - middle[name]).square_()
    return {name: (x / SAMPLES).sqrt_() * (LAMBDA / PROBE) for name, x in squares.items()}
