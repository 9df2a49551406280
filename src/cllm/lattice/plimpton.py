"""Pythagorean triples and the clay tablet Plimpton 322.

Euclid: every primitive triple with odd a and even b comes from exactly one coprime pair p > q ≥ 1 of opposite parity,
a = p² − q², b = 2pq, c = p² + q².
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import gcd, isqrt
from typing import NamedTuple

from cllm.errors import DomainError


class Triple(NamedTuple):
    """a² + b² = c², a odd and b even, from the pair (p, q)."""

    a: int
    b: int
    c: int
    p: int
    q: int


class TabletRow(NamedTuple):
    """A row of Plimpton 322 in corrected values: short side, diagonal, long side; written: the scribe's two numbers
    where they differ; multiple: the row is this multiple of a primitive triple."""

    number: int
    short: int
    diagonal: int
    long: int
    written: tuple[int, int] | None
    multiple: int

    @property
    def ratio(self) -> Fraction:
        """The first column: (diagonal/long)²."""
        return Fraction(self.diagonal, self.long) ** 2


# row: short side, diagonal (corrected), then what stands on the tablet where it is wrong
_TABLET: tuple[tuple[int, int, tuple[int, int] | None], ...] = (
    (119, 169, None),
    (3367, 4825, (3367, 11521)),
    (4601, 6649, None),
    (12709, 18541, None),
    (65, 97, None),
    (319, 481, None),
    (2291, 3541, None),
    (799, 1249, None),
    (481, 769, (541, 769)),
    (4961, 8161, None),
    (45, 75, None),
    (1679, 2929, None),
    (161, 289, (25921, 289)),
    (1771, 3229, None),
    (56, 106, (56, 53)),
)


def euclid(p: int, q: int) -> Triple:
    """The primitive triple of (p, q): p > q ≥ 1 coprime, of opposite parity."""
    if not (p > q >= 1 and gcd(p, q) == 1 and (p - q) % 2 == 1):
        raise DomainError(f"euclid: expected p > q ≥ 1 coprime and of opposite parity, got ({p}, {q})")
    return Triple(p * p - q * q, 2 * p * q, p * p + q * q, p, q)


def generator(a: int, b: int, c: int) -> tuple[int, int]:
    """The pair (p, q) of a primitive triple (a odd, b even): the inverse of `euclid`."""
    if a % 2 == 0:
        a, b = b, a
    p, q = isqrt(max((c + a) // 2, 0)), isqrt(max((c - a) // 2, 0))
    triple = euclid(p, q)
    if triple[:3] != (a, b, c):
        raise DomainError(f"generator: ({a}, {b}, {c}) is not a primitive Pythagorean triple")
    return p, q


def primitive_triples(limit: int | None = None) -> Iterator[Triple]:
    """Every primitive triple once, by p then q; with diagonal ≤ `limit`, or without end."""
    p = 2
    while limit is None or p * p + 1 <= limit:
        for q in range(1 + p % 2, p, 2):
            if limit is not None and p * p + q * q > limit:
                break
            if gcd(p, q) == 1:
                yield euclid(p, q)
        p += 1


def plimpton322() -> tuple[TabletRow, ...]:
    """The fifteen rows, corrected.  Row 11 is 15·(3, 4, 5) and row 15 is 2·(28, 45, 53); the others are primitive."""
    rows = []
    for number, (short, diagonal, written) in enumerate(_TABLET, start=1):
        long = isqrt(diagonal * diagonal - short * short)
        rows.append(TabletRow(number, short, diagonal, long, written, gcd(short, diagonal)))
    return tuple(rows)


def sexagesimal(value: Fraction, places: int = 40) -> str:
    """A fraction in base 60, `1;59,0,15`; DomainError unless it ends within `places` places."""
    value = Fraction(value)
    if value < 0:
        raise DomainError(f"sexagesimal: expected a value of at least 0, got {value}")
    whole, rest = divmod(value.numerator, value.denominator)
    head = []
    while True:
        whole, digit = divmod(whole, 60)
        head.append(str(digit))
        if whole == 0:
            break
    tail: list[str] = []
    while rest:
        if len(tail) == places:
            raise DomainError(f"sexagesimal: {value} does not end within {places} places of base 60")
        digit, rest = divmod(rest * 60, value.denominator)
        tail.append(str(digit))
    return ",".join(reversed(head)) + (";" + ",".join(tail) if tail else "")
