"""The lattice formula against the page's vectors, an mpmath transcription, and the float64 batch form."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cllm import lattice as lt
from cllm.errors import DomainError, LimitError
from cllm.lattice import Formula
from cllm.numbers import log, precision

F = Formula()
OTHER = {"lam": "seven", "omega": 528, "psi": (4, 3)}

VECTORS = {
    "O(2,0)": (lambda: F.O(2, 0), "1.476600144563354544942023"),
    "O(10,3)": (lambda: F.O(10, 3), "35.78862345496174979933526"),
    "theta(1,0)": (lambda: F.theta(1, 0), "5.523598775598298873077107"),
    "theta(5,2,…)": (lambda: F.theta(5, 2, **OTHER), "32.94427461863617811091372"),
    "H(2,1)": (lambda: F.H(2, 1), "1"),
    "Gamma(2,1)": (lambda: F.gamma(2, 1), "0.5849625007211561814537389"),
    "H(12,1)": (lambda: F.H(12, 1), "3.084962500721156181453739"),
    "Gamma(12,1)": (lambda: F.gamma(12, 1), "1.670116883410754905867434"),
    "H(12,5)": (lambda: F.H(12, 5), "2.229573958513622378696768"),
    "Gamma(12,5)": (lambda: F.gamma(12, 5), "2.009095859252738187745890"),
    "H(100,12)": (lambda: F.H(100, 12), "3.580875094581651844911336"),
    "Gamma(100,12)": (lambda: F.gamma(100, 12), "4.462588256914941055479992"),
    "L(1,0,0)": (lambda: F.L(1, 0, 0), "9e-5"),
    "L(1,3,0)": (lambda: F.L(1, 3, 0), "4.911822772150639352912589e-7"),
    "L(1,12,0)": (lambda: F.L(1, 12, 0), "-8.233749023735207486520192e-9"),
    "L(2,12,0)": (lambda: F.L(2, 12, 0), "-5.416514137495446693980898e-8"),
    "L(10,12,0)": (lambda: F.L(10, 12, 0), "3.900007489029999571663258e-6"),
    "L(100,12,0)": (lambda: F.L(100, 12, 0), "-3590871613633814.917302856"),
    "L(5,12,1)": (lambda: F.L(5, 12, 1), "7.850385007145362328950709e-4"),
    "L(10,12,7)": (lambda: F.L(10, 12, 7), "1.822553440744715266074401e28"),
    "L(5,12,2,…)": (lambda: F.L(5, 12, 2, **OTHER), "5556.238174353432281417164"),
    "Z(5,1)": (lambda: F.Z(5, 1), "8.120527396669776315846998"),
    "Z(5,2)": (lambda: F.Z(5, 2), "-4.060263698334888157923499"),
    "P(1,1,0)": (lambda: F.P(1, 1, 0), "-10.62606144839246103567944"),
    "P(5,12,1)": (lambda: F.P(5, 12, 1), "-61.31989363840633199127161"),
    "H(12,0)": (lambda: F.H(12, 0), "3.418295834054489514787072"),
    "L(12,0,0)": (lambda: F.L(12, 0, 0), "4.445020209095366769545432e-2"),
    "L(4,5,-2)": (lambda: F.L(4, 5, -2), "1.809047930883195407230716e-17"),
    "G": (lt.golden_turn, "10.16640738463051963"),
}


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_to_every_digit(name):
    compute, text = VECTORS[name]
    with precision(400):
        value = compute()
    digits = len(text.lstrip("-").split("e")[0].replace(".", "").lstrip("0"))
    if name == "G":  # the page cuts this one off instead of rounding it
        assert value.digits(40).startswith(text)
    else:
        assert Fraction(value.digits(digits)) == Fraction(text)
    assert value.is_exact or value.accuracy_bits >= 400


def test_m12_vector():
    expected = [-0.30815518, -1.62836115, 0.67287168, 2.08631751, -0.54909276, -2.28445751]
    expected += [2.39476694, 1.12591596, -2.34687810, 2.14395451, -1.79940131, -1.23728997]
    assert [round(float(v), 8) for v in F.M12(5)] == expected
    assert np.round(lt.m12(5), 8).tolist() == expected


def test_m12_is_chebyshev():
    with mpmath.workprec(300):
        g = mpmath.pi * (1 + mpmath.sqrt(5))
        for n in (1, 2, 5, 40):
            values = [mpmath.log(lt.nth_prime(n)) * mpmath.chebyt(int(f), mpmath.cos(n * g)) for f in lt.PHI]
            with precision(200):
                for ball, expected in zip(F.M12(n), values, strict=True):
                    assert abs(mpmath.mpf(ball.digits(40)) - expected) < mpmath.mpf(10) ** -38


def transcribed(n, d, k, nu, omega, psi):
    """The page's L in mpmath, line by line (its histogram by angles, not by integers)."""
    p, q = psi
    phi = (1 + mpmath.sqrt(5)) / 2
    g = mpmath.pi * (1 + mpmath.sqrt(5))
    offset = (n - 1) * (mpmath.pi / 6) / mpmath.log(3) + mpmath.log(nu, 3) + k * g
    theta = k * g + n * mpmath.pi / 6 + mpmath.log(nu, 3) + mpmath.mpf(omega) / 432 + (p * p - q * q)
    frequency = int(lt.PHI[d - 1]) if d else 1
    counts = [0] * 12
    for i in range(1, n + 1):
        turn = i * phi * frequency
        counts[int(mpmath.floor(12 * (turn - mpmath.floor(turn))))] += 1
    h = -sum(mpmath.mpf(c) / n * mpmath.log(mpmath.mpf(c) / n, 2) for c in counts if c)
    value = mpmath.mpf(3) ** offset * (-1) ** k * nu * mpmath.mpf(3) / 144000
    value *= mpmath.mpf(2 * p * q * (p * p - q * q)) / (p * p + q * q) ** 2 * mpmath.log((1 + n) / (1 + h), 2)
    for i in range(d):
        value *= mpmath.cos(theta * int(lt.PHI[i]))
    return value


