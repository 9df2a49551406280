"""The lattice formula over arrays in float64: sign and ln|L|, the bounded form, phase features.

3^O overflows a double at n ≥ 1355 or k ≥ 64, so values are returned as (sign, ln|L|).  The phase θφ_i is reduced mod 2π
in 64-bit integer turns (`angles.phase`): kG and nπ/6 exactly, the constant log₃ν + ω/432 + p² − q² from a ball.  The
cosine is taken from the distance to the nearest quarter turn, so that it keeps its relative accuracy near its zeros.
"""

from __future__ import annotations

from fractions import Fraction
from math import floor, log, pi
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cllm.errors import DomainError, LimitError
from cllm.lattice.angles import FloatArray, as_int64, phase, rate_from_fixed
from cllm.lattice.counting import prime_count
from cllm.lattice.formula import LAMBDA, Formula, Psi, check_omega, check_psi, nu, psi_value
from cllm.lattice.sectors import entropies
from cllm.lattice.tokens import token_prime
from cllm.numbers import Ball, phi, precision
from cllm.numbers import log as ball_log
from cllm.numbers import pi as ball_pi

LN3 = log(3.0)
_GOLDEN_TURN = 10.166407384630519  # G = 2πφ
_MAX_N = 1 << 56
_MAX_ELEMENTS = 1 << 27


class SignedLog(NamedTuple):
    """sign: int8 −1, 0, 1; log: ln of the absolute value (−∞ where the sign is 0), float64."""

    sign: NDArray[np.int8]
    log: FloatArray

    def value(self) -> FloatArray:
        """sign·e^log; overflows to ±∞ where the value leaves float64."""
        with np.errstate(over="ignore"):
            return np.asarray(self.sign * np.exp(self.log))


