"""A factorisation that anyone can check: the product, and for each prime factor a Pratt certificate.

Pratt, "Every prime has a succinct certificate", SIAM J. Comput. 4 (1975): p is prime iff some g has g^(p−1) ≡ 1 and
g^((p−1)/q) ≢ 1 (mod p) for every prime q dividing p − 1; the q are certified in the same way, down to small primes.
What is found is checked again here with Python's own `pow`, independently of how it was found.
"""

from __future__ import annotations

from typing import Any

from flint import fmpz

from cllm.errors import CertificateError, DomainError, LimitError
from cllm.lattice.primality import factor
from cllm.numbers.expression import evaluate

MAX_BITS = 256  # p − 1 of a larger prime can take very long to factor
SMALL = 100  # primes below are certified by trial division
MAX_ENTRIES = 400


def certificate(text: str) -> dict[str, Any]:
    """Factors of an integer ≥ 2 with a certificate for each prime.

    Returns n, factors [[p, e]], primes: [{p, witness, factors of p − 1 [[q, e]]}] (witness null: by trial division),
    each prime after the ones it rests on; script: Python that checks it all.
    """
    found = evaluate(text, 20)
    if found.fraction is None or found.fraction.denominator != 1 or found.fraction < 2:
        raise DomainError(f"{text[:80]}: expected an integer from 2 on")
    n = int(found.fraction)
    if n.bit_length() > MAX_BITS:
        raise LimitError(f"certificates are made for integers up to {MAX_BITS} bits, this has {n.bit_length()}")
    factors = factor(n)
    entries: dict[int, dict[str, Any]] = {}
    for p, _ in factors:
        _certify(p, entries)
    _check(n, factors, entries)
    return {
        "n": str(fmpz(n)),
        "factors": [[str(p), e] for p, e in factors],
        "primes": [
            {"p": str(p), "witness": entry["g"] and str(entry["g"]), "factors": [[str(q), e] for q, e in entry["f"]]}
            for p, entry in entries.items()
        ],
        "script": script(n, factors, entries),
    }


def _certify(p: int, entries: dict[int, dict[str, Any]]) -> None:
    if p in entries:
        return
    if len(entries) > MAX_ENTRIES:
        raise LimitError(f"the certificate would have more than {MAX_ENTRIES} primes")
    if p < SMALL:
        entries[p] = {"g": None, "f": []}
        return
    parts = factor(p - 1)
    for q, _ in parts:
        _certify(q, entries)
    g = 2
    while any(pow(g, (p - 1) // q, p) == 1 for q, _ in parts):
        g += 1
    entries[p] = {"g": g, "f": parts}


def _check(n: int, factors: list[tuple[int, int]], entries: dict[int, dict[str, Any]]) -> None:
    """Raises CertificateError unless everything the certificate says is so."""
    product = 1
    for p, e in factors:
        product *= p**e
    if product != n:
        raise CertificateError(f"the factors do not multiply to {n}")
    known: set[int] = set()
    for p, entry in entries.items():
        if entry["g"] is None:
            good = p > 1 and all(p % d for d in range(2, p))
        else:
            rest = 1
            for q, e in entry["f"]:
                rest *= q**e
            good = (
                rest == p - 1
                and all(q in known for q, _ in entry["f"])
                and pow(entry["g"], p - 1, p) == 1
                and all(pow(entry["g"], (p - 1) // q, p) != 1 for q, _ in entry["f"])
            )
        if not good:
            raise CertificateError(f"the certificate of {p} does not hold")
        known.add(p)
    if not all(p in known for p, _ in factors):
        raise CertificateError("a factor has no certificate")


def script(n: int, factors: list[tuple[int, int]], entries: dict[int, dict[str, Any]]) -> str:
    """The check as a Python program of its own; it prints what it proved."""
    lines = [
        "from math import prod",
        f"n = {n}",
        f"factors = {factors}",
        "# prime: (witness g, factors of p - 1); None: by trial division",
        "primes = {",
        *(f"    {p}: ({entry['g']}, {entry['f']})," for p, entry in entries.items()),
        "}",
        "known = set()",
        "for p, (g, f) in primes.items():",
        "    if g is None:",
        "        assert p > 1 and all(p % d for d in range(2, p)), p",
        "    else:",
        "        assert prod(q**e for q, e in f) == p - 1 and all(q in known for q, e in f), p",
        "        assert pow(g, p - 1, p) == 1 and all(pow(g, (p - 1) // q, p) != 1 for q, e in f), p",
        "    known.add(p)",
        "assert prod(p**e for p, e in factors) == n and all(p in known for p, e in factors)",
        'print(n, "=", " * ".join(f"{p}^{e}" if e > 1 else str(p) for p, e in factors), "- each factor is prime")',
    ]
    return "\n".join(lines) + "\n"
