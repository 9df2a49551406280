"""exp and tanh of `Fixed` arrays in C++, with constants enclosed by Arb; every other function entry by entry in Arb."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from flint import arb, ctx
from numpy.typing import NDArray

from cllm.spec.fixed import Fixed, from_balls, room, to_balls, unit
from cllm.spec.native import address, call

MOST_LIMBS = 14
"""Longer numbers (900 bits) are left to Arb."""


class Tables(NamedTuple):
    """See functions.cpp: numbers of M = L + 1 limbs of fraction, rounded down."""

    ln2: NDArray[np.uint64]
    powers: NDArray[np.uint64]
    inverse: NDArray[np.uint64]
    terms: int


@cache
def tables(limbs: int) -> Tables:
    """For arrays of so many limbs."""
    M = limbs + 1
    terms = 2
    while 24 * terms + math.lgamma(terms + 1) / math.log(2) < 64 * M + 1:
        terms += 1

    def packed(values: list[arb]) -> NDArray[np.uint64]:
        data = b""
        for v in values:
            whole = (v * arb(2) ** (64 * M)).floor().unique_fmpz()
            assert whole is not None
            data += int(whole).to_bytes(8 * M, "little")
        return np.frombuffer(data, "<u8").copy()

    with ctx.workprec(64 * M + 192):
        powers = [(arb(i) / 2**place).exp() / scale for place, scale in ((8, 4), (16, 2), (24, 2)) for i in range(256)]
        inverse = [1 / arb(max(math.factorial(k), 2)) for k in range(terms)]  # 0 and 1 are not read
        return Tables(packed([arb(2).log()]), packed(powers), packed(inverse), terms)


def by_arb(f: Callable[[arb], arb], a: Fixed) -> Fixed:
    return from_balls([f(x) for x in to_balls(a)], a.shape, a.length)


def exp(a: Fixed) -> Fixed:
    L, (m, n) = a.length, a.shape
    if L > MOST_LIMBS or a.top > 31:
        return by_arb(arb.exp, a)
    t = tables(L)
    high = int(a.limbs[..., -1].astype(np.int64).max()) + 1 if m * n else 0
    largest = min(math.ldexp(high, 64 * (L - 1) + a.exponent), math.ldexp(1.0, max(a.top, -1000)))
    exponent = math.floor(largest / math.log(2)) + 3 - room(L)
    out = Fixed(np.empty((m, n, L), np.uint64), exponent, -1, np.empty((m, n)))
    bits = call(
        "exp", m, n, L, a.view(), a.exponent, address(t.ln2), address(t.powers), address(t.inverse), t.terms,
        exponent, unit(exponent), out.view(),
    )  # fmt: skip
    return Fixed(out.limbs, exponent, bits, out.rad)


def tanh(a: Fixed) -> Fixed:
    L, (m, n) = a.length, a.shape
    if L > MOST_LIMBS or a.top > 30:
        return by_arb(arb.tanh, a)
    t = tables(L)
    exponent = -room(L)
    out = Fixed(np.empty((m, n, L), np.uint64), exponent, -1, np.empty((m, n)))
    bits = call(
        "tanh", m, n, L, a.view(), a.exponent, address(t.ln2), address(t.powers), address(t.inverse), t.terms,
        unit(exponent), out.view(),
    )  # fmt: skip
    return Fixed(out.limbs, exponent, bits, out.rad)