@given(
    st.integers(1, 300),
    st.integers(0, 12),
    st.integers(-1000, 1000),
    st.sampled_from([("dub", 3), ("seven", 7), ("none", 1), (7, 3), (2, 9), ("thirtyone", 31)]),
    st.sampled_from(lt.OMEGAS),
    st.sampled_from([(2, 1), (4, 3), (12, 5)]),
)
@settings(deadline=None, max_examples=60)
def test_against_a_transcription(n, d, k, lam, omega, psi):
    with precision(200):
        text = F.L(n, d, k, lam[0], omega, psi).digits(50)
    with mpmath.workprec(400):
        expected = transcribed(n, d, k, lam[1], omega, psi)
        assert abs(mpmath.mpf(text) - expected) <= abs(expected) * mpmath.mpf(10) ** -48


def test_nu():
    assert [lt.nu(v) for v in (0, 1, 2, 3, 7, -1)] == [1, 3, 9, 1, 3, 9]
    assert [lt.nu(v) for v in ("dub", "knbt", "k'anchay", "kancha", "kub", "triad")] == [3] * 6
    assert [lt.nu(v) for v in ("seven", "twelve", "nineteen", "thirtyone", "none")] == [7, 12, 19, 31, 1]
    with pytest.raises(DomainError, match=r'unknown name.*did you mean "seven"'):
        lt.nu("sevn")


