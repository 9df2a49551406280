"""Slices are exact, products of them enclose, and the fast ball system says what the plain one says."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from flint import arb, arb_mat, ctx
from hypothesis import given, settings
from hypothesis import strategies as st
from spec_models import random_batch, random_params

from cllm.errors import CertificateError
from cllm.spec import BallArray, Balls, FastBalls, Model, distance, enclose, fast, slices
from cllm.spec.balls import working


def exact_value(s: slices.Sliced):
    """Σ digits[l]·2^(exponent − 22(l+1)), as Fractions."""
    total = np.full(s.size.shape, Fraction(0), object)
    for l, d in enumerate(s.digits):
        assert np.abs(d).max() <= slices.HALF
        weight = Fraction(2) ** (s.exponent - slices.DIGIT * (l + 1))
        total = total + np.vectorize(lambda v, w=weight: Fraction(float(v)) * w, otypes=[object])(d)
    return total


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(-1e20, 1e20).filter(lambda v: v == 0 or abs(v) > 1e-20), min_size=6, max_size=6))
def test_float_slices_are_exact(values):
    x = np.array(values).reshape(2, 3)
    s = slices.slice_floats(x)
    assert s.rad is None
    assert (exact_value(s) == np.vectorize(Fraction, otypes=[object])(x)).all()


def test_typical_float32_weights_need_two_or_three_digits():
    w = (np.random.default_rng(0).normal(size=(512, 512)) * 0.02).astype(np.float32)
    assert len(slices.slice_floats(w.astype(np.float64)).digits) in (2, 3)


def test_weights_too_far_apart_are_refused():
    with pytest.raises(CertificateError, match="too small"):
        slices.slice_floats(np.array([[1e300, 1e-300]]))


def random_balls(shape, seed, spread=20):
    """Balls with full mantissas, radii of about 2^-200, signs and magnitudes mixed."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape) * 2.0 ** rng.integers(-spread, spread, shape)
    return [arb(v) * arb(3).sqrt() + arb(0, abs(v) * 2.0**-200) for v in x.ravel().tolist()]


@pytest.mark.parametrize("bits", [64, 100, 256, 384, 1000])
def test_ball_slices_enclose(bits):
    with working(bits):
        flat = random_balls((5, 7), bits)
        s = slices.slice_balls(flat, (5, 7), bits)
    value = exact_value(s).ravel()
    with working(4000):
        for ball, q, r, size in zip(flat, value, s.rad.ravel().tolist(), s.size.ravel().tolist(), strict=True):
            here = arb(q.numerator) / arb(q.denominator)
            assert abs(ball.mid() - here) + ball.rad() <= r
            assert abs(ball.mid()) <= size
            assert r < max(2.0**-190 * 2.0**21, 2.0 ** (30 - bits))


def digits_of(array):
    return slices.Sliced([d.astype(np.float32) for d in array], 0, np.ones(array.shape[1:]), None)


@pytest.mark.parametrize("shape", [(3, 5, 4, 2, 3), (2, 2048, 3, 1, 1), (2, 5000, 3, 3, 2), (1, 700, 2, 4, 4)])
@pytest.mark.parametrize("extreme", [False, True])
def test_sums_of_digit_products_are_exact(shape, extreme):
    """Against Python integers; `extreme`: every digit is 2^21, so that a sum one longer would not be exact."""
    m, k, n, na, nb = shape
    rng = np.random.default_rng(0)
    a, b = (
        rng.integers(-slices.HALF, slices.HALF + 1, (na, m, k)),
        rng.integers(-slices.HALF, slices.HALF + 1, (nb, k, n)),
    )
    if extreme:
        a[:], b[:] = slices.HALF, slices.HALF
    for orders in {1, na, na + nb - 1}:
        expected = np.zeros((orders, m, n), object)
        for i in range(na):
            for j in range(nb):
                if i + j < orders:
                    expected[i + j] += a[i].astype(object) @ b[j].astype(object)
        found = np.concatenate([total for _, total in slices.sums(digits_of(a), digits_of(b), orders)], axis=1)
        assert (found == expected).all()


def test_rows_come_in_blocks(monkeypatch):
    monkeypatch.setattr(slices, "BLOCK", 50)
    rng = np.random.default_rng(0)
    a, b = rng.integers(-9, 9, (2, 11, 5)), rng.integers(-9, 9, (1, 5, 7))
    blocks = list(slices.sums(digits_of(a), digits_of(b), 2))
    assert len(blocks) > 1
    assert (np.concatenate([t for _, t in blocks], axis=1)[1] == a[1] @ b[0]).all()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(-(2**62), 2**62), min_size=12, max_size=12), st.integers(1, 12))
