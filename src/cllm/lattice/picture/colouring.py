"""From integers to colours: by primality, Ω, ω, μ, least prime factor, residue, or gap to the next prime."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cllm.errors import DomainError, LimitError, closest
from cllm.lattice.factor_tables import FactorTable, factor_table
from cllm.lattice.picture.palette import (
    ACCENT,
    COOL,
    FAINT,
    WARM,
    Colours,
    hexadecimal,
    sequential,
    wheel_colours,
)
from cllm.lattice.primality import are_prime
from cllm.lattice.sieve import primes_between

Legend = tuple[tuple[str, str], ...]


class Colouring(NamedTuple):
    """colours: uint8 [count, 3]; bright: which points stand out; legend: (label, #rrggbb); title: what is coloured."""

    colours: Colours
    bright: NDArray[np.bool_]
    legend: Legend
    title: str


def _table(n: NDArray[np.int64]) -> FactorTable:
    low, high = int(n.min()), int(n.max())
    if high - low > 1 << 25:
        raise LimitError(f"colouring: factor tables span at most 2^25 numbers, got {low} … {high}; lower the count")
    table = factor_table(low, high + 1)
    i = n - low
    return FactorTable(n, table.least[i], table.big_omega[i], table.omega[i], table.mobius[i])


def _steps(values: NDArray[np.int64], labels: list[str], scale: Colours) -> tuple[Colours, Legend]:
    legend = tuple((label, hexadecimal(colour)) for label, colour in zip(labels, scale, strict=True))
    return scale[values], legend


def _prime(n: NDArray[np.int64], modulus: int) -> Colouring:
    prime = are_prime(n)
    colours = np.where(prime[:, None], np.array(ACCENT), np.array(FAINT)).astype(np.uint8)
    return Colouring(colours, prime, (("prime", hexadecimal(ACCENT)), ("not prime", hexadecimal(FAINT))), "primes")


def _big_omega(n: NDArray[np.int64], modulus: int) -> Colouring:
    top = 10
    values = np.minimum(_table(n).big_omega, top).astype(np.int64)
    # primes stand out; the more factors, the deeper
    others = sequential(0.5 - 0.5 * np.arange(top - 1) / (top - 2)) * np.linspace(0.8, 0.55, top - 1)[:, None]
    scale = np.concatenate((np.array([FAINT, ACCENT]), others)).astype(np.uint8)
    labels = [*map(str, range(top)), f"{top} or more"]
    colours, legend = _steps(values, labels, scale)
    return Colouring(colours, values <= 1, legend[1:], "prime factors with multiplicity (Omega)")


def _omega(n: NDArray[np.int64], modulus: int) -> Colouring:
    top = 6
    values = np.minimum(_table(n).omega, top).astype(np.int64)
    scale = np.concatenate((np.array([FAINT], dtype=np.uint8), sequential(np.arange(top) / (top - 1))))
    colours, legend = _steps(values, [*map(str, range(top)), f"{top} or more"], scale)
    return Colouring(colours, values >= 3, legend[1:], "distinct prime factors (omega)")


def _mobius(n: NDArray[np.int64], modulus: int) -> Colouring:
    values = _table(n).mobius.astype(np.int64) + 1
    scale = np.array([WARM, FAINT, COOL], dtype=np.uint8)
    colours, legend = _steps(values, ["-1", "0", "+1"], scale)
    return Colouring(colours, values != 1, legend, "Moebius function")


def _least(n: NDArray[np.int64], modulus: int) -> Colouring:
    table = _table(n)
    bounds = [2, 3, 5, 7, 11, 31, 101]
    labels = ["2", "3", "5", "7", "11 - 29", "31 - 97", "101 or more", "itself (prime)"]
    values = np.searchsorted(bounds, table.least, side="right") - 1
    values = np.where((table.least == n) & (n > 1), len(bounds), np.maximum(values, 0))
    scale = np.concatenate((sequential(np.arange(7) / 11), np.array([ACCENT], dtype=np.uint8)))
    colours, legend = _steps(values, labels, scale)
    return Colouring(colours, values == len(bounds), legend, "least prime factor")


def _residue(n: NDArray[np.int64], modulus: int) -> Colouring:
    if not 2 <= modulus <= 360:
        raise DomainError(f"colouring: residue takes a modulus from 2 to 360, got {modulus}")
    prime = are_prime(n)
    hues = wheel_colours(modulus)
    classes = n % modulus
    colours = np.where(prime[:, None], hues[classes], (hues[classes] * 0.3).astype(np.uint8))
    used = np.unique(classes[prime]) if bool(prime.any()) else np.unique(classes)
    legend = tuple((str(r), hexadecimal(hues[r])) for r in used.tolist())
    legend = legend if len(legend) <= 16 else ()
    return Colouring(colours.astype(np.uint8), prime, legend, f"residue mod {modulus} (primes bright)")


def _gap(n: NDArray[np.int64], modulus: int) -> Colouring:
    prime = are_prime(n)
    low, high = int(n.min()), int(n.max())
    found = primes_between(low, high + 4096)  # every gap below 10¹⁴ is under 1000
    gaps = np.diff(found)
    size = np.zeros(n.size, dtype=np.int64)
    size[prime] = gaps[np.searchsorted(found, n[prime])]
    bounds = [1, 2, 4, 6, 8, 12, 18, 24, 36, 54]
    values = np.searchsorted(bounds, size, side="right")
    scale = np.concatenate((np.array([FAINT], dtype=np.uint8), sequential(np.arange(10) / 9)))
    labels = ["not prime", "1", "2", "4", "6", "8 - 10", "12 - 16", "18 - 22", "24 - 34", "36 - 52", "54 or more"]
    colours, legend = _steps(values, labels, scale)
    return Colouring(colours, prime, legend[1:], "gap to the next prime")


SCHEMES: dict[str, Callable[[NDArray[np.int64], int], Colouring]] = {
    "prime": _prime,
    "Omega": _big_omega,
    "omega": _omega,
    "mu": _mobius,
    "least": _least,
    "residue": _residue,
    "gap": _gap,
}
"""Colourings by name."""


def colour(n: NDArray[np.int64], scheme: str = "prime", modulus: int = 12) -> Colouring:
    """Colours of the integers n ≥ 0 under a scheme; `modulus` belongs to "residue"."""
    if scheme not in SCHEMES:
        known = ", ".join(SCHEMES)
        raise DomainError(f"colouring: unknown colouring {scheme!r}; known: {known}{closest(scheme, SCHEMES)}")
    values = np.maximum(n, 1) if scheme in ("Omega", "omega", "mu", "least") else n
    return SCHEMES[scheme](values, int(modulus))
