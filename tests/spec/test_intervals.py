"""Intervals: every primitive, table and operation encloses what 300-bit balls say, with inputs that have radii too."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from flint import arb
from hypothesis import given, settings
from hypothesis import strategies as st
from spec_models import CASES

from cllm.spec import OPS, AdamW, BallArray, Balls, taylor
from cllm.spec.balls import working
from cllm.spec.intervals import Interval, Intervals
from cllm.spec.rounding import up

I, S = Intervals(), Balls()


def encloses(found: Interval, exact: BallArray) -> bool:
    """Whether |exact − mid| ≤ rad, decided in balls (whose own 300 bits are nothing beside a radius)."""
    return found.mid.shape == exact.shape and all(
        (abs(x - m) <= arb(r) * (1 + arb(2) ** -60)) or (r == 0 and x.overlaps(arb(m)))
        for x, m, r in zip(exact.flat, found.mid.ravel().tolist(), found.radius().ravel().tolist(), strict=True)
    )


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("name", [*CASES, "peak shift"])
def test_primitive_encloses(name, wide):
    shapes, k = CASES.get(name, ([(3, 5)], ()))
    rng = np.random.default_rng(3)
    for trial in range(20):
        mids = [rng.uniform(0.2, 1.2, s) * 10.0 ** rng.integers(-3, 3) for s in shapes]
        rads = [m * rng.uniform(0, 0.3, m.shape) if wide else np.zeros(m.shape) for m in mids]
        inputs = [Interval(m, r if wide else None) for m, r in zip(mids, rads, strict=True)]
        # a point of each interval: all upper ends, all lower ends, ends at random, inner points
        side = [
            [np.ones(m.shape), -np.ones(m.shape), rng.choice([-1.0, 1.0], m.shape), rng.uniform(-1, 1, m.shape)][
                trial % 4
            ]
            for m in mids
        ]
        with working(300):
            points = [
                BallArray(m.shape, [arb(a) + arb(b) * arb(c) for a, b, c in zip(m.flat, r.flat, s.flat, strict=True)])
                for m, r, s in zip(mids, rads, side, strict=True)
            ]
            if name == "peak shift":
                f = lambda T, a: T.log(T.rowsum(T.exp(a)))  # noqa: E731
                g = lambda T, a: T.add(T.log(T.rowsum(T.exp(T.sub(a, T.peak(a))))), T.peak(a))  # noqa: E731
                assert encloses(g(I, *inputs), f(S, *points))
                continue
            found = getattr(I, name)(*inputs, *k)
            assert encloses(found, getattr(S, name)(*points, *k)), name


def test_primitive_test_can_fail():
    """The same comparison sees a radius that is rounded down to the nearest error."""
    x = np.random.default_rng(0).uniform(1, 2, (40, 40))
    with working(300):
        exact = S.mul(S.lift(x), S.lift(x))
        assert encloses(I.mul(I.lift(x), I.lift(x)), exact)
        assert not encloses(Interval(x * x, np.full(x.shape, 2.0**-54)), exact)


FUNCTIONS = {
    "exp": (arb.exp, [(-760, 715), (-1, 1), (-1e-300, 1e-300)]),
    "log": (arb.log, [(1e-320, 1e-300), (0.5, 2), (1, 1e300), (0.9999, 1.0001)]),
    "tanh": (arb.tanh, [(-25, 25), (-0.1, 0.1), (-1e-300, 1e-300)]),
    "erf": (arb.erf, [(-8, 8), (-0.1, 0.1), (-1e-300, 1e-300)]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_tables_enclose(name):
    f, ranges = FUNCTIONS[name]
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.uniform(*r, 1500) for r in ranges] + [np.arange(-40, 41) / 64 + 1.0])
    x = x[x > 0] if name == "log" else x
    value, bound = getattr(taylor, name)(x)
    assert (bound[np.abs(x) < 700] < np.inf).all()
    assert np.max(bound[np.abs(x) < 2.0]) < 2e-15 * max(1.0, np.abs(value[np.abs(x) < 2.0]).max())
    with working(300):
        for a, v, b in zip(x.tolist(), value.tolist(), bound.tolist(), strict=True):
            assert b == np.inf or abs(f(arb(a)) - v) <= b


def test_table_of_wide_cells_bounds_its_remainder():
    """Cells so wide that Lagrange's remainder is all of the error."""
    table = taylor.Table(lambda s: s.exp(), -4.0, 4.0, 2.0)
    x = np.random.default_rng(0).uniform(-4, 4, 500)
    value, bound = table(x)
    assert bound.min() > 1e-7
    assert bound.max() < 1e-2
    with working(200):
        gaps = [abs(arb(a).exp() - v) / b for a, v, b in zip(x.tolist(), value.tolist(), bound.tolist(), strict=True)]
        assert all(g <= 1 for g in gaps)
        assert max(float(g) for g in gaps) > 0.1


