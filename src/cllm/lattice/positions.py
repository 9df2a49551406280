"""Position codes as float64 tables [T, D], formula by formula.

In every formula q = ⌊i/2⌋ + 1, g = 2π/φ² the golden angle, p = p_{pos+1} a prime, D even, and T the length of the table
(the model's context, never the length of the text at hand).  Even channels i take the cosine, odd ones the sine, except
in `sinusoidal`, which keeps the order of its paper (sine first).

| kind       | row `pos`, channel i                                                                              |
|------------|---------------------------------------------------------------------------------------------------|
| sinusoidal | sin, cos(pos/10000^{2⌊i/2⌋/D})  (Vaswani et al. 2017)                                               |
| spiral     | cos, sin(q·g·pos)·(1 + 0.1√pos)                                                                   |
| clock      | cos, sin(q·2π(pos mod 12)/12)·(1 + 0.2 ln(pos+1)), plus 0.1cos, 0.1sin(2π·pos/T·(j+1)) at 4j, 4j+1  |
| prime      | cos, sin((i+1)ψ)(½ + ½ ln p/ln p_T), ψ = 2π(p mod 1000)/1000; 3 | i: plus 0.1cos(2π(p mod 12)/12)   |
| mix        | weights of spiral, clock, prime and a learned table                                               |

Known facts.  With normalised rows the spiral's factor 1 + 0.1√pos cancels exactly, and so does the clock's radius
without its harmonics.  The clock without its harmonics then repeats every 12 positions.  Primes above 3 lie in only the
four classes 1, 5, 7, 11 mod 12.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from cllm.errors import DomainError, LimitError, closest
from cllm.lattice.angles import GOLDEN_ANGLE, TAU, FloatArray, angle
from cllm.lattice.counting import first_primes

Kind = Literal["sinusoidal", "spiral", "clock", "prime", "mix"]
KINDS: tuple[Kind, ...] = ("sinusoidal", "spiral", "clock", "prime", "mix")
RMS = 0.02
"""Root mean square of a normalised row: that of the weights' initialisation."""
EQUAL_WEIGHTS = (0.25, 0.25, 0.25, 0.25)
OLDER_WEIGHTS = (0.4, 0.3, 0.3, 0.0)
MAX_ELEMENTS = 1 << 29  # 4 GiB


def position_table(
    kind: Kind,
    length: int,
    width: int,
    *,
    normalize: bool = True,
    weights: Sequence[float] | None = None,
    learned: ArrayLike | None = None,
    harmonics: bool = True,
) -> FloatArray:
    """The table of a fixed position code: float64 [length, width].

    `normalize` brings each row of spiral, clock and prime (and the sinusoid that stands for a missing `learned` table
    in mix) to unit norm and then to RMS 0.02; sinusoidal alone is never scaled.  `weights` and `learned`
    [length, width] belong to mix: weights of (spiral, clock, prime, learned), a quarter each by default.
    `harmonics=False` leaves out the clock's harmonics, for experiments.

    Raises:
        DomainError: an unknown kind, an odd width, a shape that does not fit.
        LimitError: more than 2²⁹ elements.
    """
    length, width = _shape(kind, length, width)
    if kind == "mix":
        w = np.asarray(EQUAL_WEIGHTS if weights is None else weights, dtype=np.float64)
        if w.shape != (4,) or not bool(np.all(np.isfinite(w))):
            raise DomainError(f"position_table: mix takes 4 weights (spiral, clock, prime, learned), got {weights!r}")
        parts = mix_parts(length, width, normalize=normalize, learned=learned)
        return np.asarray(np.einsum("k,ktd->td", w, parts))
    if weights is not None or learned is not None:
        raise DomainError(f'position_table: weights and learned belong to kind "mix", got kind {kind!r}')
    if kind == "sinusoidal":
        return sinusoidal(length, width)
    if kind == "spiral":
        table = _spiral(length, width)
    elif kind == "clock":
        table = _clock(length, width, harmonics)
    else:
        table = _prime(length, width)
    return normalize_rows(table) if normalize else table


def mix_parts(length: int, width: int, *, normalize: bool = True, learned: ArrayLike | None = None) -> FloatArray:
    """The four tables that mix adds up, for trainable weights: [4, length, width] (spiral, clock, prime, learned).

    Without a `learned` table its place is taken by what it may start from, the sinusoid scaled to RMS 0.02.
    """
    length, width = _shape("mix", length, width)
    parts = np.empty((4, length, width))
    for k, kind in enumerate(("spiral", "clock", "prime")):
        parts[k] = position_table(kind, length, width, normalize=normalize)  # type: ignore[arg-type]
    if learned is None:
        parts[3] = learned_start(length, width) if normalize else sinusoidal(length, width)
        return parts
    table = np.asarray(learned, dtype=np.float64)
    if table.shape != (length, width):
        raise DomainError(f"mix_parts: expected a learned table of shape {(length, width)}, got {table.shape}")
    parts[3] = table
    return parts


def learned_start(length: int, width: int) -> FloatArray:
    """What a learned table may start from (`start="sinusoid"`): the sinusoid, each row scaled to RMS 0.02."""
    return normalize_rows(sinusoidal(length, width))


def normalize_rows(table: FloatArray, rms: float = RMS) -> FloatArray:
    """Each row divided by its norm and scaled to the root mean square `rms`; a zero row stays zero."""
    norm = np.linalg.norm(table, axis=-1, keepdims=True)
    return np.asarray(table / np.where(norm == 0, 1.0, norm) * (rms * np.sqrt(table.shape[-1])))


