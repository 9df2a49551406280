"""The full certificate of one training step: the exact loss and every exact gradient entry, enclosed, and the
engine's numbers held against them.

The exact gradient comes from the forward specification alone, by reverse-mode differentiation in ball arithmetic at
hundreds of bits; the engine's hand-written backward is never consulted. Every figure that leaves here is an upper
bound of the exact figure, rounded up.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, cast

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from cllm import spec
from cllm.certificate import autocast
from cllm.certificate.budget import BUDGET_VERSION, BUDGETS, ENOUGH, Budget, conditions
from cllm.certificate.provenance import NOT_CERTIFIED, assumptions, commit, engine_versions, source_hash
from cllm.certificate.record import (
    OUTSIDE,
    PROVEN,
    REPORTED,
    WITHIN,
    Bad,
    Beside,
    Certificate,
    Entry,
    Loss,
    Quantiles,
    Structural,
    TensorRow,
    finite,
)  # fmt: skip
from cllm.certificate.subjects import Subject
from cllm.certificate.tables import check_tables
from cllm.certificate.zeros import structural
from cllm.errors import CertificateError
from cllm.model.step import Step
from cllm.spec.balls import BallArray
from cllm.spec.gradient import Gradient
from cllm.spec.rounding import radii
from cllm.spec.system import Bools, Floats, System
from cllm.training.optimiser import buffers

DIGITS = 40
SAMPLE = 4
"""Entries of each tensor kept for a re-check, besides the worst."""
MOST_BITS = 3072
VANISHING = 1e-280
"""Only bounds of exact zeros are so small (they carry the allowance for underflow)."""
ENTRY_COST = 200
"""Work of turning one gradient entry into floats, in multiply-adds; for the progress bar only."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class EngineResult:
    """What the engine returned: mean loss and mean gradients as the optimiser uses them, a hash of all of it."""

    name: str
    loss: float
    gradients: dict[str, NDArray[Any]]
    sha256: str
    repeatable: bool


def run_engine(subject: Subject, make: Callable[[], Step] | None = None) -> EngineResult:
    """The engine's step, twice from scratch: equal bits are part of the claim. The gradient sums are divided by the
    number of valid targets in the way of the optimiser, by one multiplication in the engine's precision."""
    make = make or subject.engine_step
    digests = []
    for _ in range(2):
        step = make()
        step.zero()
        sums = step.accumulate(subject.engine_batch, subject.key)
        digest = hashlib.sha256(np.float64(sums.mean).tobytes())
        for part in buffers(step.grads):
            part.data.mul_(1.0 / max(sums.valid, 1))
            digest.update(part.data.view(torch.uint8).numpy().tobytes())
        digests.append(digest.hexdigest())
    gradients = {name: view.numpy() for name, view in step.grads.items()}
    return EngineResult(step.kernels.name, sums.mean, gradients, digests[0], digests[0] == digests[1])


def certify_step(
    subject: Subject,
    *,
    bits: int | None = None,
    engine: EngineResult | None = None,
    system: System[BallArray] | None = None,
    progress: Progress | None = None,
) -> Certificate:
    """The certificate of a subject.

    bits: the working precision; None: 256 for trained weights, 384 for random ones, doubled until every radius is at
    most 1e-12 of its tensor's rms.  engine: another result to judge (default: the engine is run).
    Raises CertificateError when no precision suffices, NonFiniteError for broken weights.
    """
    begin = time.perf_counter()
    engine = engine or run_engine(subject)
    notes: list[str] = []
    if not engine.repeatable:
        notes.append("the engine, run twice, gave different bits")
    system = system or spec.fastest()
    given, now = bits is not None, bits or (256 if subject.trained else 384)
    while True:
        try:
            found = _judge(subject, engine, now, system, progress)
            enough = found.radius_over_rms <= ENOUGH
            why = f"the widest enclosure was {found.radius_over_rms:.1e}·rms"
        except CertificateError as error:
            enough, why = False, str(error)
        if enough:
            break
        if given or 2 * now > MOST_BITS:
            raise CertificateError(
                f"certify: {now} bits do not suffice: {why}; every radius must be ≤ {ENOUGH:.0e}·rms. "
                + ("Leave --precision at auto, or give more" if given else "The weights are too badly conditioned")
            )
        notes.append(f"{now} bits did not suffice ({why}); doubled")
        now *= 2
    said, wrong = check_tables(subject)
    found.notes = notes + found.notes + ([said] if said else [])
    found.assumes = assumptions(accelerated=isinstance(system, spec.FastBalls))
    if wrong is not None:
        found.bad, found.verdict = found.bad or wrong, OUTSIDE
    if not engine.repeatable:
        found.verdict = OUTSIDE
    found.seconds = time.perf_counter() - begin
    return found


