"""The residue embedding: n ↦ (n mod 2, n mod 3, …, n mod 47), and back by the Chinese remainder theorem.

The first fifteen primes; their product 614889782588491410 is the primorial 47#, below 2⁶³.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cllm.errors import DomainError
from cllm.lattice.angles import TAU, FloatArray, as_int64

RESIDUE_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)
RESIDUE_RANGE = prod(RESIDUE_PRIMES)
"""614889782588491410: the embedding is one to one on 0 ≤ n < this."""

_BLOCK = 1 << 15
# n ≡ Σ (r_p·c_p mod p)·(M/p) mod M with c_p = (M/p)⁻¹ mod p; the sum stays below 13.4·M < 2⁶³
_TERMS = [
    np.array([r * pow(m, -1, p) % p * m for r in range(p)], dtype=np.int64)
    for m, p in ((RESIDUE_RANGE // p, p) for p in RESIDUE_PRIMES)
]


def residues(n: ArrayLike) -> Any:
    """The residues of each 0 ≤ n < 47#, uint8 [..., 15]."""
    m = as_int64("residues", n, low=0, high=RESIDUE_RANGE - 1)
    flat = m.reshape(-1)
    out = np.empty((15, flat.size), dtype=np.uint8)
    for low in range(0, flat.size, _BLOCK):  # a block stays in the cache for its fifteen divisions
        block = flat[low : low + _BLOCK]
        for row, p in enumerate(RESIDUE_PRIMES):
            out[row, low : low + _BLOCK] = block - (block // p) * p
    return out.T.reshape((*m.shape, 15))


def residues_inverse(values: ArrayLike) -> Any:
    """n in [0, 47#) from its residues [..., 15]: exact."""
    r = np.asarray(values)
    if r.ndim == 0 or r.shape[-1] != 15:
        raise DomainError(f"residues_inverse: expected an array [..., 15], got shape {r.shape}")
    total = np.zeros(r.shape[:-1], dtype=np.int64)
    for k, p in enumerate(RESIDUE_PRIMES):
        total += _TERMS[k][as_int64("residues_inverse", r[..., k], low=0, high=p - 1)]
    return total % RESIDUE_RANGE


def residue_angles(n: ArrayLike) -> FloatArray:
    """The residues as points on fifteen circles: angles 2π(n mod p)/p, float64 [..., 15]."""
    return np.asarray(residues(n) * (TAU / np.array(RESIDUE_PRIMES, dtype=np.float64)))
