"""Sieve, counting, primality and factor tables against independent judges (sympy, trial division, known values)."""

import itertools

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from cllm.errors import DomainError, LimitError
from cllm.lattice import (
    WHEEL30,
    are_prime,
    count_between,
    factor,
    factor_table,
    first_primes,
    is_mersenne_exponent,
    is_mersenne_prime,
    is_prime,
    is_sophie_germain,
    is_twin,
    iter_primes,
    next_prime,
    nth_prime,
    previous_prime,
    prime_count,
    prime_index,
    prime_mask,
    prime_token,
    primes_below,
    primes_between,
    token_prime,
)

# OEIS A006880
PI_OF_POWERS = [4, 25, 168, 1229, 9592, 78498, 664579, 5761455, 50847534, 455052511, 4118054813, 37607912018]


@pytest.mark.parametrize(("k", "count"), list(enumerate(PI_OF_POWERS, start=1)))
def test_count_at_powers_of_ten(k, count):
    assert prime_count(10**k) == count
    if k <= 8:
        assert prime_count(10**k, "sieve") == prime_count(10**k, "combinatorial") == count


@pytest.mark.prove
def test_count_far():
    assert prime_count(10**9, "sieve") == 50847534
    assert prime_count(10**13) == 346065536839
    assert prime_count(10**14) == 3204941750802


def test_small_ranges_agree_with_sympy():
    primes = list(sympy.primerange(0, 4000))
    for start in range(300):
        for width in (0, 1, 2, 3, 17, 200, 1000):
            expected = [p for p in primes if start <= p < start + width]
            assert primes_between(start, start + width).tolist() == expected
    assert primes_below(3 * 10**6).tolist() == list(sympy.primerange(0, 3 * 10**6))


@pytest.mark.parametrize("start", [2**20 - 100, 10**9, 10**12, 10**14 - 200, 10**14, 2**63 - 400, 10**21])
def test_far_ranges_agree_with_sympy(start):
    assert [int(p) for p in primes_between(start, start + 700)] == list(sympy.primerange(start, start + 700))


def test_segment_boundaries():
    """A range cut anywhere gives the same primes as the whole."""
    whole = primes_between(2_000_000, 5_000_000)
    for cut in (2_000_003, 2_097_152, 2_097_153, 4_194_303, 4_194_304, 4_999_999):
        parts = np.concatenate((primes_between(2_000_000, cut), primes_between(cut, 5_000_000)))
        assert np.array_equal(parts, whole)
    assert count_between(2_000_000, 5_000_000) == whole.size
    assert np.array_equal(np.flatnonzero(prime_mask(2_000_000, 5_000_000)) + 2_000_000, whole)


@given(st.integers(2, 400_000))
@settings(deadline=None, max_examples=300)
def test_two_ways_of_counting_agree(x):
    assert prime_count(x, "combinatorial") == prime_count(x, "sieve")


def test_counting_at_squares_and_primes():
    """Where ⌊√x⌋ and ⌊x/p⌋ jump is where a combinatorial count goes wrong."""
    for root in range(10, 700):
        for x in (root * root - 1, root * root, root * root + 1):
            assert prime_count(x, "combinatorial") == prime_count(x, "sieve"), x


def test_nth_prime_is_one_to_one():
    primes = primes_below(200_000)
    assert [nth_prime(n) for n in range(1, 2000)] == primes[:1999].tolist()
    for n in (5_000, 17_984, 199_999, 200_000, 200_001, 664_579, 5_761_455, 5_761_456):
        p = nth_prime(n)
        assert is_prime(p) and prime_count(p) == n and prime_count(p - 1) == n - 1
        assert prime_index(p) == n
    assert nth_prime(10**9) == 22801763489
    assert nth_prime(10**11) == 2760727302517
    assert np.array_equal(first_primes(17_984), primes)


@pytest.mark.parametrize(
    "n",
    [
        2152302898747,
        3825123056546413051,
        318665857834031151167461,
        3215031751,
        341550071728321,
        561, 1105, 1729, 294409, 56052361, 118901521, 172947529,
        3317044064679887385961981,
        6003094289670105800312596501,
        59276361075595573263446330101,
    ],
)  # fmt: skip
def test_pseudoprimes_are_composite(n):
    assert not is_prime(n)
    assert sympy.isprime(n) is False
    factors = factor(n)
    assert len(factors) > 1 and all(is_prime(p) for p, _ in factors)
    assert np.prod([p**e for p, e in factors], dtype=object) == n


