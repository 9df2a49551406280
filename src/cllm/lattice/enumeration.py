"""Short vectors of a lattice: LLL (python-flint) and a small Fincke–Pohst enumeration.

Fincke & Pohst, Improved methods for calculating vectors of short length in a lattice, Math. Comp. 44 (1985).
A lattice is given by its integer Gram matrix; a vector by its integer coefficients c, with norm c·G·cᵀ.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, sqrt
from typing import NamedTuple

import numpy as np
from flint import fmpz_mat
from numpy.typing import ArrayLike, NDArray

from cllm.errors import DomainError, LimitError
from cllm.lattice.sieve import IntArray

MAX_RANK = 40
MAX_NODES = 1_000_000  # a few seconds
_SLACK = 1e-7  # float64 bounds are widened by this; leaves are decided in integers

Gram = Sequence[Sequence[int]] | NDArray[np.int64]


class Reduced(NamedTuple):
    """gram: the LLL-reduced Gram matrix; transform: integer rows U with gram = U·G·Uᵀ, det U = ±1."""

    gram: IntArray
    transform: IntArray


def _gram(name: str, gram: Gram) -> fmpz_mat:
    rows = [[int(v) for v in row] for row in gram]
    size = len(rows)
    if size == 0 or any(len(row) != size for row in rows):
        raise DomainError(f"{name}: expected a square integer Gram matrix")
    if size > MAX_RANK:
        raise LimitError(f"{name}: the rank is at most {MAX_RANK}, got {size}")
    if any(rows[i][j] != rows[j][i] for i in range(size) for j in range(i)):
        raise DomainError(f"{name}: the Gram matrix must be symmetric")
    for k in range(1, size + 1):  # Sylvester's criterion, exact
        if fmpz_mat([row[:k] for row in rows[:k]]).det() <= 0:
            raise DomainError(f"{name}: the Gram matrix must be positive definite (leading minor {k} is not)")
    return fmpz_mat(rows)


def _array(matrix: fmpz_mat) -> IntArray:
    return np.array([[int(v) for v in row] for row in matrix.tolist()], dtype=np.int64)


def reduce_gram(gram: Gram) -> Reduced:
    """LLL-reduce an integer Gram matrix."""
    g = _gram("reduce_gram", gram)
    _, u = g.lll(True, 0.99, 0.51, "gram")
    return Reduced(_array(u * g * u.transpose()), _array(u))


def reduce_basis(basis: ArrayLike) -> IntArray:
    """LLL-reduce the rows of an integer basis under the ordinary inner product."""
    rows = np.asarray(basis)
    if rows.ndim != 2 or rows.dtype.kind not in "iu":
        raise DomainError(f"reduce_basis: expected an integer matrix, got {rows.dtype} of shape {rows.shape}")
    return _array(fmpz_mat(rows.tolist()).lll())


def short_vectors(gram: Gram, bound: int) -> IntArray:
    """Coefficients of every nonzero vector of norm at most `bound`, both signs, sorted: int64 [count, rank]."""
    reduced = reduce_gram(gram)
    found = sorted(_search(reduced.gram, int(bound)))
    coefficients = np.array(found, dtype=np.int64).reshape(len(found), len(reduced.gram))
    both = np.concatenate((coefficients, -coefficients)) @ reduced.transform
    return both[np.lexsort(both.T[::-1])]


def minimal_vectors(gram: Gram) -> tuple[int, IntArray]:
    """(the least norm of a nonzero vector, the coefficients of all vectors of that norm)."""
    bound = int(np.min(np.diag(reduce_gram(gram).gram)))
    vectors = short_vectors(gram, bound)
    g = np.array([[int(v) for v in row] for row in gram], dtype=np.int64)
    norms = np.einsum("ni,ij,nj->n", vectors, g, vectors)
    least = int(norms.min())
    return least, vectors[norms == least]


def kissing_number(gram: Gram) -> int:
    """The number of minimal vectors: of spheres that touch one sphere in the lattice packing."""
    return len(minimal_vectors(gram)[1])


def _search(gram: IntArray, bound: int) -> list[tuple[int, ...]]:
    """One of each pair ±c with 0 < c·G·cᵀ ≤ bound: depth first from the last coefficient."""
    n = len(gram)
    # G = Rᵀ·D·R: norm = Σ d_i (c_i + Σ_{j>i} r_ij c_j)²
    lower = np.linalg.cholesky(gram.astype(np.float64))
    d = (np.diag(lower) ** 2).tolist()
    r = (lower / np.diag(lower)).T.tolist()
    c = [0] * n
    leaves: list[tuple[int, ...]] = []
    nodes = 0

    def descend(i: int, left: float, leading: bool) -> None:
        nonlocal nodes
        centre = -sum(r[i][j] * c[j] for j in range(i + 1, n))
        reach = sqrt(max(left, 0.0) / d[i])
        first = ceil(centre - reach - _SLACK)
        for value in range(max(first, 0) if leading else first, floor(centre + reach + _SLACK) + 1):
            nodes += 1
            if nodes > MAX_NODES:
                raise LimitError(f"short_vectors: more than {MAX_NODES} steps; take a smaller bound or rank")
            c[i] = value
            still = leading and value == 0
            if i:
                descend(i - 1, left - d[i] * (value - centre) ** 2, still)
            elif not still:
                leaves.append(tuple(c))
        c[i] = 0

    descend(n - 1, bound * (1 + _SLACK) + _SLACK, True)
    coefficients = np.array(leaves, dtype=np.int64).reshape(len(leaves), n)
    norms = np.einsum("ni,ij,nj->n", coefficients, gram, coefficients, optimize=True)
    return [leaf for leaf, norm in zip(leaves, norms.tolist(), strict=True) if norm <= bound]