def test_integers_are_put_together_exactly(values, count):
    total = np.array(values[: 12 // count * count], np.int64).reshape(count, -1)
    expected = [
        sum(int(v) << (slices.DIGIT * (count - 1 - s)) for s, v in enumerate(column)) for column in total.T.tolist()
    ]
    assert slices.integers(total) == expected


@pytest.mark.parametrize("which", ["ball·float", "float·ball", "ball·ball", "float·float", "zero·float", "ball·zero"])
def test_products_enclose_the_exact_product(which):
    """Endpoints of the operands' balls, multiplied in exact rationals' place (4000 bits), lie in the product."""
    m, k, n = 4, 300, 3
    rng = np.random.default_rng(4)
    left, right = which.split("·")

    def operand(kind, shape, seed):
        if kind == "ball":
            flat = random_balls(shape, seed)
            return slices.slice_balls(flat, shape, 256), flat
        x = np.zeros(shape) if kind == "zero" else rng.normal(size=shape).astype(np.float32).astype(np.float64)
        return slices.slice_floats(x), [arb(v) for v in x.ravel().tolist()]

    with working(256):
        a, fa = operand(left, (m, k), 1)
        b, fb = operand(right, (k, n), 2)
        found = slices.balls(a, b)
        high, low, rad = slices.expansion(a, b)
    with working(4000):
        for sign in (-1, 0, 1):
            ends = [[x.mid() + sign * x.rad() for x in flat] for flat in (fa, fb)]
            exact = (arb_mat(m, k, ends[0]) * arb_mat(k, n, ends[1])).entries()
            for x, ball, h, l, r in zip(exact, found, high.ravel(), low.ravel(), rad.ravel(), strict=True):
                assert ball.contains(x)
                assert abs(x - float(h) - float(l)) <= float(r)
        scale = max(abs(float(x)) for x in exact)
        assert max(float(b.rad()) for b in found) <= 1e-50 * scale + 1e-300
        assert rad.max() <= 1e-24 * scale + 1e-300


def test_wide_radii_are_multiplied_too():
    """Balls of 30 % with all ends on one side: rad_a·rad_b counts."""
    rng = np.random.default_rng(0)
    with working(128):
        fa, fb = ([arb(v, 0.3 * v) for v in rng.uniform(1, 2, n).tolist()] for n in (12, 15))
        a, b = slices.slice_balls(fa, (4, 3), 128), slices.slice_balls(fb, (3, 5), 128)
        found = slices.balls(a, b)
        high, low, rad = slices.expansion(a, b)
    with working(4000):
        ends = [[x.mid() + x.rad() for x in flat] for flat in (fa, fb)]
        exact = (arb_mat(4, 3, ends[0]) * arb_mat(3, 5, ends[1])).entries()
        for x, ball, h, l, r in zip(exact, found, high.ravel(), low.ravel(), rad.ravel(), strict=True):
            assert ball.contains(x)
            assert abs(x - float(h) - float(l)) <= float(r)


@pytest.mark.parametrize("orders", [1, 2, 3, 5])
@pytest.mark.parametrize("k", [3, 4999])
def test_expansion_bounds_what_it_leaves_out(orders, k):
    """Digits at their largest, so that what is left out is too, and sums that no single float64 holds."""
    digits = [np.full((2, k), float(slices.HALF - 1)) for _ in range(4)]
    digits[0][1] = 1.0
    a = slices.Sliced([d.astype(np.float32) for d in digits], 0, np.ones((2, k)), None)
    high, low, rad = slices.expansion(a, a.T, orders)
    value = exact_value(a)
    exact = value @ value.T
    for q, h, l, r in zip(exact.ravel(), high.ravel(), low.ravel(), rad.ravel(), strict=True):
        gap = abs(q - Fraction(float(h)) - Fraction(float(l)))
        assert gap <= Fraction(float(r))
        assert r < k * 2.0 ** (4 - 22 * orders) + k * 2.0**-95
        if orders < 5:
            assert gap > 0


def test_second_term_of_balls_is_bounded():
    with working(300):
        flat = [arb(n) / 3 for n in range(1, 200)] + [arb(2) ** -1060 / 3, arb(2) ** -1200, arb(0)]
        high, low, rad = fast._with_low(BallArray((1, len(flat)), flat))
        for x, h, l, r in zip(flat, high[0].tolist(), low[0].tolist(), rad[0].tolist(), strict=True):
            assert abs(x - h - l) <= r
            assert r <= 1e-31 * h + 1e-306
        assert rad[0, -1] <= 1e-306


class Given(BallArray):
    """An array with a given expansion."""

    __slots__ = ("given",)

    def __init__(self, *given):
        super().__init__(given[0].shape)
        self.given = given

    def expansion(self):
        return self.given


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=2), st.lists(st.floats(-1e-14, 1e-14), min_size=2, max_size=2)
)
def test_sum_of_expansions_bounds_its_roundings(highs, lows):
    parts = [Given(np.array([[h]]), np.array([[l]]), np.zeros((1, 1))) for h, l in zip(highs, lows, strict=True)]
    high, low, rad = fast.Sum(*parts).expansion()
    exact = sum(map(Fraction, highs + lows), Fraction(0))
    gap = abs(exact - Fraction(float(high[0, 0])) - Fraction(float(low[0, 0])))
    assert gap <= Fraction(float(rad[0, 0]))
    assert rad[0, 0] < 1e-27


