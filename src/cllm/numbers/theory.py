"""Number theory on integers of any size: gcd to CRT, primality with proof, factors and arithmetic functions.

All functions take int, BigInt or anything with `__index__`, and return BigInt (or bool, or small ints).
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any, SupportsIndex

from flint import fmpz

from cllm.errors import DomainError, LimitError
from cllm.numbers.bigint import BigInt
from cllm.numbers.limits import MAX_FACTOR_BITS, MAX_PROOF_BITS, brief, check_integer_bits

_SMALL_FACTOR_BITS = 24
_combinatorial: Any = fmpz  # class methods that its stubs call instance methods


def _z(x: SupportsIndex, name: str) -> fmpz:
    if isinstance(x, BigInt):
        return x._z
    try:
        return fmpz(operator.index(x))
    except TypeError:
        raise DomainError(f"{name}: expected an integer, got {brief(x)}") from None


def _at_least(x: SupportsIndex, least: int, name: str) -> fmpz:
    n = _z(x, name)
    if n < least:
        raise DomainError(f"{name}: got {_brief(n)}; expected an integer >= {least}")
    return n


def _brief(n: fmpz) -> str:
    return str(n) if n.bit_length() < 200 else f"an integer of {n.bit_length()} bits"


def _word(x: SupportsIndex, name: str, least: int = 0) -> int:
    n = _at_least(x, least, name)
    if n.bit_length() > 62:
        raise LimitError(f"{name}: an argument of {n.bit_length()} bits; the limit is 62 bits")
    return int(n)


# divisors and residues ----------------------------------------------------------------------------------------------
def gcd(*numbers: SupportsIndex) -> BigInt:
    """The greatest common divisor, ≥ 0; gcd() = 0."""
    found = fmpz(0)
    for x in numbers:
        found = found.gcd(_z(x, "gcd"))
    return BigInt(abs(found))


def lcm(*numbers: SupportsIndex) -> BigInt:
    """The least common multiple, ≥ 0; lcm() = 1."""
    found = fmpz(1)
    for x in numbers:
        found = found.lcm(_z(x, "lcm"))
    return BigInt(abs(found))


def xgcd(a: SupportsIndex, b: SupportsIndex) -> tuple[BigInt, BigInt, BigInt]:
    """(g, s, t) with g = gcd(a, b) = s·a + t·b."""
    r0, r1 = _z(a, "xgcd"), _z(b, "xgcd")
    s0, s1, t0, t1 = fmpz(1), fmpz(0), fmpz(0), fmpz(1)
    while r1 != 0:
        q, rest = divmod(r0, r1)
        r0, r1 = r1, rest
        s0, s1 = s1, s0 - q * s1
        t0, t1 = t1, t0 - q * t1
    sign = -1 if r0 < 0 else 1
    return BigInt(sign * r0), BigInt(sign * s0), BigInt(sign * t0)


def modpow(a: SupportsIndex, exponent: SupportsIndex, modulus: SupportsIndex) -> BigInt:
    """a^exponent mod modulus, in 0 … modulus−1; a negative exponent inverts a."""
    m = _at_least(modulus, 1, "modpow: modulus")
    k, base = _z(exponent, "modpow"), _z(a, "modpow")
    if k < 0:
        base, k = modinv(BigInt(base), BigInt(m))._z, -k
    return BigInt(pow(base, k, m) % m)


def modinv(a: SupportsIndex, modulus: SupportsIndex) -> BigInt:
    """The b in 0 … modulus−1 with a·b ≡ 1.

    Raises:
        DomainError: a and the modulus have a common factor.
    """
    m = _at_least(modulus, 1, "modinv: modulus")
    g, s, _ = xgcd(BigInt(_z(a, "modinv") % m), BigInt(m))
    if g != 1 and m != 1:
        shown = f"{_brief(_z(a, 'modinv'))} has no inverse modulo {_brief(m)}"
        raise DomainError(f"modinv: {shown}: their gcd is {_brief(g._z)}; expected gcd 1")
    return BigInt(s._z % m)


def crt(residues: Iterable[SupportsIndex], moduli: Iterable[SupportsIndex]) -> tuple[BigInt, BigInt]:
    """(x, M): the solution 0 ≤ x < M of x ≡ rᵢ (mod mᵢ), M = lcm(mᵢ); the moduli need not be coprime.

    Raises:
        DomainError: no solution, or lists of different lengths.
    """
    r_list, m_list = list(residues), list(moduli)
    if len(r_list) != len(m_list):
        raise DomainError(f"crt: got {len(r_list)} residues and {len(m_list)} moduli; expected as many of each")
    x, m = fmpz(0), fmpz(1)
    for residue, modulus in zip(r_list, m_list, strict=True):
        r, n = _z(residue, "crt"), _at_least(modulus, 1, "crt: modulus")
        g, s, _ = xgcd(BigInt(m), BigInt(n))
        if (r - x) % g._z != 0:
            raise DomainError(f"crt: x ≡ {_brief(r)} (mod {_brief(n)}) contradicts x ≡ {_brief(x)} (mod {_brief(m)})")
        step = n // g._z
        x = x + m * ((r - x) // g._z * s._z % step)
        m = m * step
        x = x % m
    return BigInt(x), BigInt(m)


def jacobi(a: SupportsIndex, n: SupportsIndex) -> int:
    """The Jacobi symbol (a/n) for odd n ≥ 1: −1, 0 or 1."""
    top, bottom = _z(a, "jacobi"), _at_least(n, 1, "jacobi")
    if bottom % 2 == 0:
        raise DomainError(f"jacobi: n = {n} is even; expected an odd n >= 1")
    if bottom == 1:
        return 1
    return int((top % bottom).jacobi(bottom))


# primes ---------------------------------------------------------------------------------------------------------------
def is_probable_prime(n: SupportsIndex) -> bool:
    """The Baillie–PSW test: proven below 2⁶⁴, and no composite is known that passes it above."""
    z = _z(n, "is_probable_prime")
    return z > 1 and bool(z.is_probable_prime())


def is_prime(n: SupportsIndex) -> bool:
    """Whether n is prime, proven (FLINT: tables and BPSW below 2⁶⁴, Pocklington/Morrison n∓1 or APR-CL above).

    Raises:
        LimitError: a probable prime of more than `limits.MAX_PROOF_BITS` bits.
    """
    z = _z(n, "is_prime")
    if z < 2 or not z.is_probable_prime():
        return False  # a failed BPSW test proves compositeness
    if z.bit_length() > MAX_PROOF_BITS:
        raise LimitError(
            f"is_prime: a proof for {z.bit_length()} bits is beyond the limit of {MAX_PROOF_BITS} bits; "
            "is_probable_prime says that it is a (Baillie–PSW) probable prime"
        )
    return bool(z.is_prime())


def next_prime(n: SupportsIndex) -> BigInt:
    """The least prime > n, proven."""
    candidate = max(int(_z(n, "next_prime")) + 1, 2)
    if candidate > 2:
        candidate |= 1
    while not is_prime(candidate):
        candidate += 1 if candidate == 2 else 2
    return BigInt(candidate)


def previous_prime(n: SupportsIndex) -> BigInt:
    """The largest prime < n, proven; n ≥ 3."""
    candidate = int(_at_least(n, 3, "previous_prime")) - 1
    if candidate > 2:
        candidate -= 1 - candidate % 2
    while not is_prime(candidate):
        candidate -= 2
    return BigInt(candidate if candidate > 1 else 2)


def factor(n: SupportsIndex) -> dict[BigInt, int]:
    """The factorisation of n ≠ 0 as {prime: exponent}, ascending, with −1: 1 first for a negative n; {} for 1.

    Raises:
        DomainError: n = 0.
        LimitError: after the small factors are out, a composite of more than `limits.MAX_FACTOR_BITS` bits is left.
    """
    z = _z(n, "factor")
    if z == 0:
        raise DomainError("factor: 0 has no factorisation; expected a nonzero integer")
    found: dict[BigInt, int] = {BigInt(-1): 1} if z < 0 else {}
    primes: dict[int, int] = {}
    todo = [(abs(z), 1)]
    if z.bit_length() > 64:
        todo = [(p, int(k)) for p, k in abs(z).factor_smooth(_SMALL_FACTOR_BITS)]
    for part, exponent in todo:
        if part == 1:
            continue
        if part.is_probable_prime():
            pieces = [(part, 1)]
            if part.bit_length() > 64 and not is_prime(BigInt(part)):  # pragma: no cover - a BPSW counterexample
                raise LimitError(f"factor: {part} passes Baillie–PSW but is composite")
        elif part.bit_length() > MAX_FACTOR_BITS and not part.is_perfect_power():
            raise LimitError(
                f"factor: a composite factor of {part.bit_length()} bits remains; "
                f"the limit is {MAX_FACTOR_BITS} bits (cllm.numbers.limits.MAX_FACTOR_BITS)"
            )
        else:
            pieces = part.factor()
        for p, k in pieces:
            primes[int(p)] = primes.get(int(p), 0) + int(k) * exponent
    return found | {BigInt(p): primes[p] for p in sorted(primes)}


def totient(n: SupportsIndex) -> BigInt:
    """Euler's φ(n), n ≥ 1: how many of 1 … n are prime to n."""
    value = _at_least(n, 1, "totient")
    for p in factor(BigInt(value)):
        value = value // p._z * (p._z - 1)
    return BigInt(value)