def test_psi_and_triad():
    assert lt.psi_value((2, 1)) == Fraction(12, 25)
    for psi in [(2, 1), (4, 1), (3, 2), (12, 5), (1001, 1000)]:
        re, im = lt.psi_unit(psi)
        assert re * re + im * im == 1 and 0 < lt.psi_value(psi) < Fraction(1, 2)
        assert lt.psi_value(psi) == re * im  # ½ sin 4α = sin 2α cos 2α
    for wrong in [(1, 1), (3, 1), (2, 0), (1, 2), (6, 3)]:
        with pytest.raises(DomainError, match="coprime and of opposite parity"):
            lt.psi_value(wrong)
    assert [lt.triad(d) for d in (0, 1, 3)] == [1, 3, 27]
    assert [lt.triad(d) for d in (-1, -2, -3, -4, -5)] == [
        Fraction(-1, 3), Fraction(-1, 9), Fraction(1, 27), Fraction(1, 81), Fraction(-1, 243),
    ]  # fmt: skip
    assert Fraction(1, 48000) == lt.LAMBDA and [lt.gamma_k(k) for k in (-3, -2, 0, 7)] == [-1, 1, 1, -1]


def test_options():
    with precision(200):
        simple = Formula(simple=True).L(10, 12, 7)
        assert abs(float(simple * lt.LAMBDA * lt.psi_value((2, 1)) / F.L(10, 12, 7)) - 1) < 1e-15
        upstream = Formula(entropy="upstream")
        assert upstream.gamma(5, 2) == -1 and upstream.gamma(5, 12).overlaps(log("5/12") / log(2))
        strict = Formula(entropy="strict")
        assert strict.gamma(8, 1).overlaps(log(8 / F.H(8, 1)) / log(2))
        shifted = Formula(phonetic_shift=True).frequencies("dub")
        assert shifted[0] == Fraction(33, 10) and shifted[3] == Fraction(12, 10)
        assert Formula(phonetic_shift=True).frequencies("seven")[1] == Fraction(77, 10)
        by_theta = Formula(exponent="theta").L(3, 4, 1) / F.L(3, 4, 1)
        assert by_theta.overlaps(3 ** (F.theta(3, 1) - F.O(3, 1)))
        table = Formula(table=(Fraction(1, 2), 5)).cosines(3, 2)
        theta = F.theta(3)
        from cllm.numbers import cos

        assert table[0].overlaps(cos(theta / 2)) and table[1].overlaps(cos(theta * 5))
    with pytest.raises(DomainError, match="d ≥ 2"):
        upstream.L(5, 1)
    with pytest.raises(DomainError, match=r"strict.*H\(1,3\) = 0"):
        strict.L(1, 3)
    with pytest.raises(DomainError, match="entropy is one of"):
        Formula(entropy="ratios")


def test_z_exact_zeros():
    assert F.Z(2, 1).is_exact and F.Z(2, 1) == 0  # cos(π/2)
    assert F.Z(7, 4) > 0


def test_bounded():
    for n in (1, 4, 50):
        for k in (0, 3):
            value = F.bounded(n, 12, k)
            assert -1 <= value <= 1
            assert float(lt.bounded(n, 12, k)) == pytest.approx(float(value), rel=1e-12)


@pytest.mark.parametrize(
    "call",
    [
        lambda: F.L(0, 1),
        lambda: F.L(1, 13),
        lambda: F.L(1, -1),
        lambda: F.L(1, 1, 0, "dub", 0),
        lambda: F.L(1, 1, 0, "dub", "x"),
        lambda: F.L(1, 1, 0, "dub", 432, (3, 1)),
        lambda: F.Z(1, 0),
        lambda: lt.lattice_log(0, 1),
        lambda: lt.lattice_log(1, 13),
        lambda: lt.ring_radius(0),
    ],
)
def test_domain_errors(call):
    with pytest.raises(DomainError):
        call()


def test_limits():
    with pytest.raises(LimitError):
        F.L(10**19, 1)
    with pytest.raises(LimitError):
        lt.triad(10**9)


