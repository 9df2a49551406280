"""What an op-local certificate checked, entry by entry, against a priori error budgets.

The budget of an entry is C·(u/2⁻⁵³)·r, u the unit roundoff of the kernel's precision, r the radius of the float64
interval that encloses the exact value. That radius is made of exactly the terms of a rounding-error analysis of the
op's specification: (n + 1)·2⁻⁵³·Σ|terms| for a sum or product of length n in any order, 2⁻⁵³ of the result for any
other operation, each carried through the rest of the op by its derivative (`spec.intervals`). It is linear in the
unit roundoff, so that a computation in a precision with roundoff u may lose u/2⁻⁵³ times as much. C = 8 covers what
the kernels do in another way than the specification's formula (docs/certificates.md goes through them op by op).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cllm.certificate.record import MOST, Bad, OpRow, finite
from cllm.spec.intervals import Interval

C = 8.0
FLOOR = {2.0**-53: 2.0**-1000, 2.0**-24: 2.0**-106, 2.0**-11: 2.0**-14, 2.0**-8: 2.0**-106}
"""Allowed besides, for results near underflow (unit roundoff → absolute)."""


class Ledger:
    """Collects what was checked, op by op, and the first fault of each."""

    def __init__(self, unit: float) -> None:
        self.scale, self.floor = C * unit / 2.0**-53, FLOOR[unit]
        self.rows: dict[str, OpRow] = {}
        self.first: Bad | None = None  # in time

    def value(self, op: str, tensor: str, engine: Any, exact: Interval) -> None:
        """Hold the engine's numbers against an enclosure, entry by entry."""
        got = np.asarray(engine).reshape(exact.mid.shape)
        rad = exact.radius()
        with np.errstate(all="ignore"):
            error = np.abs(got - exact.mid)
            error += rad
            allowed = rad * self.scale
            allowed += self.floor
            used = np.divide(error, allowed, out=error)
        worst = float(used.max(initial=0.0))
        bad = None
        if not worst <= 1.0:
            at = tuple(int(i) for i in np.unravel_index(int(np.argmax(np.where(used <= 1.0, 0.0, 1.0))), used.shape))
            text = f"{exact.mid[at]:.17g} +/- {rad[at]:.2e}"
            why = f"error {float(used[at]):.3g} times the a-priori budget of this op"
            if not np.isfinite(rad[at]):
                why = "the enclosure is unbounded here: a quotient, root or logarithm reaches 0"
            bad = Bad(tensor, list(at), text, repr(float(got[at])), why, op)
        self._add(op, got.size, finite(worst), bad)

    def wire(self, op: str, tensor: str, given: Any, expected: Any) -> None:
        """What the op was given must be bit for bit what is expected."""
        a, b = np.asarray(given), np.asarray(expected)
        if a.shape == b.shape and np.array_equal(a, b):
            self._add(op, 0, 0.0, None)
            return
        index: list[int] = []
        got, wanted = f"shape {a.shape}", f"shape {b.shape}"
        if a.shape == b.shape:
            at = np.unravel_index(int(np.argmax(a != b)), a.shape)
            index, got, wanted = [int(i) for i in at], repr(a[at].item()), repr(b[at].item())
        self._add(op, 0, MOST, Bad(tensor, index, wanted, got, "not what the ops before it give", op))

    def fault(self, op: str, why: str) -> None:
        self._add(op, 0, MOST, Bad("", [], "", "", why, op))

    def _add(self, op: str, entries: int, used: float, bad: Bad | None) -> None:
        self.first = self.first or bad
        old = self.rows.get(op, OpRow(op, 0, 0.0))
        self.rows[op] = OpRow(op, old.entries + entries, max(old.used, used), old.bad or bad)
