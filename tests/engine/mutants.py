"""Wrong formulas, each a mistake that people make. The tests put them through the checks of the healthy kernels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from cllm.engine import attention, cross_entropy, gelu, layernorm, linear
from cllm.engine.dispatch import Kernels


def _layernorm_backward(mean_term: bool = True, normal_term: bool = True, less: int = 0, gain: bool = True):
    def backward(dy, x, mean, rstd, g, dx, rounded, dg, db):
        n = x.shape[1] - less
        normal = (x - mean) * rstd
        dg.add_((dy * normal).sum(0))
        db.add_(dy.sum(0))
        hat = dy * g
        inner = hat if gain else dy
        out = hat.clone()
        if mean_term:
            out -= hat.sum(1, keepdim=True) / n
        if normal_term:
            out -= normal * (inner * normal).sum(1, keepdim=True) / n
        dx.add_(out * rstd)
        rounded.copy_(dx)

    return backward


def _layernorm_forward(less: int = 0, eps: float = 1e-5, eps_outside: bool = False):
    def forward(x, g, b, y, mean, rstd):
        mean.copy_(x.mean(1, keepdim=True))
        variance = ((x - mean) ** 2).sum(1, keepdim=True) / (x.shape[1] - less)
        rstd.copy_(1 / (variance.sqrt() + eps) if eps_outside else (variance + eps).rsqrt())
        y.copy_((x - mean) * rstd * g + b)

    return forward


def _overwriting(function: Callable[..., None], *outputs: int) -> Callable[..., None]:
    """'=' where '+=' belongs: the listed arguments are zeroed first."""

    def wrong(*args, **kwargs):
        for i in outputs:
            if args[i] is not None:
                args[i].zero_()
        function(*args, **kwargs)

    return wrong


def _embedding_last_wins(dx, tokens, positions, de, dp):
    for row, token in zip(dx, tokens.reshape(-1).tolist(), strict=True):
        de[token] = de[token] * 0 + row
    columns = torch.arange(tokens.shape[1]).expand_as(tokens) if positions is None else positions
    dp.index_add_(0, columns.reshape(-1), dx)


def _embedding_next_position(dx, tokens, positions, de, dp):
    de.index_add_(0, tokens.reshape(-1), dx)
    columns = torch.arange(tokens.shape[1]).expand_as(tokens) if positions is None else positions
    dp.index_add_(0, columns.reshape(-1) + 1, dx)


def _bias_averaged(dy, x, dw, db):
    linear.linear_backward_weight(dy, x, dw, None)
    if db is not None:
        db.add_(dy.mean(0))


def _tail_rows_dropped(dy, x, dw, db):
    linear.linear_backward_weight(dy[:-1], x[:-1], dw, None)
    if db is not None:
        db.add_(dy.sum(0))


def _gelu_sigmoid_backward(x, dy):
    s = torch.sigmoid(1.702 * x)
    dy.mul_(s + 1.702 * x * s * (1 - s))


def _gelu_seven_digits(x, y):
    y.copy_(0.5 * x * (1 + torch.tanh(0.7978846 * (x + 0.044715 * x**3))))


def _ignored_counted(z, targets, smoothing, loss, lse, dz):
    _loss_and(
        lambda *out: cross_entropy.cross_entropy(z, targets.clamp_min(0), smoothing, *out), loss, lse, dz, targets
    )


def _padded_count(z, targets, smoothing, loss, lse, dz):
    cross_entropy.cross_entropy(z, targets, smoothing, loss, lse, dz)
    if dz is not None:
        dz.mul_(float((targets >= 0).sum()) / targets.numel())


def _smoothing_forgotten(z, targets, smoothing, loss, lse, dz):
    right = z.clone()
    cross_entropy.cross_entropy(z, targets, 0.0, loss, lse, dz)
    cross_entropy.cross_entropy(right, targets, smoothing, loss, lse, None)


def _loss_and(run, loss, lse, dz, targets):
    """Only dz is wrong: the loss of ignored rows is 0."""
    run(loss, lse, dz)
    loss.masked_fill_(targets < 0, 0.0)


def _dropout_unscaled(x, mask, p, y):
    torch.mul(x, mask, out=y)


def _dropout_next_step(key, p, layer, site, mask):
    from cllm.engine.dropout import dropout_mask

    dropout_mask(replace(key, step=key.step + 1), p, layer, site, mask)


def _attention_no_root(dheads, qkv, heads, lse, dqkv, *rest, **kwargs):
    attention.multihead_backward(dheads, qkv, heads, lse, dqkv, *rest, **kwargs)
    d, root = heads.shape[1], math.sqrt(heads.shape[1] // lse.shape[1])
    dqkv[:, : 2 * d] *= root


def _attention_no_rowsum(dheads, qkv, heads, lse, dqkv, *rest, **kwargs):
    b, h, t = lse.shape
    q, k, v, do = (x.view(b, t, h, -1).transpose(1, 2).to(lse.dtype) for x in (*qkv.chunk(3, 1), dheads))
    root = math.sqrt(q.shape[3])
    future = torch.ones(t, t, dtype=torch.bool).triu(1)
    a = ((q @ k.mT) / root).masked_fill(future, -math.inf).sub(lse.unsqueeze(3)).exp()
    ds = (do @ v.mT) * a / root
    parts = (ds @ k, ds.mT @ q, a.mT @ do)
    dqkv.copy_(torch.cat([x.transpose(1, 2).reshape(b * t, -1) for x in parts], dim=1))


@contextmanager
def patched(module: object, name: str, value: object) -> Iterator[None]:
    old = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, old)


def _with_scores(wrong: Callable[..., None], forward: bool, backward: bool) -> dict[str, Callable[..., None]]:
    """The engine's attention with another score function, in one direction or both."""

    def inside(function: Callable[..., None]) -> Callable[..., None]:
        def call(*args, **kwargs):
            with patched(attention, "_scores", wrong):
                function(*args, **kwargs)

        return call

    out: dict[str, Callable[..., None]] = {}
    if forward:
        out["attention_forward"] = inside(attention.multihead_forward)
    if backward:
        out["attention_backward"] = inside(attention.multihead_backward)
    return out


