"""Every geometric map: exact values, inverses on ranges and at 10¹², errors."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cllm import lattice as lt
from cllm.errors import DomainError
from cllm.lattice.angles import GOLDEN, GOLDEN_ANGLE, floor_sqrt, rate_from_radians

FEW = 2.0**-46  # 64 roundings of a float64 near one

NEAR = np.arange(1, 20_001, dtype=np.int64)
FAR = 10**12 + np.arange(-500, 500, dtype=np.int64)


def test_ulam_is_the_walk():
    """Against the definition: walk right 1, up 1, left 2, down 2, right 3, …"""
    place, x, y, n, step, direction = {(0, 0): 1}, 0, 0, 1, 1, (1, 0)
    while n < 4000:
        for _ in range(2):
            for _ in range(step):
                x, y, n = x + direction[0], y + direction[1], n + 1
                place[x, y] = n
            direction = (-direction[1], direction[0])
        step += 1
    for (a, b), n in place.items():
        assert lt.ulam(n) == (a, b) and lt.ulam_inverse(a, b) == n
    numbers = np.array(sorted(place.values()))
    xs, ys = lt.ulam(numbers)
    assert all(place[a, b] == n for a, b, n in zip(xs.tolist(), ys.tolist(), numbers.tolist(), strict=True))


@pytest.mark.parametrize("start", [1, 10**6, 10**12 - 400, 2**53 - 400, 2**61 + 12345, 2**62 - 400, 10**18])
def test_ulam_inverse(start):
    n = start + np.arange(1000, dtype=np.int64)
    xs, ys = lt.ulam(n)
    assert np.array_equal(lt.ulam_inverse(xs, ys).astype(np.int64), n)
    steps = np.abs(np.diff(xs)) + np.abs(np.diff(ys))
    assert np.all(steps == 1)


@given(st.integers(1, 10**60))
@settings(deadline=None)
def test_ulam_any_size(n):
    assert lt.ulam_inverse(*lt.ulam(n)) == n


@pytest.mark.parametrize("order", range(1, 8))
def test_hilbert_is_a_bijective_walk(order):
    d = np.arange(4**order)
    x, y = lt.hilbert(d, order)
    assert np.all(np.abs(np.diff(x)) + np.abs(np.diff(y)) == 1)
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 2**order - 1, 0)
    assert np.unique(x * 2**order + y).size == d.size
    assert np.array_equal(lt.hilbert_inverse(x, y, order), d)


@pytest.mark.parametrize("order", [20, 21, 22, 23, 31])
def test_hilbert_far(order):
    d = FAR % 4**order
    x, y = lt.hilbert(d, order)
    assert np.array_equal(lt.hilbert_inverse(x, y, order), d)
    assert np.all(np.abs(np.diff(x)) + np.abs(np.diff(y)) == 1)


@given(st.integers(-(2**63) + 1, 2**63 - 1))
@settings(deadline=None, max_examples=300)
def test_phase_keeps_every_bit(n):
    with mpmath.workprec(300):
        phi = (1 + mpmath.sqrt(5)) / 2
        for rate, turn in (
            (GOLDEN, phi),
            (GOLDEN_ANGLE, 1 / phi**2),
            (rate_from_radians(1.0), 1 / (2 * mpmath.pi)),
            (rate_from_radians(-0.3), mpmath.mpf(-0.3) / (2 * mpmath.pi)),
        ):
            exact = n * turn
            exact = int(mpmath.floor((exact - mpmath.floor(exact)) * 2**64))
            for got in (int(lt.phase(n, rate)), int(lt.phase(np.array([n]), rate)[0])):
                gap = abs(got - exact)
                assert min(gap, 2**64 - gap) <= 2


@given(st.integers(0, 2**63 - 1))
@settings(deadline=None)
def test_floor_sqrt(n):
    assert floor_sqrt(np.array([n]))[0] == math.isqrt(n)


def test_floor_sqrt_at_squares():
    roots = np.array([1, 2, 94906265, 94906266, 2**31, 3037000498, 3037000499], dtype=np.int64)
    assert np.array_equal(floor_sqrt(roots * roots), roots)
    assert np.array_equal(floor_sqrt(roots * roots - 1), roots - 1)


@pytest.mark.parametrize("name", ["sacks", "vogel", "archimedes", "crystalline"])
@pytest.mark.parametrize("n", [NEAR, FAR], ids=["near", "far"])
def test_spiral_inverses(name, n):
    points = getattr(lt, name)(n)
    assert np.array_equal(getattr(lt, name + "_inverse")(*points), n)
    assert np.all((points.angle >= 0) & (points.angle < 2 * math.pi))
    x, y = points.xy()
    assert np.allclose(np.hypot(x, y), points.radius, rtol=1e-14)


def test_spiral_angles_far_out():
    """At 10¹² a naive float64 product has four decimals; these angles are right to 10⁻¹⁴."""
    n = 10**12 + 7
    with mpmath.workprec(200):
        phi = (1 + mpmath.sqrt(5)) / 2
        tau = 2 * mpmath.pi
        expected = {
            "crystalline": tau * phi * n,
            "vogel": tau / phi**2 * n,
            "sacks": tau * mpmath.sqrt(n),
            "archimedes": mpmath.mpf(n),
        }
        for name, value in expected.items():
            reduced = float(value - tau * mpmath.floor(value / tau))
            assert abs(float(getattr(lt, name)(n).angle) - reduced) < 1e-14, name


def test_sacks_squares_lie_on_the_axis():
    points = lt.sacks(np.arange(0, 2000) ** 2)
    assert np.all(points.angle == 0)


def test_crystalline_primes():
    n = np.arange(1, 5001)
    points = lt.crystalline_prime(n)
    assert np.array_equal(lt.crystalline_prime_inverse(*points), n)
    assert np.array_equal(points.angle, lt.crystalline(n).angle)
    primes = lt.first_primes(5000)
    assert np.array_equal(np.floor(points.radius + 1e-12).astype(int), lt.ring(primes))
    with pytest.raises(DomainError):
        lt.crystalline_prime_inverse(np.array([np.log(9) / np.log(3)]))


def test_ring_is_an_integer_test():
    for j in range(1, 39):
        assert lt.ring(3**j) == j and lt.ring(3**j - 1) == j - 1
        assert lt.ring(np.array([3**j - 1, 3**j, 3**j + 1])).tolist() == [j - 1, j, j]
    assert lt.ring(3**200 - 1) == 199


def test_logarithmic():
    n = np.arange(-2000, 2000)
    points = lt.logarithmic(n)
    assert np.array_equal(lt.logarithmic_inverse(*points), n)
    quarter = lt.logarithmic(np.array([0, 3])).radius
    assert quarter[1] / quarter[0] == pytest.approx((1 + 5**0.5) / 2, rel=1e-14)
    with pytest.raises(DomainError, match="709"):
        lt.logarithmic(10**6)


def test_clock_abacus_bijection():
    v = np.arange(lt.CLOCK_SIZE)
    digits = lt.clock_digits(v)
    assert lt.CLOCK_SIZE == 4_320_000 and digits.shape == (lt.CLOCK_SIZE, 4)
    assert np.array_equal(lt.clock_value(digits), v)
    assert lt.clock_digits(4_319_999).tolist() == [11, 59, 59, 99]
    assert lt.clock_digits(360_000).tolist() == [1, 0, 0, 0]  # most significant first
    assert np.array_equal(lt.clock_angles_inverse(lt.clock_angles(v[::371])), v[::371])
    for wrong in (-1, 4_320_000):
        with pytest.raises(DomainError, match=r"clock_digits.*4319999"):
            lt.clock_digits(wrong)
    with pytest.raises(DomainError, match="clock_value"):
        lt.clock_value([12, 0, 0, 0])


def test_ring_clock():
    i = np.concatenate((np.arange(5000), FAR))
    place = lt.ring_clock(i)
    assert np.array_equal(lt.ring_clock_inverse(*place), i)
    assert [tuple(map(int, lt.ring_clock(j))) for j in (0, 11, 12, 71, 72, 131, 132, 231, 232)] == [
        (0, 0, 0), (0, 0, 11), (0, 1, 0), (0, 1, 59), (0, 2, 0), (0, 2, 59), (0, 3, 0), (0, 3, 99), (1, 0, 0),
    ]  # fmt: skip
    radius = lt.ring_clock_polar(np.arange(500)).radius
    assert np.all(np.diff(radius) >= 0) and radius[-1] == 10
    with pytest.raises(DomainError):
        lt.ring_clock_inverse(0, 0, 12)


@pytest.mark.parametrize("modulus", [1, 12, 30, 361])
def test_wheel(modulus):
    n = np.concatenate((np.arange(-1000, 5000), FAR))
    assert np.array_equal(lt.wheel_inverse(*lt.wheel(n, modulus), modulus), n)


def test_map361():
    assert np.allclose(
        lt.map361(np.array([0, 361, 1, 360])), np.array([0, 0, 1, 360]) * 2 * np.pi / 361, rtol=0, atol=FEW
    )


@given(st.floats(0, 6.283185307179585))
@settings(deadline=None, max_examples=500)
def test_fold_loses_no_bit(theta):
    folded = lt.fold(theta)
    assert 0 <= folded.value <= math.pi / 2
    assert folded.polarity == (1, -1, 1, -1)[int(folded.quadrant)]
    assert float(lt.unfold(folded.value, folded.quadrant)) == theta
    assert abs(math.cos(theta)) == pytest.approx(math.cos(float(folded.value)), abs=1e-15)


def test_fold_edges_and_ticks():
    edges = np.array([0.0, math.pi / 2, math.pi, 3 * (math.pi / 2), np.nextafter(2 * math.pi, 0), -1e-300, -1.0, 7.0])
    folded = lt.fold(edges)
    assert folded.quadrant.tolist()[:5] == [0, 1, 2, 3, 3]
    assert np.all((folded.value >= 0) & (folded.value <= math.pi / 2))
    assert np.array_equal(lt.unfold(folded.value, folded.quadrant)[:5], edges[:5])
    for ticks in (4, 12, 60, 100):
        t = np.arange(ticks)
        f = lt.fold_ticks(t, ticks)
        assert f.value.max() == ticks // 4
        assert np.array_equal(lt.unfold_ticks(f.value, f.quadrant, ticks), t)
        g = lt.fold(t * (2 * math.pi / ticks))
        assert np.allclose(f.value * (2 * math.pi / ticks), g.value, rtol=0, atol=1e-14)
    with pytest.raises(DomainError, match="multiple of 4"):
        lt.fold_ticks(1, 361)


def test_fold_points():
    x, y = np.meshgrid(np.arange(-5, 6), np.arange(-5, 6))
    a, b, quadrant = lt.fold_point(x, y)
    u, v = lt.unfold_point(a, b, quadrant)
    assert np.array_equal(u, x) and np.array_equal(v, y)
    inside = (x != 0) | (y != 0)
    expected = np.floor(np.mod(np.arctan2(y, x), 2 * np.pi) / (np.pi / 2)).astype(int)
    assert np.array_equal(quadrant[inside], expected[inside])


def test_torus_and_sphere():
    n = np.arange(1, 2000)
    around, tube = lt.torus(n)
    assert np.allclose(np.exp(1j * around), np.exp(2j * np.pi * ((1 + 5**0.5) / 2 * n)), rtol=0, atol=1e-11)
    assert np.array_equal(np.rint(tube * 12 / (2 * np.pi)).astype(int), n % 12)
    xyz = lt.torus_point(n)
    assert np.allclose((np.hypot(xyz[:, 0], xyz[:, 1]) - 2) ** 2 + xyz[:, 2] ** 2, 1, rtol=0, atol=FEW)
    for count in (1, 2, 1000):
        i = np.arange(count)
        sphere = lt.fibonacci_sphere(i, count)
        assert np.allclose(np.linalg.norm(sphere, axis=1), 1, rtol=0, atol=1e-15)
        assert np.array_equal(lt.fibonacci_sphere_inverse(sphere, count), i)
    i = 10**12 + np.arange(100)
    assert np.array_equal(lt.fibonacci_sphere_inverse(lt.fibonacci_sphere(i, 10**13), 10**13), i)


@given(st.lists(st.integers(0, lt.RESIDUE_RANGE - 1), min_size=1))
@settings(deadline=None)
def test_residues(values):
    n = np.array(values, dtype=np.int64)
    r = lt.residues(n)
    assert [[v % p for p in lt.RESIDUE_PRIMES] for v in values] == r.tolist()
    assert np.array_equal(lt.residues_inverse(r), n)


def test_residue_range():
    assert lt.RESIDUE_RANGE == 614889782588491410 and tuple(lt.first_primes(15).tolist()) == lt.RESIDUE_PRIMES
    edge = np.array([0, 1, 10**12, lt.RESIDUE_RANGE - 1])
    assert np.array_equal(lt.residues_inverse(lt.residues(edge)), edge)
    with pytest.raises(DomainError, match="residues"):
        lt.residues(lt.RESIDUE_RANGE)
    assert np.allclose(
        lt.residue_angles(5), 2 * np.pi * (5 % np.array(lt.RESIDUE_PRIMES)) / lt.RESIDUE_PRIMES, rtol=0, atol=FEW
    )


@pytest.mark.parametrize("name", ["sacks", "vogel", "crystalline", "ring_clock", "residues", "archimedes"])
def test_maps_refuse_what_they_cannot_map(name):
    with pytest.raises(DomainError, match=name):
        getattr(lt, name)(np.array([-1]))
    with pytest.raises(DomainError, match="integers"):
        getattr(lt, name)(np.array([1.5]))