def test_sectors_count_exactly():
    for phi in (1, 3, 7, 37, Fraction(33, 10), Fraction(6, 5), Fraction(1, 7)):
        counts = [0] * 12
        for i in range(1, 300):
            counts[lt.sector(i, phi)] += 1
            assert lt.sector_counts(i, phi) == tuple(counts)
    far = lt.sector_counts(10**12, 7)
    assert sum(far) == 10**12
    step = lt.sector_counts(10**12 + 1, 7)
    assert [b - a for a, b in zip(far, step, strict=True)].index(1) == lt.sector(10**12 + 1, 7)


@given(st.integers(1, 10**18), st.sampled_from([1, 3, 37, Fraction(77, 10)]))
@settings(deadline=None)
def test_sector_is_the_floor(i, phi):
    with mpmath.workprec(400):
        turn = i * mpmath.mpf(Fraction(phi).numerator) / Fraction(phi).denominator * (1 + mpmath.sqrt(5)) / 2
        assert lt.sector(i, phi) == int(mpmath.floor(12 * (turn - mpmath.floor(turn))))


FORMS = [
    Formula(),
    Formula(simple=True, exponent="theta"),
    Formula(phonetic_shift=True),
    Formula(entropy="upstream"),
    Formula(entropy="strict"),
]


@pytest.mark.parametrize("form", FORMS, ids=["plain", "simple-theta", "phonetic", "upstream", "strict"])
@pytest.mark.parametrize("options", [{}, OTHER, {"lam": 5, "omega": "1/3", "psi": (12, 5)}], ids=["", "other", "5"])
def test_batch_equals_balls(form, options):
    rng = np.random.default_rng(5)
    n = np.concatenate((rng.integers(20, 3000, 6), rng.integers(10**9, 10**15, 6)))
    k = np.concatenate((rng.integers(-3, 4, 6), rng.integers(-(10**9), 10**9, 6)))
    d = rng.integers(2, 13, 12)
    batch = lt.lattice_log(n, d, k, formula=form, **options)
    flat = lt.bounded(n, d, k, formula=form, **options)
    for i in range(n.size):
        with precision(200):
            exact = form.L(int(n[i]), int(d[i]), int(k[i]), **options)
            assert (exact > 0) == (batch.sign[i] > 0)
            size = float(log(exact * int(batch.sign[i])))
            cosines = form.bounded(int(n[i]), int(d[i]), int(k[i]), **options)
        assert batch.log[i] == pytest.approx(size, rel=4e-14, abs=1e-12)
        assert flat[i] == pytest.approx(float(cosines), abs=1e-14)


def test_batch_beyond_float64():
    batch = lt.lattice_log(np.array([1355, 10**6]), 12, np.array([[0], [64]]))
    assert batch.log.shape == (2, 2) and np.all(np.isfinite(batch.log))
    assert np.all(lt.lattice_log(1, np.arange(13)).sign != 0)
    features = lt.phase_features(np.arange(1, 50), 3)
    assert features.shape == (49, 12, 2)
    assert np.allclose((features**2).sum(-1), 1, rtol=0, atol=1e-15)
    theta = np.array([float(F.theta(n, 3)) for n in range(1, 50)])
    assert np.allclose(features[:, 0, 1], np.sin(3 * theta), rtol=0, atol=1e-12)


def test_cosine_of_turns_near_its_zeros():
    """cos(2πu) keeps its relative accuracy a few units of 2⁻⁶⁴ turn away from a quarter."""
    from cllm.lattice.formula_batch import cos_turns

    tiny = 2 * np.pi / 2.0**64
    quarter, three = 1 << 62, 3 << 62
    u = np.array([quarter + 5, quarter - 5, three + 7, three - 7, 0, 1 << 63, 1 << 61], dtype=np.uint64)
    expected = [-5 * tiny, 5 * tiny, 7 * tiny, -7 * tiny, 1.0, -1.0, np.sqrt(0.5)]
    assert np.allclose(cos_turns(u), expected, rtol=1e-15, atol=0)
