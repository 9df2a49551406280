"""Numbers to classes, classes to colours: the same palette whatever the curve, in a dark and a light edition."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from cllm.errors import DomainError, closest
from cllm.lattice.picture.palette import ACCENT, COOL, WARM, Colours, blend, hexadecimal, rgb, sequential, wheel_colours
from cllm.studio import lattice_values as values
from cllm.studio.lattice_formula import formula

SCHEMES = ("prime", "Omega", "omega", "mu", "least", "residue", "gap", "expression")
COSTLY = ("Omega", "omega", "mu", "least", "expression")
"""Colourings that factor, about 1 µs a number above the table."""
THEMES = ("dark", "light")
MAX_MODULUS = 120
NOTHING = 255
"""The class of what is not drawn: no number there, or no value."""
_STEPS = 200  # classes of a continuous scale
_OMEGA = 10
_LEAST = (2, 3, 5, 7, 11, 31, 101)
_LEAST_LABELS = ("2", "3", "5", "7", "11–29", "31–97", "101 or more", "itself: prime")
_GAPS = (1, 2, 4, 6, 8, 12, 18, 24, 36, 54)
_GAP_LABELS = ("1", "2", "4", "6", "8–10", "12–16", "18–22", "24–34", "36–52", "54 or more")

_INK = rgb("#232c6b")
_AMBER = rgb("#c4620c")  # primes among other colours, on paper
_DEEP = (16, 20, 40)


class Colouring(msgspec.Struct, frozen=True):
    """What is coloured. modulus: of "residue".  expression, low, high: of "expression", a scale from low to high.
    null: the seed of the random model that stands for the primes (None: the primes themselves); odd: the model on odd
    numbers alone."""

    scheme: str = "prime"
    modulus: int = 12
    expression: str = "is_prime(n)"
    low: float = 0.0
    high: float = 1.0
    null: int | None = None
    odd: bool = False

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            known = ", ".join(SCHEMES)
            raise DomainError(
                f"colour: unknown colouring {self.scheme!r}; known: {known}{closest(self.scheme, SCHEMES)}"
            )
        if self.scheme == "residue" and not 2 <= self.modulus <= MAX_MODULUS:
            raise DomainError(f"colour: residues are coloured for moduli from 2 to {MAX_MODULUS}, got {self.modulus}")


class Classes(NamedTuple):
    """code: the class of each number, uint8; bright: what stands out and is drawn larger."""

    code: NDArray[np.uint8]
    bright: NDArray[np.bool_]


def primes_of(n: NDArray[np.int64], colouring: Colouring) -> NDArray[np.bool_]:
    """The primes among n, or what the random model puts in their place."""
    if colouring.null is None:
        return values.are_prime(n)
    return values.null_primes(n, colouring.null, colouring.odd)


def classify(n: NDArray[np.int64], colouring: Colouring) -> Classes:
    """The classes of numbers; negative n are "nothing there"."""
    there = n >= 0
    m = np.where(there, n, 0)
    index, bright = _CLASSES[colouring.scheme](m, colouring)
    return Classes(np.where(there, index, NOTHING).astype(np.uint8), bright & there)


def _prime(n: Any, c: Colouring) -> tuple[Any, Any]:
    prime = primes_of(n, c)
    return prime, prime


def _big_omega(n: Any, c: Colouring) -> tuple[Any, Any]:
    big = values.factors(n).big_omega
    return np.minimum(big, _OMEGA), big == 1


def _small_omega(n: Any, c: Colouring) -> tuple[Any, Any]:
    distinct = values.factors(n).omega
    return np.minimum(distinct, 6), distinct >= 3


def _mobius(n: Any, c: Colouring) -> tuple[Any, Any]:
    mu = values.factors(n).mobius
    return mu + 1, mu != 0


def _least(n: Any, c: Colouring) -> tuple[Any, Any]:
    least = values.factors(n).least
    prime = (least == n) & (n > 1)
    return np.where(prime, 8, np.searchsorted(_LEAST, least, side="right")), prime


def _residue(n: Any, c: Colouring) -> tuple[Any, Any]:
    prime = primes_of(n, c)
    return n % c.modulus + np.where(prime, 0, c.modulus), prime


def _gap(n: Any, c: Colouring) -> tuple[Any, Any]:
    prime = primes_of(n, c)
    if c.null is not None:
        return prime.astype(np.int64), prime
    return np.searchsorted(_GAPS, values.prime_gaps(n, prime), side="right"), prime


def _expression(n: Any, c: Colouring) -> tuple[Any, Any]:
    found = formula(c.expression)(n)
    span = c.high - c.low or 1.0
    with np.errstate(all="ignore"):
        t = np.clip((found - c.low) / span, 0, 1)
    good = np.isfinite(found)
    return np.where(good, np.rint(np.where(good, t, 0) * (_STEPS - 1)), NOTHING), good & (t > 0)


_CLASSES = {
    "prime": _prime, "Omega": _big_omega, "omega": _small_omega, "mu": _mobius, "least": _least, "residue": _residue,
    "gap": _gap, "expression": _expression,
}  # fmt: skip


class Palette(NamedTuple):
    """colours: uint8 [256, 4] by class, the last of them transparent; legend: (label, #rrggbb); title."""

    colours: Colours
    legend: tuple[tuple[str, str], ...]
    title: str


def _light(colours: Any) -> Colours:
    return blend(colours, _DEEP, 0.3)


@lru_cache(maxsize=64)
def palette(scheme: str, theme: str, modulus: int = 12, low: float = 0.0, high: float = 1.0) -> Palette:
    """The colours of a scheme in "dark" or "light"."""
    if theme not in THEMES:
        raise DomainError(f"theme: expected dark or light, got {theme!r}")
    dark = theme == "dark"
    main: Any = np.array(ACCENT if dark else _INK, dtype=np.uint8)
    among: Any = main if dark else np.array(_AMBER, dtype=np.uint8)
    faint: Any = np.array(rgb("#1c2336") if dark else rgb("#e6e3d8"), dtype=np.uint8)
    table = np.zeros((256, 4), dtype=np.uint8)

    def scale(t: Any) -> Colours:
        return sequential(t) if dark else _light(sequential(t))

    def fill(rows: Any, labels: tuple[str, ...], title: str, skip: int = 0) -> Palette:
        rows = np.asarray(rows, dtype=np.uint8)
        table[: len(rows), :3], table[: len(rows), 3] = rows, 255
        table[:skip, 3] = 0
        shown = tuple((label, hexadecimal(row)) for label, row in zip(labels, rows[skip:], strict=True))
        return Palette(table, shown, title)

    if scheme == "prime":
        return fill([faint, main], ("prime",), "primes", skip=1)
    if scheme == "Omega":
        others = scale(0.62 - 0.62 * np.arange(_OMEGA - 1) / (_OMEGA - 2))
        labels = (*(str(i) for i in range(1, _OMEGA)), f"{_OMEGA} or more")
        return fill([faint, among, *others], labels, "Ω: prime factors, counted with multiplicity", skip=1)
    if scheme == "omega":
        return fill([faint, *scale(np.arange(6) / 5)], ("1", "2", "3", "4", "5", "6 or more"),
                    "ω: distinct prime factors", skip=1)  # fmt: skip
    if scheme == "mu":
        warm, cool = (np.array(WARM), np.array(COOL)) if dark else (rgb("#b23a1e"), rgb("#12697f"))
        return fill([warm, faint, cool], ("−1", "0", "+1"), "μ: Möbius function")
    if scheme == "least":
        return fill([faint, *scale(np.arange(7) / 11), among], _LEAST_LABELS, "least prime factor", skip=1)
    if scheme == "residue":
        hues = wheel_colours(modulus) if dark else _light(wheel_colours(modulus))
        ground: Any = np.array((10, 13, 22) if dark else (248, 247, 243), dtype=np.float64)
        dim = np.rint(0.16 * hues + 0.84 * ground)
        labels = tuple(map(str, range(modulus)))
        made = fill([*hues, *dim], (*labels, *labels), f"residue mod {modulus}, primes bright")
        return made._replace(legend=made.legend[:modulus] if modulus <= 16 else ())
    if scheme == "gap":
        return fill([faint, *scale(np.arange(10) / 9)], _GAP_LABELS, "distance to the next prime", skip=1)
    rows = scale(np.arange(_STEPS) / (_STEPS - 1))
    table[:_STEPS, :3], table[:_STEPS, 3] = rows, 255
    marks = (f"{low:g}", f"{(low + high) / 2:g}", f"{high:g}")
    legend = tuple(zip(marks, (hexadecimal(rows[i]) for i in (0, _STEPS // 2, _STEPS - 1)), strict=True))
    return Palette(table, legend, "expression")


def scale_of(text: str, near: int) -> tuple[float, float]:
    """A scale for an expression: its 2nd and 98th percentile over 4096 numbers from `near` on; (0, 1) for truths."""
    n = np.arange(max(near, 1), max(near, 1) + 4096, dtype=np.int64)
    found = formula(text)(n)
    found = found[np.isfinite(found)]
    if not found.size:
        raise DomainError(f"expression: {text} has no finite value for n = {n[0]} … {n[-1]}")
    if set(np.unique(found).tolist()) <= {0.0, 1.0}:
        return 0.0, 1.0
    low, high = (float(f"{v:.4g}") for v in np.percentile(found, (2, 98)))
    return (low, high) if high > low else (low, low + 1.0)
