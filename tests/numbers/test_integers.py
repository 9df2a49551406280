"""BigInt is int with number theory: every operator against int, every function against gmpy2, sympy or a definition."""

from __future__ import annotations

import math
import operator
import pickle
from decimal import Decimal
from fractions import Fraction
from itertools import product

import gmpy2
import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from cllm.errors import DomainError, LimitError
from cllm.numbers import BigInt, limits
from cllm.numbers import theory as t

ints = st.one_of(st.integers(-20, 20), st.integers(-(2**200), 2**200))
positive = st.integers(1, 10**9)


@given(ints, ints)
def test_operators_agree_with_int(a: int, b: int) -> None:
    x, y = BigInt(a), BigInt(b)
    for op in (operator.add, operator.sub, operator.mul, operator.and_, operator.or_, operator.xor):
        for left, right in ((x, y), (x, b), (a, y)):
            got = op(left, right)
            assert type(got) is BigInt and got == op(a, b) and hash(got) == hash(op(a, b))
    for op in (operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge):
        assert op(x, y) == op(x, b) == op(a, y) == op(a, b)
    if b:
        for op in (operator.floordiv, operator.mod, divmod):
            assert op(x, y) == op(a, b) and op(x, b) == op(a, b) and op(a, y) == op(a, b)
        assert x / y == x / b == a / y == Fraction(a, b)
        q, r = x.truncated_divmod(b)
        assert q * b + r == a and abs(r) < abs(b) and r * a >= 0 and q == int(Fraction(a, b))
    assert (-x, +x, abs(x), ~x) == (-a, a, abs(a), ~a) and bool(x) == bool(a) and int(x) == a
    assert x.bit_length() == a.bit_length() and x.bit_count() == a.bit_count()
    k = abs(b) % 70
    assert (x << k, x >> k, x**k) == (a << k, a >> k, a**k) and (k << BigInt(3), k >> BigInt(1)) == (k << 3, k >> 1)
    assert pickle.loads(pickle.dumps(x)) == a and {a: 1}[x] == 1


@given(
    ints,
    st.sampled_from(
        [
            "",
            "d",
            ",",
            "_",
            "x",
            "#x",
            "X",
            "b",
            "o",
            "#b",
            "+",
            " ",
            "40",
            "<40",
            "^40",
            "=+40",
            "*>40",
            "040",
            "+,",
            "#_x",
        ]
    ),
)
def test_formatting_is_that_of_int(n: int, spec: str) -> None:
    assert format(BigInt(n), spec) == format(n, spec)


def test_mixing_with_other_numbers() -> None:
    n = BigInt(7)
    assert n + Fraction(1, 2) == Fraction(15, 2) and Fraction(1, 2) * n == Fraction(7, 2) and n * 0.5 == 3.5 == 0.5 * n
    assert n + Decimal("0.5") == Decimal("7.5") and n == 7.0 and n < 7.5 and n > Decimal("6.9") and Fraction(n) == 7
    assert np.int64(3) + n == 10 and type(n + np.int64(3)) is BigInt and np.float64(0.5) * n == 3.5
    assert n**-2 == Fraction(1, 49) and n**0.5 == 7**0.5 and 2**n == 128 and pow(n, 100, 13) == pow(7, 100, 13)
    assert [10, 20, 30][BigInt(1)] == 20 and math.gcd(n, 21) == 7 and float(n) == 7.0 and f"{n:.2f}" == "7.00"
    assert math.floor(n) == 7 and round(BigInt(1250), -2) == 1200 and round(n) == 7 and BigInt(2.0) == 2
    assert BigInt(Fraction(4, 2)) == 2 and BigInt(np.int32(-5)) == -5 and sum([BigInt(1), BigInt(2)]) == 3
    for wrong in (0.5, Fraction(1, 2), math.inf, math.nan, None, 1j):
        with pytest.raises(DomainError):
            BigInt(wrong)
    for op in (operator.truediv, operator.floordiv, operator.mod):
        with pytest.raises(ZeroDivisionError):
            op(n, 0)
    with pytest.raises(TypeError):
        n + "1"


@given(ints, st.integers(2, 36))
def test_bases_2_to_36(n: int, base: int) -> None:
    text = BigInt(n).to_base(base)
    assert int(text, base) == n and BigInt(text, base) == n and BigInt(text.upper(), base) == n
    assert text.lstrip("-") == gmpy2.mpz(abs(n)).digits(base)


@given(ints)
def test_base_60(n: int) -> None:
    text = BigInt(n).to_base(60)
    assert BigInt(text, 60) == n
    digits = [int(d) for d in text.lstrip("-").split(",")]
    assert abs(n) == sum(d * 60**i for i, d in enumerate(reversed(digits))) and all(0 <= d < 60 for d in digits)
    assert BigInt.from_digits(BigInt(n).digits(1000), 1000) == abs(n)