def carmichael(n: SupportsIndex) -> BigInt:
    """Carmichael's λ(n), n ≥ 1: the exponent of the group of units modulo n."""
    _at_least(n, 1, "carmichael")
    parts: list[BigInt] = []
    for p, k in factor(n).items():
        if p == 2:
            parts.append(BigInt(2) ** (k - 2) if k > 2 else BigInt(k))
        else:
            parts.append((p - 1) * p ** (k - 1))
    return lcm(*parts)


def moebius(n: SupportsIndex) -> int:
    """Möbius' μ(n), n ≥ 1."""
    _at_least(n, 1, "moebius")
    exponents = list(factor(n).values())
    return 0 if any(k > 1 for k in exponents) else (-1) ** len(exponents)


def sigma(n: SupportsIndex, k: int = 1) -> BigInt:
    """σ_k(n) = Σ of d^k over the divisors d of n ≥ 1; σ₀ counts them."""
    _at_least(n, 1, "sigma")
    power = _word(k, "sigma: k")
    check_integer_bits(int(_z(n, "sigma").bit_length()) * (power + 1), "sigma")
    product = fmpz(1)
    for p, e in factor(n).items():
        q = p._z**power
        product *= e + 1 if power == 0 else (q ** (e + 1) - 1) // (q - 1)
    return BigInt(product)


