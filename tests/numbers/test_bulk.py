"""Float arrays to balls and back, ball vectors and matrices, files of balls: exact, bit for bit."""

from __future__ import annotations

import pickle
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cllm.errors import CorruptError, DomainError, LimitError, UndecidableError
from cllm.numbers import Ball, BallMatrix, BallVector, exp, load_balls, precision, save_balls

FEW = 2.0**-46  # 64 roundings of a float64 near one

finite64 = st.floats(allow_nan=False, allow_infinity=False)
finite32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(hnp.arrays(np.float64, hnp.array_shapes(max_dims=3), elements=finite64))
def test_float64_round_trip(a: np.ndarray) -> None:
    v = BallVector(a)
    back = v.to_array()
    assert back.shape == a.shape == v.shape and back.dtype == np.float64 and (back == a).all()
    assert all(Fraction(x) == ball.as_fraction() for x, ball in zip(a.ravel().tolist(), v, strict=True))
    assert v.contains(a).all() and not v.radii().any()
    low, high = v.bounds()
    assert (low == a).all() and (high == a).all()


@given(hnp.arrays(np.float32, hnp.array_shapes(max_dims=2), elements=finite32))
def test_float32_round_trip(a: np.ndarray) -> None:
    back = BallVector(a).to_array(np.float32)
    assert back.dtype == np.float32 and (back == a).all()


def test_other_arrays_and_bad_elements() -> None:
    assert BallVector(np.array([2**62 + 1, -3])).to_array().tolist() == [2**62, -3]
    assert BallVector(np.array([2**62 + 1]))[0] == 2**62 + 1 and BallVector(np.float16([0.1]))[0] == float(
        np.float16(0.1)
    )
    assert BallVector([Ball("0.1"), Ball(2)])[0].contains("0.1") and BallVector([1.5, 2])[1] == 2
    for bad, where in ((np.nan, "(0, 1)"), (np.inf, "(0, 1)")):
        with pytest.raises(DomainError) as caught:
            BallVector(np.array([[1.0, bad]]))
        assert where in str(caught.value)
    for wrong in (np.array(["a"]), np.array([1j]), np.array([True])):
        with pytest.raises(DomainError, match="array of"):
            BallVector(wrong)


def test_narrowing_rounds_once() -> None:
    """1 + 2⁻²⁴ + 2⁻⁶⁰ is above the float32 tie; through float64 it would fall on the tie and round to 1."""
    x = BallVector(
        [Ball(1) + Ball(2) ** -24 + Ball(2) ** -60, Ball(1) + Ball(2) ** -24, Ball(3) - Ball(2) ** -23 - Ball(2) ** -70]
    )
    got = x.to_array(np.float32)
    assert got.tolist() == [1 + 2**-23, 1.0, float(np.nextafter(np.float32(3), np.float32(0)))]
    assert BallVector([Ball("1e39")]).to_array(np.float32)[0] == np.inf


@given(st.lists(st.tuples(finite64, finite64), min_size=1, max_size=8))
def test_vector_arithmetic_encloses(pairs: list[tuple[float, float]]) -> None:
    a, b = (np.array(side) for side in zip(*pairs, strict=True))
    v, w = BallVector(a), BallVector(b)
    for got, exact in (
        (v + w, [Fraction(x) + Fraction(y) for x, y in pairs]),
        (v - w, [Fraction(x) - Fraction(y) for x, y in pairs]),
        (v * w, [Fraction(x) * Fraction(y) for x, y in pairs]),
        (2 * v - 1, [2 * Fraction(x) - 1 for x, _ in pairs]),
        (1 - v, [1 - Fraction(x) for x, _ in pairs]),
        (-v, [-Fraction(x) for x, _ in pairs]),
        (v + b, [Fraction(x) + Fraction(y) for x, y in pairs]),
    ):
        assert all(ball.contains(q) for ball, q in zip(got, exact, strict=True))
    assert v.dot(w).contains(sum(Fraction(x) * Fraction(y) for x, y in pairs))
    assert v.sum().contains(sum(Fraction(x) for x, _ in pairs))


