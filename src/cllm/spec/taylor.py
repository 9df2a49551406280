"""exp, log, tanh and erf of float64 arrays with proven error bounds, from Taylor polynomials with Arb's coefficients.

On each cell |x − c| ≤ w/2 around a node c = j·w (w a power of two) the function is Σ_{i≤n} a_i (x − c)^i + R. Arb
encloses the a_i at c, and a_{n+1} over the whole cell, which bounds R (Lagrange). The polynomial is evaluated by
Horner's rule in float64, whose error is at most γ_{2n+1} Σ|a_i||x − c|^i (Higham, "Accuracy and Stability", §5.1).
The sum of the three bounds is tabulated per node, so that no accuracy of any library function is assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from flint import arb, arb_series, ctx

from cllm.spec.rounding import TINY, up
from cllm.spec.system import Floats

U = 2.0**-53
DEGREE = 8


class Table:
    """f on the cells of width w (a power of two) that cover [low, high]; f maps an Arb power series to another."""

    def __init__(self, f: Callable[[Any], Any], low: float, high: float, w: float) -> None:
        self.w, self.first = w, round(low / w)
        nodes = [arb(j) * w for j in range(self.first, round(high / w) + 1)]
        with _precision(128):
            at = [_coefficients(f, c) for c in nodes]
            last = [_coefficients(f, arb(c, w / 2))[DEGREE + 1] for c in nodes]
            rounded = [[float(a) for a in row[: DEGREE + 1]] for row in at]
            errors = [self._error(*row) for row in zip(at, rounded, last, strict=True)]
        self.coefficients = np.array(rounded).T.copy()
        self.error = upper(errors)

    def _error(self, exact: list[arb], rounded: list[float], last: arb) -> arb:
        """Rounding of the coefficients + Horner's rule + Lagrange's remainder."""
        h = arb(self.w) / 2
        bound = abs(last) * h ** (DEGREE + 1) + 4 * DEGREE * arb(TINY)
        for i, c in enumerate(rounded):
            horner = (2 * DEGREE + 2) * U if i else 2 * U  # only the last addition touches the constant term
            bound += (abs(exact[i] - c) + abs(arb(c)) * horner) * h**i
        return bound

    def __call__(self, x: Floats) -> tuple[Floats, Floats]:
        """(value, error bound); x must lie within the range."""
        j = np.rint(x / self.w)
        d = x - j * self.w  # exact (Sterbenz: within a factor of two of each other, or j = 0)
        cell = j.astype(np.int64) - self.first
        y = self.coefficients[DEGREE][cell]
        for a in self.coefficients[DEGREE - 1 :: -1]:
            y *= d
            y += a[cell]
        return y, self.error[cell]


def _coefficients(f: Callable[[Any], Any], c: arb) -> list[arb]:
    """The Taylor coefficients 0 … DEGREE + 1 of f at c, or enclosures of them over all of the ball c."""
    found = f(arb_series([c, 1])).coeffs()
    return list(found) + [arb(0)] * (DEGREE + 2 - len(found))


@contextmanager
def _precision(bits: int) -> Iterator[None]:
    before = ctx.prec, ctx.cap
    ctx.prec, ctx.cap = bits, DEGREE + 2
    try:
        yield
    finally:
        ctx.prec, ctx.cap = before


def upper(bounds: list[arb]) -> Floats:
    """Upper bounds of the balls as float64."""
    return up(np.array([abs(float(b.abs_upper())) for b in bounds]), 2)


@cache
def _exp_tables() -> tuple[Table, Floats, Floats]:
    with _precision(128):
        exact = [arb(n).exp() for n in range(-745, 710)]
        whole = [float(e) for e in exact]
        error = upper([e - w for e, w in zip(exact, whole, strict=True)])
    return Table(lambda s: s.exp(), -0.5, 0.5, 1 / 32), np.array(whole), error


def exp(x: Floats) -> tuple[Floats, Floats]:
    """e^x = e^n·e^(x−n) with n = round(x). Above 709 the bound is infinite; below −745 the value is 0 ± TINY."""
    table, whole, whole_error = _exp_tables()
    inside = (x >= -745.0) & (x <= 709.0)
    z = np.where(inside, x, 0.0)
    n = np.rint(z)
    y, error = table(z - n)  # exact, as in Table
    cell = n.astype(np.int64) + 745
    w = whole[cell]
    value = y * w
    bound = up(U * value + np.abs(y) * whole_error[cell] + error * (w + whole_error[cell]), 5)
    outside = np.where(x < -745.0, TINY, np.inf)
    return np.where(inside, value, 0.0), np.where(inside, bound, outside)


@cache
def _log_tables() -> tuple[Table, float, float]:
    with _precision(128):
        ln2 = arb(2).log()
        error = float(upper([ln2 - float(ln2)])[0])
    return Table(lambda s: s.log(), 0.75, 1.5, 1 / 128), float(ln2), error


def log(x: Floats) -> tuple[Floats, Floats]:
    """ln x = e·ln 2 + ln m with x = m·2^e, ¾ ≤ m < 1½. The bound is infinite unless 0 < x < ∞."""
    table, ln2, ln2_error = _log_tables()
    inside = (x > 0.0) & (x < np.inf)
    m, e = np.frexp(np.where(inside, x, 1.0))
    small = m < 0.75
    m, e = np.where(small, 2 * m, m), (e - small).astype(np.float64)
    y, error = table(m)
    whole = e * ln2
    value = whole + y
    bound = up(U * np.abs(value) + U * np.abs(whole) + np.abs(e) * ln2_error + error, 5)
    return np.where(inside, value, 0.0), np.where(inside, bound, np.inf)


def _saturating(table: Table, low: float, beyond: float, x: Floats) -> tuple[Floats, Floats]:
    """An odd function that rises to 1: ±1 within `beyond` outside [−low, low]."""
    inside = np.abs(x) <= low
    y, error = table(np.where(inside, x, 0.0))
    return np.where(inside, y, np.sign(x)), np.where(inside, error, np.where(np.isnan(x), np.inf, beyond))


@cache
def _tanh_table() -> tuple[Table, float]:
    with _precision(128):
        beyond = float(upper([1 - arb(20).tanh()])[0])
    return Table(lambda s: 1 - 2 / ((2 * s).exp() + 1), -20.0, 20.0, 1 / 64), beyond


def tanh(x: Floats) -> tuple[Floats, Floats]:
    table, beyond = _tanh_table()
    return _saturating(table, 20.0, beyond, x)


@cache
def _erf_table() -> tuple[Table, float]:
    with _precision(128):
        beyond = float(upper([1 - arb(6).erf()])[0])
    return Table(lambda s: s.erf(), -6.0, 6.0, 1 / 32), beyond


def erf(x: Floats) -> tuple[Floats, Floats]:
    table, beyond = _erf_table()
    return _saturating(table, 6.0, beyond, x)