def phases(
    n: ArrayLike,
    k: ArrayLike = 0,
    lam: str | int = "dub",
    omega: Fraction | int | str = 432,
    psi: Psi = (2, 1),
    formula: Formula | None = None,
) -> NDArray[np.uint64]:
    """θφ_i in units of 2⁻⁶⁴ turn for arrays n ≥ 1 and k: uint64 [..., 12]."""
    n_array, k_array = _broadcast(n, k)
    table = (formula or Formula()).frequencies(lam)
    if n_array.size * len(table) > _MAX_ELEMENTS:
        raise LimitError(f"phases: {n_array.size}×{len(table)} values are over the limit of 2^27")
    result = np.empty((*n_array.shape, len(table)), dtype=np.uint64)
    p, q = check_psi(psi)
    with precision(512):
        value = nu(lam)
        rho = check_omega(omega) / 432 + p * p - q * q
        constant = (ball_log(value) / ball_log(3) + rho) / (2 * ball_pi)
        for i, f in enumerate(table):
            start = _fixed(constant * f)
            by_k = rate_from_fixed(_fixed(phi * f, 128))
            # n·f/12 of a turn: exact residues over the denominator
            den = 12 * f.denominator
            step = (n_array % den) * (f.numerator % den) % den
            ticks = np.array([(t << 64) // den for t in range(den)], dtype=np.uint64) if den <= 4096 else None
            by_n = ticks[step] if ticks is not None else _scaled(step, den)
            with np.errstate(over="ignore"):  # turns wrap
                result[..., i] = phase(k_array, by_k) + by_n + np.uint64(start)
    return result


def cos_turns(turn: NDArray[np.uint64]) -> FloatArray:
    """cos(2πu) for u in units of 2⁻⁶⁴ turn, with relative accuracy near the zeros."""
    with np.errstate(over="ignore"):
        quarter = (turn + np.uint64(1 << 61)) >> np.uint64(62)
        rest = (turn - (quarter << np.uint64(62))).view(np.int64) * (2 * pi / 2.0**64)
    quarter = quarter & np.uint64(3)
    odd = (quarter & np.uint64(1)).astype(np.bool_)
    value = np.where(odd, np.sin(rest), np.cos(rest))
    return np.asarray(np.where((quarter == 1) | (quarter == 2), -value, value))


def phase_features(n: ArrayLike, k: ArrayLike = 0, **options: Any) -> FloatArray:
    """(cos θφ_i, sin θφ_i): float64 [..., 12, 2]; options lam, omega, psi, formula as in `phases`."""
    turn = phases(n, k, **options)
    return np.stack((cos_turns(turn), cos_turns(turn - np.uint64(1 << 62))), axis=-1)


def bounded(n: ArrayLike, d: ArrayLike, k: ArrayLike = 0, **options: Any) -> FloatArray:
    """L̂ = Γ(k)·∏_{i≤d} cos(θφ_i), in [−1, 1], float64."""
    product = _products(n, d, k, **options)
    return product.value()


def lattice_log(
    n: ArrayLike,
    d: ArrayLike,
    k: ArrayLike = 0,
    lam: str | int = "dub",
    omega: Fraction | int | str = 432,
    psi: Psi = (2, 1),
    formula: Formula | None = None,
) -> SignedLog:
    """(sign, ln|L|) over broadcast integer arrays n, d, k; λ, ω, ψ and the formula's options are the same for all."""
    form = formula or Formula()
    n_array, k_array = _broadcast(n, k)
    d_array = _depths(form, d)
    shape = np.broadcast_shapes(n_array.shape, d_array.shape)
    product = _products(n, d, k, lam=lam, omega=omega, psi=psi, formula=form)
    gamma = _gamma(form, np.broadcast_to(n_array, shape), np.broadcast_to(d_array, shape), lam)
    value = nu(lam)
    if form.exponent == "theta":
        p, q = check_psi(psi)
        theta = _GOLDEN_TURN * k_array + n_array * (pi / 6) + log(value) / LN3
        power = (theta + float(check_omega(omega) / 432 + p * p - q * q)) * LN3
    else:
        power = (n_array - 1) * (pi / 6) + log(value) + k_array * (_GOLDEN_TURN * LN3)
    factor = log(value) + (0.0 if form.simple else log(LAMBDA * psi_value(psi)))
    with np.errstate(divide="ignore"):
        total = product.log + power + factor + np.log(np.abs(gamma))
    sign = (product.sign * np.sign(gamma)).astype(np.int8)
    return SignedLog(sign, np.where(sign == 0, -np.inf, total))


def m12(n: ArrayLike, formula: Formula | None = None) -> FloatArray:
    """M12(n)_i = ln(p_n)·cos(nGφ_i) for an array of n ≥ 1: float64 [..., 12]."""
    m = as_int64("m12", n, low=1)
    table = (formula or Formula()).table
    result = np.empty((*m.shape, len(table)))
    logs = np.log(np.asarray(token_prime(m - 1), dtype=np.float64))
    with precision(512):
        rates = [rate_from_fixed(_fixed(phi * f, 128)) for f in table]
    for i, rate in enumerate(rates):
        result[..., i] = logs * cos_turns(phase(m, rate))
    return result


def _products(n: ArrayLike, d: ArrayLike, k: ArrayLike, **options: Any) -> SignedLog:
    """Γ(k)·∏_{i≤d} cos(θφ_i) as sign and logarithm."""
    form = options.get("formula") or Formula()
    cosines = cos_turns(phases(n, k, **options))
    d_array = _depths(form, d)
    with np.errstate(divide="ignore"):
        logs = np.concatenate((np.zeros((*cosines.shape[:-1], 1)), np.cumsum(np.log(np.abs(cosines)), axis=-1)), -1)
    odd = np.concatenate((np.zeros((*cosines.shape[:-1], 1)), np.cumsum(cosines < 0, axis=-1)), -1)
    shape = np.broadcast_shapes(cosines.shape[:-1], d_array.shape)
    index = np.broadcast_to(d_array, shape)[..., None]
    log_d = np.take_along_axis(np.broadcast_to(logs, (*shape, logs.shape[-1])), index, -1)[..., 0]
    odd_d = np.take_along_axis(np.broadcast_to(odd, (*shape, odd.shape[-1])), index, -1)[..., 0]
    flips = odd_d.astype(np.int64) + np.asarray(k, dtype=np.int64) % 2
    sign = np.where(np.isneginf(log_d), 0, 1 - 2 * (flips % 2)).astype(np.int8)
    return SignedLog(sign, log_d)


def _gamma(form: Formula, n: NDArray[np.int64], d: NDArray[np.int64], lam: str | int) -> FloatArray:
    result = np.empty(n.shape)
    for depth in np.unique(d).tolist():
        at = d == depth
        if form.entropy == "upstream":
            if depth < 2:
                raise DomainError(f'lattice_log: the "upstream" form log₂(π(d)/d) needs d ≥ 2, got d={depth}')
            result[at] = np.log2(prime_count(depth) / depth)
            continue
        h = entropies(n[at], form.frequency(depth, lam))
        if form.entropy == "strict" and not bool(np.all(h > 0)):
            raise DomainError(f'lattice_log: the "strict" form log₂(n/H) needs H(n,d) > 0, which fails at d={depth}')
        result[at] = np.log2(n[at] / h) if form.entropy == "strict" else np.log2((1 + n[at]) / (1 + h))
    return result


def _broadcast(n: ArrayLike, k: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    n_array = as_int64("lattice formula", n, low=1, high=_MAX_N)
    k_array = as_int64("lattice formula", k, low=-_MAX_N, high=_MAX_N)
    a, b = np.broadcast_arrays(n_array, k_array)
    return np.ascontiguousarray(a).reshape(a.shape), np.ascontiguousarray(b).reshape(b.shape)


def _depths(form: Formula, d: ArrayLike) -> NDArray[np.int64]:
    return as_int64("lattice formula (d)", d, low=0, high=len(form.table))


def _fixed(turns: Ball, bits: int = 64) -> int:
    """⌊frac(turns)·2^bits⌋."""
    whole: int = floor(turns * 2**bits)
    return whole % (1 << bits)


def _scaled(step: NDArray[np.int64], den: int) -> NDArray[np.uint64]:
    exact = [(int(t) << 64) // den for t in step.ravel()]
    return np.array(exact, dtype=np.uint64).reshape(step.shape)