def test_base_texts() -> None:
    assert (
        BigInt("1,24,51,10", 60) == 305470
        and BigInt("0xff", 16) == 255 == BigInt("0xff", 0)
        and BigInt("1_000") == 1000
    )
    for text, base in [
        ("", 10),
        ("12a", 10),
        ("_1", 10),
        ("1__2", 10),
        ("60", 60),
        ("1,,2", 60),
        ("1", 37),
        ("2", 1),
        ("-", 10),
    ]:
        if text == "60":
            with pytest.raises(DomainError, match=r"0\.\.59"):
                BigInt("60,1", base)
            continue
        with pytest.raises(DomainError):
            BigInt(text, base)


def test_a_million_digits_convert_in_seconds() -> None:
    n = BigInt(7) ** 1_183_300
    text = str(n)
    assert len(text) > 1_000_000 and BigInt(text) == n
    assert gmpy2.mpz(text) == gmpy2.mpz(7) ** 1_183_300
    assert BigInt(n.to_base(60), 60) == n


@given(st.integers(-(10**40), 10**40), st.integers(1, 12))
def test_roots(n: int, k: int) -> None:
    if n < 0 and k % 2 == 0:
        with pytest.raises(DomainError, match="root"):
            BigInt(n).root(k)
        return
    r, rest = BigInt(n).root(k)
    assert r**k + rest == n and abs(r) ** k <= abs(n) < (abs(r) + 1) ** k
    assert BigInt(abs(n)).isqrt() == math.isqrt(abs(n)) and BigInt(n * n).is_square()


@given(ints, ints, st.integers(1, 10**30))
def test_gcd_inverse_power(a: int, b: int, m: int) -> None:
    g, s, u = t.xgcd(a, b)
    assert g == math.gcd(a, b) == t.gcd(a, b) == s * a + u * b and t.lcm(a, b) == math.lcm(a, b)
    assert t.modpow(a, abs(b) % 1000, m) == pow(a, abs(b) % 1000, m)
    if math.gcd(a, m) == 1:
        assert t.modinv(a, m) == pow(a, -1, m) and t.modpow(a, -3, m) == pow(a, -3, m)
    else:
        with pytest.raises(DomainError, match="gcd"):
            t.modinv(a, m)


@given(st.lists(st.tuples(st.integers(-1000, 1000), st.integers(1, 60)), min_size=1, max_size=4))
def test_crt(pairs: list[tuple[int, int]]) -> None:
    lcm = math.lcm(*(m for _, m in pairs))
    found = [x for x in range(min(lcm, 10**6)) if all((x - r) % m == 0 for r, m in pairs)]
    if found:
        assert t.crt([r for r, _ in pairs], [m for _, m in pairs]) == (found[0], lcm)
    elif lcm <= 10**6:
        with pytest.raises(DomainError, match="contradict"):
            t.crt([r for r, _ in pairs], [m for _, m in pairs])


@given(st.integers(1, 10**14))
def test_arithmetic_functions_against_sympy(n: int) -> None:
    assert t.factor(n) == sympy.factorint(n) and t.totient(n) == sympy.totient(n)
    assert t.carmichael(n) == sympy.reduced_totient(n) and t.moebius(n) == sympy.mobius(n)
    assert (
        t.sigma(n) == sympy.divisor_sigma(n)
        and t.sigma(n, 0) == len(t.divisors(n))
        and t.sigma(n, 3) == sum(d**3 for d in t.divisors(n))
    )
    assert t.divisors(n) == sympy.divisors(n) and t.is_prime(n) == sympy.isprime(n) == t.is_probable_prime(n)
    assert t.next_prime(n) == gmpy2.next_prime(n)
    if n > 2:
        assert t.previous_prime(n) == sympy.prevprime(n)


def test_small_primes_one_by_one() -> None:
    sieve = set(sympy.primerange(5000))
    assert [n for n in range(-5, 5000) if t.is_prime(n)] == sorted(sieve)
    assert [t.next_prime(n) for n in range(-3, 8)] == [2, 2, 2, 2, 2, 3, 5, 5, 7, 7, 11]
    assert [t.previous_prime(n) for n in range(3, 9)] == [2, 3, 3, 5, 5, 7]


# Jaeschke 1993, Zhang 2001, Jiang–Deng 2014, Sorenson–Webster 2017: strong pseudoprimes to the first 5 … 13 prime bases
STRONG_PSEUDOPRIMES = [
    2047,
    1373653,
    25326001,
    3215031751,
    2152302898747,
    3474749660383,
    341550071728321,
    3825123056546413051,
    318665857834031151167461,
    3317044064679887385961981,
]
CARMICHAEL = [
    561,
    1105,
    1729,
    2465,
    2821,
    6601,
    8911,
    41041,
    825265,
    321197185,
    5394826801,
    232250619601,
    9746347772161,
    1436697831295441,
    60977817398996785,
    7156857700403137441,
    1791562810662585767521,
]