_scores = attention._scores


def _scores_no_root(q, k, s, *rest):
    _scores(q, k, s, *rest)
    s.mul_(math.sqrt(q.shape[2]))


def _scores_see_next(q, k, s, queries, offset, documents, heads, future):
    _scores(q, k, s, queries, offset, documents, heads, future.roll(1, 1) & future)


def _scores_blind_to_self(q, k, s, queries, offset, documents, heads, future):
    wider = future | torch.eye(len(future), dtype=torch.bool)
    wider[0, 0] = False
    _scores(q, k, s, queries, offset, documents, heads, wider)


def _scores_minus_ten(q, k, s, *rest):
    torch.baddbmm(s, q, k.transpose(1, 2), beta=0.0, alpha=1.0 / math.sqrt(q.shape[2]), out=s)
    plain = s.clone()
    _scores(q, k, s, *rest)
    s.copy_(torch.where(s.isinf(), plain - 10.0, s))


def _scores_other_documents(q, k, s, queries, offset, documents, heads, future):
    _scores(q, k, s, queries, offset, None, heads, future)


def _last_tile_of_dv_skipped(dheads, qkv, heads, lse, dqkv, *rest, **kwargs):
    attention.multihead_backward(dheads, qkv, heads, lse, dqkv, *rest, **kwargs)
    dqkv.view(lse.shape[0], lse.shape[2], 3, -1)[:, -1, 2].zero_()


Change = dict[str, Callable[..., None]]

