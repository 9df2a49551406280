"""D12, the orthogonal transform, lattices and short vectors, Plimpton 322, cycles, information measures."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import entropy as scipy_entropy

from cllm import lattice as lt
from cllm.errors import DomainError, LimitError
from cllm.lattice import dihedral as d12

FEW = 2.0**-46  # 64 roundings of a float64 near one: sums of eight products, with a margin


def test_d12_is_a_group():
    group = list(d12.elements())
    assert len(set(group)) == 24
    table = {(a, b): a @ b for a in group for b in group}
    assert set(table.values()) == set(group)
    for a in group:
        assert a @ d12.inverse(a) == d12.IDENTITY == d12.inverse(a) @ a
        assert {table[a, b] for b in group} == set(group)
    for a, b, c in itertools.product(group[::5], group, group):
        assert (a @ b) @ c == a @ (b @ c)
    assert any(a @ b != b @ a for a in group for b in group)


def test_d12_matrices_represent_it():
    for a in d12.elements():
        assert np.allclose(d12.matrix(a, 6) @ d12.matrix(a, 6).T, np.eye(6), rtol=0, atol=FEW)
        for b in d12.elements():
            product = d12.matrix(a, 6) @ d12.matrix(b, 6)
            assert np.allclose(product, d12.matrix(a @ b, 6), rtol=0, atol=FEW)
    quarter = d12.matrix(d12.Element(3, 0), 2)
    assert quarter.tolist() == [[0.0, -1.0], [1.0, 0.0]]  # turns x towards y, exactly


def test_d12_invariants_and_equivariance():
    rng = np.random.default_rng(1)
    x, w = rng.normal(size=(5, 8)), rng.normal(size=(6, 8))
    average = d12.equivariant(w)
    for g in d12.elements():
        assert np.allclose(d12.act(g, x), x @ d12.matrix(g, 8).T, rtol=0, atol=FEW)
        assert np.allclose(d12.invariants(d12.act(g, x)), d12.invariants(x), rtol=0, atol=1e-14)
        assert np.allclose(d12.act(g, x @ average.T), d12.act(g, x) @ average.T, rtol=0, atol=1e-14)
    blocks = w.reshape(3, 2, 4, 2).transpose(0, 2, 1, 3)
    schur = np.trace(blocks, axis1=2, axis2=3)[..., None, None] / 2 * np.eye(2)
    assert np.allclose(average, schur.transpose(0, 2, 1, 3).reshape(6, 8), rtol=0, atol=FEW)
    assert np.allclose(d12.equivariant(average), average, rtol=0, atol=FEW)
    assert not np.allclose(w, average)
    for wrong in (3, 0):
        with pytest.raises(DomainError, match="even"):
            d12.matrix(d12.IDENTITY, wrong)
    with pytest.raises(DomainError, match="D12"):
        d12.compose((12, 0), (0, 0))


@pytest.mark.parametrize("width", [1, 2, 3, 8, 64, 200])
def test_lattice_transform(width):
    t = lt.lattice_transform(width)
    assert np.abs(t @ t.T - np.eye(width)).max() < 1e-14
    assert np.linalg.det(t) == pytest.approx(1)
    phi = (1 + 5**0.5) / 2
    expected = np.eye(width)
    for i in range(width - 1):
        angle = 2 * math.pi * phi * (i + 1) / width
        rotation = np.eye(width)
        rotation[i, i] = rotation[i + 1, i + 1] = math.cos(angle)
        rotation[i + 1, i], rotation[i, i + 1] = math.sin(angle), -math.sin(angle)
        expected = rotation @ expected
    assert np.allclose(t, expected, rtol=0, atol=1e-14)
    x = np.random.default_rng(2).normal(size=(3, width))
    assert np.allclose(lt.apply_transform(x), x @ t.T, rtol=0, atol=1e-13)
    assert np.allclose(lt.apply_transform(lt.apply_transform(x), inverse=True), x, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("name", "rank", "det", "least", "kissing"),
    [("FCC", 3, 4, 2, 12), ("A2", 2, 3, 2, 6), ("E8", 8, 1, 2, 240), ("K12", 12, 729, 4, 756)],
)
def test_lattices(name, rank, det, least, kissing):
    lattice = lt.named_lattice(name)
    gram = np.array(lattice.gram)
    assert lattice.rank == rank and round(np.linalg.det(gram)) == det
    norm, vectors = lt.minimal_vectors(lattice.gram)
    assert norm == least and len(vectors) == kissing == lt.kissing_number(lattice.gram)
    assert len({tuple(v) for v in vectors.tolist()}) == kissing
    assert np.all(np.einsum("ni,ij,nj->n", vectors, gram, vectors) == least)
    points = lattice.points()
    assert np.allclose(points @ points.T, gram, rtol=0, atol=1e-13)
    inner = vectors @ gram @ vectors.T
    np.fill_diagonal(inner, 0)
    assert 2 * inner.max() <= least  # minimal vectors are at least 60° apart


def test_enumeration_against_brute_force():
    rng = np.random.default_rng(3)
    for _ in range(10):
        basis = rng.integers(-4, 5, (3, 3))
        if round(np.linalg.det(basis)) == 0:
            continue
        gram = basis @ basis.T
        reach = range(-12, 13)
        box = np.array(list(itertools.product(reach, repeat=3)))
        norms = np.einsum("ni,ij,nj->n", box, gram, box)
        bound = 9
        expected = {tuple(v) for v in box[(norms > 0) & (norms <= bound)].tolist()}
        found = {tuple(v) for v in lt.short_vectors(gram, bound).tolist()}
        assert expected <= found
        assert all(max(map(abs, v)) > 12 for v in found - expected)


def test_reduction():
    reduced = lt.reduce_gram([[1000, 999], [999, 1001]])
    assert abs(round(np.linalg.det(reduced.transform))) == 1
    assert np.array_equal(reduced.transform @ np.array([[1000, 999], [999, 1001]]) @ reduced.transform.T, reduced.gram)
    assert reduced.gram[0, 0] < 100
    assert lt.reduce_basis(np.array([[1, 0], [1000, 1]])).tolist() == [[1, 0], [0, 1]]
    with pytest.raises(DomainError, match="positive definite"):
        lt.short_vectors([[1, 2], [2, 1]], 3)
    with pytest.raises(LimitError):
        lt.short_vectors(np.eye(20, dtype=int).tolist(), 12)


def test_kissing_spheres_in_space():
    lattice = lt.named_lattice("FCC")
    vectors = lt.minimal_vectors(lattice.gram)[1] @ np.array(lattice.basis)
    exact = lt.kissing_test(vectors)
    assert exact.holds and exact.spheres == 12 and exact.smallest_angle == pytest.approx(60)
    assert lt.kissing_test(vectors * 0.7071).holds
    assert not lt.kissing_test(np.concatenate((vectors, vectors[:1]))).holds  # two in one place
    golden = (1 + 5**0.5) / 2
    ico = [[0, a, b * golden] for a in (1, -1) for b in (1, -1)]
    icosahedron = np.array([row[i:] + row[:i] for row in ico for i in range(3)], dtype=float)
    result = lt.kissing_test(icosahedron)
    assert result.holds and result.smallest_angle == pytest.approx(63.4349488)
    nudged = vectors.astype(float)
    nudged[0] *= 1.001
    assert not lt.kissing_test(nudged).holds
    thirteen = lt.fibonacci_sphere(np.arange(13), 13)
    assert not lt.kissing_test(thirteen).holds


def test_primitive_triples_once_each():
    limit = 600
    brute = {
        (a, b, math.isqrt(a * a + b * b))
        for a in range(1, limit, 2)
        for b in range(2, limit, 2)
        if math.gcd(a, b) == 1 and math.isqrt(a * a + b * b) ** 2 == a * a + b * b <= limit**2
    }
    found = [t[:3] for t in lt.primitive_triples(limit)]
    assert len(found) == len(set(found)) and set(found) == brute
    for t in lt.primitive_triples(limit):
        assert lt.generator(t.a, t.b, t.c) == (t.p, t.q) == lt.generator(t.b, t.a, t.c)
    for wrong in [(3, 4, 6), (6, 8, 10), (45, 60, 75)]:
        with pytest.raises(DomainError):
            lt.generator(*wrong)


def test_plimpton():
    rows = lt.plimpton322()
    assert len(rows) == 15
    for row in rows:
        assert row.short**2 + row.long**2 == row.diagonal**2
        assert lt.sexagesimal(Fraction(1, row.long))  # the long side is regular: 1/long ends in base 60
    assert [r.multiple for r in rows] == [1] * 10 + [15, 1, 1, 1, 2]
    assert (rows[10].short, rows[10].long, rows[10].diagonal) == (45, 60, 75)
    assert (rows[14].short, rows[14].long, rows[14].diagonal) == (56, 90, 106)
    ratios = [r.ratio for r in rows]
    assert ratios == sorted(ratios, reverse=True)
    assert lt.sexagesimal(rows[0].ratio) == "1;59,0,15"  # as on the tablet
    assert lt.sexagesimal(rows[10].ratio) == "1;33,45"
    assert [r.number for r in rows if r.written] == [2, 9, 13, 15]


def test_cycles_and_transducer():
    assert lt.cycle("saros").value == 223 and lt.cycle("metonic").value == 235
    assert {c.value for c in lt.CYCLES.values()} >= {31, 7, 12, 19, 40, Fraction(783, 100)}
    with pytest.raises(DomainError, match="did you mean"):
        lt.cycle("metonc")
    x = np.arange(-48, 49)
    assert lt.transducer(12) == 864.0 and lt.transducer(-12) == 216.0
    assert np.allclose(lt.transducer_inverse(lt.transducer(x)), x, rtol=0, atol=1e-12)
    for call in (lambda: lt.transducer(1e9), lambda: lt.transducer_inverse(0)):
        with pytest.raises(DomainError):
            call()


def test_information():
    p, q = np.array([1.0, 3.0, 0.0, 4.0]), np.array([2.0, 2.0, 1.0, 3.0])
    assert lt.entropy(p) == pytest.approx(scipy_entropy(p, base=2), rel=1e-14)
    assert lt.entropy([5]) == 0.0 and lt.entropy(np.ones(12)) == pytest.approx(math.log2(12))
    assert lt.kl_divergence(p, q) == pytest.approx(scipy_entropy(p, q, base=2), rel=1e-13)
    assert lt.kl_divergence(q, p) == math.inf and lt.kl_divergence(p, p) == 0
    assert lt.harmonic_mean([1, 2, 4]) == pytest.approx(12 / 7)
    for call in (
        lambda: lt.entropy([0, 0]),
        lambda: lt.entropy([-1, 2]),
        lambda: lt.kl_divergence([1], [1, 2]),
        lambda: lt.harmonic_mean([1, 0]),
    ):
        with pytest.raises(DomainError):
            call()
