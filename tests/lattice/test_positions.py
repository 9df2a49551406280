"""Position tables and the embedding against scalar transcriptions of the page's formulas."""

import math

import numpy as np
import pytest

from cllm import lattice as lt
from cllm.errors import DomainError, LimitError

FEW = 2.0**-46  # 64 roundings of a float64 near one; times 0.02 of one in a normalised table

PHI = (1 + 5**0.5) / 2
GOLDEN = 2 * math.pi / PHI**2
T, D = 50, 14
PRIMES = lt.first_primes(T).tolist()


def spiral(pos, i):
    q = i // 2 + 1
    return (math.cos if i % 2 == 0 else math.sin)(q * GOLDEN * pos) * (1 + 0.1 * math.sqrt(pos))


def clock(pos, i):
    q = i // 2 + 1
    value = (math.cos if i % 2 == 0 else math.sin)(q * 2 * math.pi * (pos % 12) / 12) * (1 + 0.2 * math.log(pos + 1))
    j, place = divmod(i, 4)
    if j < D / 4 and place < 2:
        harmonic = 2 * math.pi * pos / T * (j + 1)
        value += 0.1 * (math.cos(harmonic) if place == 0 else math.sin(harmonic))
    return value


def prime(pos, i):
    p = PRIMES[pos]
    psi = 2 * math.pi * (p % 1000) / 1000
    c = math.log(p) / math.log(PRIMES[-1])
    value = (math.cos if i % 2 == 0 else math.sin)((i + 1) * psi) * (0.5 + 0.5 * c)
    return value + (0.1 * math.cos(2 * math.pi * (p % 12) / 12) if i % 3 == 0 else 0.0)


