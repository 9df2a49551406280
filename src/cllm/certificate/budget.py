"""The versioned budget: how far an engine of each precision may be from the exact gradient of a step.

The enclosure is proved; the budget is a promise, kept by measurement (docs/certificates.md says how it was chosen).
Units: the rms of the exact gradient of the entry's own tensor; for the loss, the exact loss.
"""

from __future__ import annotations

from msgspec import Struct

BUDGET_VERSION = 1
ENOUGH = 1e-12
"""The enclosure's largest radius, in rms: what the working precision is doubled for."""


class Budget(Struct, frozen=True):
    """max: every entry.  p99: 99 % of the entries.  normwise: every tensor.  loss: relative.  zeros: absolute, where
    the exact gradient is 0 by structure."""

    max: float
    p99: float
    normwise: float
    loss: float
    zeros: float = 0.0


BUDGETS: dict[str, Budget] = {
    "float32": Budget(max=2e-4, p99=3e-6, normwise=3e-6, loss=1e-6),
    "float64": Budget(max=2e-12, p99=1e-14, normwise=1e-14, loss=2e-15),
}