def work(subject: Subject) -> int:
    """Multiply-adds of the matrix products of one proof, and the cost of reading its gradients."""
    m, n = subject.config.model, subject.rows * subject.sequence
    weights = m.layers * (4 * m.width**2 + 2 * m.width * m.ff)
    attention = 8 * m.layers * n * subject.sequence * m.width
    head = int(subject.spec_batch.valid_BT.sum()) * m.vocab * m.width
    entries = sum(w.size for w in subject.weights.values())
    return 3 * (n * weights + head) + attention + ENTRY_COST * entries


class _Counting:
    """A number system that reports the multiply-adds of its matrix products, most of a proof's work."""

    def __init__(self, inner: System[BallArray], report: Callable[[int], None]) -> None:
        self._inner, self._report = inner, report

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def mm(self, a: BallArray, b: BallArray) -> BallArray:
        y = self._inner.mm(a, b)
        self._report(a.shape[0] * a.shape[1] * b.shape[1])
        return y

    def call(self, f: Callable[..., BallArray], *args: BallArray) -> BallArray:
        return f(self, *args)


def _judge(
    subject: Subject, engine: EngineResult, bits: int, system: System[BallArray], progress: Progress | None
) -> Certificate:
    """One proof at one precision."""
    done, total = 0, work(subject)

    def report(amount: int) -> None:
        nonlocal done
        done += amount
        if progress is not None:
            progress(min(done, total), total)

    counted = cast("System[BallArray]", _Counting(system, report))
    budget = BUDGETS.get(subject.precision)
    zeros = structural(subject)
    rows: list[TensorRow] = []
    zero_rows: list[Structural] = []
    errors: dict[str, NDArray[np.float32]] = {}
    relative: list[NDArray[np.float32]] = []
    bad: list[Bad] = []
    other = autocast.gradients(subject) if autocast.comparable(subject) else None
    others: list[float] = []
    with spec.enclose(subject.weights, subject.spec_batch, subject.spec_model, bits=bits, system=counted) as exact:
        radius = float(radii([exact.loss])[0])
        loss = Loss(exact.loss.str(DIGITS), radius, finite(engine.loss), finite(exact.loss_error(engine.loss)))
        least = float(exact.loss.lower())
        if budget is not None and not loss.error <= budget.loss:
            bad.append(Bad("loss", [], loss.exact, repr(engine.loss), "the loss is outside its budget"))
        for g in exact.gradients():
            value = engine.gradients[g.name]
            error = g.error(value)
            why, mask = zeros.get(g.name, ("", np.zeros(g.shape, bool)))
            if mask.any():
                zero_rows.append(_structural(g, value, why, mask))
                if not zero_rows[-1].engine_max <= (budget.zeros if budget else np.inf):
                    at = int(np.argmax(np.where(mask, np.abs(value), -1.0)))
                    bad.append(_bad(g, value, at, f"the exact gradient is 0 by structure ({why})"))
            if not mask.all():
                row, over, ratio = _tensor(g, value, error, ~mask)
                rows.append(row)
                errors[g.name] = over
                relative.append(ratio)
                if other is not None:
                    others.append(_tensor(g, other[g.name], g.error(other[g.name]), ~mask)[0].normwise)
            report(ENTRY_COST * g.middle.size)
            del g, error
    found = _assemble(subject, engine, bits, budget, least, loss, rows, zero_rows, errors, relative, bad)
    found.median_normwise = median([row.normwise for row in rows] or [0.0])
    if others:
        found.beside = Beside(autocast.NAME, median(others), max(others))
    return found