def sinusoidal(length: int, width: int) -> FloatArray:
    """Vaswani et al. 2017: even i sin, odd i cos of pos/10000^{2⌊i/2⌋/D}."""
    length, width = _shape("sinusoidal", length, width)
    rate = np.power(10000.0, -np.arange(0, width, 2) / width)
    theta = np.arange(length)[:, None] * rate
    return _interleave(np.sin(theta), np.cos(theta))


def rope_tables(length: int, head_width: int, base: float = 10000.0) -> tuple[FloatArray, FloatArray]:
    """(cos, sin) of pos·base^{−2j/h}, each float64 [length, h/2] (Su et al. 2021); `rotate` says how they are used."""
    length, head_width = _shape("rope_tables", length, head_width)
    if not base > 1:
        raise DomainError(f"rope_tables: the base must be above 1, got {base}")
    rate = np.power(float(base), -np.arange(0, head_width, 2) / head_width)
    theta = np.arange(length)[:, None] * rate
    return np.cos(theta), np.sin(theta)


def rotate(x: ArrayLike, cos: FloatArray, sin: FloatArray, *, interleaved: bool = False) -> FloatArray:
    """Rotary positions applied to rows x [..., T, h]: the definition, in float64.

    Channel j is paired with j + h/2 (half-split, the default) or 2j with 2j+1 (interleaved):
    (a, b) → (a·cos − b·sin, a·sin + b·cos).
    """
    rows = np.asarray(x, dtype=np.float64)
    half = cos.shape[-1]
    if rows.ndim < 2 or rows.shape[-1] != 2 * half or rows.shape[-2] != cos.shape[0]:
        raise DomainError(f"rotate: expected rows [..., {cos.shape[0]}, {2 * half}], got shape {rows.shape}")
    if interleaved:
        a, b = rows[..., 0::2], rows[..., 1::2]
        return _interleave(a * cos - b * sin, a * sin + b * cos)
    a, b = rows[..., :half], rows[..., half:]
    return np.concatenate((a * cos - b * sin, a * sin + b * cos), axis=-1)


def beyond_table(kind: str) -> Literal["same", "recomputed", "not applicable"]:
    """What positions past the trained length are.

    "same": sinusoidal, rope (and none) extend as they are.  "recomputed": spiral, clock, prime are computed for the
    longer table by the same formula with T the longer length (for clock and prime the earlier rows change with T).
    "not applicable": learned, and mix with it, have no trained row there.
    """
    rules: dict[str, Literal["same", "recomputed", "not applicable"]] = {
        "sinusoidal": "same",
        "rope": "same",
        "spiral": "recomputed",
        "clock": "recomputed",
        "prime": "recomputed",
        "learned": "not applicable",
        "mix": "not applicable",
    }
    if kind not in rules:
        raise DomainError(f"beyond_table: unknown positions {kind!r}; known: {', '.join(rules)}{closest(kind, rules)}")
    return rules[kind]


def _spiral(length: int, width: int) -> FloatArray:
    pos = np.arange(length, dtype=np.int64)
    q = np.arange(1, width // 2 + 1, dtype=np.int64)
    theta = angle(pos[:, None] * q, GOLDEN_ANGLE)
    return _interleave(np.cos(theta), np.sin(theta)) * (1 + 0.1 * np.sqrt(pos))[:, None]


def _clock(length: int, width: int, harmonics: bool) -> FloatArray:
    pos = np.arange(length, dtype=np.int64)
    q = np.arange(1, width // 2 + 1, dtype=np.int64)
    theta = (pos[:, None] * q % 12) * (TAU / 12)
    table = _interleave(np.cos(theta), np.sin(theta)) * (1 + 0.2 * np.log1p(pos))[:, None]
    if harmonics:
        j1 = np.arange(1, (width + 3) // 4 + 1, dtype=np.int64)  # j + 1 for j < D/4
        theta = (pos[:, None] * j1 % length) * (TAU / length)
        table[:, 0::4] += 0.1 * np.cos(theta)
        table[:, 1::4] += 0.1 * np.sin(theta)
    return table


def _prime(length: int, width: int) -> FloatArray:
    p = first_primes(length)
    order = np.arange(1, width + 1, dtype=np.int64)
    theta = ((p % 1000)[:, None] * order % 1000) * (TAU / 1000)
    table: FloatArray = np.cos(theta)
    table[:, 1::2] = np.sin(theta[:, 1::2])
    table *= (0.5 + 0.5 * np.log(p) / np.log(p[-1]))[:, None]
    table[:, 0::3] += (0.1 * np.cos((p % 12) * (TAU / 12)))[:, None]
    return table


def _interleave(even: FloatArray, odd: FloatArray) -> FloatArray:
    return np.stack((even, odd), axis=-1).reshape(*even.shape[:-1], 2 * even.shape[-1])


def _shape(name: str, length: int, width: int) -> tuple[int, int]:
    if name not in (*KINDS, "rope_tables"):
        known = KINDS
        raise DomainError(f"position_table: unknown kind {name!r}; known: {', '.join(known)}{closest(name, known)}")
    if length < 1:
        raise DomainError(f"{name}: the length is at least 1, got {length}")
    if width < 2 or width % 2:
        raise DomainError(f"{name}: the width must be even and at least 2, got {width}")
    if length * width > MAX_ELEMENTS:
        raise LimitError(f"{name}: a table of {length}×{width} float64 is over the limit of 2^29 elements")
    return int(length), int(width)
