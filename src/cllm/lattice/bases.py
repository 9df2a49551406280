"""Root lattices and Coxeter–Todd's: FCC (= D3), A2, E8 and K12, as exact integer bases and Gram matrices.

Conway & Sloane, Sphere Packings, Lattices and Groups, chapter 4.  Minimal norm and number of minimal vectors:
FCC 2 and 12, A2 2 and 6, E8 2 and 240, K12 4 and 756.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from flint import fmpz_mat

from cllm.errors import DomainError, closest
from cllm.lattice.angles import FloatArray

Matrix = tuple[tuple[int, ...], ...]


class Lattice(NamedTuple):
    """A lattice in exact integers.

    basis: rows in integer coordinates; form: the Gram matrix of those coordinates times `scale`, so that
    gram = basis·form·basisᵀ / scale is the integer Gram matrix of the basis rows.
    """

    name: str
    basis: Matrix
    form: Matrix
    scale: int
    gram: Matrix

    @property
    def rank(self) -> int:
        """The dimension."""
        return len(self.basis)

    def points(self) -> FloatArray:
        """The basis rows as vectors of a Euclidean space: float64 [rank, rank or more], with Gram matrix `gram`."""
        form = np.array(self.form, dtype=np.float64) / self.scale
        return np.asarray(np.array(self.basis, dtype=np.float64) @ np.linalg.cholesky(form))


def _lattice(name: str, basis: Matrix, form: Matrix, scale: int) -> Lattice:
    b = fmpz_mat([list(row) for row in basis])
    product = b * fmpz_mat([list(row) for row in form]) * b.transpose()
    rows = tuple(tuple(int(v) for v in row) for row in product.tolist())
    if any(v % scale for row in rows for v in row):
        raise DomainError(f"{name}: the Gram matrix is not integral")
    return Lattice(name, basis, form, scale, tuple(tuple(v // scale for v in row) for row in rows))


def _diagonal(n: int, blocks: Matrix = ((1,),)) -> Matrix:
    """`blocks` repeated along the diagonal until the size is n."""
    size = len(blocks)
    return tuple(tuple(blocks[i % size][j % size] if i // size == j // size else 0 for j in range(n)) for i in range(n))


# x = a + bω, ω = (−1+√−3)/2: 2·Re(x·ȳ) is the form (2, −1; −1, 2) on (a, b)
_EISENSTEIN: Matrix = ((2, -1), (-1, 2))


@lru_cache(maxsize=8)
def named_lattice(name: str) -> Lattice:
    """The lattice called "FCC" (or "D3"), "A2", "E8" or "K12"."""
    key = name.upper()
    if key in ("FCC", "D3"):
        return _lattice("FCC", ((1, 1, 0), (1, 0, 1), (0, 1, 1)), _diagonal(3), 1)
    if key == "A2":
        return _lattice("A2", ((1, 0), (0, 1)), _EISENSTEIN, 1)
    if key == "E8":
        # D8 ∪ (D8 + (½,…,½)) in doubled coordinates
        rows = [[0] * 8 for _ in range(8)]
        rows[0][0] = 4
        for i in range(1, 7):
            rows[i][i - 1], rows[i][i] = -2, 2
        rows[7] = [1] * 8
        return _lattice("E8", tuple(tuple(r) for r in rows), _diagonal(8), 4)
    if key == "K12":
        return _lattice("K12", _coxeter_todd(), _diagonal(12, _EISENSTEIN), 3)
    known = ("FCC", "D3", "A2", "E8", "K12")
    raise DomainError(f"named_lattice: expected one of {', '.join(known)}, got {name!r}{closest(key, known)}")


def _coxeter_todd() -> Matrix:
    """K12 = {x ∈ ℤ[ω]⁶ : all x_i congruent mod θ = √−3, Σ x_i ≡ 0 mod 3}, as twelve integer rows (a₁,b₁,…,a₆,b₆).

    Generated over ℤ[ω] by (1,…,1), θ(e_i − e_{i+1}) and 3e₁; Hermite's normal form picks twelve rows.
    """
    generators: list[list[tuple[int, int]]] = [[(1, 0)] * 6, [(3, 0)] + [(0, 0)] * 5]
    for i in range(5):
        row = [(0, 0)] * 6
        row[i], row[i + 1] = (1, 2), (-1, -2)  # θ = 1 + 2ω
        generators.append(row)
    rows = []
    for row in generators:
        rows.append([part for pair in row for part in pair])
        rows.append([part for a, b in row for part in (-b, a - b)])  # times ω: ω² = −1 − ω
    form = fmpz_mat(rows).hnf().tolist()
    return tuple(tuple(int(v) for v in row) for row in form[:12])
