"""D12, the symmetries of the twelve-hour clock: 24 elements (k, f), a turn by k hours after f reflections.

Acting on column vectors of even width D = 2m, plane j being channels (2j, 2j+1):

    ρ(k, f) = R(2πk/12)·diag(1, −1)^f in every plane,    (k₁,f₁)(k₂,f₂) = (k₁ + (−1)^{f₁}k₂ mod 12, f₁ ⊕ f₂).

Rows x are moved by x·ρᵀ.  Invariants are the norm of each plane and the inner products between planes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from cllm.errors import DomainError
from cllm.lattice.angles import FloatArray

ORDER = 24
_HALF_ROOT3 = 0.8660254037844386
# cos(2πk/12), each the float64 nearest to the exact 0, ±1/2, ±√3/2, ±1
_COS = (1.0, _HALF_ROOT3, 0.5, 0.0, -0.5, -_HALF_ROOT3, -1.0, -_HALF_ROOT3, -0.5, 0.0, 0.5, _HALF_ROOT3)


class Element(NamedTuple):
    """One symmetry: `turn` k in 0…11 hours, `flip` f in {0, 1}."""

    turn: int
    flip: int

    def __matmul__(self, other: Element) -> Element:
        """The product: first `other`, then `self`."""
        return compose(self, other)


IDENTITY = Element(0, 0)


def elements() -> Iterator[Element]:
    """The 24 elements, rotations first."""
    return (Element(k, f) for f in (0, 1) for k in range(12))


def _element(name: str, g: Any) -> Element:
    k, f = g
    if not (0 <= k < 12 and f in (0, 1)):
        raise DomainError(f"{name}: an element of D12 is (k, f) with k in 0…11 and f in 0, 1, got ({k}, {f})")
    return Element(int(k), int(f))


def compose(a: Element, b: Element) -> Element:
    """a·b: first b, then a."""
    a, b = _element("compose", a), _element("compose", b)
    return Element((a.turn + (-b.turn if a.flip else b.turn)) % 12, a.flip ^ b.flip)


def inverse(a: Element) -> Element:
    """a⁻¹: a reflection is its own inverse."""
    a = _element("inverse", a)
    return a if a.flip else Element(-a.turn % 12, 0)


def plane_matrix(a: Element) -> FloatArray:
    """The 2×2 matrix of a."""
    a = _element("plane_matrix", a)
    c, s = _COS[a.turn], _COS[(a.turn - 3) % 12]
    mirror = -1.0 if a.flip else 1.0
    return np.array([[c, -s * mirror], [s, c * mirror]])


def matrix(a: Element, width: int) -> FloatArray:
    """ρ(a) as a D×D float64 matrix, D even."""
    return np.asarray(np.kron(np.eye(_planes("matrix", width)), plane_matrix(a)))


def act(a: Element, x: ArrayLike) -> FloatArray:
    """Move rows x [..., D] by a: x·ρ(a)ᵀ, without building ρ."""
    rows = np.asarray(x, dtype=np.float64)
    planes = _planes("act", rows.shape[-1] if rows.ndim else 0)
    pairs = rows.reshape(*rows.shape[:-1], planes, 2)
    return np.asarray((pairs @ plane_matrix(a).T).reshape(rows.shape))


def invariants(x: ArrayLike) -> FloatArray:
    """The Gram matrix of the planes of each row x [..., D]: [..., D/2, D/2].

    Its diagonal holds the squared plane norms, the rest the inner products between planes; D12 changes none of them.
    """
    rows = np.asarray(x, dtype=np.float64)
    planes = _planes("invariants", rows.shape[-1] if rows.ndim else 0)
    pairs = rows.reshape(*rows.shape[:-1], planes, 2)
    return np.asarray(pairs @ np.swapaxes(pairs, -1, -2))


def equivariant(weight: ArrayLike) -> FloatArray:
    """The group average (1/24) Σ ρ(g)ᵀ·W·ρ(g) of a matrix W [D_out, D_in], both even: it commutes with D12.

    The plane representation is irreducible and of real type, so by Schur's lemma every 2×2 block of the average is a
    multiple of the identity, namely half its trace: averaging keeps a quarter of the parameters.
    """
    w = np.asarray(weight, dtype=np.float64)
    if w.ndim != 2:
        raise DomainError(f"equivariant: expected a matrix, got shape {w.shape}")
    out, into = _planes("equivariant", w.shape[0]), _planes("equivariant", w.shape[1])
    blocks = w.reshape(out, 2, into, 2).transpose(0, 2, 1, 3)
    total = np.zeros_like(blocks)
    for g in elements():
        rho = plane_matrix(g)
        total += rho.T @ blocks @ rho
    return np.asarray((total / ORDER).transpose(0, 2, 1, 3).reshape(w.shape))


def _planes(name: str, width: int) -> int:
    if width < 2 or width % 2:
        raise DomainError(f"{name}: the width must be even and at least 2, got {width}")
    return width // 2
