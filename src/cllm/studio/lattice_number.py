"""Everything about one number: what it is, its factors, its rank, and its place on every curve."""

from __future__ import annotations

from typing import Any

import numpy as np
from flint import fmpz

from cllm.errors import CllmError, DomainError, LimitError
from cllm.lattice import clocks, spirals
from cllm.lattice.counting import prime_count
from cllm.lattice.folding import fold_ticks
from cllm.lattice.primality import factor as factorise
from cllm.lattice.primality import is_prime, next_prime, previous_prime
from cllm.lattice.square_spiral import ulam
from cllm.numbers.expression import Sheet, evaluate
from cllm.studio.lattice_curves import CURVES, HILBERT_ORDER, Options, least_of
from cllm.studio.lattice_values import MAX_N

MAX_DIGITS = 2000
_RANKED = 10**13  # π(n) takes half a second there
_QUICK_BITS = 200  # factors and neighbours at once
_PROVED_BITS = 1024


def read(text: str) -> int:
    """An integer as the calculator reads it: 10^12, 2^127 − 1, 30!, 1_000. Raises CllmError."""
    found = evaluate(text, 20)
    if found.kind != "integer" or found.fraction is None:
        raise DomainError(f"{text[:80]}: is {found.kind}; expected an integer")
    n = int(found.fraction)
    if n < 0:
        raise DomainError(f"{text[:80]}: is negative; the curves hold n ≥ 0")
    if n.bit_length() > MAX_DIGITS * 3.33:
        raise LimitError(f"{text[:80]}: has more than {MAX_DIGITS} digits")
    return n


def _text(n: int) -> str:
    return str(fmpz(n))  # int's own conversion refuses long numbers


def number(text: str) -> dict[str, Any]:
    """What is known at once: text, digits, prime (None: not decided here), factors, rank, neighbours, places."""
    n = read(text)
    bits = n.bit_length()
    known: dict[str, Any] = {"n": _text(n), "digits": len(_text(n)), "shown": n <= MAX_N}
    known["prime"] = is_prime(n) if bits <= _PROVED_BITS or not fmpz(n).is_probable_prime() else None
    if known["prime"]:
        known.update(_arithmetic([(n, 1)]))
    elif n >= 1 and bits <= 64:
        known.update(_arithmetic(factorise(n)))
    if n <= _RANKED:
        known["rank"] = prime_count(n) if n >= 2 else 0
    if bits <= _QUICK_BITS:
        known["next"] = _text(next_prime(n))
        known["previous"] = _text(previous_prime(n)) if n > 2 else None
    known["places"] = places(n)
    return known


def _arithmetic(factors: list[tuple[int, int]]) -> dict[str, Any]:
    big, distinct = sum(e for _, e in factors), len(factors)
    sigma = totient = count = 1
    for p, e in factors:
        sigma *= (p ** (e + 1) - 1) // (p - 1)
        totient *= p ** (e - 1) * (p - 1)
        count *= e + 1
    return {
        "factors": [[_text(p), e] for p, e in factors],
        "big_omega": big,
        "omega": distinct,
        "mobius": 0 if big > distinct else (-1) ** distinct,
        "divisors": count,
        "divisor_sum": _text(sigma),
        "totient": _text(totient),
    }


def factors(text: str) -> dict[str, Any]:
    """The factorisation of a number of more than 64 bits; may take long (the caller has a deadline)."""
    n = read(text)
    return {"n": _text(n), **_arithmetic(factorise(n))}


def places(n: int) -> list[dict[str, str]]:
    """Where n lies on every curve, in words: [{curve, title, place}]."""
    found: list[tuple[str, str]] = []
    if n >= 1:
        x, y = ulam(n)
        found.append(("ulam", f"x = {_text(x)}, y = {_text(y)}"))
    found.append(("wheel", f"mod 30: {n % 30} · mod 12: {n % 12} · mod 361: {n % 361}"))
    lap, value = divmod(n, clocks.CLOCK_SIZE)
    hour, minute, second, hundredth = (int(d) for d in clocks.clock_digits(value))
    shown = f"{hour:02d}:{minute:02d}:{second:02d}.{hundredth:02d}"
    found.append(("clock-abacus", f"{shown}, lap {_text(lap)}" if lap else shown))
    if n < 1 << 62:
        found += _near(np.array(n, dtype=np.int64))
    titles = {**{name: c.title for name, c in CURVES.items()}, "folded-clock": "Folded clock"}
    order = {name: i for i, name in enumerate(titles)}
    found.sort(key=lambda item: order[item[0]])
    return [{"curve": name, "title": titles[name], "place": place} for name, place in found]