def sinusoid(pos, i):
    return (math.sin if i % 2 == 0 else math.cos)(pos / 10000 ** (2 * (i // 2) / D))


FORMULAS = {"spiral": spiral, "clock": clock, "prime": prime, "sinusoidal": sinusoid}


def scaled(table):
    return table / np.linalg.norm(table, axis=1, keepdims=True) * 0.02 * math.sqrt(table.shape[1])


@pytest.mark.parametrize("kind", FORMULAS)
def test_table_is_the_formula(kind):
    expected = np.array([[FORMULAS[kind](pos, i) for i in range(D)] for pos in range(T)])
    assert np.allclose(lt.position_table(kind, T, D, normalize=False), expected, rtol=0, atol=1e-12)
    normal = lt.position_table(kind, T, D)
    if kind == "sinusoidal":
        assert np.allclose(normal, expected, rtol=0, atol=1e-12)
    else:
        assert np.allclose(normal, scaled(expected), rtol=0, atol=1e-13)
        assert np.allclose(np.sqrt((normal**2).mean(1)), 0.02, rtol=0, atol=1e-15)


def test_mix():
    parts = lt.mix_parts(T, D)
    assert np.array_equal(parts[0], lt.position_table("spiral", T, D))
    assert np.allclose(parts[3], scaled(lt.sinusoidal(T, D)), rtol=0, atol=FEW)
    assert np.array_equal(parts[3], lt.learned_start(T, D))
    assert np.allclose(lt.position_table("mix", T, D), parts.mean(0), rtol=0, atol=0.02 * FEW)
    older = lt.position_table("mix", T, D, weights=(0.4, 0.3, 0.3, 0))
    assert np.allclose(older, 0.4 * parts[0] + 0.3 * parts[1] + 0.3 * parts[2], rtol=0, atol=0.02 * FEW)
    learned = np.random.default_rng(0).normal(size=(T, D))
    assert np.allclose(lt.position_table("mix", T, D, weights=(0, 0, 0, 1), learned=learned), learned, rtol=0, atol=FEW)
    with pytest.raises(DomainError, match="4 weights"):
        lt.position_table("mix", T, D, weights=(1, 2))
    with pytest.raises(DomainError, match="shape"):
        lt.position_table("mix", T, D, learned=np.zeros((2, 2)))


def test_known_facts():
    """What the page states: the spiral's radius cancels, the bare clock repeats every 12."""
    pos = np.arange(300)
    bare = lt.position_table("spiral", 300, 8, normalize=False) / (1 + 0.1 * np.sqrt(pos))[:, None]
    assert np.allclose(lt.position_table("spiral", 300, 8), lt.normalize_rows(bare), rtol=0, atol=0.02 * FEW)
    clock = lt.position_table("clock", 300, 8, harmonics=False)
    assert np.allclose(clock[12:], clock[:-12], rtol=0, atol=0.02 * FEW)
    with_harmonics = lt.position_table("clock", 300, 8)
    distance = np.linalg.norm(with_harmonics[:, None] - with_harmonics, axis=-1) + np.eye(300)
    assert distance.min() > 1e-6


def test_rope():
    cos, sin = lt.rope_tables(20, 8)
    assert cos.shape == sin.shape == (20, 4)
    assert cos[7, 1] == pytest.approx(math.cos(7 / 10000 ** (2 / 8)), abs=1e-15)
    rng = np.random.default_rng(4)
    q, k = rng.normal(size=(2, 8))
    for interleaved in (False, True):
        a = lt.rotate(np.tile(q, (20, 1)), cos, sin, interleaved=interleaved)
        b = lt.rotate(np.tile(k, (20, 1)), cos, sin, interleaved=interleaved)
        scores = a @ b.T
        for shift in range(1, 5):  # only the distance counts
            assert np.allclose(np.diag(scores, shift), scores[0, shift], rtol=0, atol=1e-13)
    x = np.eye(8)[None, :1].repeat(20, 1)
    half = lt.rotate(x, cos, sin)[0]
    assert np.allclose(half[:, 0], cos[:, 0], rtol=0, atol=FEW)
    assert np.allclose(half[:, 4], sin[:, 0], rtol=0, atol=FEW)
    pair = lt.rotate(x, cos, sin, interleaved=True)[0]
    assert np.allclose(pair[:, 0], cos[:, 0], rtol=0, atol=FEW)
    assert np.allclose(pair[:, 1], sin[:, 0], rtol=0, atol=FEW)


def test_beyond_the_table():
    assert lt.beyond_table("rope") == lt.beyond_table("sinusoidal") == "same"
    assert lt.beyond_table("learned") == lt.beyond_table("mix") == "not applicable"
    for kind in ("spiral", "clock", "prime"):
        assert lt.beyond_table(kind) == "recomputed"
    short, long = (lt.position_table("sinusoidal", t, 8) for t in (20, 40))
    assert np.array_equal(short, long[:20])
    short, long = (lt.position_table("clock", t, 8) for t in (20, 40))
    assert not np.allclose(short, long[:20])  # T is the table's length


def test_embedding_is_the_formula():
    vocab, width = 40, 10
    for classes in ("id", "prime"):
        expected = np.empty((vocab, width))
        for i in range(vocab):
            p, r, theta, tau = lt.nth_prime(i + 1), math.sqrt(i), i * GOLDEN, 2 * math.pi * i / 1000
            x = r * math.cos(theta) + 0.1 * math.cos(tau)
            y = r * math.sin(theta) + 0.1 * math.sin(tau)
            z = math.log(p + 1) + 0.1 * math.sin(PHI * tau)
            assert np.allclose(lt.token_coordinates(vocab)[i], (x, y, z), rtol=0, atol=1e-13)
            s = i % 12 if classes == "id" else p % 12
            for j in range(width):
                f = j + 1
                expected[i, j] = 0.3 * math.sin(f * x / 10) + 0.3 * math.cos(f * y / 10)
                expected[i, j] += 0.3 * math.sin(f * z / 10) + 0.1 * math.cos(f * 2 * math.pi * s / 12)
        assert np.allclose(
            lt.lattice_embedding(vocab, width, classes=classes, normalize=False), expected, rtol=0, atol=1e-13
        )
        assert np.allclose(lt.lattice_embedding(vocab, width, classes=classes), scaled(expected), rtol=0, atol=1e-14)


def test_embedding_mix_and_blocks():
    noise = np.random.default_rng(6).normal(0, 0.02, (5000, 16))
    plain = lt.lattice_embedding(5000, 16)
    assert np.array_equal(plain[:100], lt.lattice_embedding(100, 16))
    assert np.allclose(
        lt.lattice_embedding(5000, 16, mix=0.25, noise=noise), 0.75 * plain + 0.25 * noise, rtol=0, atol=FEW
    )
    assert np.unique(np.round(plain, 10), axis=0).shape[0] == 5000  # no two tokens share a row
    with pytest.raises(DomainError, match="needs noise"):
        lt.lattice_embedding(5, 4, mix=0.5)
    with pytest.raises(LimitError):
        lt.lattice_embedding(10**7, 10**4)


def test_symmetry_classes_and_bias():
    assert lt.symmetry_classes(np.arange(14)).tolist() == [*range(12), 0, 1]
    assert set(lt.symmetry_classes(np.arange(2, 5000), "prime").tolist()) == {1, 5, 7, 11}
    bias = lt.symmetry_bias([0, 1, 6, 11], 2.0)
    distance = np.array([[0, 1, 6, 1], [1, 0, 5, 2], [6, 5, 0, 5], [1, 2, 5, 0]])
    assert np.allclose(bias, 2.0 * np.log(1 / (1 + 0.5 * distance)), rtol=0, atol=1e-15)
    causal = lt.symmetry_bias([0, 1, 6, 11], 2.0, causal=True)
    assert np.all(np.isneginf(causal[np.triu_indices(4, 1)])) and np.array_equal(np.tril(causal), np.tril(bias))
    assert np.all(lt.symmetry_bias(np.arange(12), 0.0) == 0)
    assert lt.symmetry_bias(np.zeros((2, 3, 5), dtype=int), 1.0).shape == (2, 3, 5, 5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: lt.position_table("spirl", 4, 4),
        lambda: lt.position_table("spiral", 0, 4),
        lambda: lt.position_table("spiral", 4, 5),
        lambda: lt.position_table("spiral", 4, 4, weights=(1, 0, 0, 0)),
        lambda: lt.symmetry_bias([12]),
        lambda: lt.beyond_table("rop"),
        lambda: lt.rope_tables(4, 4, base=0.5),
    ],
)
def test_errors(call):
    with pytest.raises(DomainError):
        call()


def test_size_limit():
    with pytest.raises(LimitError, match=r"2\^29"):
        lt.position_table("spiral", 10**6, 10**4)
