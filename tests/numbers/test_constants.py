"""Constants to 100,000 digits against independent computations: integer series of our own, gmpy2, mpmath."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from fractions import Fraction

import gmpy2
import mpmath
import pytest

from cllm.errors import UndecidableError
from cllm.numbers import (  # fmt: skip
    CONSTANTS,
    Ball,
    Constant,
    catalan,
    e,
    euler_gamma,
    ln2,
    ln3,
    ln10,
    phi,
    pi,
    precision,
    sqrt2,
    sqrt3,
    sqrt5,
)

N = 100_000
GUARD = 20


def _arctan_sum(terms: list[tuple[int, int]], alternating: bool, digits: int) -> int:
    """Σ c·arctan(1/x) (or artanh) times 10^digits, by the series in integers (Machin); gmpy2 holds the integers."""
    one = gmpy2.mpz(10) ** digits
    total = gmpy2.mpz(0)
    for c, x in terms:
        p, q, t = _split(x, 0, int(digits / (2 * math.log10(x))) + 2, alternating)
        assert p
        total += c * one * t // q // x
    return int(total)


def _split(x: int, a: int, b: int, alternating: bool) -> tuple[gmpy2.mpz, gmpy2.mpz, gmpy2.mpz]:
    """Binary splitting of Σ_{a≤k<b} (±1)^k / ((2k+1)·x^(2k)): (weight, common denominator, numerator)."""
    if b - a == 1:
        weight = gmpy2.mpz(x) ** 2
        sign = -1 if alternating and a % 2 else 1
        return weight, (2 * a + 1) * weight, sign * weight
    middle = (a + b) // 2
    p1, q1, t1 = _split(x, a, middle, alternating)
    p2, q2, t2 = _split(x, middle, b, alternating)
    # the right half is smaller by x^-2(middle−a) = 1/p1
    return p1 * p2, q1 * q2 * p1, t1 * q2 * p1 + q1 * t2


def _e(digits: int) -> int:
    def split(a: int, b: int) -> tuple[gmpy2.mpz, gmpy2.mpz]:
        if b - a == 1:
            return gmpy2.mpz(1), gmpy2.mpz(b)
        middle = (a + b) // 2
        p1, q1 = split(a, middle)
        p2, q2 = split(middle, b)
        return p1 * q2 + p2, q1 * q2

    terms = 10
    while math.lgamma(terms) / math.log(10) < digits + 5:
        terms *= 2
    p, q = split(0, terms)
    return int(gmpy2.mpz(10) ** digits * (p + q) // q)


def _sqrt2(digits: int) -> int:
    return int(gmpy2.isqrt(2 * gmpy2.mpz(10) ** (2 * digits)))


JUDGES: dict[str, Callable[[int], int]] = {
    "pi": lambda d: _arctan_sum([(48, 18), (32, 57), (-20, 239)], True, d),  # Gauss
    "e": _e,
    "sqrt2": _sqrt2,
    "ln2": lambda d: _arctan_sum([(18, 26), (-2, 4801), (8, 8749)], False, d),
}


def _digits(value: int, n: int) -> str:
    """Rounded to n significant digits; the guard digits decide (asserted not to be close to a tie)."""
    text = str(gmpy2.mpz(value))
    extra = len(text) - n
    tail = text[n : n + 12]
    assert extra >= 12 and tail not in ("500000000000", "499999999999"), "the judge cannot decide the rounding"
    return str(gmpy2.mpz(text[:n]) + (1 if tail[0] >= "5" else 0))


@pytest.mark.parametrize("name", sorted(JUDGES))
def test_a_hundred_thousand_digits(name: str) -> None:
    mine = CONSTANTS[name].digits(N).replace(".", "").lstrip("0")
    judged = _digits(JUDGES[name](N + GUARD), N)
    assert hashlib.sha256(mine.encode()).hexdigest() == hashlib.sha256(judged.encode()).hexdigest()
    assert len(mine) == N


def test_known_places() -> None:
    """Digits at well-known places of the published expansions."""
    digits = pi.digits(N + 50).replace(".", "")
    assert digits[762:768] == "999999"  # the Feynman point, decimals 762–767
    assert digits[99_991 : N + 1] == "5493624646"  # decimals 99,991–100,000
    assert e.digits(50) == "2.7182818284590452353602874713526624977572470937000"
    assert phi.digits(40) == "1.618033988749894848204586834365638117720"
    assert sqrt2.digits(30) == "1.41421356237309504880168872421"


@pytest.mark.parametrize("name", sorted(CONSTANTS))
def test_all_constants_against_mpmath(name: str) -> None:
    values = {
        "pi": lambda: mpmath.pi, "e": lambda: mpmath.e, "phi": lambda: mpmath.phi, "ln2": lambda: mpmath.ln2,
        "ln10": lambda: mpmath.ln10, "ln3": lambda: mpmath.log(3), "sqrt2": lambda: mpmath.sqrt(2),
        "sqrt3": lambda: mpmath.sqrt(3), "sqrt5": lambda: mpmath.sqrt(5), "euler_gamma": lambda: mpmath.euler,
        "catalan": lambda: mpmath.catalan, "tower_lower": lambda: mpmath.exp(-mpmath.e),
        "tower_upper": lambda: mpmath.exp(mpmath.exp(-1)),
    }  # fmt: skip
    with mpmath.workdps(1050):
        text = mpmath.nstr(+values[name](), 1040, strip_zeros=False)
    assert CONSTANTS[name].digits(1000)[:995] == text[: len(CONSTANTS[name].digits(1000))][:995]
    low, high = map(Fraction, CONSTANTS[name].bounds(50))
    assert low < Fraction(text[:1000]) < high and high - low <= Fraction(10) ** -49


def test_a_constant_is_the_number_itself() -> None:
    assert pi == pi and pi != e and e < pi and pi > 3 and pi < Fraction(22, 7) and pi != Fraction(355, 113)
    below = Fraction(3141592653589793238462643383279502884197, 10**39)
    assert below < pi < below + Fraction(1, 10**39)  # decided by raising the precision
    assert ln2 < ln3 < ln10 and sqrt2 < sqrt3 < sqrt5 and euler_gamma < catalan < 1
    assert float(pi) == math.pi and float(e) == math.e and int(pi) == 3 and math.ceil(pi) == 4 and math.floor(-pi) == -4
    assert {pi: 1}[pi] == 1 and str(pi) == "pi" and f"{pi:.60f}".endswith("5105820974945")
    assert isinstance(2 * pi, Ball) and (2 * pi).digits(20) == "6.2831853071795864769" and (pi**2).accuracy_bits >= 120
    with precision(1000):
        assert (pi - 3).accuracy_bits >= 990
    assert pi(bits=64).radius < Fraction(1, 2**60) and pi().contains(pi(bits=4000))
    assert pi != Ball("3.14") and pi != "3.14"
    with pytest.raises(UndecidableError):
        assert pi == pi()  # a ball that contains π may or may not be π


def test_unknown_irrationality_is_capped() -> None:
    third = Constant("third", lambda: (Ball(1, bits=4) / 3).flint + 0, "1/3, which we are not told.", irrational=False)
    with pytest.raises(UndecidableError):
        third < Fraction(1, 3)  # noqa: B015