def _tensor(
    g: Gradient, engine: NDArray[Any], error: Floats, where: Bools
) -> tuple[TensorRow, NDArray[np.float32], NDArray[np.float32]]:
    """The row of one tensor, and each entry's error over rms and over itself (float32, rounded up)."""
    middle, radius, error = g.middle[where], g.radius[where], error[where]
    least = np.maximum(np.abs(middle) * (1 - 2.0**-51) - radius, 0.0)  # |exact| is at least this
    norm = _below(float(np.sqrt(np.sum(least * least))), least.size)
    rms = norm / math.sqrt(least.size) * (1 - 2.0**-50)
    if norm == 0 and error.max() <= VANISHING:  # 0 after all: every path to this tensor was dropped out, say
        error = radius = np.zeros_like(error)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        over = _ceil32(np.where(error == 0, 0.0, error / rms))
        ratio = _ceil32(np.where(error == 0, 0.0, error / least))
        size = _above(float(np.sqrt(np.sum(error * error))), least.size)
        normwise = 0.0 if size == 0 else _above(float(np.divide(size, norm)), 1)
        widest = 0.0 if not radius.any() else _above(float(np.divide(radius.max(), rms)), 1)
    at = int(np.flatnonzero(where.ravel())[int(np.argmax(error))])
    row = TensorRow(
        name=g.name,
        shape=list(g.shape),
        rms=rms,
        radius_over_rms=finite(widest),
        max_over_rms=finite(float(over.max())),
        normwise=finite(normwise),
        worst=_entry(g, at),
        engine_at_worst=repr(float(engine.flat[at])),
        sample=[_entry(g, i) for i in _places(g.name, engine.size)],
    )
    return row, over, ratio


def _over_budget(
    budget: Budget, least_loss: float, rows: list[TensorRow], errors: dict[str, NDArray[np.float32]]
) -> list[Bad]:
    """Every tensor outside its budget; then, if there is none, the 99 % line."""
    condition = conditions(least_loss, {row.name: row.rms for row in rows})
    bad = [_worst(row, w) for row in rows if (w := budget.outside(row.max_over_rms, row.normwise, condition[row.name]))]
    found = _quantiles([errors[row.name] / np.float32(condition[row.name]) for row in rows])
    if not bad and not found.p99 <= budget.p99:
        row = max(rows, key=lambda r: r.max_over_rms / condition[r.name])
        bad.append(_worst(row, f"99 % of the entries reach {found.p99:.2e}·rms, budget {budget.p99:.0e}·rms"))
    return bad


def _worst(row: TensorRow, why: str) -> Bad:
    return Bad(row.name, row.worst.index, row.worst.exact, row.engine_at_worst, why)


def _structural(g: Gradient, engine: NDArray[Any], why: str, mask: Bools) -> Structural:
    exact = float(g.magnitude()[mask].max())
    size = np.abs(np.asarray(engine, np.float64)[mask])
    return Structural(why, g.name, int(mask.sum()), exact, finite(float(np.nan_to_num(size, nan=np.inf).max())))


def _bad(g: Gradient, engine: NDArray[Any], at: int, why: str) -> Bad:
    found = _entry(g, at)
    return Bad(g.name, found.index, found.exact, repr(float(engine.flat[at])), why)


def _entry(g: Gradient, at: int) -> Entry:
    index = [int(i) for i in np.unravel_index(at, g.shape)]
    return Entry(index, g.entry(*index).str(DIGITS))