def test_vector_functions_and_errors() -> None:
    v = BallVector(np.array([[0.5, -1.0], [2.0, 3.0]]))
    e = v.apply(exp, bits=200)
    assert e.shape == (2, 2) and e[0, 1].overlaps(exp(-1, bits=300)) and e[3].accuracy_bits >= 200 and len(e) == 4
    low, high = e.bounds()
    rounded = np.exp(v.to_array())  # within an ulp
    assert (low <= np.nextafter(rounded, np.inf)).all() and (np.nextafter(rounded, -np.inf) <= high).all()
    assert (low <= high).all() and (np.nextafter(low, np.inf) >= high).all()
    again = pickle.loads(pickle.dumps(e))
    assert all(x.is_identical(y) for x, y in zip(e, again, strict=True))
    with pytest.raises(ZeroDivisionError):
        v / 0
    with pytest.raises(UndecidableError):
        1 / BallVector([Ball(0, 1)])
    with pytest.raises(DomainError, match="shapes"):
        v + BallVector([1.0])


def test_matrix_product_contains_the_exact_one() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((7, 5)), rng.standard_normal((5, 6))
    exact = [
        [sum(Fraction(x) * Fraction(y) for x, y in zip(row, column, strict=True)) for column in b.T.tolist()]
        for row in a.tolist()
    ]
    for bits in (53, 128, 300):
        with precision(bits):
            product = BallMatrix(a) @ b
        assert product.shape == (7, 6)
        assert all(product[i, j].contains(exact[i][j]) for i in range(7) for j in range(6))
        assert product[0, 0].accuracy_bits >= bits - 12
    assert np.allclose(product.to_array(), a @ b, rtol=0, atol=FEW) and (BallMatrix(a).T.to_array() == a.T).all()
    assert (
        (BallMatrix(a) + a).contains(2 * a)
        and (BallMatrix(a) - a).contains(0 * a)
        and (3 * BallMatrix(a))[0, 0].contains(3 * Fraction(a[0, 0]))
    )


def test_matrix_algebra() -> None:
    rng = np.random.default_rng(2)
    a = rng.standard_normal((6, 6))
    m = BallMatrix(a)
    with precision(200):
        assert (m @ m.inverse()).contains(np.eye(6)) and (m @ m.solve(BallMatrix(a[:, :2]))).contains(a[:, :2])
        assert m.det().overlaps(BallMatrix(a.T).det()) and abs(float(m.det()) - np.linalg.det(a)) < 1e-9
    assert pickle.loads(pickle.dumps(m)).contains(a) and (BallMatrix(m.vector()).to_array() == a).all()
    with pytest.raises(UndecidableError, match="singular"):
        BallMatrix(np.ones((2, 2))).inverse()
    for call in (
        lambda: BallMatrix(a[0]),
        lambda: m @ np.ones((3, 3)),
        lambda: BallMatrix(a[:2]).det(),
        lambda: m + np.ones((2, 2)),
    ):
        with pytest.raises(DomainError):
            call()


def test_files_keep_every_bit(tmp_path: Path) -> None:
    with precision(333):
        v = BallVector(np.array([[0.1, -2.5e300], [0.0, 5e-324]])).apply(exp_or_self)
    path = tmp_path / "balls.npz"
    save_balls(path, v)
    again = load_balls(path)
    assert again.shape == (2, 2) and all(x.is_identical(y) for x, y in zip(v, again, strict=True))
    save_balls(path, BallMatrix(np.arange(6.0).reshape(2, 3)))
    assert load_balls(path).to_array().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert [p.name for p in tmp_path.iterdir()] == ["balls.npz"]
    with pytest.raises(LimitError):
        save_balls(path, BallVector([Ball(2) ** (2**70)]))


class _Self:
    def enclose(self, args: tuple[object, ...], bits: int) -> object:
        x = Ball(args[0])  # type: ignore[arg-type]
        return (x / 3 + Ball("0.1")).flint


exp_or_self = _Self()


def test_damaged_files_are_found(tmp_path: Path) -> None:
    path = tmp_path / "balls.npz"
    save_balls(path, BallVector(np.linspace(0, 1, 50)))
    with np.load(path) as archive:
        fields = dict(archive)
    fields["exponents"] = fields["exponents"].copy()
    fields["exponents"][7] += 1
    np.savez(path, **fields)
    with pytest.raises(CorruptError, match="hash"):
        load_balls(path)
    path.write_bytes(b"not an archive")
    with pytest.raises(CorruptError):
        load_balls(path)
    np.savez(path, something=np.zeros(3))
    with pytest.raises(CorruptError):
        load_balls(path)
