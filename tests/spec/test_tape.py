"""The tape: exact rationals, difference quotients for every rule, and every rule broken once."""

from __future__ import annotations

from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from flint import arb, fmpq
from hypothesis import given, settings
from hypothesis import strategies as st
from spec_models import CASES

from cllm.spec import BallArray, Balls, Float64, pullback
from cllm.spec.balls import working
from cllm.spec.tape import RULES, Rule

S = Balls()


def lift_random(shape, seed):
    return S.lift(np.random.default_rng(seed).uniform(0.2, 1.2, shape))


def inner(a, b):
    return sum((x * y for x, y in zip(a.flat, b.flat, strict=True)), arb(0))


def quotient_agrees(f, operands):
    """Whether the tape's cotangents agree with a central difference of step 2^-100, at 512 bits, for each operand."""
    with working(512):
        y = f(S, *operands)
        c = lift_random(y.shape, 99)
        h = arb(2) ** -100
        _, pulled = pullback(S, f, operands, c)
        for i, (x, g) in enumerate(zip(operands, pulled, strict=True)):
            if g.shape != x.shape:
                return False
            d = lift_random(x.shape, i)
            ends = []
            for sign in (h, -h):
                moved = list(operands)
                moved[i] = BallArray(x.shape, [v + sign * e for v, e in zip(x.flat, d.flat, strict=True)])
                ends.append(inner(f(S, *moved), c))
            if not abs((ends[0] - ends[1]) / (2 * h) - inner(g, d)) < arb(2) ** -150:
                return False
    return True


def case(name):
    shapes, k = CASES[name]
    return lambda T, *a: getattr(T, name)(*a, *k), [lift_random(s, 7 + i) for i, s in enumerate(shapes)]


def test_every_rule_has_a_case():
    assert set(CASES) == set(RULES)


@pytest.mark.parametrize("name", CASES)
def test_rule_agrees_with_difference_quotient(name):
    assert quotient_agrees(*case(name))


@pytest.mark.parametrize(("name", "operand"), [(n, i) for n, r in RULES.items() for i in range(len(r.pulls))])
def test_broken_rule_is_seen(name, operand, monkeypatch):
    """Each pull-back in turn is made wrong by one part in a thousand, and the test above must notice."""
    rule = RULES[name]

    def wrong(T, g, v):
        return rule.pulls[operand](T, T.scale(g, Fraction(1001, 1000)), v)

    pulls = tuple(wrong if i == operand else p for i, p in enumerate(rule.pulls))
    monkeypatch.setitem(RULES, name, Rule(rule.saves, pulls))
    assert not quotient_agrees(*case(name))


def composite(T, x, w):
    """A value used three times, cuts that overlap, a paste, and a segment run again on the way back."""
    y = T.mm(x, T.t(w))
    z = T.call(lambda R, a, b: R.tanh(R.add(R.mul(a, a), R.cut(b, (0, 0), (3, 4)))), y, w)
    left, right = T.cut(z, (0, 0), (3, 3)), T.cut(z, (0, 1), (3, 3))
    return T.mul(T.paste((3, 5), [(0, 0), (0, 2)], left, right), T.exp(T.scale(x, -1)))


def test_composite_agrees_with_difference_quotient():
    assert quotient_agrees(composite, [lift_random((3, 5), 1), lift_random((4, 5), 2)])


def whole_and_cut(T, x):
    """A value that is used whole, twice, and by two of its blocks."""
    y = T.tanh(x)
    blocks = T.paste((3, 5), [(0, 0), (1, 1)], T.cut(y, (1, 2), (2, 2)), T.cut(y, (0, 0), (2, 4)))
    return T.add(T.mul(T.sq(y), blocks), y)


def test_value_used_whole_and_in_blocks():
    assert quotient_agrees(whole_and_cut, [lift_random((3, 5), 1)])


