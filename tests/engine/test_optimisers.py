"""AdamW and SGD against the formula in 50 decimal digits, and against torch.optim, for the first ten steps.

Ten steps and not a thousand: the mistakes of bias correction are invisible once 1 − βᵗ is 1.
"""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cllm.engine.adamw import BLOCK, adamw, sgd, sum_of_squares
from cllm.engine.muon import muon, orthogonalise
from judges import bounds
from judges.bounds import UNIT, Bounded, check

STEPS = 10
SIZE = 5


def drawn(seed, dtype, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def exact_adamw(w, gradients, *, lr, betas, eps, decay, scale):
    """w, m, v after each step, in 50 digits: the formula of Loshchilov & Hutter (2019), algorithm 2."""
    with mpmath.workdps(50):
        b1, b2, lr, eps, decay, scale = (mpmath.mpf(x) for x in (*betas, lr, eps, decay, scale))
        w = [mpmath.mpf(x) for x in w.tolist()]
        m, v = [mpmath.mpf(0)] * len(w), [mpmath.mpf(0)] * len(w)
        for t, gradient in enumerate(gradients, 1):
            g = [mpmath.mpf(x) * scale for x in gradient.tolist()]
            m = [b1 * a + (1 - b1) * x for a, x in zip(m, g, strict=True)]
            v = [b2 * a + (1 - b2) * x * x for a, x in zip(v, g, strict=True)]
            w = [
                x - lr * decay * x - lr * (a / (1 - b1**t)) / (mpmath.sqrt(b / (1 - b2**t)) + eps)
                for x, a, b in zip(w, m, v, strict=True)
            ]
            yield [torch.tensor([float(x) for x in part], dtype=torch.float64) for part in (w, m, v)]


def check_adamw(update, dtype, seed, lr, betas, eps, decay, scale):
    u = UNIT[dtype]
    gradients = drawn(seed, dtype, STEPS, SIZE)
    gradients[:, 0] = 0.0  # exactly zero by structure: the weight only decays
    gradients[0, 1] = 0.0
    w = drawn(seed + 1, dtype, SIZE)
    start = w.clone()
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    bound = [Bounded(x, u) for x in (w, m, v)]
    settings = {"lr": lr, "betas": betas, "eps": eps, "decay": decay, "scale": scale}
    for t, exact in enumerate(exact_adamw(w, gradients, **settings), 1):
        g = gradients[t - 1].clone()
        update(w, g, m, v, t=t, **settings)
        assert torch.equal(g, gradients[t - 1]), "the gradient is only read"
        bound = list(bounds.adamw(bound[0], Bounded(g, u), bound[1], bound[2], t=t, **settings))
        for name, got, want, allowed in zip("wmv", (w, m, v), exact, bound, strict=True):
            check(f"{name} at t={t}", got, want, allowed)
        assert m[0] == v[0] == 0
        if not decay:
            assert w[0] == start[0]


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from([torch.float64, torch.float32]),
    st.integers(0, 2**20),
    st.sampled_from([1e-4, 1e-2, 0.3]),
    st.sampled_from([(0.9, 0.95), (0.9, 0.999), (0.0, 0.5)]),
    st.sampled_from([1e-8, 1e-3]),
    st.sampled_from([0.0, 0.1]),
    st.sampled_from([1.0, 1 / 37]),
)
def test_adamw_is_the_formula(dtype, seed, lr, betas, eps, decay, scale):
    check_adamw(adamw, dtype, seed, lr, betas, eps, decay, scale)