def test_primality_of_arrays_and_neighbours():
    values = np.array([[-7, 0, 1, 2], [3, 4, 143999, 144001]])
    assert are_prime(values).tolist() == [[False, False, False, True], [True, False, True, False]]
    spread = np.array([10**17 + 3, 2, 10**18 + 9, 9])
    assert are_prime(spread).tolist() == [sympy.isprime(int(v)) for v in spread]
    for n in (-5, 1, 2, 3, 4, 113, 10**12, 10**25):
        assert next_prime(n) == sympy.nextprime(n)
    for n in (3, 4, 5, 127, 10**12, 10**25):
        assert previous_prime(n) == sympy.prevprime(n)
    assert list(itertools.islice(iter_primes(10**6), 200)) == list(
        itertools.islice((p for p in range(10**6, 10**7) if sympy.isprime(p)), 200)
    )
    assert list(itertools.islice(iter_primes(-3), 1000)) == first_primes(1000).tolist()


def test_wheel_and_classes():
    primes = primes_below(10**6)
    assert set((primes[primes > 5] % 30).tolist()) == set(WHEEL30)
    assert set((primes[primes > 3] % 12).tolist()) == {1, 5, 7, 11}


def test_factor_facts_of_the_page():
    assert is_prime(143999)
    assert factor(144001) == [(11, 1), (13, 1), (19, 1), (53, 1)]
    assert 144000 * 9 == 3 * 12**3 * 250


@pytest.mark.parametrize("start", [1, 2, 97, 10**6, 10**9 - 17, 10**12])
def test_factor_table(start):
    table = factor_table(start, start + 400)
    for i, n in enumerate(range(start, start + 400)):
        factors = sympy.factorint(n)
        assert table.n[i] == n
        assert table.least[i] == min(factors, default=1)
        assert table.big_omega[i] == sum(factors.values())
        assert table.omega[i] == len(factors)
        assert table.mobius[i] == sympy.mobius(n)


def test_special_primes():
    exponents = [p for p in range(1, 620) if is_mersenne_exponent(p)]
    assert exponents == [2, 3, 5, 7, 13, 17, 19, 31, 61, 89, 107, 127, 521, 607]
    assert not is_mersenne_exponent(11)  # 2047 = 23·89, the classical trap
    assert is_mersenne_prime(2**61 - 1) and not is_mersenne_prime(2**61 + 1) and not is_mersenne_prime(2047)
    twins = [p for p in range(2, 100) if is_twin(p)]
    assert twins == [3, 5, 7, 11, 13, 17, 19, 29, 31, 41, 43, 59, 61, 71, 73]
    assert [p for p in range(2, 100) if is_sophie_germain(p)] == [2, 3, 5, 11, 23, 29, 41, 53, 83, 89]


def test_tokens_and_primes():
    ids = np.arange(70_000)
    primes = token_prime(ids)
    assert primes[:5].tolist() == [2, 3, 5, 7, 11] and np.all(np.diff(primes) > 0)
    assert np.array_equal(prime_token(primes), ids)
    assert token_prime(10**7) == nth_prime(10**7 + 1) and prime_token(token_prime(10**7)) == 10**7
    far = np.array([10**10 + 3, 10**10, 10**10 + 4000])
    assert token_prime(far).tolist() == [nth_prime(int(i) + 1) for i in far]
    assert prime_token(token_prime(far)).tolist() == far.tolist()
    wide = np.array([3, 10**7 + 19])  # 10⁷ + 19 is prime
    assert prime_token(wide).tolist() == [1, prime_count(10**7 + 19) - 1]
    for ids in ([0, 10**10], [5, 2**40]):
        with pytest.raises(LimitError, match="token_prime"):
            token_prime(ids)
    with pytest.raises(LimitError, match="prime_token"):
        prime_token(np.array([3, 10**12 + 39]))
    with pytest.raises(DomainError, match=r"prime_token.*got 1000000000038"):
        prime_token(np.array([10**12 + 38]))
    with pytest.raises(DomainError, match=r"prime_token.*got 9"):
        prime_token(np.array([7, 9]))


def test_refusals():
    with pytest.raises(DomainError, match=r"nth_prime.*counts from 1.*n=0"):
        nth_prime(0)
    with pytest.raises(LimitError, match="nth_prime"):
        nth_prime(10**15)
    with pytest.raises(LimitError, match=r"10\^15"):
        prime_count(10**16)
    with pytest.raises(LimitError, match="primes_between"):
        primes_between(0, 10**13)
    with pytest.raises(DomainError, match="previous_prime"):
        previous_prime(2)
    with pytest.raises(DomainError, match="factor_table"):
        factor_table(0, 5)
    with pytest.raises(LimitError, match="factor_table"):
        factor_table(1, 10**9)
    with pytest.raises(DomainError, match="factor"):
        factor(0)
    with pytest.raises(DomainError, match="method"):
        prime_count(10, "guess")


def test_large_proofs_and_their_limit():
    assert is_prime(2**2203 - 1) and not is_prime(2**2207 - 1)  # Lucas–Lehmer
    assert next_prime(2**300) == sympy.nextprime(2**300)
    assert not is_prime((2**5003 - 1) * (2**5009 - 1))
    proth = 5 * 2**4687 + 1  # prime, of 4690 bits
    with pytest.raises(LimitError, match="4096"):
        is_prime(proth)
