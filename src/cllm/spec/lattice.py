"""The lattice options of the model, over any number system. Tables and classes are given; only their use is here."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cllm.spec.system import Indices, System

A = TypeVar("A")
CLASSES = 12


def rope(
    S: System[A],
    x: A,
    *,
    cos: NDArray[Any],
    sin: NDArray[Any],
    positions: Indices,
    heads: int,
    interleaved: bool = False,
) -> A:
    """Rotary positions: in each head, plane j of row n turns by the angle whose cosine and sine are
    cos[positions[n], j] and sin[positions[n], j]. Plane j is (j, j + h/2), or (2j, 2j+1) interleaved.

    y = x∘C + swap(x)∘Σ: a channel's partner in its plane times −sin (first of the plane) or +sin (second).
    """
    D = S.shape(x)[1]
    h = D // heads
    channel = np.arange(D) % h
    base = np.arange(D) - channel
    if interleaved:
        plane, second = channel // 2, channel % 2 == 1
        partner = base + np.where(second, channel - 1, channel + 1)
    else:
        plane, second = channel % (h // 2), channel >= h // 2
        partner = base + (channel + h // 2) % h
    c = cos[positions][:, plane]
    s = sin[positions][:, plane] * np.where(second, 1, -1).astype(sin.dtype)
    swapped = S.t(S.gather(S.t(x), partner.astype(np.int64)))
    return S.add(S.mul(x, S.lift(c)), S.mul(swapped, S.lift(s)))


def log_closeness(S: System[A]) -> A:
    """12×12: ln M, M = 1/(1 + d/2), d the distance of two classes on the clock."""
    i = np.arange(CLASSES)
    d = np.abs(i[:, None] - i[None, :])
    d = np.minimum(d, CLASSES - d)
    return S.neg(S.log(S.lift(1 + 0.5 * d)))


def by_class(S: System[A], table: A, classes: Indices) -> A:
    """T×T: table[class of i, class of j]."""
    return S.gather(S.t(S.gather(S.t(table), classes)), classes)


def averaged(S: System[A], w: A) -> A:
    """(1/24) Σ ρ(g)ᵀ w ρ(g) over D12, which turns and mirrors the planes of channels (2i, 2i+1).

    Averaging a 2×2 block over the rotations by 30° leaves a·1 + b·J, J the quarter turn; over the mirrors, b goes. So
    each block becomes half its trace times the unit matrix.
    """
    m, n = S.shape(w)
    rows, columns = np.arange(m), np.arange(n)
    swapped = S.t(S.gather(S.t(S.gather(w, rows ^ 1)), columns ^ 1))
    same = (rows[:, None] % 2) == (columns[None, :] % 2)
    return S.scale(S.mask(S.add(w, swapped), same), Fraction(1, 2))


def mixed(S: System[A], parts: NDArray[Any], learned: A, weights: A | Sequence[float]) -> A:
    """Σ weights[k]·parts[k] + weights[3]·learned; weights: 1×4, or four exact floats."""

    def times(x: A, k: int) -> A:
        if isinstance(weights, Sequence):
            return S.scale(x, Fraction(weights[k]))
        return S.mul(x, S.cut(weights, (0, k), (1, 1)))

    total = times(learned, 3)
    for k, part in enumerate(parts):
        total = S.add(total, times(S.lift(part), k))
    return total
