"""Muon's part of the step certificate: whole matrices, each round of the iteration held against its own exact value.

The rounds magnify an error by up to 4.2 each (docs/derivations/muon.md), so a budget for all five at once would forgive
too much. Instead every link is certified by itself, from the engine's own numbers before it: the momentum, X₀, each
round, and the weight from X₅, entry by entry within the a-priori budget of the ledger. Besides, the whole step is
computed exactly in balls, and its distance reported.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch

from cllm.certificate.ledger import Ledger
from cllm.certificate.record import MOST
from cllm.engine import muon as engine
from cllm.errors import UsageError
from cllm.spec import muon as specification
from cllm.spec.balls import BallArray, Balls, working
from cllm.spec.intervals import Intervals
from cllm.spec.system import Floats

BITS = 192
WIDEST = 256  # of the smaller side: above, the balls take minutes a matrix


def check_muon(
    ledger: Ledger,
    where: str,
    name: str,
    before: Sequence[Floats],
    after: Sequence[Floats],
    scale: Fraction,
    settings: specification.Muon,
    dtype: torch.dtype,
) -> float:
    """Hold one matrix's step against its exact values; returns the largest |Δw error|/lr of the whole step.

    before: the engine's w, g, m, [out, in].  after: its w, m.  scale: the step's one division times the clip factor.
    """
    rows, columns = before[0].shape
    if min(rows, columns) > WIDEST:
        raise UsageError(f"certify --step: {name} is {rows}×{columns}: Muon is certified up to {WIDEST} on one side")
    _, g, m = (torch.from_numpy(part).to(dtype, copy=True) for part in before)
    direction = engine.look_ahead(g, m, settings.momentum, float(scale))
    computed = [x.double().numpy() for x in engine.iterates(direction)]
    V = Intervals()
    vw, vg, vm = (V.lift(part) for part in before)
    new_m, d = specification.momentum(V, V.scale(vg, scale), vm, settings.momentum)
    ledger.value(where, f"m of {name}", after[1], new_m)
    ledger.value(where, f"direction of {name}", direction.double().numpy(), d)
    first = next(iter(specification.iterates(V, V.lift(direction.double().numpy()))))
    ledger.value(where, f"start of {name}", computed[0], first)
    for given, found in itertools.pairwise(computed):
        ledger.value(where, f"round of {name}", found, specification.one_round(V, V.lift(given)))
    ledger.value(where, name, after[0], specification.descend(V, vw, V.lift(computed[-1]), settings))
    with working(BITS):
        S = Balls()
        w, gradient, momentum = (S.lift(part) for part in before)
        exact, _ = specification.muon(S, w, S.scale(gradient, scale), momentum, settings=settings)
        error = float(np.abs(after[0] - _floats(exact)).max(initial=0.0)) / settings.lr
    return error if np.isfinite(error) else MOST


def _floats(a: BallArray) -> Floats:
    return np.array([float(x) for x in a.flat]).reshape(a.shape)