@pytest.mark.parametrize("name", FUNCTIONS)
def test_tables_know_nothing_of_what_is_not_a_number(name):
    assert getattr(taylor, name)(np.array([np.nan]))[1][0] == np.inf
    assert taylor.exp(np.array([np.inf]))[1][0] == np.inf
    assert (taylor.log(np.array([0.0, -1.0, np.inf]))[1] == np.inf).all()


def test_intervals_that_reach_a_pole_are_unbounded():
    near = Interval(np.array([[1e-3]]), np.array([[2e-3]]))
    assert not I.recip(near).radius()[0, 0] < np.inf
    assert not I.log(near).radius()[0, 0] < np.inf
    assert not I.rsqrt(near).radius()[0, 0] < np.inf
    assert not I.exp(Interval(np.zeros((1, 1)), np.full((1, 1), 3.0))).radius()[0, 0] < np.inf


def rng_array(shape, seed, scale=1.0):
    return np.random.default_rng(seed).normal(size=shape) * scale


TRI = np.tril(np.ones((7, 7), bool))
KEEP = np.random.default_rng(9).random((14, 8)) < 0.7
OP_CASES = {
    "embedding": ([(9, 8), (7, 8)], {"tokens": np.array([3, 3, 0, 8]), "positions": np.array([0, 1, 2, 3])}),
    "layernorm": ([(14, 8), (1, 8), (1, 8)], {}),
    "linear": ([(14, 8), (5, 8), (1, 5)], {}),
    "attention": ([(14, 8)] * 3, {"heads": 2, "allowed": [TRI, TRI]}),
    "gelu_tanh": ([(14, 8)], {}),
    "gelu_erf": ([(14, 8)], {}),
    "dropout": ([(14, 8)], {"keep": KEEP, "p": 0.3}),
    "residual": ([(14, 8), (14, 8)], {}),
    "cross_entropy": ([(4, 9)], {"targets": np.array([3, 3, 0, 8]), "smoothing": Fraction(1, 10)}),
}


@pytest.mark.parametrize("name", OP_CASES)
def test_local_certificate_encloses_the_exact_operation(name):
    shapes, settings_ = OP_CASES[name]
    arrays = [rng_array(s, i, 2.0) for i, s in enumerate(shapes)]
    with working(300):
        y = OPS[name].forward(S, *map(S.lift, arrays), **settings_)
        g = rng_array(y.shape, 50)
        _, exact = OPS[name].local(S, [S.lift(a) for a in arrays], S.lift(g), **settings_)
        value, found = OPS[name].local(I, [I.lift(a) for a in arrays], I.lift(g), **settings_)
        for a, b in zip([value, *found], [y, *exact], strict=True):
            assert encloses(a, b)
            assert a.radius().max() < 1e-12


def test_adamw_local():
    rng = np.random.default_rng(0)
    w, g, m = (rng.normal(size=(5, 4)) for _ in range(3))
    v = rng.random((5, 4))
    g[0] = m[0] = v[0] = 0.0
    for t in (1, 2, 10):
        s = AdamW(t=t, lr=1e-3, weight_decay=0.1)
        with working(300):
            exact = OPS["adamw"].forward(S, *map(S.lift, (w, g, m, v)), settings=s)
            found = OPS["adamw"].forward(I, *map(I.lift, (w, g, m, v)), settings=s)
            for a, b in zip(found, exact, strict=True):
                assert encloses(a, b)
                assert a.radius().max() < 1e-14


@settings(deadline=None, max_examples=200)
@given(st.lists(st.floats(0, 1e300), min_size=1, max_size=40), st.lists(st.floats(0, 1e5), min_size=40, max_size=40))
def test_up_bounds_the_exact_rational(a, b):
    """Σ ab in float64, raised, is at least the exact sum: in order, and by BLAS."""
    x, y = np.array(a), np.array(b[: len(a)])
    exact = sum((Fraction(p) * Fraction(q) for p, q in zip(x.tolist(), y.tolist(), strict=True)), Fraction(0))
    for computed in (sum((x * y).tolist()), float(x @ y)):
        assert Fraction(float(up(np.array(computed), len(a)))) >= exact
    # and it is close: nothing is lost but its own allowance
    assert float(up(np.array(float(x @ y)), len(a))) <= float(x @ y) * (1 + 1e-13) + 1e-300


def test_flush_to_zero_is_off():
    """Radii and slices rely on gradual underflow: products and dot products of denormals survive."""
    tiny = np.full((64, 64), 2.0**-530)
    assert (tiny * tiny > 0).all()
    assert ((tiny @ tiny) > 0).all()
    assert (np.full(64, 5e-324) * 1.0 > 0).all()