@pytest.mark.parametrize("n", STRONG_PSEUDOPRIMES + CARMICHAEL)
def test_pseudoprimes_are_composite(n: int) -> None:
    assert not t.is_prime(n) and not t.is_probable_prime(n)
    factors = t.factor(n)
    assert math.prod(p**k for p, k in factors.items()) == n and len(factors) >= 2
    assert all(t.is_prime(p) for p in factors)
    if n in CARMICHAEL:
        assert all((n - 1) % (p - 1) == 0 for p in factors) and len(factors) >= 3  # Korselt


def test_strong_pseudoprimes_fool_the_weaker_test() -> None:
    """They are what they are called: strong probable primes to the base 2 (and more), so the cases are real."""
    for n in STRONG_PSEUDOPRIMES:
        assert gmpy2.is_strong_prp(n, 2)


def test_primes_with_proof() -> None:
    for n in (2**61 - 1, 2**127 - 1, 2**521 - 1, 10**100 + 267, 2**255 - 19):
        assert t.is_prime(n)
    assert not t.is_prime(2**1001 + 1) and not t.is_prime((2**127 - 1) * (2**89 - 1))
    with pytest.raises(LimitError, match="limit of 4096 bits"):
        t.is_prime(2**9689 - 1)
    assert t.is_probable_prime(2**4423 - 1)


def test_factoring() -> None:
    assert t.factor(1) == {} and t.factor(-12) == {-1: 1, 2: 2, 3: 1}
    assert t.factor(2**67 - 1) == {193707721: 1, 761838257287: 1}
    assert t.factor(BigInt(2**89 - 1) ** 5) == {2**89 - 1: 5}
    big = (2**61 - 1) * (2**89 - 1) * 2**100 * 3**7
    assert t.factor(big) == {2: 100, 3: 7, 2**61 - 1: 1, 2**89 - 1: 1}
    with pytest.raises(DomainError):
        t.factor(0)
    with pytest.raises(LimitError, match="MAX_FACTOR_BITS"):
        t.factor((2**521 - 1) * (2**607 - 1))


@given(ints, st.integers(0, 10**6))
def test_jacobi(a: int, half: int) -> None:
    n = 2 * half + 1
    assert t.jacobi(a, n) == gmpy2.jacobi(a, n)


def test_jacobi_of_even() -> None:
    with pytest.raises(DomainError, match="odd"):
        t.jacobi(3, 8)


def test_combinatorics() -> None:
    assert [t.factorial(n) for n in range(30)] == [math.factorial(n) for n in range(30)]
    assert all(t.primorial(n) == sympy.primorial(n, nth=False) for n in range(1, 200)) and t.primorial(0) == 1
    fib = [0, 1]
    while len(fib) < 300:
        fib.append(fib[-1] + fib[-2])
    assert [t.fibonacci(n) for n in range(300)] == fib
    assert all(t.fibonacci(n) == t.fibonacci(n + 2) - t.fibonacci(n + 1) for n in range(-50, 0))
    for n, k in product(range(-6, 12), range(-2, 12)):
        assert t.binomial(n, k) == sympy.binomial(n, k)
    assert t.binomial(2**70, 3) == sympy.binomial(2**70, 3)


@pytest.mark.timeout(20)
def test_absurd_sizes_are_refused_at_once() -> None:
    n = BigInt(10)
    for call in (
        lambda: n ** (10**9),
        lambda: n**n**n**n,
        lambda: BigInt(1) << 10**12,
        lambda: t.factorial(10**9),
        lambda: t.fibonacci(10**12),
        lambda: t.primorial(10**12),
        lambda: t.binomial(10**15, 10**14),
        lambda: n ** -(10**10),
        lambda: t.factorial(10**40),
        lambda: BigInt("9" * 10) ** BigInt(10) ** 30,
        lambda: t.sigma(10, 10**12),
    ):
        with pytest.raises(LimitError, match=r"limit"):
            call()
    assert BigInt(1) ** 10**30 == 1 and BigInt(-1) ** (10**30 + 1) == -1 and BigInt(0) << 10**12 == 0
    assert limits.MAX_INTEGER_BITS == 2**28
    for wrong in (
        lambda: t.factorial(-1),
        lambda: t.totient(0),
        lambda: t.gcd(1.5),
        lambda: n << -1,
        lambda: t.previous_prime(2),
    ):  # type: ignore[arg-type]
        with pytest.raises(DomainError):
            wrong()
