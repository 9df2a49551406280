"""One check an op: the engine's forward and backward against autograd of the plain formula, within the a priori bound.

Every check takes the engine's functions from a `Kernels` table, so that the mutation tests put a wrong formula through
the very same check.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cllm.engine import cross_entropy
from cllm.engine.dispatch import Kernels
from cllm.engine.dropout import Key
from cllm.engine.precision import accumulation
from judges import bounds, plain_ops
from judges.bounds import EXTRA, UNIT, Bounded, check, gamma, stored
from judges.philox_reference import attention_keep, hidden_keep

DTYPES = (torch.float64, torch.float32, torch.bfloat16)


class Draw:
    """Seeded numbers in the precision of operands and in that of sums (`wide`), whose unit roundoff is `u`;
    `exact` lifts one to float64 as a leaf for autograd."""

    def __init__(self, seed: int, dtype: torch.dtype) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.dtype, self.sums = dtype, accumulation(dtype)
        self.u = UNIT[self.sums]

    def wide(self, *shape: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
        drawn = torch.randn(shape, generator=self.generator, dtype=torch.float64) * scale + shift
        return drawn.to(self.sums)

    def normal(self, *shape: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
        return self.wide(*shape, scale=scale, shift=shift).to(self.dtype)

    def empty(self, *shape: int) -> Tensor:
        """Room for an operand that must be overwritten."""
        return torch.full(shape, torch.nan, dtype=self.dtype)

    def room(self, *shape: int) -> Tensor:
        return torch.full(shape, torch.nan, dtype=self.sums)

    def ints(self, high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=self.generator)

    def bounded(self, *tensors: Tensor) -> list[Bounded]:
        return [Bounded(x, self.u) for x in tensors]


def exact(*tensors: Tensor) -> list[Tensor]:
    return [x.double().clone().requires_grad_() for x in tensors]


def grads(y: Tensor, dy: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(y, leaves, dy.double())


def started(*shapes: tuple[int, ...], draw: Draw) -> tuple[list[Tensor], list[Tensor]]:
    """Gradient buffers that already hold something, and a copy: weight gradients must accumulate."""
    buffers = [draw.wide(*shape) for shape in shapes]
    return buffers, [x.clone() for x in buffers]


def added(start: Tensor, bound: Bounded, n: int) -> Bounded:
    """A sum of n terms accumulated into `start`: a kernel may begin with it, so that all n additions round it too."""
    more = gamma(n + EXTRA, bound.u) * start.double().abs()
    return Bounded(start, bound.u) + Bounded(bound.v, bound.u, bound.e + more)


def check_linear(
    k: Kernels, dtype: torch.dtype, seed: int, n: int, i: int, o: int, bias: bool, joins: bool = False
) -> None:
    d = Draw(seed, dtype)
    x, w, dy = d.normal(n, i), d.normal(o, i), d.normal(n, o)
    b = d.wide(o) if bias else None
    r = d.wide(n, o) if joins else None
    y, dx = d.room(n, o) if joins else d.empty(n, o), d.empty(n, i)
    k.linear_forward(x, w, b, y, r)
    if r is not None:
        alias = r.clone()
        k.linear_forward(x, w, b, alias, alias)
        assert torch.equal(alias, y), "the residual may be overwritten by the result"
    (dw, db), (dw0, db0) = started((o, i), (o,), draw=d)
    k.linear_backward_weight(dy, x, dw, db if bias else None)
    k.linear_backward_input(dy, w, dx)
    X, W, B = exact(x, w, b if b is not None else torch.zeros(o))
    Y = plain_ops.linear(X, W, B if bias else None)
    dX, dW = grads(Y, dy, X, W)
    bx, bw, bdy = d.bounded(x, w, dy)
    by = bounds.linear_forward(bx, bw, Bounded(b, d.u) if bias else None)
    bdx, bdw, bdb = bounds.linear_backward(bdy, bx, bw)
    if r is None:
        check("y", y, Y.detach(), stored(by, dtype))
    else:  # the sum may begin with the residual, so that all its additions round it
        check("y", y, r.double() + Y.detach(), added(r, by, i + 1))
    check("dx", dx, dX, stored(bdx, dtype))
    check("dw", dw, dw0.double() + dW, added(dw0, bdw, n))
    if bias:
        check("db", db, db0.double() + grads(plain_ops.linear(X, W, B), dy, B)[0], added(db0, bdb, n))


def check_embedding(
    k: Kernels, dtype: torch.dtype, seed: int, b: int, t: int, width: int, vocab: int, restart: bool
) -> None:
    d = Draw(seed, dtype)
    e, p, dx = d.normal(vocab, width), d.wide(t + 2, width), d.wide(b * t, width)
    tokens = d.ints(vocab, b, t)
    positions = d.ints(t, b, t) if restart else None
    columns = (positions if restart else torch.arange(t).expand(b, t)).reshape(-1)
    x = d.room(b * t, width)
    k.embedding_forward(tokens, positions, e, p, x)
    (de, dp), (de0, dp0) = started(e.shape, p.shape, draw=d)
    k.embedding_backward(dx, tokens, positions, de, dp)
    E, P = exact(e, p)
    X = plain_ops.embedding(tokens.reshape(-1), columns, E, P)
    dE, dP = grads(X, dx, E, P)
    be, bp, bdx = d.bounded(e, p, dx)
    check("x", x, X.detach(), bounds.embedding_forward(tokens.reshape(-1), columns, be, bp))
    check("de", de, de0.double() + dE, bounds.scatter(bdx, tokens.reshape(-1), Bounded(de0, d.u)))
    check("dp", dp, dp0.double() + dP, bounds.scatter(bdx, columns, Bounded(dp0, d.u)))


def check_layernorm(k: Kernels, dtype: torch.dtype, seed: int, n: int, width: int, scale: float, shift: float) -> None:
    d = Draw(seed, dtype)
    x, dy = d.wide(n, width, scale=scale, shift=shift), d.normal(n, width)
    g, b = d.wide(width, shift=1.0), d.wide(width)
    y, mean, rstd = d.empty(n, width), d.room(n, 1), d.room(n, 1)
    k.layernorm_forward(x, g, b, y, mean, rstd)
    (dx, dg, db), (dx0, dg0, db0) = started((n, width), (width,), (width,), draw=d)
    rounded = d.empty(n, width)
    k.layernorm_backward(dy.clone(), x, mean, rstd, g, dx, rounded, dg, db)
    assert torch.equal(rounded, dx.to(dtype)), "the copy is the rounded sum"
    X, G, B = exact(x, g, b)
    Y = plain_ops.layernorm(X, G, B)
    dX, dG, dB = grads(Y, dy, X, G, B)
    bx, bg, bb, bdy = d.bounded(x, g, b, dy)
    by, bmean, brstd = bounds.layernorm_forward(bx, bg, bb)
    bdx, bdg, bdb = bounds.layernorm_backward(bdy, bx, bmean, brstd, bg)
    check("y", y, Y.detach(), stored(by, dtype))
    check("dx", dx, dx0.double() + dX, added(dx0, bdx, 1))
    check("dg", dg, dg0.double() + dG, added(dg0, bdg, n))
    check("db", db, db0.double() + dB, added(db0, bdb, n))


def check_gelu(k: Kernels, dtype: torch.dtype, seed: int, n: int, scale: float, form: str) -> None:
    """Through a matrix product that changes nothing: the activation is fused with it."""
    d = Draw(seed, dtype)
    x, dy = d.normal(n, 3, scale=scale), d.normal(n, 3)
    one, pre, y, dx, again = torch.eye(3).to(dtype), d.empty(n, 3), d.empty(n, 3), d.empty(n, 3), d.empty(n, 3)
    k.linear_gelu_forward(x, one, torch.zeros(3, dtype=d.sums), pre, y)
    assert torch.equal(pre, x)
    k.linear_gelu_backward_input(dy, one, pre, dx)
    k.gelu_forward(pre, again)
    assert torch.equal(again, y), "the activation computed again"
    (X,) = exact(x)
    Y = plain_ops.gelu(X, form)
    by, slope = bounds.gelu(Bounded(x, d.u), form)
    bdx = Bounded(dy, d.u) * slope
    if form == "gelu_tanh":  # the judge's 1 + tanh u cancels where the engine's logistic form does not
        double = UNIT[torch.float64]
        judge_y, judge_slope = bounds.gelu_textbook(Bounded(x, double))
        by, bdx = bounds.either(by, judge_y), bounds.either(bdx, Bounded(dy, double) * judge_slope)
    check("y", y, Y.detach(), stored(by, dtype))
    check("dx", dx, grads(Y, dy, X)[0], stored(bdx, dtype))


def check_linear_gelu(k: Kernels, dtype: torch.dtype, seed: int, n: int, i: int, f: int, o: int) -> None:
    """The fused pair with real matrices: pre, post at the stored pre, and dpre."""
    d = Draw(seed, dtype)
    x, w, b, w2, dy = d.normal(n, i), d.normal(f, i), d.wide(f), d.normal(o, f), d.normal(n, o)
    pre, post, dpre = (torch.full((n, f + 5), 7.0, dtype=dtype)[:, :f] for _ in range(3))  # rows further apart
    k.linear_gelu_forward(x, w, b, pre, post)
    k.linear_gelu_backward_input(dy, w2, pre, dpre)
    X, W, B, P = exact(x, w, b, pre)
    bx, bw, bb, bw2, bdy = d.bounded(x, w, b, w2, dy)
    check("pre", pre, plain_ops.linear(X, W, B).detach(), stored(bounds.linear_forward(bx, bw, bb), dtype))
    by, slope = bounds.gelu(Bounded(pre, d.u), "gelu_tanh")
    double = UNIT[torch.float64]
    judge_y, judge_slope = bounds.gelu_textbook(Bounded(pre, double))
    Y = plain_ops.gelu(P, "gelu_tanh")
    check("post", post, Y.detach(), stored(bounds.either(by, judge_y), dtype))
    bdpost = bdy @ bw2
    judge = Bounded(bdpost.v, double) * judge_slope
    want = grads(Y, dy.double() @ w2.double(), P)[0]
    check("dpre", dpre, want, stored(bounds.either(bdpost * slope, judge), dtype))
    for padded in (pre, post, dpre):
        assert (padded.as_strided((n, f + 5), (f + 5, 1))[:, f:] == 7).all(), "written behind a row"


def check_attention(
    k: Kernels, dtype: torch.dtype, seed: int, b: int, h: int, t: int, width: int, documents: bool, p: float
) -> None:
    d, n = Draw(seed, dtype), b * t
    qkv, do = d.normal(n, 3 * h * width), d.normal(n, h * width)
    rows = d.ints(2, b, t).cumsum(1) if documents else None
    o, lse, dqkv = d.empty(n, h * width), d.room(b, h, t), d.empty(n, 3 * h * width)
    scratch = k.attention_scratch(b, t, h, width, backward=True, dtype=dtype)
    dropout = (Key(seed, 3, first_row=2), p, 1) if p else None
    k.attention_forward(qkv, o, lse, scratch, documents_BT=rows, dropout=dropout)
    k.attention_backward(do, qkv, o, lse, dqkv, scratch, documents_BT=rows, dropout=dropout)
    allowed = plain_ops.allowed_keys(rows, b, t)
    keep = attention_keep(p, seed, 3, 2, 1, (b, h, t, t)) if p else None

    def heads(x: Tensor) -> Tensor:
        return x.view(b, t, h, width).transpose(1, 2)

    (q, key, v), (dq, dk, dv) = (map(heads, x.chunk(3, dim=1)) for x in (qkv.clone(), dqkv.clone()))
    o, do = heads(o), heads(do)
    Q, K, V = exact(q, key, v)
    O = plain_ops.attention(Q, K, V, allowed, keep, p)
    exact_grads = grads(O, do, Q, K, V)
    bq, bk, bv, bdo = d.bounded(q, key, v, do)
    everywhere = allowed.expand(b, h, t, t)
    bo, blse = bounds.attention_forward(bq, bk, bv, everywhere, keep, p)
    check("o", o, O.detach(), stored(bo, dtype))
    scores = (Q @ K.mT / width**0.5).masked_fill(~allowed, -torch.inf)
    check("lse", lse.unsqueeze(3), torch.logsumexp(scores, 3, keepdim=True).detach(), blse)
    found = bounds.attention_backward(bdo, bq, bk, bv, blse, everywhere, keep, p)
    for name, got, want, bound in zip(("dq", "dk", "dv"), (dq, dk, dv), exact_grads, found, strict=True):
        single = (allowed.sum(-1) == 1).expand(b, h, t)
        if name == "dq":  # autograd's softmax leaves rounding noise where the engine gives exact zeros
            want = want.masked_fill(single.unsqueeze(-1), 0.0)
            assert not got[single].any(), "dq: a query that sees one key has gradient exactly 0"
        check(name, got, want, stored(bound, dtype))


def check_cross_entropy(
    k: Kernels, dtype: torch.dtype, seed: int, n: int, vocab: int, ignored: bool, smoothing: float, scale: float
) -> None:
    d = Draw(seed, dtype)
    z, targets = d.wide(n, vocab, scale=scale), d.ints(vocab, n)
    if ignored:
        targets[d.ints(2, n).bool()] = -1
    loss, lse = d.room(n), d.room(n)
    given = z.clone()
    k.cross_entropy(given, targets, smoothing, loss, lse, None)
    assert torch.equal(given, z), "without dz the logits are only read"
    once = loss.clone(), lse.clone()
    dz = cross_entropy.in_place(given, dtype)
    k.cross_entropy(given, targets, smoothing, loss, lse, dz)
    assert torch.equal(once[0], loss) and torch.equal(once[1], lse)
    (Z,) = exact(z)
    L = plain_ops.cross_entropy(Z, targets, smoothing)
    (dZ,) = torch.autograd.grad(L.sum(), Z, allow_unused=True, materialize_grads=True) if (targets >= 0).any() else (
        torch.zeros_like(Z),
    )  # fmt: skip
    bloss, blse, bdz = bounds.cross_entropy(Bounded(z, d.u), targets, smoothing)
    check("loss", loss.unsqueeze(1), L.detach().unsqueeze(1), bloss)
    check("lse", lse.unsqueeze(1), torch.logsumexp(Z, 1, keepdim=True).detach(), blse)
    check("dz", dz, dZ, stored(bdz, dtype))


def check_dropout(k: Kernels, dtype: torch.dtype, seed: int, b: int, t: int, width: int, p: float, site: int) -> None:
    d = Draw(seed, dtype)
    x, dy = d.wide(b * t, width), d.wide(b * t, width)
    mask = torch.zeros(b, t, width, dtype=torch.bool)
    k.dropout_mask(Key(seed, 7, first_row=4), p, 2, site, mask)
    keep = hidden_keep(p, seed, 7, 4, 2, site, (b, t, width))
    assert torch.equal(mask, keep), "mask differs from the definition"
    y, dx, flat = torch.empty_like(x), d.empty(b * t, width), mask.view_as(x)
    k.dropout_apply(x, flat, p, y)
    k.dropout_apply(dy, flat, p, dx)
    (X,) = exact(x)
    Y = plain_ops.dropout(X, keep.view_as(x), p)
    check("y", y, Y.detach(), bounds.dropout(Bounded(x, d.u), flat, p))
    check("dx", dx, grads(Y, dy, X)[0], stored(bounds.dropout(Bounded(dy, d.u), flat, p), dtype))
    assert not y[~flat].any() and not dx[~flat].any()
