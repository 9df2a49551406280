"""What every native primitive must fulfil, in exact rationals, on random balls: shared by the tests and the mutants."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from flint import arb

from cllm.spec import elementary, fixed, slices
from cllm.spec.balls import working
from cllm.spec.fixed import Fixed, room, unit

TINY = Fraction(2) ** -1022
LIMBS = (1, 2, 3, 4, 6, 7, 9)


def random_fixed(rng, shape, limbs, spread=300) -> Fixed:
    """Integers of all lengths and both signs, zeros, ±1, powers of two, the largest; radii 0, tiny, and wide."""
    most = room(limbs)

    def integer():
        kind, sign = rng.integers(6), int(rng.choice([-1, 1]))
        length = int(rng.integers(0, most + 1))
        size = [0, 1, 2**length, 2**most, 2**most - 1, int(rng.integers(0, 2**62)) << max(length - 62, 0)][kind]
        tail = int.from_bytes(rng.bytes(8 * limbs), "little") >> int(rng.integers(2, 64 * limbs))
        return sign * min(size | tail if kind == 5 else size, 2**most)

    exponent = int(rng.integers(-spread, spread)) - most
    values = [integer() for _ in range(shape[0] * shape[1])]
    if rng.integers(8) == 0:
        values = [0] * len(values)
    scale = 2.0 ** max(exponent + most // 2, -1000)
    rad = [float(rng.choice([0.0, 2.0**-1022, scale * rng.random(), scale * 2.0**40])) for _ in values]
    return fixed._from_integers(values, shape, exponent, np.array(rad), limbs)


def integers(a: Fixed) -> list[int]:
    return [int.from_bytes(a.limbs[i].tobytes(), "little", signed=True) for i in np.ndindex(*a.shape)]


def middle(a: Fixed) -> np.ndarray:
    """Exact values."""
    values = integers(a)
    assert all(abs(v) <= (2**a.bits if a.bits >= 0 else 0) for v in values)
    return np.array([v * Fraction(2) ** a.exponent for v in values] + [None], object)[:-1].reshape(a.shape)


def radius(a: Fixed) -> np.ndarray:
    return np.vectorize(Fraction, otypes=[object])(a.rad)


def encloses(found: Fixed, value, spread, wide) -> None:
    """|value − middle| + spread ≤ rad for every entry, exactly; and rad is no wider than `wide` says."""
    for m, r, v, s, w in zip(
        middle(found).ravel(), radius(found).ravel(), np.ravel(value), np.ravel(spread), np.ravel(wide), strict=True
    ):
        assert abs(v - m) + s <= r, (v, m, s, r)
        assert r <= w * Fraction(1001, 1000) + 8 * TINY, (r, w)


def last_place(a: Fixed) -> Fraction:
    return max(Fraction(2) ** a.exponent, TINY)


def check_add(rng) -> None:
    limbs = int(rng.choice(LIMBS))
    shape = (2, 3)
    a = random_fixed(rng, shape, limbs)
    b = random_fixed(rng, [shape, (1, 3), (2, 1), (1, 1)][rng.integers(4)], limbs)
    if rng.integers(3) == 0:  # nearly cancelling
        near = [v + int(rng.integers(-1, 2)) for v in integers(a)]
        b = fixed._from_integers(
            [max(min(v, 2 ** room(limbs)), -(2 ** room(limbs))) for v in near], shape, a.exponent, a.rad, limbs
        )
    if rng.integers(2):
        a, b = a.T, b.T
    for minus in (False, True):
        found = fixed.add(a, b, minus=minus)
        value = middle(a) - middle(b) if minus else middle(a) + middle(b)
        spread = radius(a) + radius(b)
        encloses(found, value, spread, spread + 2 * last_place(found))
        exact = (value == 0) & (middle(a) == 0) & (spread == 0)
        assert not found.rad[exact].any()


def check_mul(rng) -> None:
    limbs = int(rng.choice(LIMBS))
    a, b = random_fixed(rng, (2, 3), limbs), random_fixed(rng, [(2, 3), (1, 3), (2, 1)][rng.integers(3)], limbs)
    found = fixed.mul(a, b)
    x, y, rx, ry = middle(a), middle(b), radius(a), radius(b)
    spread = abs(x) * ry + rx * abs(y) + rx * ry
    encloses(found, x * y, spread, spread + last_place(found) + 2 * TINY * (abs(x) + abs(y) + rx + ry + 2))
    assert not found.rad[((x == 0) | (y == 0)) & (rx == 0) & (ry == 0) & (spread == 0)].any()


def check_sums(rng) -> None:
    a = random_fixed(rng, (3, int(rng.integers(1, 40))), int(rng.choice(LIMBS)))
    for f, axis in ((a, 1), (a.T, 0)):
        found = fixed.rowsum(f) if axis == 1 else fixed.rowsum(f.T)
        spread = radius(a).sum(axis=1, keepdims=True)
        encloses(found, middle(a).sum(axis=1, keepdims=True), spread, spread + last_place(found))


def check_paste(rng) -> None:
    limbs = int(rng.choice(LIMBS))
    parts = [random_fixed(rng, (2, 2), limbs, spread=60) for _ in range(3)]
    corners = [(0, 0), (1, 1), (1, 0)]
    found = fixed.paste((3, 4), corners, parts, limbs)
    value, spread = np.full((3, 4), Fraction(0), object), np.full((3, 4), Fraction(0), object)
    for (i, j), p in zip(corners, parts, strict=True):
        value[i : i + 2, j : j + 2] += middle(p)
        spread[i : i + 2, j : j + 2] += radius(p)
    encloses(found, value, spread, spread + 6 * last_place(found))
    assert not found.rad[0, 2:].any() and not found.limbs[0, 2:].any()


def check_floats(rng) -> None:
    """float64 → integers → float64."""
    limbs = int(rng.choice(LIMBS))
    x = rng.normal(size=(3, 4)) * 2.0 ** rng.integers(-1074, 900, (3, 4)).astype(float)
    if rng.integers(2):
        x = rng.normal(size=(3, 4)) * 2.0 ** rng.integers(0, 30, (3, 4))
    x[0, 0], x[1, 1], x[2, 2] = 0.0, -0.0, 5e-324 * float(rng.integers(1, 9))
    value = np.vectorize(Fraction, otypes=[object])(x)
    for given, exact in ((x, value), (x.T, value.T)):
        found = fixed.from_floats(given, limbs)
        encloses(found, exact, 0 * exact, last_place(found) + 0 * exact)
        if found.rad.max() == 0:
            assert (middle(found) == exact).all()
    top, low = fixed.extent(x)
    assert (abs(value) < Fraction(2) ** top).all() and all(
        (v / Fraction(2) ** low).denominator == 1 for v in value.flat
    )


def check_expansion(rng) -> None:
    a = random_fixed(rng, (2, 4), int(rng.choice(LIMBS)), spread=300)
    size = fixed.magnitude(a)
    for m, r, s in zip(middle(a).ravel(), radius(a).ravel(), size.ravel().tolist(), strict=True):
        assert abs(m) + r <= Fraction(s) <= (abs(m) + r) * Fraction(1001, 1000) + 4 * TINY
    for f in (a, a.leading(), a.T.leading().T):
        high, low, rad = fixed.to_floats(f)
        for m, r, h, l, e in zip(middle(a).ravel(), radius(a).ravel(), high.flat, low.flat, rad.flat, strict=True):
            assert abs(m - Fraction(float(h)) - Fraction(float(l))) + r <= Fraction(float(e))
            cut = last_place(f) if f is not a else 0
            wide = r + abs(m) * Fraction(2) ** -103 + 8 * TINY + cut
            assert Fraction(float(e)) <= wide * Fraction(1001, 1000)


def digits_of(x: slices.Operand, places: int) -> tuple[np.ndarray, np.ndarray]:
    out = np.empty((x.shape[0], places, x.shape[1]))
    x.digits((slice(None), slice(None)), out)
    assert np.abs(out).max(initial=0) <= slices.HALF and (out == np.rint(out)).all()
    value = np.full(x.shape, Fraction(0), object)
    for l in range(places):
        weight = Fraction(2) ** (x.exponent - slices.DIGIT * (l + 1))
        value = value + np.vectorize(lambda v, w=weight: Fraction(float(v)) * w, otypes=[object])(out[:, l])
    return out, value


def check_digits(rng) -> None:
    limbs, bits = int(rng.choice(LIMBS)), int(rng.integers(22, 500))
    a = random_fixed(rng, (3, 4), limbs)
    x = slices.of_balls(a, bits)
    for operand, m, r in ((x, middle(a), radius(a)), (x.T, middle(a).T, radius(a).T)):
        if not operand.count:
            continue
        _, value = digits_of(operand, operand.count)
        rad, size = (np.vectorize(Fraction, otypes=[object])(f) for f in (operand.rad, operand.size))
        assert (abs(m - value) + r <= rad).all() and (abs(m) + r <= size).all() and (abs(value) <= size).all()
        lost = max(Fraction(2) ** (operand.exponent - slices.DIGIT * operand.count), TINY)
        assert (rad <= (r + lost) * Fraction(1001, 1000) + 4 * TINY).all()
    w = (rng.normal(size=(3, 4)) * 2.0 ** rng.integers(-40, 1, (3, 4))).astype(np.float32).astype(np.float64)
    for given in (w, w.T):
        exact = slices.of_floats(given)
        assert (digits_of(exact, exact.count)[1] == np.vectorize(Fraction, otypes=[object])(given)).all()


def check_product(rng) -> None:
    """Every corner of the operands' balls, multiplied exactly, lies in the product."""
    m, k, n = (int(v) for v in rng.integers(1, 6, 3))
    limbs = int(rng.choice(LIMBS))

    def operand(kind, shape):
        if kind:
            f = random_fixed(rng, shape, limbs, spread=100)
            return slices.of_balls(f, int(rng.integers(30, 500))), middle(f), radius(f)
        x = (rng.normal(size=shape) * 2.0 ** rng.integers(-40, 3, shape)).astype(np.float32).astype(np.float64)
        return slices.of_floats(x), np.vectorize(Fraction, otypes=[object])(x), np.full(shape, Fraction(0), object)

    a, ma, ra = operand(rng.integers(3), (m, k))
    b, mb, rb = operand(rng.integers(3), (k, n))
    spread = abs(ma) @ rb + ra @ abs(mb) + ra @ rb
    orders = [None, 1, 2, 5][rng.integers(4)]
    found = slices.product(a, b, limbs, orders)
    value, mid, rad = ma @ mb, middle(found), radius(found)
    assert (abs(value - mid) + spread <= rad).all()
    if orders is None and a.count and b.count:
        cut_a, cut_b = (Fraction(2) ** (x.exponent - slices.DIGIT * x.count) for x in (a, b))
        # the digits that are cut off one operand meet all of the other: its middles and its radii
        size_a, size_b = Fraction(2) ** a.exponent + ra.max(), Fraction(2) ** b.exponent + rb.max()
        lost = k * (cut_a * size_b + cut_b * size_a) * 64 + last_place(found)
        big = k * TINY * 16 + TINY * k * 8 * (size_a + size_b)
        assert (rad <= (spread + ra @ rb) * Fraction(1001, 1000) + 4 * lost + big).all()


