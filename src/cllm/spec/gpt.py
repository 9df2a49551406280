"""The model: its forward pass and loss, written once, over any number system.

GPT-2's architecture with pre-norm layers. Arrays are (B·T)×D: row b·T + t is column t of batch row b. Weights are
out×in. Parameter names: tok, pos, {layer}.ln1.g …, lnf.g, lnf.b, head.w.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cllm.errors import ConfigError
from cllm.spec import lattice
from cllm.spec.batch import Batch
from cllm.spec.philox import ATTENTION_OUTPUT, ATTENTION_PROBABILITIES, FEED_FORWARD_OUTPUT, kept
from cllm.spec.system import SQRT_2_OVER_PI, SQRT_HALF, Bools, Indices, System, inverse_sqrt

A = TypeVar("A")
LAYERNORM_EPS = Fraction(1, 100000)
GELU_CUBIC = Fraction(44715, 10**6)
Keep = Callable[[int, int], Bools] | None


@dataclass(frozen=True)
class Model:
    """What is not in the weights. Floats stand for exactly their binary value.

    positions: a fixed table T×D given as exact floats; None: the parameter `pos`.
    parts, mix: three tables [3, T, D] that are mixed with `pos`, and four exact weights (None: `positions.mix`).
    rope: cosines and sines [T, h/2], exact floats, and whether planes are interleaved; then nothing is added.
    classes: the class of each token, where scores have a bias β·ln M; beta: an exact float (None: `symmetry.beta`).
    transform: D×D, exact floats, by which the embedding is multiplied.  equivariant: Wv and Wo enter averaged.
    dropout: of both branches' outputs; attention_dropout: of the attention probabilities.
    """

    layers: int
    heads: int
    activation: str = "gelu_tanh"
    tied: bool = True
    positions: NDArray[Any] | None = None
    parts: NDArray[Any] | None = None
    mix: tuple[float, ...] | None = None
    rope: tuple[NDArray[Any], NDArray[Any], bool] | None = None
    classes: Indices | None = None
    beta: float | None = None
    transform: NDArray[Any] | None = None
    equivariant: bool = False
    dropout: float = 0.0
    attention_dropout: float = 0.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.activation not in ("gelu_tanh", "gelu_erf"):
            raise ConfigError(f"spec: activation {self.activation!r}: expected gelu_tanh or gelu_erf")


def linear(S: System[A], x: A, w: A, b: A | None = None) -> A:
    """x Wᵀ + b."""
    y = S.mm(x, S.t(w))
    return y if b is None else S.add(y, b)


def layernorm(S: System[A], x: A, g: A, b: A) -> A:
    """g·(x − μ)/√(var + ε) + b, with the biased variance."""
    mean = Fraction(1, S.shape(x)[1])
    centred = S.sub(x, S.scale(S.rowsum(x), mean))
    variance = S.scale(S.rowsum(S.sq(centred)), mean)
    return S.add(S.mul(S.mul(centred, S.rsqrt(S.plus(variance, LAYERNORM_EPS))), g), b)


def gelu_tanh(S: System[A], x: A) -> A:
    """½x(1 + tanh(√(2/π)(x + 0.044715x³)))."""
    u = S.scale(S.add(x, S.scale(S.mul(S.sq(x), x), GELU_CUBIC)), SQRT_2_OVER_PI)
    return S.scale(S.mul(x, S.plus(S.tanh(u), 1)), Fraction(1, 2))


def gelu_erf(S: System[A], x: A) -> A:
    """½x(1 + erf(x/√2))."""
    return S.scale(S.mul(x, S.plus(S.erf(S.scale(x, SQRT_HALF)), 1)), Fraction(1, 2))


def dropout(S: System[A], x: A, keep: Bools | None, p: Fraction) -> A:
    """Kept values times 1/(1 − p), exact zeros elsewhere; keep = None: x itself."""
    return x if keep is None else S.scale(S.mask(x, keep), 1 / (1 - p))


def head(
    S: System[A],
    q: A,
    k: A,
    v: A,
    bias: A | None = None,
    *,
    allowed: Bools,
    keep: Bools | None = None,
    p: Fraction = Fraction(0),
) -> A:
    """One head of one row: softmax(q kᵀ/√h + bias over the allowed keys)·v. A key that is not allowed has
    probability 0."""
    scores = S.scale(S.mm(q, S.t(k)), inverse_sqrt(S.shape(q)[1]))
    scores = scores if bias is None else S.add(scores, bias)
    shifted = S.mask(S.sub(scores, S.peak(scores, allowed)), allowed)
    e = S.mask(S.exp(shifted), allowed)
    return S.mm(dropout(S, S.mul(e, S.recip(S.rowsum(e))), keep, p), v)


def attention(
    S: System[A],
    q: A,
    k: A,
    v: A,
    table: A | None = None,
    *,
    heads: int,
    allowed: Sequence[Bools],
    keep: Keep = None,
    p: Fraction = Fraction(0),
    classes_BT: Indices | None = None,
) -> A:
    """All heads of all rows, side by side: channel c belongs to head c // h.

    allowed[b]: T×T, query by key; keep(b, head): the dropout mask of the probabilities, T×T.
    table, classes_BT: the bias of the scores by the classes of query and key.
    """
    T, h = len(allowed[0]), S.shape(q)[1] // heads
    corners, parts = [], []
    bias: list[A] = []
    for b, n in np.ndindex(len(allowed), heads):
        one = partial(head, allowed=allowed[b], keep=keep(b, n) if keep else None, p=p)
        if table is not None and classes_BT is not None and n == 0:
            bias = [lattice.by_class(S, table, classes_BT[b])]
        corners.append((b * T, n * h))
        parts.append(S.call(one, *(S.cut(a, corners[-1], (T, h)) for a in (q, k, v)), *bias))
    return S.paste(S.shape(q), corners, *parts)


def cross_entropy(S: System[A], logits: A, *, targets: Indices, smoothing: Fraction = Fraction(0)) -> A:
    """1×1: Σ over rows of −Σ_v q_v log softmax(logits)_v, with q = (1 − s)·1[target] + s/V; nats."""
    peak = S.peak(logits)
    logsumexp = S.add(S.log(S.rowsum(S.exp(S.sub(logits, peak)))), peak)
    wanted = S.scale(S.pick(logits, targets), 1 - smoothing)
    if smoothing:
        wanted = S.add(wanted, S.scale(S.rowsum(logits), smoothing / S.shape(logits)[1]))
    return S.colsum(S.sub(logsumexp, wanted))


def embedding(S: System[A], tok: A, table: A | None = None, *, tokens: Indices, positions: Indices) -> A:
    """Row i: the token's row of `tok`, plus the position's row of `table` where there is one."""
    rows = S.gather(tok, tokens)
    return rows if table is None else S.add(rows, S.gather(table, positions))


def position_table(S: System[A], w: Mapping[str, A], model: Model) -> A | None:
    """What is added by position: learned, fixed, mixed, or nothing."""
    if model.rope is not None:
        return None
    if model.parts is not None:
        return lattice.mixed(S, model.parts, w["pos"], w["positions.mix"] if model.mix is None else model.mix)
    return w["pos"] if model.positions is None else S.lift(model.positions)


def symmetry_table(S: System[A], w: Mapping[str, A], model: Model) -> A | None:
    """12×12: β·ln M, the bias of a score by the classes of query and key."""
    if model.classes is None:
        return None
    log_m = lattice.log_closeness(S)
    return S.mul(log_m, w["symmetry.beta"]) if model.beta is None else S.scale(log_m, Fraction(model.beta))


def loss(S: System[A], w: Mapping[str, A], batch: Batch, model: Model) -> A:
    """1×1: the objective of the step, the mean of the token losses over the valid targets."""
    B, T = batch.rows, batch.columns
    p, attention_p = Fraction(model.dropout), Fraction(model.attention_dropout)
    gelu = {"gelu_tanh": gelu_tanh, "gelu_erf": gelu_erf}[model.activation]
    allowed = [batch.allowed_TT(b) for b in range(B)]
    draw = partial(kept, key=(batch.seed, batch.step), positions=T)

    def drop(x: A, layer: int, site: int) -> A:
        if not p:
            return x
        rows = range(batch.first_row, batch.first_row + B)
        masks = [draw(p, layer=layer, site=site, row=r, head=0, channels=S.shape(x)[1]) for r in rows]
        return dropout(S, x, np.concatenate(masks), p)

    def turn(x: A) -> A:
        if model.rope is None:
            return x
        cos, sin, interleaved = model.rope
        where = batch.positions_BT.ravel()
        return lattice.rope(S, x, cos=cos, sin=sin, positions=where, heads=model.heads, interleaved=interleaved)

    def attend(i: int, x: A) -> A:
        def keep(b: int, n: int) -> Bools:
            return draw(attention_p, layer=i, site=ATTENTION_PROBABILITIES, row=batch.first_row + b, head=n, channels=T)

        def matrix(c: str) -> A:
            found = w[f"{i}.attn.w{c}"]
            return lattice.averaged(S, found) if model.equivariant and c in "vo" else found

        q, k, v = (linear(S, x, matrix(c), w[f"{i}.attn.b{c}"]) for c in "qkv")
        q, k = turn(q), turn(k)
        seen = partial(attention, heads=model.heads, allowed=allowed, keep=keep if attention_p else None, p=attention_p)
        mixed = seen(S, q, k, v) if table is None else seen(S, q, k, v, table, classes_BT=classes_BT)
        return drop(linear(S, mixed, matrix("o"), w[f"{i}.attn.bo"]), i, ATTENTION_OUTPUT)

    def feed_forward(i: int, x: A) -> A:
        inner = linear(S, x, w[f"{i}.ffn.w1"], w[f"{i}.ffn.b1"])
        return drop(linear(S, S.call(gelu, inner), w[f"{i}.ffn.w2"], w[f"{i}.ffn.b2"]), i, FEED_FORWARD_OUTPUT)

    def norm(name: str, x: A) -> A:
        return S.call(layernorm, x, w[f"{name}.g"], w[f"{name}.b"])

    table = symmetry_table(S, w, model)
    classes_BT = None if model.classes is None else model.classes[batch.inputs_BT]
    added = position_table(S, w, model)
    x = embedding(S, w["tok"], added, tokens=batch.inputs_BT.ravel(), positions=batch.positions_BT.ravel())
    x = x if model.transform is None else linear(S, x, S.lift(model.transform))
    for i in range(model.layers):
        x = S.add(x, attend(i, norm(f"{i}.ln1", x)))
        x = S.add(x, feed_forward(i, norm(f"{i}.ln2", x)))
    valid = np.flatnonzero(batch.valid_BT)
    n = S.gather(norm("lnf", x), valid)
    logits = linear(S, n, w["tok" if model.tied else "head.w"])
    targets = batch.targets_BT.ravel()[valid]
    token_losses = partial(cross_entropy, targets=targets, smoothing=Fraction(model.label_smoothing))
    return S.scale(S.call(token_losses, logits), Fraction(1, len(valid)))
