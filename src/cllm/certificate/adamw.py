"""The optimiser's steps t = 1 … 10, each certified from the state that the engine had before it.

Real steps: the engine's gradients on the subject's rows, clipping and the one division as in training. After each, a
sample of entries that covers every tensor is computed exactly in balls from the engine's own w, g, m, v, and compared.
Small t is where bias correction shows. Steps are certified one by one; their chain is not.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from cllm import spec
from cllm.certificate.ledger import Ledger
from cllm.certificate.muon import check_muon
from cllm.certificate.record import MOST, OUTSIDE, AdamWRow, Bad, Certificate, finite
from cllm.certificate.subjects import Subject
from cllm.engine.dispatch import Kernels
from cllm.errors import UsageError
from cllm.spec.balls import Balls, working
from cllm.spec.intervals import Interval, Intervals
from cllm.spec.muon import Muon
from cllm.spec.system import Floats
from cllm.training.groups import rules
from cllm.training.optimiser import gradient_norm, update
from cllm.training.state import State, zero_moments

STEPS = 10
ENTRIES = 4096
BITS = 256


class Sample:
    """The entries of one tensor that are followed."""

    def __init__(self, name: str, size: int, share: int) -> None:
        self.name = name
        self.at = np.unique(np.linspace(0, size - 1, min(size, share)).astype(np.int64))

    def of(self, flat: Mapping[str, Tensor]) -> Floats:
        values: Tensor = flat[self.name].reshape(-1)[torch.from_numpy(self.at)]
        return values.double().numpy()[None, :].copy()

    def index(self, i: int, shape: tuple[int, ...]) -> list[int]:
        return [int(k) for k in np.unravel_index(int(self.at[i]), shape)]


def certify_adamw(
    subject: Subject, kernels: Kernels | None = None, progress: Callable[[int, int], None] | None = None
) -> tuple[list[AdamWRow], int]:
    """One row per step, and how many of AdamW's entries were compared at each. Raises UsageError for SGD."""
    c = subject.config.optim
    if c.name == "sgd":
        raise UsageError("certify --step: optim.name = 'sgd': the steps of AdamW and Muon are what is certified")
    step = subject.engine_step()
    model = step.model
    moments = zero_moments(subject.config, model.layout, model.device)
    state = State(subject.config, model, moments)
    by_name = rules(subject.config, model.layout)
    names = [name for name, rule in by_name.items() if rule.algorithm == "adamw"]
    share = max(16, ENTRIES // len(by_name))
    samples = [Sample(name, step.grads[name].numel(), share) for name in names]
    matrices = [name for name in by_name if name not in names]
    rows = []
    for t in range(1, STEPS + 1):
        step.zero()
        step.accumulate(subject.engine_batch, subject.key)
        norm = gradient_norm(step, c.clip)
        if c.clip_value:
            raise UsageError("certify --step: optim.clip_value is outside the specification; certify with it at 0")
        scale = Fraction(norm.clip / max(step.sums.valid, 1))
        flats = (model.params, step.grads, moments["m"], moments["v"])
        before = [tuple(s.of(flat) for flat in flats) for s in samples]
        whole = {name: [_whole(flat[name]) for flat in flats[:3]] for name in matrices[t - 1 :: STEPS]}
        update(state, step, kernels or step.kernels, c.lr, norm)
        row = _row(subject, state, samples, before, scale, t)
        rows.append(_with_muon(row, subject, state, whole, scale) if whole else row)
        if progress is not None:
            progress(t, STEPS)
    return rows, sum(len(s.at) for s in samples)


def _row(
    subject: Subject, state: State, samples: list[Sample], before: list[tuple[Floats, ...]], scale: Fraction, t: int
) -> AdamWRow:
    c = subject.config.optim
    ledger, worst = Ledger(subject.unit), 0.0
    bad: Bad | None = None
    by_name = rules(subject.config, state.model.layout)
    for sample, (w, g, m, v) in zip(samples, before, strict=True):
        rule = by_name[sample.name]
        grouped = any(fnmatch.fnmatch(sample.name, group.match) for group in c.groups)
        decay = rule.decay if grouped else c.weight_decay if spec.decays(sample.name) else 0.0
        settings = spec.AdamW(t, c.lr * rule.lr, rule.betas, rule.eps, decay)

        with working(BITS):
            S = Balls()
            exact = spec.adamw(S, S.lift(w), S.scale(S.lift(g), scale), S.lift(m), S.lift(v), settings=settings)
            after = [sample.of(flat) for flat in (state.model.params, state.moments["m"], state.moments["v"])]
            gaps = [abs(a - e) / c.lr for a, e in zip(after[0][0].tolist(), exact[0].flat, strict=True)]
            worst = max([worst, *(float(gap.upper()) * (1 + 2.0**-50) if gap.is_finite() else MOST for gap in gaps)])
            middles = [np.array([[float(x) for x in part.flat]]) for part in exact]
            V = Intervals()
            bounds = spec.adamw(V, V.lift(w), V.scale(V.lift(g), scale), V.lift(m), V.lift(v), settings=settings)
            shape = tuple(subject.weights[sample.name].shape)
            for what, engine, middle, bound in zip(("", "m of ", "v of "), after, middles, bounds, strict=True):
                # the balls' middle, rounded to float64, is well inside the radius of the float64 interval
                ledger.value(f"adamw t={t}", f"{what}{sample.name}", engine, Interval(middle, bound.radius()))
                found = ledger.rows[f"adamw t={t}"].bad
                if bad is None and found is not None:
                    i = found.index[1]
                    part = exact[("", "m of ", "v of ").index(what)]
                    bad = Bad(
                        found.tensor, sample.index(i, shape), part.flat[i].str(30), found.engine, found.why, "adamw"
                    )
    return AdamWRow(t, c.lr, finite(worst), ledger.rows[f"adamw t={t}"].used, bad)


def _whole(tensor: Tensor) -> Floats:
    return tensor.double().numpy().copy()


def _with_muon(
    row: AdamWRow, subject: Subject, state: State, before: Mapping[str, list[Floats]], scale: Fraction
) -> AdamWRow:
    """The row with Muon's matrices of this step: another tenth of them each step, whole."""
    c, by_name, where = subject.config.optim, rules(subject.config, state.model.layout), f"muon t={row.t}"
    ledger, worst = Ledger(subject.unit), row.error
    for name, parts in before.items():
        rule = by_name[name]
        after = [_whole(flat[name]) for flat in (state.model.params, state.moments["m"])]
        settings = Muon(c.lr * rule.lr, c.muon_momentum, rule.decay)
        worst = max(worst, check_muon(ledger, where, name, parts, after, scale, settings, state.model.dtype) * rule.lr)
    found = ledger.rows[where]
    return AdamWRow(row.t, row.lr, finite(worst), max(row.used, found.used), row.bad or found.bad)


def add_steps(certificate: Certificate, subject: Subject) -> None:
    """The optimiser's part of a certificate."""
    certificate.adamw, certificate.adamw_entries = certify_adamw(subject)
    faults = [row.bad for row in certificate.adamw if row.bad is not None]
    if faults and certificate.bad is None:
        certificate.bad, certificate.verdict = faults[0], OUTSIDE
