"""Lines over the picture: a quadratic a·t² + b·t + c on any curve, and the quadratic of a diagonal of Ulam's spiral."""

from __future__ import annotations

from math import ceil, floor, log, sqrt
from typing import Any

import msgspec
import numpy as np

from cllm.errors import DomainError, LimitError
from cllm.lattice.square_spiral import ulam, ulam_inverse
from cllm.studio.lattice_curves import Options, curve, least_of
from cllm.studio.lattice_values import MAX_N, are_prime

MAX_TERMS = 5000
_COEFFICIENT = 4 * 10**12


def quadratic(a: int, b: int, c: int, name: str, options: dict[str, Any], first: int, terms: int) -> dict[str, Any]:
    """The values for t = first … first+terms−1 that lie on the curve.

    Returns n, x, y, prime (lists), and how many are prime beside the number that chance would give, Σ 1/ln n.
    """
    if max(abs(a), abs(b), abs(c)) > _COEFFICIENT or abs(first) > _COEFFICIENT:
        raise LimitError(f"quadratic: coefficients up to {_COEFFICIENT}")
    if not 1 <= terms <= MAX_TERMS:
        raise LimitError(f"quadratic: 1 … {MAX_TERMS} terms, got {terms}")
    if a == b == 0:
        raise DomainError("quadratic: a and b are 0; a constant draws no line")
    o, chosen = msgspec.convert(options, Options), curve(name)
    values = [a * t * t + b * t + c for t in range(first, first + terms)]
    inside = [v for v in values if least_of(chosen, o) <= v <= MAX_N]
    n = np.array(inside, dtype=np.int64)
    if not n.size:
        raise DomainError(f"quadratic: no value from {least_of(chosen, o)} to 10^12 among {terms} terms")
    prime = are_prime(n)
    if name == "crystalline-prime":
        raise DomainError("quadratic: this curve holds the primes alone; choose another")
    x, y = chosen.place(n, o)
    chance = sum(1 / log(v) for v in inside if v > 2)
    return {
        "formula": show(a, b, c),
        "n": inside,
        "x": [float(v) for v in x],
        "y": [float(v) for v in y],
        "prime": [bool(v) for v in prime],
        "primes": int(prime.sum()),
        "terms": len(inside),
        "chance": chance,
        "discriminant": b * b - 4 * a * c,
    }


def show(a: int, b: int, c: int) -> str:
    """4t² − 2t + 41."""
    text = ""
    for factor, power in ((a, "t²"), (b, "t"), (c, "")):
        if factor:
            size = "" if abs(factor) == 1 and power else str(abs(factor))
            sign = ("−" if factor < 0 else "") if not text else (" − " if factor < 0 else " + ")
            text += f"{sign}{size}{power}"
    return text or "0"


def diagonal(n: int, slope: int, start: int) -> dict[str, Any]:
    """The quadratic 4t² + bt + c of the diagonal through n, outwards, with the smallest c > 0 on it.

    slope: +1 rising to the right, −1 falling.  start: the number at the centre. Returns a, b, c, formula, and at: the t
    of n. From a corner on, a diagonal lies in one side of the rings and its second difference is 8.
    """
    if slope not in (1, -1):
        raise DomainError(f"slope: expected 1 or −1, got {slope}")
    if not start <= n <= MAX_N:
        raise DomainError(f"diagonal: expected {start} ≤ n ≤ 10^12, got {n}")
    x, y = ulam(n - start + 1)
    # the way on which the ring grows
    way = 1 if (abs(x + 1), abs(y + slope)) > (abs(x - 1), abs(y - slope)) else -1
    if max(abs(x + way), abs(y + slope * way)) <= max(abs(x), abs(y)):
        way = -way
    values = [ulam_inverse(x + way * t, y + slope * way * t) + start - 1 for t in range(4)]
    skip = 0
    limit = 2 * max(abs(x), abs(y)) + 8
    while values[2] - 2 * values[1] + values[0] != 8 or values[3] - 2 * values[2] + values[1] != 8:
        skip += 1
        if skip > limit:
            raise DomainError(f"diagonal: no quadratic through {n} in this direction")
        values = [*values[1:], ulam_inverse(x + way * (skip + 3), y + slope * way * (skip + 3)) + start - 1]
    # v(t) = 4t² + b·t + c with v(skip) = values[0]
    b = values[1] - values[0] - 4 * (2 * skip + 1)
    c = values[0] - 4 * skip * skip - b * skip
    # shift t so that the smallest positive value stands at t = 0 and the sequence grows from there
    t = max(ceil(-b / 8), -_reach(b, c))
    while 4 * t * t + b * t + c < start:
        t += 1
    moved_b, moved_c = b + 8 * t, 4 * t * t + b * t + c
    return {"a": 4, "b": moved_b, "c": moved_c, "formula": show(4, moved_b, moved_c), "at": -t}


def _reach(b: int, c: int) -> int:
    """How far back the quadratic could be followed at most."""
    return floor(abs(b) + sqrt(abs(c))) + 2
