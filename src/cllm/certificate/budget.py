"""The versioned budget: how far an engine of each precision may be from the exact gradient of a step.

The enclosure is proved; the budget is a promise, kept by measurement (docs/certificates.md has the figures behind it).
Units: the rms of the exact gradient of the entry's own tensor, times a condition, which is 1 but for two cases where
the gradient is a small difference of larger terms, whatever the precision:

- A model that is nearly sure (loss < 1): softmax − q is small beside the rounding of softmax. Factor 1/loss.
- Queries and keys (Wq, Wk, bq): softmax' pull-back subtracts a mean from values close to it when attention is nearly
  uniform. What is subtracted has the size that reaches the values. Factor rms(∂Wv)/(10 rms) of the same layer.
"""

from __future__ import annotations

from msgspec import Struct

BUDGET_VERSION = 1
ENOUGH = 1e-12
"""The enclosure's largest radius, in rms: what the working precision is doubled for."""
MOST = 4.0
"""The condition counts so much at most for the `max` line: an entry wrong by 1e-3·rms is always outside."""


class Budget(Struct, frozen=True):
    """max: every entry.  p99: 99 % of the entries.  normwise: every tensor, ‖engine − exact‖/‖exact‖.
    loss: absolute, in nats.  zeros: absolute, where the exact gradient is 0 by structure."""

    max: float
    p99: float
    normwise: float
    loss: float
    zeros: float = 0.0

    def outside(self, over: float, normwise: float, condition: float) -> str:
        """Why a tensor is outside, or nothing. (`not ≤`, so that nan and infinity are outside.)"""
        if not over <= (most := self.max * min(condition, MOST)):
            return f"error {over:.2e}·rms, budget {most:.1e}·rms"
        if not normwise <= (most := self.normwise * condition):
            return f"normwise error {normwise:.2e} of the tensor, budget {most:.1e}"
        return ""


BUDGETS: dict[str, Budget] = {
    "float32": Budget(max=2e-4, p99=1e-5, normwise=1e-5, loss=5e-6),
    "float64": Budget(max=2e-12, p99=2e-14, normwise=2e-14, loss=1e-14),
}


def conditions(loss: float, rms: dict[str, float]) -> dict[str, float]:
    """Tensor → its factor, from a lower bound of the loss and the rms of every tensor's exact gradient."""
    sure = max(1.0, 1.0 / loss) if loss > 0 else float("inf")
    found = dict.fromkeys(rms, sure)
    for name in rms:
        layer, _, last = name.partition(".attn.")
        if last in ("wq", "wk", "bq") and rms[name] > 0:
            found[name] = sure * max(1.0, rms.get(f"{layer}.attn.wv", 0.0) / (10 * rms[name]))
    return found
