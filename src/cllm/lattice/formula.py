"""The lattice formula L(n, d, k, λ, ω, ψ) and its layers, in balls.

    L = 3^O · ∏_{i=1..d} cos(θφ_i) · Γ(k) · ν(λ) · Λ · Ψ(ψ) · Γ(n, d),   d = 0 … 12

with φ = (1+√5)/2, G = 2πφ, and the layers as the methods of `Formula` say.  Everything here is defined, not discovered:
the formula is a convention of this project; what is mathematics is that its values are enclosed, every digit proven.

Real functions return a Ball at the precision of the context; they work with more bits inside, log₂|θφ_i| of them for
the size of the cosines' arguments, and double them until the result is right to the precision asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial
from math import gcd
from typing import Any, Literal, NamedTuple

from cllm.errors import DomainError, LimitError, UndecidableError, closest
from cllm.lattice.counting import nth_prime, prime_count
from cllm.lattice.primality import is_prime
from cllm.lattice.sectors import sector_entropy
from cllm.numbers import Ball, cos, cospi, current_bits, exp, log, log2, phi, pi, precision

PHI: tuple[Fraction, ...] = tuple(map(Fraction, (3, 7, 31, 12, 19, 5, 11, 13, 17, 23, 29, 37)))
"""φ_1 … φ_12."""
OMEGAS = (432, 528, 639, 741, 852, 963)
"""The named frequencies ω, Hz; any positive rational may be given."""
LAMBDA = Fraction(3, 144000)
"""Λ = 1/48000 exactly."""
NU: dict[str, int] = {
    **dict.fromkeys(("dub", "knbt", "k'anchay", "kancha", "kub", "triad"), 3),
    "seven": 7,
    "twelve": 12,
    "nineteen": 19,
    "thirtyone": 31,
    "none": 1,
}
"""The names λ and their ν."""

Entropy = Literal["ratio", "strict", "upstream"]
Exponent = Literal["offset", "theta"]
Psi = tuple[int, int]
_MAX_K = 10**18


class Parts(NamedTuple):
    """Every factor of L and what they are made of (Ball, or exact int and Fraction)."""

    offset: Ball
    theta: Ball
    cosines: tuple[Ball, ...]
    gamma_k: int
    nu: int
    Lambda: Fraction
    Psi: Fraction
    entropy: Ball | None
    gamma_nd: Ball
    value: Ball


def nu(lam: str | int) -> int:
    """ν(λ): 3^(λ mod 3) for an integer λ (7 → 3), a fixed number for a name ("seven" → 7)."""
    if isinstance(lam, str):
        if lam not in NU:
            raise DomainError(f"nu: unknown name λ={lam!r}; known: {', '.join(NU)}{closest(lam, NU)}")
        return NU[lam]
    return int(3 ** (int(lam) % 3))


def check_psi(psi: Psi) -> Psi:
    """ψ = (p, q) with p > q ≥ 1, coprime and of opposite parity, or DomainError."""
    p, q = int(psi[0]), int(psi[1])
    if not (p > q >= 1 and gcd(p, q) == 1 and (p - q) % 2 == 1):
        raise DomainError(f"psi: ψ=(p, q) needs p > q ≥ 1 coprime and of opposite parity, got ({p}, {q})")
    return p, q


def check_omega(omega: Fraction | int | str) -> Fraction:
    """ω as a positive Fraction, or DomainError."""
    try:
        value = Fraction(omega)
    except (ValueError, TypeError, ZeroDivisionError):
        value = Fraction(0)
    if value <= 0:
        raise DomainError(f"omega: ω must be a positive rational number of Hz, got {omega!r}")
    return value


def gamma_k(k: int) -> int:
    """Γ(k) = (−1)^k."""
    return -1 if k % 2 else 1


def psi_value(psi: Psi = (2, 1)) -> Fraction:
    """Ψ(ψ) = 2pq(p²−q²)/(p²+q²)², exactly: ½ sin 4α with tan α = q/p, in the open interval (0, 1/2)."""
    p, q = check_psi(psi)
    return Fraction(2 * p * q * (p * p - q * q), (p * p + q * q) ** 2)


def psi_unit(psi: Psi = (2, 1)) -> tuple[Fraction, Fraction]:
    """The unit complex number (p+iq)²/(p²+q²) as (real, imaginary) part: a rational point of the circle."""
    p, q = check_psi(psi)
    return Fraction(p * p - q * q, p * p + q * q), Fraction(2 * p * q, p * p + q * q)


def triad(d: int) -> Fraction:
    """Tri(d) = 3^d; for d < 0 times (−1)^⌈|d|/2⌉; exact, |d| ≤ 10⁶."""
    d = int(d)
    if abs(d) > 10**6:
        raise LimitError(f"triad: |d| is at most 10^6, got {d}")
    return Fraction(3**d) if d >= 0 else Fraction((-1) ** ((1 - d) // 2), 3**-d)


def golden_turn() -> Ball:
    """G = π(1+√5) = 2πφ."""
    return refine(lambda: 2 * pi * phi)


def refine(compute: Callable[[], Ball], extra: int = 0) -> Ball:
    """`compute()` at rising precision until the ball is right to the bits of the context; rounded to them."""
    bits = current_bits()
    work = bits + 32 + extra
    for _ in range(6):
        with precision(work):
            value = compute()
        if value.is_exact or value.accuracy_bits >= bits:
            with precision(bits + 8):
                return value + 0
        work = 2 * work
    raise UndecidableError(f"lattice formula: {work // 2} bits do not give {bits} correct bits: {value}")


@dataclass(frozen=True)
class Formula:
    """The formula with its options.

    table: φ_1 … φ_d (positive rationals); phonetic_shift: φ_i + ν/10 where the integer φ_i is prime, φ_i/10 where not;
    entropy: "ratio" Γ(n,d) = log₂((1+n)/(1+H)), "strict" log₂(n/H), "upstream" log₂(π(d)/d);
    exponent: "offset" 3^O, "theta" 3^θ; simple: without Λ and Ψ.
    """

    table: tuple[Fraction, ...] = PHI
    phonetic_shift: bool = False
    entropy: Entropy = "ratio"
    exponent: Exponent = "offset"
    simple: bool = False

    def __post_init__(self) -> None:
        table = tuple(Fraction(v) for v in self.table)
        if not table or any(v <= 0 for v in table) or len(table) > 4096:
            raise DomainError(f"Formula: table takes 1 to 4096 positive rationals, got {self.table!r}")
        object.__setattr__(self, "table", table)
        for name, value, known in (
            ("entropy", self.entropy, ("ratio", "strict", "upstream")),
            ("exponent", self.exponent, ("offset", "theta")),
        ):
            if value not in known:
                raise DomainError(f"Formula: {name} is one of {', '.join(known)}, got {value!r}{closest(value, known)}")

    def frequencies(self, lam: str | int = "dub") -> tuple[Fraction, ...]:
        """The φ_i in force for λ."""
        return _shifted(self.table, nu(lam)) if self.phonetic_shift else self.table

    def frequency(self, d: int, lam: str | int = "dub") -> Fraction:
        """φ_d, with φ_0 = 1."""
        self._depth("frequency", d)
        return self.frequencies(lam)[d - 1] if d else Fraction(1)

    def O(self, n: int, k: int = 0, lam: str | int = "dub") -> Ball:  # noqa: E743
        """O(n,k,λ) = (n−1)(π/6)/ln 3 + log₃ν(λ) + kG; 3^O = ν·e^{(n−1)π/6}·3^{kG} is a logarithmic spiral."""
        _index("O", n, k)
        return refine(lambda: _log3_nu(lam) + Fraction(n - 1, 6) * (pi / log(3)) + 2 * k * (pi * phi))

    def theta(
        self, n: int, k: int = 0, lam: str | int = "dub", omega: Fraction | int | str = 432, psi: Psi = (2, 1)
    ) -> Ball:
        """θ(n,k,λ,ω,ψ) = kG + nπ/6 + log₃ν(λ) + ω/432 + (p²−q²)."""
        _index("theta", n, k)
        w, (p, q) = check_omega(omega), check_psi(psi)
        return refine(lambda: _theta(n, k, lam, w, p, q))

    def H(self, n: int, d: int, lam: str | int = "dub") -> Ball:
        """H(n,d): the entropy in bits of the 12-sector histogram of the angles i·2πφ·φ_d, i = 1 … n (φ_0 = 1)."""
        _index("H", n, 0)
        frequency = self.frequency(d, lam)
        return refine(lambda: sector_entropy(n, frequency))

    def gamma(self, n: int, d: int, lam: str | int = "dub") -> Ball:
        """Γ(n,d) in the form that `entropy` names."""
        _index("gamma", n, 0)
        self._depth("gamma", d)
        if self.entropy == "upstream":
            if d < 2:
                raise DomainError(f'gamma: the "upstream" form log₂(π(d)/d) needs d ≥ 2, got d={d}')
            return refine(lambda: log2(Fraction(prime_count(d), d)))
        frequency = self.frequency(d, lam)
        if self.entropy == "ratio":
            return refine(lambda: log2((1 + n) / (1 + sector_entropy(n, frequency))))
        h = sector_entropy(n, frequency)
        if h.is_exact and h == 0:
            raise DomainError(f'gamma: the "strict" form log₂(n/H) needs H(n,d) > 0, but H({n},{d}) = 0')
        return refine(lambda: log2(n / sector_entropy(n, frequency)))

    def cosines(
        self,
        n: int,
        d: int,
        k: int = 0,
        lam: str | int = "dub",
        omega: Fraction | int | str = 432,
        psi: Psi = (2, 1),
    ) -> tuple[Ball, ...]:
        """cos(θφ_i), i = 1 … d."""
        _index("cosines", n, k)
        self._depth("cosines", d)
        w, (p, q) = check_omega(omega), check_psi(psi)
        table = self.frequencies(lam)[:d]
        extra = _size(n, k, w, p, q, table)

        def cosine(f: Fraction) -> Ball:
            return cos(_theta(n, k, lam, w, p, q) * f)

        return tuple(refine(partial(cosine, f), extra) for f in table)

    def L(
        self,
        n: int,
        d: int,
        k: int = 0,
        lam: str | int = "dub",
        omega: Fraction | int | str = 432,
        psi: Psi = (2, 1),
    ) -> Ball:
        """L(n,d,k,λ,ω,ψ)."""
        return self.parts(n, d, k, lam, omega, psi).value

    def parts(
        self,
        n: int,
        d: int,
        k: int = 0,
        lam: str | int = "dub",
        omega: Fraction | int | str = 432,
        psi: Psi = (2, 1),
    ) -> Parts:
        """L and every part of it."""
        _index("L", n, k)
        self._depth("L", d)
        bits = current_bits()
        with precision(bits + 32):
            theta = self.theta(n, k, lam, omega, psi)
            offset = self.O(n, k, lam)
            cosines = self.cosines(n, d, k, lam, omega, psi)
            gamma = self.gamma(n, d, lam)
            entropy = None if self.entropy == "upstream" else self.H(n, d, lam)
        big_psi = psi_value(psi)
        factor = Fraction(gamma_k(k) * nu(lam)) * (1 if self.simple else LAMBDA * big_psi)

        def product() -> Ball:
            power = self.theta(n, k, lam, omega, psi) if self.exponent == "theta" else self.O(n, k, lam)
            value = exp(power * log(3)) * self.gamma(n, d, lam) * factor
            for c in self.cosines(n, d, k, lam, omega, psi):
                value = value * c
            return value

        value = refine(product, extra=_size(n, k, check_omega(omega), *check_psi(psi), self.table))
        return Parts(offset, theta, cosines, gamma_k(k), nu(lam), LAMBDA, big_psi, entropy, gamma, value)

    def bounded(self, n: int, d: int, k: int = 0, lam: str | int = "dub", **more: Any) -> Ball:
        """L̂ = Γ(k)·∏cos(θφ_i), in [−1, 1]; `omega` and `psi` as in L."""

        def product() -> Ball:
            value = Ball(gamma_k(k))
            for c in self.cosines(n, d, k, lam, **more):
                value = value * c
            return value

        return refine(product)

    def Z(self, n: int, d: int) -> Ball:
        """Z(n,d) = e^{(n−1)π/6}·cos((n−1)(π/6)φ_d), 1 ≤ d ≤ 12; exactly 0 where (n−1)φ_d/6 is half an odd integer."""
        _index("Z", n, 0)
        self._depth("Z", d, least=1)
        turn = Fraction(n - 1, 6) * self.table[d - 1] % 2
        if turn % 1 == Fraction(1, 2):
            return Ball(0)
        return refine(lambda: exp(Fraction(n - 1, 6) * pi) * cospi(turn))

    def P(self, n: int, d: int, k: int = 0) -> Ball:
        """P(n,d,k) = e^θ·12^{−ln 3}·∏_{i≤d} cos(θφ_i), with the default λ, ω, ψ."""
        _index("P", n, k)
        self._depth("P", d)

        def product() -> Ball:
            value = exp(self.theta(n, k) - log(3) * log(12))
            for c in self.cosines(n, d, k):
                value = value * c
            return value

        return refine(product, extra=_size(n, k, Fraction(432), 2, 1, self.table))

    def M12(self, n: int) -> tuple[Ball, ...]:
        """M12(n)_i = ln(p_n)·cos(nGφ_i) = ln(p_n)·T_{φ_i}(cos nG) for integer φ_i (Chebyshev)."""
        _index("M12", n, 0)
        p = nth_prime(n)
        extra = _size(n, n, Fraction(432), 2, 1, self.table)

        def component(f: Fraction) -> Ball:
            return log(p) * cospi(2 * n * f * phi)

        return tuple(refine(partial(component, f), extra) for f in self.table)

    def _depth(self, name: str, d: int, least: int = 0) -> None:
        if not least <= int(d) <= len(self.table):
            raise DomainError(f"{name}: d is from {least} to {len(self.table)}, got d={d}")


def ring_radius(p: int) -> Ball:
    """r(p) = log₃ p, p ≥ 1 (its integer part is `ring(p)`, decided by integers)."""
    if int(p) < 1:
        raise DomainError(f"ring_radius: p is at least 1, got {p}")
    return refine(lambda: log(int(p)) / log(3)) if p > 1 else Ball(0)


@cache
def _shifted(table: tuple[Fraction, ...], value: int) -> tuple[Fraction, ...]:
    return tuple(f + Fraction(value, 10) if f.denominator == 1 and is_prime(f.numerator) else f / 10 for f in table)


def _log3_nu(lam: str | int) -> Ball:
    value = nu(lam)
    exact = {1: 0, 3: 1, 9: 2}.get(value)
    return Ball(exact) if exact is not None else log(value) / log(3)


def _theta(n: int, k: int, lam: str | int, omega: Fraction, p: int, q: int) -> Ball:
    return 2 * k * (pi * phi) + Fraction(n, 6) * pi + _log3_nu(lam) + (omega / 432 + p * p - q * q)


def _size(n: int, k: int, omega: Fraction, p: int, q: int, table: tuple[Fraction, ...]) -> int:
    """Bits of the largest |θφ_i|, rounded up."""
    theta = 11 * abs(k) + n + 4 + int(omega / 432) + p * p
    return (theta * (int(max(table)) + 1)).bit_length() + 1 if table else 0


def _index(name: str, n: int, k: int) -> None:
    if int(n) < 1:
        raise DomainError(f"{name}: n counts from 1, got n={n}")
    if int(n) > _MAX_K or abs(int(k)) > _MAX_K:
        raise LimitError(f"{name}: n and |k| are at most 10^18, got n={n}, k={k}")