def divisors(n: SupportsIndex) -> list[BigInt]:
    """All positive divisors of n ≥ 1, ascending (at most a million)."""
    _at_least(n, 1, "divisors")
    factors = factor(n)
    count = 1
    for k in factors.values():
        count *= k + 1
    if count > 1_000_000:
        raise LimitError(f"divisors: {count} divisors; the limit is 1000000")
    found = [fmpz(1)]
    for p, k in factors.items():
        found = [d * p._z**j for d in found for j in range(k + 1)]
    return [BigInt(d) for d in sorted(found)]


# combinatorics ----------------------------------------------------------------------------------------------------
def factorial(n: SupportsIndex) -> BigInt:
    """n!, n ≥ 0."""
    k = _word(n, "factorial")
    check_integer_bits(k * max(1, k.bit_length() - 2), "factorial")
    return BigInt(_combinatorial.fac_ui(k))


def primorial(n: SupportsIndex) -> BigInt:
    """The product of the primes ≤ n."""
    k = _word(n, "primorial")
    check_integer_bits(1.5 * k, "primorial")
    return BigInt(_combinatorial.primorial_ui(k))


def fibonacci(n: SupportsIndex) -> BigInt:
    """F(n) with F(0) = 0, F(1) = 1; F(−n) = (−1)^(n+1)·F(n)."""
    z = _z(n, "fibonacci")
    k = _word(BigInt(abs(z)), "fibonacci")
    check_integer_bits(0.7 * k, "fibonacci")
    value = BigInt(_combinatorial.fib_ui(k))
    return -value if z < 0 and k % 2 == 0 else value


def binomial(n: SupportsIndex, k: SupportsIndex) -> BigInt:
    """n over k; 0 for k < 0 or k > n ≥ 0; (−1)^k·C(k−n−1, k) for negative n."""
    top, bottom = int(_z(n, "binomial")), int(_z(k, "binomial"))
    if bottom < 0:
        return BigInt(0)
    if top < 0:
        value = binomial(bottom - top - 1, bottom)
        return -value if bottom % 2 else value
    bottom = min(bottom, top - bottom)
    if bottom < 0:
        return BigInt(0)
    check_integer_bits(bottom * max(1, (top // max(bottom, 1)).bit_length() + 2), "binomial")
    if top.bit_length() > 62:
        product = fmpz(1)
        for i in range(bottom):
            product = product * (top - i) // (i + 1)
        return BigInt(product)
    return BigInt(fmpz.bin_uiui(top, bottom))