LAYERNORM: dict[str, Change] = {
    "layer norm backward without the mean term": {"layernorm_backward": _layernorm_backward(mean_term=False)},
    "layer norm backward without the x̂ term": {"layernorm_backward": _layernorm_backward(normal_term=False)},
    "layer norm backward with 1/(n−1)": {"layernorm_backward": _layernorm_backward(less=1)},
    "layer norm backward, x̂ term without gain": {"layernorm_backward": _layernorm_backward(gain=False)},
    "layer norm dx '=' instead of '+='": {"layernorm_backward": _overwriting(layernorm.layernorm_backward, 5)},
    "layer norm dγ '=' instead of '+='": {"layernorm_backward": _overwriting(layernorm.layernorm_backward, 7)},
    "layer norm variance with n−1": {"layernorm_forward": _layernorm_forward(less=1)},
    "layer norm ε 1e-6": {"layernorm_forward": _layernorm_forward(eps=1e-6)},
    "layer norm ε outside the root": {"layernorm_forward": _layernorm_forward(eps_outside=True)},
}
LINEAR: dict[str, Change] = {
    "bias gradient averaged": {"linear_backward_weight": _bias_averaged},
    "tail row of dW dropped": {"linear_backward_weight": _tail_rows_dropped},
    "dW '=' instead of '+='": {"linear_backward_weight": _overwriting(linear.linear_backward_weight, 2)},
    "db '=' instead of '+='": {"linear_backward_weight": _overwriting(linear.linear_backward_weight, 3)},
    "forward without the bias": {"linear_forward": lambda x, w, b, y, r: linear.linear_forward(x, w, None, y, r)},
}
EMBEDDING: dict[str, Change] = {
    "embedding gradient '=' instead of '+='": {"embedding_backward": _embedding_last_wins},
    "position row off by one": {"embedding_backward": _embedding_next_position},
}
GELU: dict[str, Change] = {  # of the tanh form
    "gelu backward of the other form": {"linear_gelu_backward_input": gelu.fused_backward(gelu.gelu_erf_backward)},
    "gelu backward of the sigmoid form": {"linear_gelu_backward_input": gelu.fused_backward(_gelu_sigmoid_backward)},
}
NOT_IN_BF16: dict[str, Change] = {  # below bfloat16's own rounding
    "gelu forward of the other form": {
        "linear_gelu_forward": gelu.fused_forward(gelu.gelu_erf_forward),
        "gelu_forward": gelu.gelu_erf_forward,
    },
}
GELU_ERF: dict[str, Change] = {
    "gelu(erf) backward of the other form": {
        "linear_gelu_backward_input": gelu.fused_backward(gelu.gelu_tanh_backward)
    },
}
ATTENTION: dict[str, Change] = {
    "softmax backward without 1/√K": {"attention_backward": _attention_no_root},
    "softmax without 1/√K": _with_scores(_scores_no_root, True, True),
    "softmax backward without the row sum": {"attention_backward": _attention_no_rowsum},
    "causal mask off by one, both": _with_scores(_scores_see_next, True, True),
    "causal mask off by one, backward": _with_scores(_scores_see_next, False, True),
    "causal mask hides the query itself": _with_scores(_scores_blind_to_self, True, True),
    "mask −10 instead of −∞": _with_scores(_scores_minus_ten, True, True),
    "last tile of dV skipped": {"attention_backward": _last_tile_of_dv_skipped},
}
DOCUMENTS: dict[str, Change] = {
    "document mask ignored": _with_scores(_scores_other_documents, True, True),
    "document mask ignored in backward": _with_scores(_scores_other_documents, False, True),
}
CROSS_ENTROPY: dict[str, Change] = {
    "ignored targets counted": {"cross_entropy": _ignored_counted},
    "divided by the padded count in backward": {"cross_entropy": _padded_count},
    "label smoothing forgotten in backward": {"cross_entropy": _smoothing_forgotten},
}
DROPOUT: dict[str, Change] = {
    "dropout without 1/(1−p)": {"dropout_apply": _dropout_unscaled},
    "dropout mask of another step": {"dropout_mask": _dropout_next_step},
}
ONLY_FLOAT64: dict[str, Change] = {  # below float32's own rounding
    "gelu constant to 7 digits": {
        "linear_gelu_forward": gelu.fused_forward(_gelu_seven_digits),
        "gelu_forward": _gelu_seven_digits,
    },
}


def planted(kernels: Kernels, change: Change) -> Kernels:
    return replace(kernels, **change)