def _places(name: str, size: int) -> list[int]:
    """Entries that depend on the tensor's name only, so that two certificates keep the same."""
    words = hashlib.sha256(name.encode()).digest()
    return sorted({int.from_bytes(words[8 * i : 8 * i + 8], "little") % size for i in range(SAMPLE)})


def _ceil32(x: Floats) -> NDArray[np.float32]:
    """float32, never below x; nan becomes infinity."""
    with np.errstate(over="ignore"):
        rounded = np.nextafter(x.astype(np.float32), np.float32(np.inf))
    return np.where(x == 0, np.float32(0), np.where(np.isnan(x), np.float32(np.inf), rounded)).astype(np.float32)


def _above(x: float, n: int) -> float:
    """A bound of the exact value of a sum of n terms ≥ 0, its root or a quotient, computed as x."""
    return x * (1.0 + (n + 8) * 2.0**-52)


def _below(x: float, n: int) -> float:
    return x * (1.0 - (n + 8) * 2.0**-52)


def _quantiles(parts: list[NDArray[np.float32]]) -> Quantiles:
    """The ⌈qn⌉-th smallest: at least that part of the entries is below."""
    if not parts:
        return Quantiles(0.0, 0.0, 0.0, 0.0)
    every = np.concatenate(parts)
    ranks = [max(math.ceil(q * every.size) - 1, 0) for q in (0.5, 0.99, 0.999, 1.0)]
    every.partition(sorted(set(ranks)))
    return Quantiles(*(finite(float(every[r])) for r in ranks))


def _assemble(
    subject: Subject, engine: EngineResult, bits: int, budget: Budget | None, least: float, loss: Loss,
    rows: list[TensorRow], zero_rows: list[Structural], errors: dict[str, NDArray[np.float32]],
    relative: list[NDArray[np.float32]], bad: list[Bad],
) -> Certificate:  # fmt: skip
    if budget is not None:
        bad = bad + _over_budget(budget, least, rows, errors)
    normwise = max(rows, key=lambda r: r.normwise, default=None)
    radius = max((r.radius_over_rms for r in rows), default=0.0)
    noise = [z for z in zero_rows if not z.exact_bound <= 1e-20]
    c = subject.config
    return Certificate(
        date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        enclosure=PROVEN if radius <= ENOUGH and not noise else REPORTED,
        verdict=REPORTED if budget is None else OUTSIDE if bad else WITHIN,
        engine={
            "name": engine.name,
            "precision": subject.precision,
            "commit": commit(),
            "source_sha256": source_hash("engine", "model"),
            "result_sha256": engine.sha256,
            "repeatable": engine.repeatable,
            **engine_versions(),
        },
        spec={"source_sha256": source_hash("spec")},
        hashes=subject.hashes(),
        subject={
            **subject.source,
            "rows": subject.rows,
            "sequence": subject.sequence,
            "tokens": subject.rows * subject.sequence,
            "valid": int(subject.spec_batch.valid_BT.sum()),
            "parameters": sum(w.size for w in subject.weights.values()),
            "step": subject.step,
            "first_row": subject.first_row,
            "trained": subject.trained,
            "tokens_BT1": subject.tokens_BT1.tolist(),
            "documents_BT1": subject.documents_BT1.tolist(),
            "model": msgspec.json.decode(msgspec.json.encode(c.model)),
        },
        bits=bits,
        loss=loss,
        entries=sum(w.size for w in subject.weights.values()),
        radius_over_rms=radius,
        errors=_quantiles(list(errors.values())),
        relative=_quantiles(relative),
        worst_normwise=normwise.normwise if normwise else 0.0,
        worst_tensor=normwise.name if normwise else "",
        structural=zero_rows,
        tensors=rows,
        budget={"version": BUDGET_VERSION, **(msgspec.to_builtins(budget) if budget else {})},
        bad=bad[0] if bad else None,
        assumes=[],
        not_certified=list(NOT_CERTIFIED),
    )
