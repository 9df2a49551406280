"""Sums of digit products are exact, products of them enclose, and the fast ball system says what the plain one says."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from flint import arb, arb_mat, ctx
from hypothesis import given, settings
from hypothesis import strategies as st
from spec_models import random_batch, random_params

from cllm.errors import CertificateError
from cllm.spec import Balls, FastBalls, Model, distance, elementary, enclose, fast, fixed, native, slices
from cllm.spec.balls import working

pytestmark = pytest.mark.skipif(not native.available(), reason="no native library")


def test_typical_float32_weights_need_two_digits_and_a_few_rows_of_a_third() -> None:
    w = (np.random.default_rng(0).normal(size=(512, 512)) * 0.02).astype(np.float32).astype(np.float64)
    assert slices.of_floats(w).count in (2, 3)
    w[7, 9] = np.float32(1e-9)
    for given_floats in (w, w.T):
        x = slices.of_floats(given_floats)
        assert x.count == 3
        right, rows = slices._right(x, slice(0, 512), 3)
        assert len(right) == sum(map(len, rows)) and len(rows[0]) == len(rows[1]) == 512 and len(rows[2]) < 10


def digits_of(array) -> slices.Operand:
    """An operand with exactly these digits, of float64 or of long integers."""
    count, m, n = array.shape
    whole = sum(array[l].astype(object) << (slices.DIGIT * (count - 1 - l)) for l in range(count))
    flat = [int(v) for v in whole.ravel()]
    limbs = slices.DIGIT * count // 64 + 2
    f = fixed._from_integers(flat, (m, n), -slices.DIGIT * count, np.zeros(m * n), limbs)
    return slices.Operand(f, 0, count, np.ones((m, n)), None)


@pytest.mark.parametrize("shape", [(3, 5, 4, 2, 3), (2, 2048, 3, 1, 1), (2, 5000, 3, 3, 2), (1, 700, 2, 6, 6)])
@pytest.mark.parametrize("extreme", [False, True])
def test_sums_of_digit_products_are_exact(shape, extreme) -> None:
    """Against Python integers; `extreme`: every digit is −2^21, so that a sum one longer would not be exact."""
    m, k, n, na, nb = shape
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-slices.HALF, slices.HALF, (na, m, k)), rng.integers(-slices.HALF, slices.HALF, (nb, k, n)))
    if extreme:
        a[:], b[:] = -slices.HALF, -slices.HALF
    for digits in (a, b):
        if len(digits) > 1:  # the first digit leaves room for the others
            digits[0] = np.clip(digits[0], 1 - slices.HALF, slices.HALF - 2)
    for orders in {max(na, nb), na + nb - 1}:
        expected = np.zeros((orders, m, n), object)
        for i in range(na):
            for j in range(nb):
                if i + j < orders:
                    expected[i + j] += a[i].astype(object) @ b[j].astype(object)
        right = digits_of(b)
        for operand in (right, slices.Operand(right.T.values, 0, nb, right.T.size, None).T):  # stored either way
            blocks = list(slices.sums(digits_of(a), operand, orders))
            found = np.concatenate([total.astype(np.int64).sum(axis=0) for _, total in blocks], axis=1)
            assert (found == expected).all()


def test_sums_that_would_not_be_exact_are_refused(monkeypatch) -> None:
    one = digits_of(np.ones((3, 2, 2), np.int64))
    monkeypatch.setattr(slices, "LIMIT", 2)
    with pytest.raises(CertificateError, match="exceed 2"):
        next(slices.sums(one, one, 5))


def test_rows_come_in_blocks(monkeypatch) -> None:
    monkeypatch.setattr(slices, "BLOCK", 50)
    rng = np.random.default_rng(0)
    a, b = rng.integers(-9, 9, (2, 11, 5)), rng.integers(-9, 9, (1, 5, 7))
    blocks = list(slices.sums(digits_of(a), digits_of(b), 2))
    assert len(blocks) > 1
    assert (np.concatenate([t[0] for _, t in blocks], axis=1)[1] == a[1] @ b[0]).all()


@pytest.mark.parametrize("k", [3, 4999])
@pytest.mark.parametrize("orders", [1, 2, 3, 5, None])
def test_long_products_enclose(k, orders) -> None:
    """Long inner indices, in chunks; what is left out is bounded."""
    rng = np.random.default_rng(k)
    with working(256):
        flat = [arb(v) * arb(3).sqrt() for v in (rng.normal(size=2 * k) * 2.0 ** rng.integers(-20, 9, 2 * k)).tolist()]
        w = rng.normal(size=(k, 3)).astype(np.float32).astype(np.float64)
        balls = fixed.from_balls(flat, (2, k), 5)
        a, b = slices.of_balls(balls, 256), slices.of_floats(w)
        found = [slices.product(a, b, 5, orders), slices.product(a, a.T, 5, orders)]
        found += [slices.product(b.T, a.T, 5, orders).T]
    with working(2000):
        x = arb_mat(2, k, [arb(v.mid()) for v in flat])
        exact = [x * arb_mat(k, 3, w.ravel().tolist()), x * x.transpose()]
        exact.append(exact[0])
        for f, e in zip(found, exact, strict=True):
            for ball, z in zip(fixed.to_balls(f), e.entries(), strict=True):
                assert abs(ball.mid() - z) <= ball.rad()
            scale = max(abs(float(z)) for z in e.entries())
            assert f.rad.max() <= scale * k * (2.0 ** (-22 * orders + 4) if orders else 2.0**-230) + scale * 2.0**-230


@settings(deadline=None, max_examples=100)
@given(st.floats(-1e3, 1e3), st.integers(0, 2**60), st.floats(-1e3, 1e3), st.floats(0, 1e-3), st.booleans())
def test_distance_bounds_the_exact_distance(start, tail, engine, rad, near) -> None:
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


def gradients(params, batch, model, system, bits):
    with enclose(params, batch, model, bits=bits, system=system) as e:
        return e.loss, {g.name: (g, g.middle, g.radius, g.error(g.middle)) for g in e.gradients()}


@pytest.mark.parametrize(
    ("tied", "activation", "bits"),
    [(True, "gelu_tanh", 256), (False, "gelu_erf", 256), (False, "gelu_tanh", 384), (True, "gelu_tanh", 512)],
)
def test_fast_balls_overlap_plain_balls(tied, activation, bits) -> None:
    """Gradients overlap, entry by entry, as balls and as expansions."""
    params = random_params(2, 8, 12, 11, 6, tied=tied)
    batch = random_batch(3, 6, 11, padded=True)
    model = Model(2, 2, tied=tied, dropout=0.25, attention_dropout=0.25, activation=activation, label_smoothing=0.125)
    plain_loss, plain = gradients(params, batch, model, Balls(), bits)
    fast_loss, quick = gradients(params, batch, model, FastBalls(), bits)
    assert plain_loss.overlaps(fast_loss)
    deferred = 0
    for name, (g, *_) in plain.items():
        q, middle, radius, error = quick[name]
        deferred += fast.waiting(q.balls)
        with working(bits):
            for index in np.ndindex(g.shape):
                ball = g.entry(*index)
                assert ball.overlaps(q.entry(*index))
                for high, low, rad in (g._expansion, q._expansion):
                    away = float(rad[index]) + (abs(float(high[index])) * 2.0**-52 + 1e-300 if low is None else 0.0)
                    middle_here = arb(float(high[index])) + (0 if low is None else float(low[index]))
                    assert abs(ball - middle_here) <= arb(away) + ball.rad() * 2
        assert radius.max() < 1e-28
        assert error.max() < 1e-15
        assert (middle == q.middle).all()
    assert deferred >= 10, "the weights' gradients were meant to be left as products"


def test_fallback(monkeypatch) -> None:
    assert isinstance(fast.fastest(), FastBalls)
    fast._fastest.cache_clear()
    monkeypatch.setattr(slices, "LIMIT", 2**12)  # sums of 4096 products of 2^42 are no longer exact
    try:
        with pytest.raises(CertificateError):
            fast.self_test()
        assert type(fast.fastest()) is Balls
    finally:
        fast._fastest.cache_clear()


@pytest.mark.parametrize(
    ("module", "name"),
    [(fixed, "add"), (fixed, "mul"), (fixed, "rowsum"), (slices, "product"), (elementary, "exp"), (elementary, "tanh")],
)
def test_wrong_numbers_fail_the_self_test(monkeypatch, module, name) -> None:
    """One bit of one entry, in the middle of the mantissa."""
    good = getattr(module, name)

    def wrong(*arguments, **options):
        f = good(*arguments, **options)
        limbs = f.limbs.copy()
        limbs[0, 0, f.length // 2] ^= np.uint64(1 << 40)
        return fixed.Fixed(limbs, f.exponent, f.bits, f.rad)

    monkeypatch.setattr(module, name, wrong)
    with pytest.raises(CertificateError, match="disagrees"):
        fast.self_test()
    assert ctx.prec == 53
