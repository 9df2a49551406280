"""Token coordinates, lattice embedding rows, symmetry classes and the symmetry bias of attention, in float64.

Token i stands for the prime p = p_{i+1}.  With k = i, r = √k, θ = k·g (g the golden angle), τ = 2π·i/1000 its place is

    x = r cos θ + 0.1 cos τ,   y = r sin θ + 0.1 sin τ,   z = ln(p+1) + 0.1 sin(φτ)

(a Vogel spiral seen from above), and its row, with f = j + 1 and s its symmetry class,

    e_j = 0.3 sin(f x/10) + 0.3 cos(f y/10) + 0.3 sin(f z/10) + 0.1 cos(f·2πs/12).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cllm.errors import DomainError, LimitError
from cllm.lattice.angles import TAU, FloatArray
from cllm.lattice.counting import first_primes
from cllm.lattice.positions import MAX_ELEMENTS, RMS, normalize_rows
from cllm.lattice.sieve import IntArray
from cllm.lattice.spirals import vogel
from cllm.lattice.tokens import token_prime

Classes = Literal["id", "prime"]
_ROWS = 2048  # rows worked on at once
_PHI = 1.618033988749895


def symmetry_classes(ids: ArrayLike, classes: Classes = "id") -> IntArray:
    """The class 0…11 of each token: "id" i mod 12; "prime" p mod 12 (which for p > 3 is only 1, 5, 7 or 11)."""
    array = np.asarray(ids)
    if array.dtype.kind not in "iu" or (array.size and int(array.min()) < 0):
        raise DomainError("symmetry_classes: expected token ids, integers of at least 0")
    if classes == "id":
        return np.asarray(array % 12, dtype=np.int64)
    if classes == "prime":
        return np.asarray(token_prime(array) % 12, dtype=np.int64)
    raise DomainError(f'symmetry_classes: classes is "id" or "prime", got {classes!r}')


def token_coordinates(vocab: int) -> FloatArray:
    """(x, y, z) of tokens 0 … vocab−1: float64 [vocab, 3]."""
    if vocab < 1:
        raise DomainError(f"token_coordinates: the vocabulary has at least 1 token, got {vocab}")
    if vocab > 10**8:
        raise LimitError(f"token_coordinates: at most 10^8 tokens, got {vocab}")
    i = np.arange(vocab, dtype=np.int64)
    x, y = vogel(i).xy()
    tau = (i % 1000) * (TAU / 1000)
    z = np.log(first_primes(vocab) + 1.0) + 0.1 * np.sin(_PHI * (i * (TAU / 1000)))
    return np.stack((x + 0.1 * np.cos(tau), y + 0.1 * np.sin(tau), z), axis=-1)


def lattice_embedding(
    vocab: int,
    width: int,
    *,
    classes: Classes = "id",
    normalize: bool = True,
    mix: float = 0.0,
    noise: ArrayLike | None = None,
) -> FloatArray:
    """The rows e of `init="lattice"`: float64 [vocab, width].

    Rows are normalised and scaled to RMS 0.02 (unless `normalize` is false).  `mix` = α blends (1−α)·lattice + α·noise,
    where `noise` [vocab, width] is drawn by the caller, from N(0, 0.02²).

    Raises:
        DomainError: a size below 1, mix outside [0, 1], mix without noise.
        LimitError: more than 2²⁹ elements.
    """
    if vocab < 1 or width < 1:
        raise DomainError(f"lattice_embedding: vocab and width are at least 1, got {vocab} and {width}")
    if vocab * width > MAX_ELEMENTS:
        raise LimitError(f"lattice_embedding: {vocab}×{width} float64 is over the limit of 2^29 elements")
    if not 0 <= mix <= 1:
        raise DomainError(f"lattice_embedding: mix lies in [0, 1], got {mix}")
    if mix > 0 and noise is None:
        raise DomainError("lattice_embedding: mix above 0 needs noise, an array of the table's shape")
    drawn = None if noise is None else np.asarray(noise, dtype=np.float64)
    if drawn is not None and drawn.shape != (vocab, width):
        raise DomainError(f"lattice_embedding: noise has shape {drawn.shape}, expected {(vocab, width)}")
    coordinates = token_coordinates(vocab) / 10
    f = np.arange(1, width + 1, dtype=np.int64)
    by_class = 0.1 * np.cos((np.arange(12)[:, None] * f % 12) * (TAU / 12))
    s = symmetry_classes(np.arange(vocab), classes)
    table = np.empty((vocab, width))
    for low in range(0, vocab, _ROWS):
        part = slice(low, min(low + _ROWS, vocab))
        x, y, z = (coordinates[part, axis, None] * f for axis in range(3))
        rows = 0.3 * (np.sin(x) + np.cos(y) + np.sin(z)) + by_class[s[part]]
        table[part] = normalize_rows(rows, RMS) if normalize else rows
    if drawn is None or mix == 0:
        return table
    return np.asarray((1 - mix) * table + mix * drawn)


def class_distance(a: ArrayLike, b: ArrayLike) -> IntArray:
    """The circular distance mod 12 of two classes, 0…6."""
    d = np.abs(np.asarray(a, dtype=np.int64) - np.asarray(b, dtype=np.int64)) % 12
    return np.asarray(np.minimum(d, 12 - d), dtype=np.int64)


def symmetry_bias(classes: ArrayLike, beta: float = 0.0, *, causal: bool = False) -> FloatArray:
    """The additive attention bias β·ln M_ij, M = 1/(1 + ½d), d the circular distance of the classes [..., T].

    Returns [..., T, T] (row: query, column: key); `causal` puts −∞ where the key comes after the query.
    """
    s = np.asarray(classes)
    if s.dtype.kind not in "iu" or s.ndim < 1 or (s.size and not bool(np.all((s >= 0) & (s < 12)))):
        raise DomainError("symmetry_bias: expected classes, integers 0…11, as an array [..., T]")
    if s.size * s.shape[-1] > MAX_ELEMENTS:
        raise LimitError(f"symmetry_bias: {s.size}×{s.shape[-1]} float64 is over the limit of 2^29 elements")
    levels = -float(beta) * np.log1p(0.5 * np.arange(7)) + 0.0
    bias: NDArray[np.float64] = levels[class_distance(s[..., :, None], s[..., None, :])]
    if causal:
        bias = np.where(np.tri(s.shape[-1], dtype=np.bool_), bias, -np.inf)
    return bias