@settings(deadline=None, max_examples=200)
@given(st.floats(-1e3, 1e3), st.integers(0, 2**60), st.floats(-1e3, 1e3), st.floats(0, 1e-3), st.booleans())
def test_distance_bounds_the_exact_distance(start, tail, engine, rad, near):
    """For a middle of 120 bits, given as one float or as two."""
    exact = Fraction(start) * (1 + Fraction(tail, 2**112))
    high = float(exact)
    low = float(exact - Fraction(high))
    rest = abs(exact - Fraction(high) - Fraction(low))
    engine = high if near else engine
    for second, radius in ((None, rad), (np.array([low]), rad + float(rest) * 1.001 + 1e-320)):
        found = distance(np.array([engine]), np.array([high]), second, np.array([radius]))[0]
        assert Fraction(float(found)) >= abs(Fraction(engine) - exact) + Fraction(rad)
        assert found <= abs(engine - high) * (1 + 1e-14) + rad * (1 + 1e-14) + abs(high) * 3e-16 + 1e-300


@settings(deadline=None, max_examples=100)
@given(st.floats(-1e200, 1e200), st.floats(-1e200, 1e200))
def test_two_sum(a, b):
    s, e = slices.two_sum(np.array([a]), np.array([b]))
    assert Fraction(float(s[0])) + Fraction(float(e[0])) == Fraction(a) + Fraction(b)
    assert float(s[0]) == a + b


def gradients(params, batch, model, system, bits=256):
    with enclose(params, batch, model, bits=bits, system=system) as e:
        return e.loss, {g.name: (g, g.middle, g.radius, g.error(g.middle)) for g in e.gradients()}


@pytest.mark.parametrize("tied", [True, False])
def test_fast_balls_overlap_plain_balls(tied, monkeypatch):
    """Every product goes through the slices: gradients overlap, entry by entry, as balls and as expansions."""
    monkeypatch.setattr(fast, "WORTHWHILE", 0)
    params = random_params(2, 8, 12, 11, 6, tied=tied)
    batch, model = random_batch(3, 6, 11, padded=True), Model(2, 2, tied=tied, dropout=0.25, attention_dropout=0.25)
    plain_loss, plain = gradients(params, batch, model, Balls())
    fast_loss, quick = gradients(params, batch, model, FastBalls())
    assert plain_loss.overlaps(fast_loss)
    deferred = 0
    for name, (g, *_) in plain.items():
        q, middle, radius, error = quick[name]
        high, low, rad = q._expansion
        deferred += low is not None
        with working(256):
            for index in np.ndindex(g.shape):
                ball = g.entry(*index)
                assert ball.overlaps(q.entry(*index))
                l = 0.0 if low is None else float(low[index])
                away = float(rad[index]) + (abs(float(high[index])) * 2.0**-52 + 1e-300 if low is None else 0.0)
                assert abs(ball - float(high[index]) - l) <= arb(away) + ball.rad() * 2
        assert radius.max() < 1e-22
        assert error.max() < 1e-15
        assert (middle == q.middle).all()
    assert deferred >= 10, "the weights' gradients were meant to be left as products"


def test_fallback(monkeypatch):
    assert isinstance(fast.fastest(), FastBalls)
    fast.fastest.cache_clear()
    monkeypatch.setattr(slices, "LIMIT", 2**12)  # sums of 4096 products of 2^42 are no longer exact
    try:
        with pytest.raises(CertificateError):
            fast.self_test()
        assert type(fast.fastest()) is Balls
    finally:
        fast.fastest.cache_clear()


def test_wrong_digits_fail_the_self_test(monkeypatch):
    good = slices.integers
    monkeypatch.setattr(slices, "integers", lambda t: [v + (1 << 60) for v in good(t)])
    with pytest.raises(CertificateError, match="disagree"):
        fast.self_test()
    assert ctx.prec == 53