def variant(*, shift=0, correct_v=True, inside=False, before=False, l2=False, twice=False, scaled=True):
    """A wrong AdamW; without arguments the right one."""

    def update(w, g, m, v, *, t, lr, betas, eps, decay, scale):
        b1, b2 = betas
        g = g * scale if scaled else g
        g = g + decay * w if l2 else g
        m.mul_(b1).add_(g, alpha=1 - b1)
        v.mul_(b2).addcmul_(g, g, value=1 - b2)
        hat, t = m / (1 - b1 ** (t + shift)), t + shift
        correction = 1 - b2**t if correct_v else 1.0
        if inside:
            root = (v / correction + eps).sqrt()
        elif before:
            root = (v.sqrt() + eps) / math.sqrt(correction)
        else:
            root = (v / correction).sqrt() + eps
        if not l2:
            w.mul_(1 - lr * decay * (lr if twice else 1.0))
        w.sub_(lr * hat / root)

    return update


ADAMW = (torch.float32, 3, 1e-2, (0.9, 0.95), 1e-3, 0.1, 1 / 7)


@pytest.mark.parametrize(
    "wrong",
    [
        {"shift": 1},
        {"correct_v": False},
        {"inside": True},
        {"before": True},
        {"l2": True},
        {"twice": True},
        {"scaled": False},
    ],
    ids=str,
)
def test_wrong_adamw_is_refused(wrong):
    check_adamw(variant(), *ADAMW)
    with pytest.raises(AssertionError):
        check_adamw(variant(**wrong), *ADAMW)


def test_adamw_agrees_with_torch():
    w, gradients = drawn(1, torch.float64, 40), drawn(2, torch.float64, STEPS, 40)
    theirs = torch.nn.Parameter(w.clone())
    judge = torch.optim.AdamW([theirs], lr=3e-2, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.1)
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    bound = [Bounded(x, UNIT[torch.float64]) for x in (w, m, v)]
    settings = {"lr": 3e-2, "betas": (0.9, 0.95), "eps": 1e-6, "decay": 0.1, "scale": 1.0}
    for t in range(1, STEPS + 1):
        theirs.grad = gradients[t - 1].clone()
        judge.step()
        adamw(w, gradients[t - 1], m, v, t=t, **settings)
        g = Bounded(gradients[t - 1], UNIT[torch.float64])
        bound = list(bounds.adamw(bound[0], g, bound[1], bound[2], t=t, **settings))
        check(f"w at t={t}", w, theirs.detach(), bound[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_agrees_with_torch(momentum, nesterov, dtype):
    u = UNIT[dtype]
    w, gradients = drawn(1, dtype, 40), drawn(2, dtype, STEPS, 40)
    theirs = torch.nn.Parameter(w.double())
    judge = torch.optim.SGD([theirs], lr=0.1, momentum=momentum, nesterov=nesterov)
    m = torch.zeros_like(w)
    bw, bm = Bounded(w, u), Bounded(m, u)
    settings = {"lr": 0.1, "momentum": momentum, "nesterov": nesterov, "decay": 0.0, "scale": 0.5}
    for t in range(STEPS):
        theirs.grad = 0.5 * gradients[t].double()
        judge.step()
        sgd(w, gradients[t], m, **settings)
        bw, bm = bounds.sgd(bw, Bounded(gradients[t], u), bm, **settings)
        check(f"w at t={t}", w, theirs.detach(), bw)


def test_sgd_decay_is_decoupled():
    w, g, m = torch.tensor([2.0]), torch.tensor([0.0]), torch.tensor([0.0])
    sgd(w, g, m, lr=0.5, momentum=0.9, nesterov=True, decay=0.25, scale=1.0)
    assert w.item() == 2.0 * (1 - 0.125) and m.item() == 0.0


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_long_buffer_is_updated_to_its_end_as_a_short_one(name):
    w, g = drawn(1, torch.float32, 2 * BLOCK + 7), drawn(2, torch.float32, 2 * BLOCK + 7)

    def updated(w, g):
        w, m, v = w.clone(), torch.zeros_like(w), torch.zeros_like(w)
        if name == "adamw":
            adamw(w, g, m, v, t=1, lr=0.1, betas=(0.9, 0.95), eps=1e-8, decay=0.1)
        else:
            sgd(w, g, m, lr=0.1, momentum=0.9, nesterov=True, decay=0.1)
        return w

    whole = updated(w, g)
    for part in (slice(0, BLOCK), slice(BLOCK, 2 * BLOCK), slice(2 * BLOCK, None)):
        assert torch.equal(whole[part], updated(w[part].clone(), g[part].clone()))


def test_sum_of_squares_is_taken_in_float64():
    g = drawn(4, torch.float32, (1 << 20) + 5) * 1e-30  # squares far below the smallest float32
    exact = math.fsum(x * x for x in g.double().tolist())
    # γ_n of a float64 sum of n positive terms, in any order, and a square root squared for each part
    assert abs(sum_of_squares(g) - exact) <= bounds.gamma(g.numel() + 8, UNIT[torch.float64]) * exact


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_sum_of_squares_of_a_broken_gradient_is_not_finite(value):
    g = drawn(4, torch.float32, 100)
    g[7] = value
    assert not math.isfinite(sum_of_squares(g))


def test_sum_of_squares_beyond_float64_is_infinite():
    """The guard must see a number that is not finite, not die of one."""
    assert sum_of_squares(torch.tensor([1e200], dtype=torch.float64)) == math.inf


# ------------------------------------------------------------------------------------------------------------ Muon


def quintic(sigma, rounds=5):
    for _ in range(rounds):
        sigma = 3.4445 * sigma - 4.7750 * sigma**3 + 2.0315 * sigma**5
    return sigma


@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (7, 3), (3, 7), (64, 16), (1, 9)])
def test_orthogonalising_maps_the_singular_values_and_keeps_the_vectors(shape):
    """Against the singular value decomposition: U·f⁵(σ/(‖d‖ + ε))·Vᵀ. Each round magnifies the float64 error of the one
    before by at most 4.25 (docs/derivations/muon.md)."""
    d = drawn(3, torch.float64, *shape)
    u, sigma, vh = torch.linalg.svd(d, full_matrices=False)
    exact = u @ torch.diag(quintic(sigma / (d.norm() + 1e-7))) @ vh
    r, n, unit = min(shape), max(shape), UNIT[torch.float64]
    one_round = 1.21 * (n + 2 * r + 10) * unit * 20 * r  # γ_n of each product, norms at most 1.21·√r, |a|, |b|, |c| < 5
    allowed = sum(4.25**k for k in range(6)) * one_round + 100 * d.numel() * unit
    assert float((orthogonalise(d) - exact).norm()) <= allowed < 1e-7
    assert float(torch.linalg.matrix_norm(orthogonalise(d), 2)) <= 1.21