def check_elementary(rng) -> None:
    """The ends of every ball, in arb at thrice the precision."""
    limbs = int(rng.choice([1, 2, 4, 5, 7, 9, 14]))
    spread = int(rng.choice([2, 3, 8, 40, 300]))
    most = int(rng.choice([-30, 0, 3, 5, 9, 20, 30]))
    x = [float(v) for v in rng.normal(size=12) * 2.0 ** (most - 2 - rng.integers(0, spread, 12)).astype(float)]
    x = [max(min(v, 2.0**most), -(2.0**most)) for v in x]
    x[0], x[1], x[2] = 0.0, 2.0**most, -(2.0**most)
    for f, name in ((elementary.exp, "exp"), (elementary.tanh, "tanh")):
        values = [v if f is elementary.tanh else min(v, 300.0) for v in x]
        with working(64 * limbs):
            balls = [arb(v, float(rng.choice([0.0, 1e-30, 1e-3, 0.3]))) * arb(1 + 2.0**-20) for v in values]
            a = fixed.from_balls(balls, (3, 4), limbs)
            found = f(a)
        with working(64 * limbs * 3 + 1000):
            for m, r, v, s in zip(
                middle(found).ravel(), radius(found).ravel(), middle(a).ravel(), radius(a).ravel(), strict=True
            ):
                for end in (v - s, v, v + s):
                    z = getattr(arb(end.numerator) / arb(end.denominator), name)()
                    assert abs(z - arb(m.numerator) / arb(m.denominator)) <= arb(r.numerator) / arb(r.denominator)
                slope = (arb((v + s).numerator) / arb((v + s).denominator)).exp() if name == "exp" else 1
                wide = arb(2) * s.numerator / s.denominator * slope if s else arb(0)
                assert arb(r.numerator) / arb(r.denominator) < (
                    wide + 4 * unit(found.exponent) + 2.0 ** (2 - 64 * limbs) * (abs(slope) + 1)
                ).upper() * arb("1.01")


CHECKS = {name[6:]: f for name, f in list(globals().items()) if name.startswith("check_")}


def run(name: str, seeds) -> None:
    for seed in seeds:
        with working(256):
            CHECKS[name](np.random.default_rng([seed, sum(map(ord, name))]))