def test_unused_leaf_gets_exact_zeros_and_constants_none():
    with working(64):
        x, w = lift_random((2, 2), 0), lift_random((2, 2), 1)
        _, (gx, gw) = pullback(S, lambda T, a, b: T.sq(a), [x, w], x, [True, False])
        assert gw is None
        assert gx is not None
        tape_y, (ga, gb) = pullback(S, lambda T, a, b: T.sq(a), [x, w], x)
        assert tape_y.shape == (2, 2)
        assert all(v.is_exact() and v == 0 for v in gb.flat)
        assert not any(v == 0 for v in ga.flat)


def test_same_tape_on_float64():
    x, w = (np.random.default_rng(i).uniform(0.2, 1.2, s) for i, s in enumerate([(3, 5), (4, 5)]))
    c = np.ones((3, 5))
    y, grads = pullback(Float64(), composite, [x, w], c)
    with working(128):
        exact_y, exact = pullback(S, composite, [S.lift(x), S.lift(w)], S.lift(c))
        for a, b in zip([y, *grads], [exact_y, *exact], strict=True):
            assert np.allclose(a.ravel(), [float(v) for v in b.flat], rtol=1e-13, atol=1e-15)


# A toy in exact rationals: f = Σ ((xWᵀ + b)² Uᵀ)², linear and square only, gradient by hand in Fractions.

small = st.integers(-(2**20), 2**20).map(lambda n: n / 2**10)


def matrix(m, n):
    return st.lists(small, min_size=m * n, max_size=m * n).map(lambda v: np.array(v).reshape(m, n))


def toy(T, x, w, b, u):
    y = T.sq(T.add(T.mm(x, T.t(w)), b))
    return T.colsum(T.rowsum(T.sq(T.mm(y, T.t(u)))))


def toy_gradient(x, w, b, u):
    fx, fw, fb, fu = (np.vectorize(Fraction, otypes=[object])(a) for a in (x, w, b, u))
    a = fx @ fw.T + fb
    z = (a * a) @ fu.T
    da = (2 * z) @ fu * (2 * a)
    return [da @ fw, da.T @ fx, da.sum(axis=0)[None], (2 * z).T @ (a * a)], (z * z).sum()


@settings(deadline=None, max_examples=40)
@given(matrix(2, 3), matrix(4, 3), matrix(1, 4), matrix(2, 4), st.sampled_from([24, 53, 128]))
def test_balls_contain_the_exact_rational_gradient(x, w, b, u, bits):
    exact, f = toy_gradient(x, w, b, u)
    with working(bits):
        y, found = pullback(S, toy, [S.lift(v) for v in (x, w, b, u)], S.lift(np.ones((1, 1))))
    with working(2000):  # `contains` rounds the rational to the working precision first; here they are dyadic and exact
        assert y.flat[0].contains(fmpq(f.numerator, f.denominator))
        for g, e in zip(found, exact, strict=True):
            assert all(
                ball.contains(fmpq(q.numerator, q.denominator)) for ball, q in zip(g.flat, e.ravel(), strict=True)
            )


def test_toy_ball_misses_a_wrong_rational():
    rng = np.random.default_rng(0)
    x, w, b, u = (rng.integers(-99, 99, s) / 64.0 for s in [(2, 3), (4, 3), (1, 4), (2, 4)])
    exact, _ = toy_gradient(x, w, b, u)
    with working(128):
        _, found = pullback(S, toy, [S.lift(v) for v in (x, w, b, u)], S.lift(np.ones((1, 1))))
        q = exact[1][0, 0] + Fraction(1, 2**80)
        assert not found[1].flat[0].contains(fmpq(q.numerator, q.denominator))


def test_partial_keeps_the_system_first():
    with working(64):
        f = partial(lambda T, a, *, c: T.scale(a, c), c=3)
        _, (g,) = pullback(S, f, [S.lift(np.ones((1, 2)))], S.lift(np.ones((1, 2))))
        assert [float(v) for v in g.flat] == [3.0, 3.0]
