"""Mistakes that people make in a training step, planted on purpose: the test of the tester.

A `Mutant` turns healthy kernels into wrong ones, or the step into a wrong one. Nothing is patched: a mutant is another
`Kernels` value, or a subclass of `Step`, made afresh for each run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cllm.engine import cross_entropy, gelu, linear
from cllm.engine.dispatch import Kernels
from cllm.model.step import Step

Change = dict[str, Callable[..., None]]


@dataclass(frozen=True)
class Mutant:
    """name: the mistake.  op: where a tester should point.  change: kernels → the ones to replace.
    step: the step's class.  scene: which of the tester's inputs it needs.  scene "adamw": found by the step check."""

    name: str
    op: str
    change: Callable[[Kernels], Change] = lambda kernels: {}
    step: type[Step] = Step
    scene: str = "padded"

    def kernels(self, healthy: Kernels) -> Kernels:
        changed: dict[str, Any] = {**self.change(healthy)}
        return replace(healthy, **changed)


def just(**change: Callable[..., None]) -> Callable[[Kernels], Change]:
    return lambda kernels: change


# ---------------------------------------------------------------------------------------------------- layer norm


def layernorm_forward(less: int = 0, eps: float = 1e-5, outside: bool = False, bf16: bool = False) -> Any:
    def forward(x: Tensor, g: Tensor, b: Tensor, y: Tensor, mean: Tensor, rstd: Tensor) -> None:
        mean.copy_(x.mean(1, keepdim=True))
        if bf16:
            mean.copy_(mean.bfloat16())
        variance = ((x - mean) ** 2).sum(1, keepdim=True) / (x.shape[1] - less)
        if bf16:
            variance = variance.bfloat16().to(x.dtype)
        rstd.copy_(1 / (variance.sqrt() + eps) if outside else (variance + eps).rsqrt())
        y.copy_((x - mean) * rstd * g + b)

    return forward


def layernorm_backward(mean_term: bool = True, less: int = 0, gain: bool = True) -> Any:
    def backward(
        dy: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, g: Tensor, dx: Tensor, rounded: Tensor | None, dg: Tensor,
        db: Tensor,
    ) -> None:  # fmt: skip
        n = x.shape[1] - less
        normal = (x - mean) * rstd
        dg.add_((dy * normal).sum(0))
        db.add_(dy.sum(0))
        hat = dy * g
        inner = (hat if gain else dy) * normal
        out = hat - normal * inner.sum(1, keepdim=True) / n
        if mean_term:
            out -= hat.sum(1, keepdim=True) / n
        dx.add_(out * rstd)

    return backward


def residual_dropped(kernels: Kernels) -> Change:
    """The second norm on the way back forgets the gradient that runs past it."""
    calls = 0

    def backward(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            args[5].zero_()
        kernels.layernorm_backward(*args)

    return {"layernorm_backward": backward}


# ---------------------------------------------------------------------------------------------------- gelu


def gelu_sigmoid_backward(x: Tensor, dy: Tensor) -> None:
    s = torch.sigmoid(1.702 * x)
    dy.mul_(s + 1.702 * x * s * (1 - s))


def gelu_seven_digits(x: Tensor, y: Tensor) -> None:
    y.copy_(0.5 * x * (1 + torch.tanh(0.7978846 * (x + 0.044715 * x**3))))


# ---------------------------------------------------------------------------------------------------- attention


def attention(
    *,
    forward: bool = False,
    see_next: bool = False,
    masked: float = -math.inf,
    root: bool = True,
    strict: bool = False,
    documents: bool = True,
) -> Callable[[Kernels], Change]:
    """Attention with whole matrices, and one mistake: in the backward, and in the forward too if `forward`.

    see_next: the mask lets a query see the next key.  masked: what a forbidden score becomes (added if finite).
    root: dQ and dK with 1/√K.  strict: the inner sum leaves out the query's own key.  documents: heeded.
    """

    def scores(q: Tensor, k: Tensor, documents_BT: Tensor | None) -> Tensor:
        t = q.shape[2]
        future = torch.ones(t, t, dtype=torch.bool).triu(2 if see_next else 1)
        if documents_BT is not None and documents:
            future = future | (documents_BT[:, None, :, None] != documents_BT[:, None, None, :])
        s = q @ k.mT / math.sqrt(q.shape[3])
        return s.masked_fill(future, masked) if math.isinf(masked) else torch.where(future, s + masked, s)

    def split(x_ND: Tensor, lse: Tensor, parts: int = 3) -> list[Tensor]:
        b, h, t = lse.shape
        return [part.view(b, t, h, -1).transpose(1, 2) for part in x_ND.chunk(parts, dim=1)]

    def merged(x_BHTK: Tensor) -> Tensor:
        return x_BHTK.transpose(1, 2).flatten(2).flatten(0, 1)

    def run(
        qkv: Tensor, heads: Tensor, lse: Tensor, scratch: Any, *, documents_BT: Tensor | None = None,
        dropout: Any = None, bias: None = None,
    ) -> None:  # fmt: skip
        q, k, v = split(qkv, lse)
        s = scores(q, k, documents_BT)
        lse.copy_(s.logsumexp(3))
        heads.copy_(merged(s.softmax(3) @ v))

    def backward(
        dheads: Tensor, qkv: Tensor, heads: Tensor, lse: Tensor, dqkv: Tensor, scratch: Any, *,
        documents_BT: Tensor | None = None, dropout: Any = None, bias: None = None, dbias_CC: None = None,
    ) -> None:  # fmt: skip
        (q, k, v), (do,) = split(qkv, lse), split(dheads, lse, 1)
        a = (scores(q, k, documents_BT) - lse.unsqueeze(3)).exp()
        da = do @ v.mT
        inner = (da * a).tril(-1 if strict else a.shape[3])
        ds = a * (da - inner.sum(3, keepdim=True)) / (math.sqrt(q.shape[3]) if root else 1.0)
        dqkv.copy_(torch.cat([merged(ds @ k), merged(ds.mT @ q), merged(a.mT @ do)], dim=1))

    return just(attention_backward=backward, **({"attention_forward": run} if forward else {}))


def last_tile_of_dv(kernels: Kernels) -> Change:
    def backward(dheads: Tensor, qkv: Tensor, heads: Tensor, lse: Tensor, dqkv: Tensor, *rest: Any, **kw: Any) -> None:
        kernels.attention_backward(dheads, qkv, heads, lse, dqkv, *rest, **kw)
        dqkv.view(lse.shape[0], lse.shape[2], 3, -1)[:, -1:, 2].zero_()

    return {"attention_backward": backward}


# ---------------------------------------------------------------------------------------------------- the rest


def bias_averaged(dy: Tensor, x: Tensor, dw: Tensor, db: Tensor | None, *, add: bool = True) -> None:
    linear.linear_backward_weight(dy, x, dw, None, add=add)
    if db is not None:
        db.add_(dy.mean(0))


def tail_rows_dropped(dy: Tensor, x: Tensor, dw: Tensor, db: Tensor | None, *, add: bool = True) -> None:
    whole = max(len(x) // 4 * 4, 1)  # as a kernel does that works on four rows at a time
    linear.linear_backward_weight(dy[:whole], x[:whole], dw, None, add=add)
    if db is not None:
        db.add_(dy.sum(0))


def _columns(tokens: Tensor, positions: Tensor | None) -> Tensor:
    return (torch.arange(tokens.shape[1]).expand_as(tokens) if positions is None else positions).reshape(-1)


def last_row_wins(dx: Tensor, tokens: Tensor, positions: Tensor | None, de: Tensor, dp: Tensor) -> None:
    before = de.clone()
    for row, token in zip(dx, tokens.reshape(-1).tolist(), strict=True):
        de[token] = before[token] + row
    dp.index_add_(0, _columns(tokens, positions), dx)


def input_side_missing(dx: Tensor, tokens: Tensor, positions: Tensor | None, de: Tensor, dp: Tensor) -> None:
    dp.index_add_(0, _columns(tokens, positions), dx)


def next_position(dx: Tensor, tokens: Tensor, positions: Tensor | None, de: Tensor, dp: Tensor) -> None:
    de.index_add_(0, tokens.reshape(-1), dx)
    dp.index_add_(0, (_columns(tokens, positions) + 1) % len(dp), dx)


CrossEntropy = Callable[[Tensor, Tensor, float, Tensor, Tensor, Tensor | None], None]


def only_dz(wrong: CrossEntropy) -> CrossEntropy:
    """The loss is right."""

    def run(z: Tensor, targets: Tensor, smoothing: float, loss: Tensor, lse: Tensor, dz: Tensor | None) -> None:
        right = z.clone()
        wrong(z, targets, smoothing, loss, lse, dz)
        cross_entropy.cross_entropy(right, targets, smoothing, loss, lse, None)

    return run


def pads_counted(z: Tensor, targets: Tensor, smoothing: float, loss: Tensor, lse: Tensor, dz: Tensor | None) -> None:
    cross_entropy.cross_entropy(z, targets.clamp_min(0), smoothing, loss, lse, dz)


def padded_count(z: Tensor, targets: Tensor, smoothing: float, loss: Tensor, lse: Tensor, dz: Tensor | None) -> None:
    cross_entropy.cross_entropy(z, targets, smoothing, loss, lse, dz)
    if dz is not None:
        dz.mul_(float((targets >= 0).sum()) / targets.numel())


@only_dz
def smoothing_forgotten(
    z: Tensor, targets: Tensor, smoothing: float, loss: Tensor, lse: Tensor, dz: Tensor | None
) -> None:
    cross_entropy.cross_entropy(z, targets, 0.0, loss, lse, dz)


def dropout_backward_unscaled(kernels: Kernels) -> Change:
    """The way back begins when the loss has its gradient."""
    back = False

    def loss(*args: Any) -> None:
        nonlocal back
        back = back or args[-1] is not None
        kernels.cross_entropy(*args)

    def apply(x: Tensor, mask: Tensor, p: float, y: Tensor) -> None:
        if back:
            torch.mul(x, mask, out=y)
        else:
            kernels.dropout_apply(x, mask, p, y)

    return {"dropout_apply": apply, "cross_entropy": loss}


def dropout_of_next_step(kernels: Kernels) -> Change:
    def mask(key: Any, *args: Any) -> None:
        kernels.dropout_mask(replace(key, step=key.step + 1), *args)

    return {"dropout_mask": mask}


class LabelsShifted(Step):
    """Targets one column too far."""

    def _head(self, normed_ND: Tensor, targets_N: Tensor) -> None:
        super()._head(normed_ND, targets_N.roll(-1))


# ---------------------------------------------------------------------------------------------------- adamw


def adamw(
    *, later: int = 0, v_corrected: bool = True, eps_inside: bool = False, eps_before: bool = False,
    l2: bool = False, decay_rate_twice: bool = False,
) -> Callable[[Kernels], Change]:  # fmt: skip
    def step(
        w: Tensor, g: Tensor, m: Tensor, v: Tensor, *, t: int, lr: float, betas: tuple[float, float], eps: float,
        decay: float, scale: float = 1.0,
    ) -> None:  # fmt: skip
        b1, b2 = betas
        c1, c2 = 1 - b1 ** (t + later), 1 - b2 ** (t + later) if v_corrected else 1.0
        g = g * scale + (decay * w if l2 else 0.0)
        m.mul_(b1).add_(g, alpha=1 - b1)
        v.mul_(b2).addcmul_(g, g, value=1 - b2)
        if eps_inside:
            root = (v / c2 + eps).sqrt()
        elif eps_before:
            root = (v.sqrt() + eps) / math.sqrt(c2)
        else:
            root = (v / c2).sqrt() + eps
        if not l2:
            w.mul_(1 - lr * decay * (lr if decay_rate_twice else 1.0))
        w.sub_(lr * (m / c1) / root)

    return just(adamw=step)


ZOO: tuple[Mutant, ...] = (
    Mutant("layer norm backward without the mean term", "layernorm",
           just(layernorm_backward=layernorm_backward(mean_term=False))),
    Mutant("layer norm backward with 1/(n−1)", "layernorm", just(layernorm_backward=layernorm_backward(less=1))),
    Mutant("layer norm backward, x̂ term without gain", "layernorm",
           just(layernorm_backward=layernorm_backward(gain=False))),
    Mutant("GELU backward of the other form", "gelu",
           just(linear_gelu_backward_input=gelu.fused_backward(gelu.gelu_erf_backward))),
    Mutant("GELU backward of the sigmoid form", "gelu",
           just(linear_gelu_backward_input=gelu.fused_backward(gelu_sigmoid_backward))),
    Mutant("softmax backward without 1/√h", "attention", attention(root=False)),
    Mutant("softmax backward, inner sum over j < i", "attention", attention(strict=True)),
    Mutant("causal mask off by one, backward only", "attention", attention(see_next=True)),
    Mutant("causal mask off by one, both", "attention", attention(see_next=True, forward=True)),
    Mutant("tied embedding without the input side", "embedding", just(embedding_backward=input_side_missing)),
    Mutant("embedding gradient = instead of +=", "embedding", just(embedding_backward=last_row_wins)),
    Mutant("position row off by one", "embedding", just(embedding_backward=next_position)),
    Mutant("bias gradient averaged", "linear", just(linear_backward_weight=bias_averaged)),
    Mutant("residual dropped in one layer", "layernorm", residual_dropped),
    Mutant("dropout backward without 1/(1−p)", "dropout", dropout_backward_unscaled, scene="dropout"),
    Mutant("cross-entropy divides by the padded count, backward", "cross_entropy",
           just(cross_entropy=padded_count)),
    Mutant("cross-entropy counts pads, both", "cross_entropy",
           just(cross_entropy=pads_counted)),
    Mutant("labels shifted", "cross_entropy", step=LabelsShifted),
    Mutant("mask −10 instead of −∞", "attention", attention(masked=-10.0, forward=True)),
    Mutant("layer norm variance with n−1", "layernorm", just(layernorm_forward=layernorm_forward(less=1))),
    Mutant("layer norm statistics in bf16", "layernorm", just(layernorm_forward=layernorm_forward(bf16=True))),
    Mutant("layer norm ε 1e-6", "layernorm", just(layernorm_forward=layernorm_forward(eps=1e-6))),
    Mutant("layer norm ε outside the root", "layernorm", just(layernorm_forward=layernorm_forward(outside=True))),
    Mutant("dW drops the tail rows", "linear", just(linear_backward_weight=tail_rows_dropped), scene="unpadded"),
    Mutant("last tile of dV skipped", "attention", last_tile_of_dv),
    Mutant("GELU constant to 7 digits", "gelu", just(linear_gelu_forward=gelu.fused_forward(gelu_seven_digits))),
    Mutant("AdamW: t off by one", "adamw", adamw(later=1), scene="adamw"),
    Mutant("AdamW: v not corrected", "adamw", adamw(v_corrected=False), scene="adamw"),
    Mutant("AdamW: ε inside the root", "adamw", adamw(eps_inside=True), scene="adamw"),
    Mutant("AdamW: ε before the correction", "adamw", adamw(eps_before=True), scene="adamw"),
    Mutant("AdamW: L2 instead of decoupled decay", "adamw", adamw(l2=True), scene="adamw"),
    Mutant("AdamW: rate applied twice to the decay", "adamw", adamw(decay_rate_twice=True), scene="adamw"),
    # beyond the 32
    Mutant("label smoothing forgotten in backward", "cross_entropy", just(cross_entropy=smoothing_forgotten),
           scene="smoothed"),
    Mutant("dropout mask of another step", "dropout", dropout_of_next_step, scene="dropout"),
    Mutant("document mask ignored, both", "attention", attention(documents=False, forward=True), scene="documents"),
    Mutant("document mask ignored, backward only", "attention", attention(documents=False), scene="documents"),
)  # fmt: skip
