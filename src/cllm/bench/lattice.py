"""Primes and lattice maps beside sympy and primesieve: the lattice half of `cllm bench numbers`.

Every competitor computes the same answer, which is compared before anything is timed; a package that is not installed
is named in the notes and left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from cllm import lattice as lt
from cllm.bench.measure import Table, interleave
from cllm.errors import CertificateError

POINTS = 10**6
SEGMENT = 10**6  # numbers above 10¹²
TARGETS_S = {"primes below 10^8": 0.3, "segment at 10^12": 0.2}
MAP_TARGET_S = 0.1


def tables(rounds: int = 5) -> list[Table]:
    """All tables of this file."""
    return [primes_table(rounds), maps_table(rounds)]


def primes_table(rounds: int = 5) -> Table:
    """Primes below 10⁸, a segment of 10⁶ numbers at 10¹², π(10¹⁰), p_{10⁸}: ours beside the peers."""
    table = Table("primes", "Primes (seconds are medians; ratio: peer over ours, above 1 when ours is faster)")
    sympy, primesieve = table.peer("sympy"), table.peer("primesieve")
    sieve = table.peer("primesieve.numpy") if primesieve else None
    start = 10**12
    rows: list[tuple[str, str, Callable[[], Any], dict[str, Callable[[], Any]]]] = []
    peers: dict[str, Callable[[], Any]] = {}
    if sieve:
        peers["primesieve"] = lambda: sieve.primes(10**8 - 1)
    rows.append(("primes below 10^8", "array", lambda: lt.primes_below(10**8), peers))
    peers = {}
    if sieve:
        peers["primesieve"] = lambda: sieve.primes(start, start + SEGMENT - 1)
    if sympy:
        peers["sympy"] = lambda: list(sympy.primerange(start, start + SEGMENT))
    rows.append(("segment at 10^12", "array", lambda: lt.primes_between(start, start + SEGMENT), peers))
    peers = {}
    if primesieve:
        peers["primesieve"] = lambda: primesieve.count_primes(10**10)
    rows.append(("count below 10^10", "number", lambda: lt.prime_count(10**10), peers))
    peers = {}
    if primesieve:
        peers["primesieve"] = lambda: primesieve.nth_prime(10**8)
    rows.append(("prime number 10^8", "number", lambda: lt.nth_prime(10**8), peers))
    for name, kind, ours, others in rows:
        expected = ours()
        for peer, call in others.items():
            _agree(f"{name}: {peer}", expected, call(), kind)
        table.add_beside(name, interleave({"cllm": ours, **others}, rounds=rounds), TARGETS_S.get(name))
    table.notes.append("sympy has no array sieve for 10^8 that ends in seconds; it is timed on the segment only.")
    return table


def maps_table(rounds: int = 5) -> Table:
    """10⁶ points of each map and, where there is one, the inverse; each inverse is checked before it is timed."""
    table = Table("lattice-maps", f"{POINTS:,} points of each map")
    n = np.arange(1, POINTS + 1, dtype=np.int64)
    for name, (forward, backward) in _maps(n).items():
        image = forward()
        candidates: dict[str, Callable[[], Any]] = {"map": forward}
        if backward is not None:
            _agree(f"{name}: inverse", n, np.asarray(backward(image)), "array")
            candidates["inverse"] = partial(backward, image)
        timings = interleave(candidates, rounds=rounds)
        inverse = timings.get("inverse")
        table.add(
            name,
            ms=timings["map"].ms,
            spread=timings["map"].spread,
            inverse_ms=None if inverse is None else inverse.ms,
            within_target=max(t.median_s for t in timings.values()) <= MAP_TARGET_S,
        )
    table.facts["target_ms"] = 1e3 * MAP_TARGET_S
    return table


def _maps(n: Any) -> Mapping[str, tuple[Callable[[], Any], Callable[[Any], Any] | None]]:
    """name → (the map of n, the inverse of its result)."""
    step = 1e-4
    count = int(n.size) + 1
    theta = lt.angle(n, lt.GOLDEN)
    return {
        "ulam": (lambda: lt.ulam(n), lambda p: lt.ulam_inverse(*p)),
        "ulam at 10^12": (lambda: lt.ulam(n + 10**12), lambda p: lt.ulam_inverse(*p) - 10**12),
        "hilbert, order 10": (lambda: lt.hilbert(n - 1, 10), lambda p: lt.hilbert_inverse(p[0], p[1], 10) + 1),
        "hilbert, order 31": (lambda: lt.hilbert(n, 31), lambda p: lt.hilbert_inverse(p[0], p[1], 31)),
        "sacks": (lambda: lt.sacks(n), lambda p: lt.sacks_inverse(*p)),
        "vogel": (lambda: lt.vogel(n), lambda p: lt.vogel_inverse(*p)),
        "vogel, x and y": (lambda: lt.vogel(n).xy(), None),
        "archimedes": (lambda: lt.archimedes(n), lambda p: lt.archimedes_inverse(*p)),
        "logarithmic": (
            lambda: lt.logarithmic(n, step=step),
            lambda p: lt.logarithmic_inverse(*p, step=step),
        ),
        "crystalline": (lambda: lt.crystalline(n), lambda p: lt.crystalline_inverse(*p)),
        "crystalline of the primes": (
            lambda: lt.crystalline_prime(n),
            lambda p: lt.crystalline_prime_inverse(*p),
        ),
        "modular wheel": (lambda: lt.wheel(n), lambda p: lt.wheel_inverse(*p)),
        "361-map": (lambda: lt.map361(n), None),
        "clock abacus": (lambda: lt.clock_digits(n), lt.clock_value),
        "4-D clock": (lambda: lt.clock_angles(n), lt.clock_angles_inverse),
        "ring clock": (lambda: lt.ring_clock(n), lambda p: lt.ring_clock_inverse(*p)),
        "fold": (
            lambda: lt.fold(theta),
            lambda p: np.where(lt.unfold(p.value, p.quadrant) == theta, n, 0),
        ),
        "torus": (lambda: lt.torus_point(n), None),
        "Fibonacci sphere": (
            lambda: lt.fibonacci_sphere(n, count),
            lambda p: lt.fibonacci_sphere_inverse(p, count),
        ),
        "residues": (lambda: lt.residues(n), lt.residues_inverse),
    }


def _agree(what: str, ours: Any, theirs: Any, kind: str) -> None:
    same = np.array_equal(np.asarray(ours), np.asarray(theirs, dtype=np.int64)) if kind == "array" else ours == theirs
    if not same:
        raise CertificateError(f"bench lattice: {what} gives another answer; nothing was timed")
