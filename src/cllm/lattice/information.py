"""Shannon entropy, Kullback–Leibler divergence and the harmonic mean, float64."""

from __future__ import annotations

from math import inf, log

import numpy as np
from numpy.typing import ArrayLike

from cllm.errors import DomainError
from cllm.lattice.angles import FloatArray


def _distribution(name: str, values: ArrayLike) -> FloatArray:
    """Nonnegative weights, divided by their sum."""
    w = np.asarray(values, dtype=np.float64).ravel()
    if w.size == 0 or not bool(np.all(np.isfinite(w) & (w >= 0))) or not w.sum() > 0:
        raise DomainError(f"{name}: expected finite weights of at least 0 with a positive sum")
    w = w / w.max()  # the sum of huge weights stays finite
    return np.asarray(w / w.sum())


def _base(name: str, base: float) -> float:
    if not (base > 0 and base != 1):
        raise DomainError(f"{name}: the base must be positive and not 1, got {base}")
    return log(base)


def entropy(weights: ArrayLike, base: float = 2.0) -> float:
    """H = −Σ p ln p / ln base of weights normalised to sum 1 (0·ln 0 = 0); bits by default."""
    p = _distribution("entropy", weights)
    p = p[p > 0]
    return float(max(-(p * np.log(p)).sum() / _base("entropy", base), 0.0))


def kl_divergence(p: ArrayLike, q: ArrayLike, base: float = 2.0) -> float:
    """D(p‖q) = Σ p ln(p/q) / ln base of normalised weights; infinite where some p > 0 has q = 0."""
    a, b = _distribution("kl_divergence", p), _distribution("kl_divergence", q)
    if a.size != b.size:
        raise DomainError(f"kl_divergence: expected as many weights in p as in q, got {a.size} and {b.size}")
    scale = _base("kl_divergence", base)
    present = a > 0
    if bool(np.any(b[present] == 0)):
        return inf
    a, b = a[present], b[present]
    return float(max((a * np.log(a / b)).sum() / scale, 0.0))


def harmonic_mean(values: ArrayLike) -> float:
    """n/Σ(1/x) of positive numbers."""
    x = np.asarray(values, dtype=np.float64).ravel()
    if x.size == 0 or not bool(np.all(x > 0)):
        raise DomainError("harmonic_mean: expected at least one number, all positive")
    return float(x.size / (1 / x).sum())
