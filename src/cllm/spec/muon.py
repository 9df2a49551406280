"""Muon, written once over any number system: momentum with Nesterov's look-ahead, then five rounds of a quintic.

Jordan, Jin, Boza, You, Cesista, Newhouse & Bernstein 2024, https://kellerjordan.github.io/posts/muon/.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import flint

from cllm.spec.system import Named, Real, System

A = TypeVar("A")

QUINTIC = (Fraction(3.4445), Fraction(-4.7750), Fraction(2.0315))
"""The coefficients as the floats that an implementation has: constants stand for exactly their binary value."""
EPSILON = Fraction(1e-7)
ROUNDS = 5


@dataclass(frozen=True)
class Muon:
    """Settings of one step."""

    lr: float
    momentum: float = 0.95
    weight_decay: float = 0.0


def muon(S: System[A], w: A, g: A, m: A, *, settings: Muon) -> tuple[A, A]:
    """(w, m) after the step: m ← μm + g; w ← w − lr·λ·w − lr·√max(1, out/in)·O, O the orthogonalised g + μm."""
    m, d = momentum(S, g, m, settings.momentum)
    *_, last = iterates(S, d)
    return descend(S, w, last, settings), m


def descend(S: System[A], w: A, orthogonal: A, settings: Muon) -> A:
    """w − lr·λ·w − lr·√max(1, out/in)·O."""
    rate = Fraction(settings.lr)
    step = S.scale(orthogonal, stretch(*S.shape(orthogonal)))
    return S.sub(S.scale(w, 1 - rate * Fraction(settings.weight_decay)), S.scale(step, rate))


def momentum(S: System[A], g: A, m: A, mu: float) -> tuple[A, A]:
    """(m, d): the new momentum μm + g, and g + μ times it."""
    m = S.add(S.scale(m, Fraction(mu)), g)
    return m, S.add(g, S.scale(m, Fraction(mu)))


def iterates(S: System[A], d: A) -> Iterator[A]:
    """X₀ = d/(‖d‖ + ε), and the X of each round."""
    norm = S.sqrt(S.colsum(S.rowsum(S.sq(d))))
    x = S.mul(d, S.recip(S.plus(norm, EPSILON)))
    yield x
    for _ in range(ROUNDS):
        x = one_round(S, x)
        yield x


def one_round(S: System[A], x: A) -> A:
    """aX + (bA + cA²)X with A = XXᵀ. Of a tall X the same as aX + X(bA + cA²) with the smaller A = XᵀX."""
    a, b, c = QUINTIC
    rows, columns = S.shape(x)
    tall = rows > columns
    square = S.mm(S.t(x), x) if tall else S.mm(x, S.t(x))
    polynomial = S.add(S.scale(square, b), S.scale(S.mm(square, square), c))
    return S.add(S.scale(x, a), S.mm(x, polynomial) if tall else S.mm(polynomial, x))


def stretch(rows: int, columns: int) -> Real:
    """√max(1, rows/columns)."""
    if rows <= columns:
        return 1
    ratio = Fraction(rows, columns)
    return Named(f"sqrt({ratio})", lambda: flint.arb(flint.fmpq(ratio.numerator, ratio.denominator)).sqrt())