def test_a_zero_matrix_stays_zero():
    assert not orthogonalise(torch.zeros(4, 6)).any()


@pytest.mark.parametrize("shape", [(6, 6), (8, 2), (2, 8)])
def test_muon_step_by_step(shape):
    w, m = drawn(1, torch.float64, *shape), torch.zeros(shape, dtype=torch.float64)
    expected_w, expected_m = w.clone(), m.clone()
    for t in range(3):
        g = drawn(10 + t, torch.float64, *shape)
        kept = g.clone()
        muon(w, g, m, lr=0.02, momentum=0.95, decay=0.1, scale=0.25)
        assert torch.equal(g, kept), "the gradient is only read"
        expected_m = 0.95 * expected_m + 0.25 * g
        u, sigma, vh = torch.linalg.svd(0.25 * g + 0.95 * expected_m, full_matrices=False)
        step = u @ torch.diag(quintic(sigma / (sigma.norm() + 1e-7))) @ vh
        stretch = math.sqrt(max(1.0, shape[0] / shape[1]))
        expected_w = expected_w * (1 - 0.02 * 0.1) - 0.02 * stretch * step
        assert torch.allclose(m, expected_m, rtol=0, atol=1e-14)
        assert torch.allclose(w, expected_w, rtol=0, atol=1e-10)  # 4.25⁵ times float64's rounding, some entries
