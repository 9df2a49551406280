"""A priori rounding-error bounds, entry by entry, for the algorithms of the engine.

A `Bounded` is a pair (v, e): the exact value v of a formula at the exact inputs (held in float64) and a bound e on the
distance of the number that a computation with unit roundoff u gets instead. The rules are those of Higham, *Accuracy
and Stability of Numerical Algorithms* (2nd ed., §§2.2, 3.1, 3.3, 3.5), applied to each operation in the order in which
the engine performs it:

    fl(a ∘ b) = (a ∘ b)(1 + δ), |δ| ≤ u                              e = propagated error + u·(|v| + propagated error)
    n-term sum, in any order                                         γ_n·Σ|terms|,  γ_n = n·u / (1 − n·u)
    product of length k (any order, with or without fused add)       γ_k·|A||B|
    f ∈ {exp, log, tanh, erf, 1/√}                                   sup|f′|·e + FUNCTION·u·|f|

The propagated error of a product is |a|·e_b + |b|·e_a + e_a·e_b: nothing is dropped, the bound is not first-order only.
So the final e is of the form c·n·u·Σ|terms|, with the condition of the intermediate quantities composed in.

Assumptions: FUNCTION·u covers torch's vector functions (SLEEF: 1 ulp, some kernels 2 ulp; 1 ulp = 2u); TINY covers
results that are flushed to zero below the smallest normal number. v itself carries float64 rounding; so does the
judge it is compared with. `check` allows twice e when both were computed in float64: once for the engine and once
for the judge, which performs the same operations in another order (each bound holds for every order of summation).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

UNIT = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}
TINY = {2.0**-24: 2.0**-125, 2.0**-53: 2.0**-1021}
BF16 = 2.0**-8  # unit roundoff of bfloat16, in which operands may be stored
FUNCTION = 8.0  # roundoffs of an elementary function: 4 ulp
EXTRA = 3  # additions beyond the n − 1 of a sum: into an existing buffer, and of a blocked sum's parts


class Bounded:
    """Value and error bound; both float64 tensors of the same shape. Operators follow the rules above."""

    def __init__(self, v: Tensor, u: float, e: Tensor | None = None) -> None:
        self.v, self.u = v.double(), u
        self.e = torch.zeros_like(self.v) if e is None else e

    @property
    def size(self) -> Tensor:
        """The largest magnitude the computed number can have."""
        return self.v.abs() + self.e

    def _rounded(self, v: Tensor, e: Tensor, roundings: float = 1.0) -> Bounded:
        return Bounded(v, self.u, e + roundings * self.u * (v.abs() + e))

    def _other(self, other: Bounded | float) -> Bounded:
        if isinstance(other, Bounded):
            return other
        value = torch.tensor(float(other), dtype=torch.float64)
        return Bounded(value, self.u, self.u * value.abs())  # a constant rounded to the working precision

    def __add__(self, other: Bounded | float) -> Bounded:
        o = self._other(other)
        return self._rounded(self.v + o.v, self.e + o.e)

    def __sub__(self, other: Bounded | float) -> Bounded:
        o = self._other(other)
        return self._rounded(self.v - o.v, self.e + o.e)

    def __mul__(self, other: Bounded | float) -> Bounded:
        o = self._other(other)
        return self._rounded(self.v * o.v, self.v.abs() * o.e + self.e * o.v.abs() + self.e * o.e)

    def __truediv__(self, other: Bounded | float) -> Bounded:
        o = self._other(other)
        v = self.v / o.v
        room = (o.v.abs() - o.e).clamp_min(0.0)  # 0: the divisor may vanish, no bound
        return self._rounded(v, (self.e + v.abs() * o.e) / room)

    def __matmul__(self, other: Bounded) -> Bounded:
        e = self.v.abs() @ other.e + self.e @ other.size
        return Bounded(self.v @ other.v, self.u, e + gamma(self.v.shape[-1] + EXTRA, self.u) * (self.size @ other.size))

    def narrowed(self, u: float | None) -> Bounded:
        """Stored in a type of unit roundoff u; None: as it is."""
        return self if u is None else Bounded(self.v, self.u, self.e + u * self.size)

    def __getitem__(self, index: object) -> Bounded:
        return Bounded(self.v[index], self.u, self.e[index])

    def sum(self, dim: int, keepdim: bool = False) -> Bounded:
        n = self.v.shape[dim] + EXTRA
        e = self.e.sum(dim, keepdim) + gamma(n, self.u) * self.size.sum(dim, keepdim)
        return Bounded(self.v.sum(dim, keepdim), self.u, e)

    def mean(self, dim: int) -> Bounded:
        return self.sum(dim, keepdim=True) * Bounded(torch.tensor(1.0 / self.v.shape[dim]), self.u)

    @property
    def mT(self) -> Bounded:
        return Bounded(self.v.mT, self.u, self.e.mT)

    def reshape(self, *shape: int) -> Bounded:
        return Bounded(self.v.reshape(*shape), self.u, self.e.reshape(*shape))

    @staticmethod
    def cat(parts: list[Bounded], dim: int) -> Bounded:
        return Bounded(torch.cat([x.v for x in parts], dim), parts[0].u, torch.cat([x.e for x in parts], dim))

    def transpose(self, a: int, b: int) -> Bounded:
        return Bounded(self.v.transpose(a, b), self.u, self.e.transpose(a, b))

    def _function(self, v: Tensor, e: Tensor) -> Bounded:
        out = self._rounded(v, e, FUNCTION)
        out.e = out.e + TINY.get(self.u, 0.0)
        return out

    def exp(self) -> Bounded:
        v = self.v.exp()
        return self._function(v, v * torch.expm1(self.e))

    def log(self) -> Bounded:
        v = self.v.log()
        return self._function(v, -torch.log1p(-(self.e / self.v).clamp_max(1.0)))

    def rsqrt(self) -> Bounded:
        v = self.v.rsqrt()
        return self._function(v, (self.v - self.e).clamp_min(0.0).rsqrt() - v)

    def tanh(self) -> Bounded:
        inner = (self.v.abs() - self.e).clamp_min(0.0)  # tanh′ falls with |x|: its largest value is at the inner end
        return self._function(self.v.tanh(), (1.0 - inner.tanh() ** 2) * self.e)

    def sigmoid(self) -> Bounded:
        inner = (self.v.abs() - self.e).clamp_min(0.0).sigmoid()  # σ′ = σ(1 − σ) falls with |x| as well
        return self._function(self.v.sigmoid(), inner * (1.0 - inner) * self.e)

    def erf(self) -> Bounded:
        inner = (self.v.abs() - self.e).clamp_min(0.0)
        return self._function(self.v.erf(), 2 / math.sqrt(math.pi) * (-(inner**2)).exp() * self.e)


def either(a: Bounded, b: Bounded) -> Bounded:
    """For the distance of two algorithms of the same value: the sum of their bounds."""
    return Bounded(a.v, a.u, a.e + b.e)


def stored(x: Bounded, dtype: torch.dtype) -> Bounded:
    """A result rounded once more when it is stored as an operand of this type."""
    return x._rounded(x.v, x.e, BF16 / x.u) if dtype == torch.bfloat16 else x


def gamma(n: int, u: float) -> float:
    """γ_n of Higham, §3.1."""
    return n * u / (1.0 - n * u)


def check(name: str, got: Tensor, exact: Tensor, bound: Bounded) -> None:
    """Raise AssertionError unless |got − exact| ≤ e at every entry (2e when the judge has the precision of `got`).

    The bound's own value must agree with the judge as well: an error in the analysis is found, not hidden.
    """
    assert got.shape == exact.shape == bound.v.shape, f"{name}: shapes {got.shape}, {exact.shape}, {bound.v.shape}"
    assert torch.isfinite(got).all(), f"{name}: not finite"
    assert torch.isfinite(bound.e).all(), f"{name}: no finite bound"
    allowed = 2.0 * bound.e if got.dtype == torch.float64 else bound.e * (1.0 + 2.0**-20)
    off = (got.double() - exact).abs()
    worst = torch.where(off <= allowed, 0.0, off / allowed.clamp_min(1e-300))
    if worst.numel() and worst.max() > 0:
        i = int(worst.argmax())
        raise AssertionError(
            f"{name}[{i}]: got {got.reshape(-1)[i]:.17g}, exact {exact.reshape(-1)[i]:.17g}, "
            f"off by {off.reshape(-1)[i]:.3g}, allowed {allowed.reshape(-1)[i]:.3g}"
        )


# The ops, in the order of operations of src/cllm/engine. Inputs may carry errors of their own.


def linear_forward(x: Bounded, w: Bounded, b: Bounded | None) -> Bounded:
    """Y = X·Wᵀ + b: γ_(k+1)·(|X||W|ᵀ + |b|)."""
    y = x @ w.mT
    return y if b is None else y + b


def linear_backward(dy: Bounded, x: Bounded, w: Bounded) -> tuple[Bounded, Bounded, Bounded]:
    """dX = dY·W, dW = dYᵀ·X, db = Σ dY: γ_O·|dY||W|, γ_N·|dY|ᵀ|X|, γ_N·Σ|dY|."""
    return dy @ w, dy.mT @ x, dy.sum(0)


def embedding_forward(tokens_N: Tensor, positions_N: Tensor, e: Bounded, p: Bounded) -> Bounded:
    """x = E[t] + P[pos]: one rounding."""
    return e[tokens_N] + p[positions_N]


def scatter(dx: Bounded, index_N: Tensor, start: Bounded) -> Bounded:
    """start with row n of dx added to its row index[n], one after another: row i sees n_i additions,
    γ_(n_i)·(|start| + Σ|terms|)."""
    count = torch.bincount(index_N, minlength=len(start.v)).double().unsqueeze(1)
    n = (count + EXTRA) * dx.u
    e = start.e.index_add(0, index_N, dx.e) + n / (1 - n) * start.size.index_add(0, index_N, dx.size)
    return Bounded(start.v.index_add(0, index_N, dx.v), dx.u, e)


def layernorm_statistics(x: Bounded, eps: float = 1e-5) -> tuple[Bounded, Bounded]:
    """μ = mean x and 1/σ = 1/√(mean (x − μ)² + ε). The error of μ enters the variance only through (x − μ)²: its
    first-order part 2·mean((x − μ)·e_μ) is bounded by absolute values, not cancelled."""
    mean = x.mean(1)
    centred = x - mean
    return mean, ((centred * centred).mean(1) + eps).rsqrt()


def layernorm_forward(x: Bounded, g: Bounded, b: Bounded) -> tuple[Bounded, Bounded, Bounded]:
    """y, μ, 1/σ."""
    mean, rstd = layernorm_statistics(x)
    return (x - mean) * rstd * g + b, mean, rstd


def layernorm_backward(
    dy: Bounded, x: Bounded, mean: Bounded, rstd: Bounded, g: Bounded
) -> tuple[Bounded, Bounded, Bounded]:
    """dx, dγ, dβ, through x̂, dx̂ = dy∘γ, and the two means."""
    normal = (x - mean) * rstd
    hat = dy * g
    dx = (hat - hat.mean(1) - normal * (hat * normal).mean(1)) * rstd
    return dx, (dy * normal).sum(0), dy.sum(0)


def gelu_textbook(x: Bounded) -> tuple[Bounded, Bounded]:
    """y and dy/dx of the tanh form as ½x(1 + tanh u): its 1 + tanh u cancels for negative u, an error of u·|x|."""
    root, cubic = math.sqrt(2 / math.pi), 0.044715
    square = x * x
    t = ((square * (root * cubic) + root) * x).tanh()
    inner = (square * (3 * cubic * root) + root) * x
    one = Bounded(torch.ones_like(x.v), x.u)
    return (t + 1.0) * x * 0.5, ((one - t * t) * inner + t + 1.0) * 0.5


def gelu(x: Bounded, form: str) -> tuple[Bounded, Bounded]:
    """y and dy/dx of the form "gelu_tanh", by the logistic function of 2u, or "gelu_erf"."""
    if form == "gelu_tanh":
        linear = 2 * math.sqrt(2 / math.pi)
        cubic = 0.044715 * linear
        square = x * x
        s = ((square * cubic + linear) * x).sigmoid()
        inner = (square * (3 * cubic) + linear) * x
        one = Bounded(torch.ones_like(x.v), x.u)
        return s * x, (inner * (one - s) + 1.0) * s
    phi = ((x * math.sqrt(0.5)).erf() + 1.0) * 0.5
    density = (x * x * -0.5).exp() * (1 / math.sqrt(2 * math.pi))
    return phi * x, phi + x * density


def _masked_scores(q: Bounded, k: Bounded, allowed: Tensor, bias: Bounded | None = None) -> Bounded:
    s = (q @ k.mT) * (1.0 / math.sqrt(q.v.shape[-1]))
    if bias is not None:
        s = s + bias
    return Bounded(torch.where(allowed, s.v, 0.0), s.u, torch.where(allowed, s.e, 0.0))


def _only(x: Bounded, where: Tensor) -> Bounded:
    """Exactly 0 outside `where`."""
    return Bounded(torch.where(where, x.v, 0.0), x.u, torch.where(where, x.e, 0.0))


def _logsumexp(s: Bounded, allowed: Tensor) -> tuple[Bounded, Bounded]:
    """exp(s − max) and the logsumexp over the last axis; the maximum is one of the computed scores."""
    index = torch.where(allowed, s.v, -math.inf).argmax(-1, keepdim=True)
    # the shift is a number the algorithm is free to choose; its own error counts for nothing but the subtraction
    top = Bounded(s.v.gather(-1, index), s.u, s.e.amax(-1, keepdim=True))
    shifted = _only((s - top).exp(), allowed)
    total = shifted.sum(-1, keepdim=True)
    return shifted, top + total.log()


def attention_forward(
    q: Bounded, k: Bounded, v: Bounded, allowed: Tensor, keep: Tensor | None, p: float, *,
    bias: Bounded | None = None, operand: float | None = None,
) -> tuple[Bounded, Bounded]:  # fmt: skip
    """O and the logsumexp; leading axes (B, H). keep: dropout's mask of A, or None. bias: added to the scores.
    operand: unit roundoff of A and of results where they are stored in a narrower type than they are summed in."""
    s = _masked_scores(q, k, allowed, bias)
    shifted, lse = _logsumexp(s, allowed)
    a = _only(shifted / shifted.sum(-1, keepdim=True), allowed)
    if keep is not None:
        a = _only(a, keep) * (1.0 / (1.0 - p))
    return (a.narrowed(operand) @ v).narrowed(operand), lse


def attention_backward(
    do: Bounded, q: Bounded, k: Bounded, v: Bounded, lse: Bounded, allowed: Tensor, keep: Tensor | None, p: float
) -> tuple[Bounded, Bounded, Bounded]:
    """dQ, dK, dV."""
    return attention_gradients(do, q, k, v, lse, allowed, keep, p)[:3]


def attention_gradients(
    do: Bounded, q: Bounded, k: Bounded, v: Bounded, lse: Bounded, allowed: Tensor, keep: Tensor | None, p: float, *,
    bias: Bounded | None = None, operand: float | None = None,
) -> tuple[Bounded, Bounded, Bounded, Bounded]:  # fmt: skip
    """dQ, dK, dV and dS with A = exp(S − lse) recomputed, dS = A∘(dA − rowsum(dA∘A)).

    The condition of A is the error of S − lse; that of dS the cancellation in dA − rowsum(dA∘A): both are carried.
    A query that sees one key gives dS = dA − dA, which is exactly 0 in floating point too: the bound there is 0.
    """
    a = _only((_masked_scores(q, k, allowed, bias) - lse).exp(), allowed)
    da = do @ v.mT
    dropped = a
    if keep is not None:
        factor = 1.0 / (1.0 - p)
        dropped, da = _only(a, keep) * factor, _only(da, keep) * factor
    dv = dropped.narrowed(operand).mT @ do
    ds = _only((da - (da * a).sum(-1, keepdim=True)) * a, allowed & (allowed.sum(-1, keepdim=True) > 1))
    scaled = (ds * (1.0 / math.sqrt(q.v.shape[-1]))).narrowed(operand)
    dq, dk = scaled @ k, scaled.mT @ q
    return dq.narrowed(operand), dk.narrowed(operand), dv.narrowed(operand), ds


def cross_entropy(z: Bounded, targets_N: Tensor, smoothing: float) -> tuple[Bounded, Bounded, Bounded]:
    """Loss per row, logsumexp, and dz = exp(z − lse) − q; ignored rows (target −1) exactly 0."""
    valid, index = (targets_N >= 0).unsqueeze(1), targets_N.clamp_min(0).unsqueeze(1)
    _shifted, lse = _logsumexp(z, torch.ones_like(z.v, dtype=torch.bool))
    hit = Bounded(z.v.gather(1, index), z.u, z.e.gather(1, index))
    expected = hit * (1.0 - smoothing) + z.mean(1) * smoothing if smoothing else hit
    prob = (z - lse).exp()
    if smoothing:
        prob = prob - smoothing / z.v.shape[1]
    one = torch.zeros_like(z.v).scatter(1, index, 1.0 - smoothing)
    dz = prob - Bounded(one, z.u, z.u * one)
    return _only(lse - expected, valid), lse, _only(dz, valid)


def dropout(x: Bounded, keep: Tensor, p: float) -> Bounded:
    """x∘m/(1 − p)."""
    return _only(x, keep) * (1.0 / (1.0 - p))


def adamw(
    w: Bounded, g: Bounded, m: Bounded, v: Bounded, *, t: int, lr: float, betas: tuple[float, float], eps: float,
    decay: float, scale: float,
) -> tuple[Bounded, Bounded, Bounded]:  # fmt: skip
    """One update. Where v̂ is smaller than its error the root is bounded by √e (|√a − √b| ≤ √|a − b|)."""
    b1, b2 = betas

    def corrected(b: float, value: float) -> Bounded:
        """A constant made of 1 − βᵗ in float64, whose relative error is that of βᵗ, magnified by βᵗ/(1 − βᵗ)."""
        relative = w.u + 4 * UNIT[torch.float64] * (1.0 + b**t / (1.0 - b**t))
        return Bounded(torch.tensor(value, dtype=torch.float64), w.u, torch.tensor(relative * value).double())

    scaled = g * scale
    m = m * b1 + scaled * (1.0 - b1)
    v = v * b2 + scaled * scaled * (1.0 - b2)
    root = v.v.sqrt()
    safe = (root + (v.v - v.e).clamp_min(0.0).sqrt()).clamp_min(1e-300)
    spread = torch.minimum(v.e / safe, v.e.sqrt())
    denominator = Bounded(root, w.u, spread + FUNCTION * w.u * (root + spread))
    denominator = denominator * corrected(b2, 1.0 / math.sqrt(1.0 - b2**t)) + eps
    step = m / denominator * corrected(b1, lr / (1.0 - b1**t))
    return w * (1.0 - lr * decay) - step, m, v


def sgd(
    w: Bounded, g: Bounded, m: Bounded, *, lr: float, momentum: float, nesterov: bool, decay: float, scale: float
) -> tuple[Bounded, Bounded]:
    scaled = g * scale
    m = m * momentum + scaled
    return w * (1.0 - lr * decay) - (scaled + m * momentum if nesterov else m) * lr, m
