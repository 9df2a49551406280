"""The optimiser step against exact rationals, high precision by hand, and torch."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from flint import arb, fmpq
from spec_models import random_params

from cllm.spec import AdamW, Balls, adamw, clip_scale, decays, global_norm, sgd
from cllm.spec.balls import working

S = Balls()


def arrays(seed, count=4, shape=(3, 5)):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32).astype(np.float64) for _ in range(count)]


@pytest.mark.parametrize("t", range(1, 11))
def test_adamw_by_hand_in_mpmath(t):
    w, g, m, v = arrays(t)
    v = v * v
    w[0], g[0], m[0], v[0] = 1.0, 0.0, 0.0, 0.0  # an exactly zero gradient moves nothing but the decay
    s = AdamW(t=t, lr=3e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    with working(256):
        found = adamw(S, *map(S.lift, (w, g, m, v)), settings=s)
    with mpmath.workdps(60), working(256):
        b1, b2, lr, eps, wd = (mpmath.mpf(x) for x in (*s.betas, s.lr, s.eps, s.weight_decay))
        for i, (a, b, c, d) in enumerate(zip(w.flat, g.flat, m.flat, v.flat, strict=True)):
            m1 = b1 * mpmath.mpf(c) + (1 - b1) * mpmath.mpf(b)
            v1 = b2 * mpmath.mpf(d) + (1 - b2) * mpmath.mpf(b) ** 2
            step = (m1 / (1 - b1**t)) / (mpmath.sqrt(v1 / (1 - b2**t)) + eps) + wd * mpmath.mpf(a)
            for ball, value in zip((f.flat[i] for f in found), (mpmath.mpf(a) - lr * step, m1, v1), strict=True):
                assert abs(ball - arb(mpmath.nstr(value, 58))) < arb(10) ** -55 * (1 + abs(ball))
                assert ball.rad() < 1e-60


def test_ten_steps_of_torch_adamw():
    w, *gs = arrays(0, 11)
    p = torch.nn.Parameter(torch.tensor(w))
    torch_step = torch.optim.AdamW([p], lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    with working(300):
        state = [S.lift(w), S.lift(np.zeros(w.shape)), S.lift(np.zeros(w.shape))]
        for t, g in enumerate(gs, 1):
            p.grad = torch.tensor(g)
            torch_step.step()
            state = list(adamw(S, state[0], S.lift(g), *state[1:], settings=AdamW(t, 1e-2, weight_decay=0.1)))
            assert np.allclose(p.detach().numpy().ravel(), [float(x) for x in state[0].flat], rtol=0, atol=1e-14)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_in_exact_rationals(nesterov):
    w, g, v = arrays(3, 3)
    lr, mu, wd = 0.1, 0.9, 0.01
    with working(256):
        new_w, new_v = sgd(S, *map(S.lift, (w, g, v)), lr=lr, momentum=mu, nesterov=nesterov, weight_decay=wd)
    with working(4000):
        for a, b, c, x, y in zip(w.flat, g.flat, v.flat, new_w.flat, new_v.flat, strict=True):
            fa, fb, fc, r, u, d = map(Fraction, (a, b, c, lr, mu, wd))
            velocity = u * fc + fb
            value = fa - r * ((fb + u * velocity if nesterov else velocity) + d * fa)
            assert x.contains(fmpq(value.numerator, value.denominator))
            assert y.contains(fmpq(velocity.numerator, velocity.denominator))
    params = [torch.nn.Parameter(torch.tensor(w))]
    step = torch.optim.SGD(params, lr=lr, momentum=mu, nesterov=nesterov)
    with working(128):
        state = S.lift(w), S.lift(np.zeros(w.shape))
        for grad in (g, v, g):
            params[0].grad = torch.tensor(grad)
            step.step()
            state = sgd(S, state[0], S.lift(grad), state[1], lr=lr, momentum=mu, nesterov=nesterov)
        assert np.allclose(params[0].detach().numpy().ravel(), [float(x) for x in state[0].flat], rtol=0, atol=1e-14)


def test_clipping_by_the_global_norm():
    with working(128):
        g = [S.lift(np.array([[3.0, 0.0]])), S.lift(np.array([[0.0], [4.0]]))]
        norm = global_norm(S, g)
        assert norm.flat[0] == 5
        assert clip_scale(S, norm, 2.5).flat[0].contains(fmpq(1, 2))
        assert clip_scale(S, norm, 5.0).flat[0].contains(1)
        assert clip_scale(S, norm, 100.0).flat[0].contains(1)
        zero = global_norm(S, [S.lift(np.zeros((2, 2)))])
        assert clip_scale(S, zero, 1.0).flat[0].contains(1)


def test_decay_acts_on_matrices_only():
    names = random_params(2, 4, 4, 5, 3, tied=False)
    matrices = {n for n, x in names.items() if x.ndim == 2 and n != "pos"}
    assert {n for n in names if decays(n)} == matrices
    assert "head.w" in matrices
    assert "tok" in matrices