def _near(n: Any) -> list[tuple[str, str]]:
    def polar(points: Any) -> str:
        return f"r = {float(points.radius):.10g}, θ = {np.degrees(float(points.angle)):.6f}°"

    lap, ring, place = (int(v) for v in clocks.ring_clock(n))
    size = clocks.RADICES[ring]
    fold = fold_ticks(np.array(place), size)
    found = [
        ("sacks", polar(spirals.sacks(n))),
        ("archimedes", polar(spirals.archimedes(n))),
        ("vogel", polar(spirals.vogel(n))),
        ("ring-clock", f"lap {lap}, ring {ring + 1} of 4, place {place} of {size}"),
        (
            "folded-clock",
            f"tick {int(fold.value)} of {size // 4}, quadrant {int(fold.quadrant)}, polarity {int(fold.polarity):+d}",
        ),
    ]
    if n >= 1:
        found.append(("crystalline", polar(spirals.crystalline(n))))
    if n < 4**HILBERT_ORDER:
        x, y = CURVES["hilbert"].place(n, Options(start=0))
        found.append(("hilbert", f"column {int(x)}, row {int(y)}"))
    return found


def place(text: str, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The world coordinates of a number on a curve, for jumping there: {n, x, y, pitch}. Raises DomainError.

    pitch: how far its neighbours are, about; None where they are scattered.
    """
    import msgspec

    n, o = read(text), msgspec.convert(options, Options)
    chosen = CURVES[name]
    if n > MAX_N:
        raise DomainError(f"{_text(n)[:40]}: the picture ends at 10^12; its properties are in the inspector")
    if n < least_of(chosen, o):
        raise DomainError(f"{n}: this curve begins at {least_of(chosen, o)}")
    if name == "crystalline-prime":
        return _prime_place(n)
    x, y = chosen.place(np.array([n], dtype=np.int64), o)
    if not (np.isfinite(x[0]) and np.isfinite(y[0])):
        raise DomainError(f"{n}: the formula has no finite value there")
    pitch: float | None = None if chosen.kind == "points" else 1.0
    if chosen.radius is not None:
        pitch = float(chosen.radius(np.array([max(n, 1)], dtype=np.float64))[0]) / 0.37
    return {"n": str(n), "x": float(x[0]), "y": float(y[0]), "pitch": pitch}


def _prime_place(n: int) -> dict[str, Any]:
    from cllm.studio.lattice_curves import PRIME_POINTS

    if not is_prime(n):
        raise DomainError(f"{n}: not a prime; this curve holds the primes alone")
    index = prime_count(n)
    if index > PRIME_POINTS:
        raise DomainError(f"{n}: the {index}th prime; the picture holds the first {PRIME_POINTS}")
    x, y = CURVES["crystalline-prime"].place(np.array([index], dtype=np.int64), Options())
    return {"n": str(n), "x": float(x[0]), "y": float(y[0]), "pitch": None}


def value_at(text: str, expression: str) -> dict[str, Any]:
    """An expression of n at one number, proven: {text, exact, lower, upper} or {error}."""
    sheet = Sheet()
    try:
        sheet.evaluate(f"n = {read(text)}", 20)
        return sheet.evaluate(expression, 20).as_dict()
    except CllmError as error:
        return {"error": str(error)}


def at(name: str, options: dict[str, Any], x: float, y: float, scale: float) -> dict[str, Any]:
    """The number at a point: {n, x, y} or {n: null}. scale: world units a pixel; scattered points answer within 8."""
    import msgspec

    o, chosen = msgspec.convert(options, Options), CURVES[name]
    px, py = np.array([[x]]), np.array([[y]])
    if not np.isfinite((x, y, scale)).all() or max(abs(x), abs(y)) > 2e12:
        return {"n": None}
    if chosen.within is not None:
        near = 8 * scale
        points = chosen.within((x - near, y - near, x + near, y + near), o)
        if not points.n.size:
            return {"n": None}
        best = int(np.argmin((points.x - x) ** 2 + (points.y - y) ** 2))
        return {"n": str(int(points.n[best])), "x": float(points.x[best]), "y": float(points.y[best])}
    assert chosen.inverse is not None
    if chosen.kind == "cells":
        found = chosen.inverse(np.floor(px).astype(np.int64), np.floor(py).astype(np.int64), o)
    else:
        found = chosen.inverse(px, py, o)
    n = int((found.n if chosen.kind == "sectors" else found)[0, 0])
    if not least_of(chosen, o) <= n <= MAX_N:
        return {"n": None}
    wx, wy = chosen.place(np.array([n], dtype=np.int64), o)
    return {"n": str(n), "x": float(wx[0]), "y": float(wy[0])}
