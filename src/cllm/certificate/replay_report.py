"""`cllm replay`: a step again in its own format, in float64 and, where it is small, in balls; and what that says."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cllm.certificate.replay import InBalls, affordable, in_balls
from cllm.errors import CllmError
from cllm.training.replay import LARGEST, Replayed, Seen
from cllm.training.replay import replay as run_again

SHOWN = 14
"""Ops in the printed table: those up to where the format gave out, and a few behind."""


@dataclass(frozen=True)
class Replay:
    """A step run again. `str()` is the report; `ok` is False when a step that the guard refused is finite now.

    replayed: what the engine computed, in both formats.  balls: the true values, or None.  why_not: why there are none.
    """

    replayed: Replayed
    balls: InBalls | None
    why_not: str

    @property
    def ok(self) -> bool:
        refused = self.replayed.source.startswith("nonfinite-")
        return (
            not refused or not math.isfinite(self.replayed.native.loss) or not math.isfinite(self.replayed.native.norm)
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; numbers that JSON has no word for are the strings NaN, Infinity and -Infinity."""
        r = self.replayed
        exact = {seen.name: seen for seen in r.exact.ops}
        ops = [
            {
                "op": seen.name,
                "largest": seen.largest,
                "bad": seen.bad,
                "of": seen.of,
                "largest_float64": exact[seen.name].largest,
                "bad_float64": exact[seen.name].bad,
                "over_limit": exact[seen.name].largest / self._limit,
            }
            for seen in r.native.ops
        ]
        found = {
            "step": r.step,
            "source": r.source,
            "precision": r.config.precision,
            "limit": self._limit,
            "ok": self.ok,
            "broken_parameter": r.broken,
            "gave_out": None if r.native.first_bad is None else r.native.first_bad.name,
            "gave_out_float64": None if r.exact.first_bad is None else r.exact.first_bad.name,
            "loss": r.native.loss,
            "loss_float64": r.exact.loss,
            "grad_norm": r.native.norm,
            "grad_norm_float64": r.exact.norm,
            "ops": ops,
            "balls": None if self.balls is None else asdict(self.balls),
            "verdict": self.verdict(),
        }
        return {key: _plain(value) for key, value in found.items()}

    @property
    def _limit(self) -> float:
        return LARGEST[self.replayed.config.precision]

    def __str__(self) -> str:
        r = self.replayed
        rows, columns = r.tokens_RT1.shape
        head = f"step {r.step + 1} again ({r.source}): {rows} rows of {columns - 1} tokens, {r.config.precision}"
        lines = [head, "", *self._table(), ""]
        lines.append(f"loss {r.native.loss:.6g} in {r.config.precision}, {r.exact.loss:.10g} in float64")
        lines.append(f"gradient norm {r.native.norm:.6g} in {r.config.precision}, {r.exact.norm:.6g} in float64")
        if self.balls is not None:
            lines += ["", *self._proven()]
        elif self.why_not:
            lines.append(self.why_not)
        return "\n".join([*lines, "", *self.verdict()])

    def _table(self) -> list[str]:
        r, name = self.replayed, self.replayed.config.precision
        exact = {seen.name: seen for seen in r.exact.ops}
        ops = list(r.native.ops)
        at = next((i for i, seen in enumerate(ops) if seen.bad), None)
        if at is None:  # nothing gave out: the largest ones
            shown = sorted(ops, key=lambda seen: -seen.largest)[:SHOWN]
            title = f"the {len(shown)} ops with the largest values of {len(ops)}"
        else:
            first = max(0, at - SHOWN + 4)
            shown, title = ops[first : at + 4], f"ops {first + 1} to {min(at + 4, len(ops))} of {len(ops)}"
        width = max(len(seen.name) for seen in shown)
        lines = [f"{title}; |value| at most, and as a part of {name}'s largest number, {self._limit:.3g}:"]
        lines.append(f"  {'op':<{width}}  {'in ' + name:>24}  {'in float64':>12}  {'of the range':>12}")
        for seen in shown:
            wide = exact[seen.name]
            wide_text = f"{wide.largest:.3g}" if not wide.bad else _count(wide)
            native = f"{seen.largest:.3g}" if not seen.bad else _count(seen)
            lines.append(f"  {seen.name:<{width}}  {native:>24}  {wide_text:>12}  {wide.largest / self._limit:>12.2g}")
        return lines

    def _proven(self) -> list[str]:
        b = self.balls
        assert b is not None
        lines = [f"row {b.row} in balls of {b.bits} bits, without limits: loss {b.loss}; largest true |value|:"]
        top = sorted(b.parts, key=lambda part: -part.log10)[:5]
        lines += [f"  {part.name:<14} {part.largest:>10}  in {part.primitive}" for part in top]
        return [*lines, f"  largest gradient entry {b.gradient}, in {b.tensor}"]

    def verdict(self) -> list[str]:
        """Sentences: whether and where the format gave out, and how large the true values are against its range."""
        r, name = self.replayed, self.replayed.config.precision
        bad = r.native.first_bad
        if r.broken is not None:
            first = f"The parameter {r.broken} is not finite before the step: the update before it made it so. "
            return [first + "Run an earlier step again with --step, or start from an earlier checkpoint."]
        if bad is None:
            top = max(r.native.ops, key=lambda seen: seen.largest)
            part = top.largest / self._limit
            fine = (
                f"Every op is finite in {name}; the largest value, {top.largest:.3g} in {top.name}, is {part:.2g} of "
            )
            again = [] if self.ok else ["The guard refused this step: here and now it does not fail again."]
            return [fine + "the range.", *again]
        wide = {seen.name: seen for seen in r.exact.ops}[bad.name]
        said = [f"{name} gave out in {bad.name}: {_count(bad)} values are not finite."]
        if wide.bad:
            said.append(f"float64 gives out there, too ({_count(wide)}).")
        elif wide.largest > self._limit:
            said.append(
                f"The true results reach {wide.largest:.3g}, {wide.largest / self._limit:.3g} times {name}'s largest "
                "number: no way of computing them would fit."
            )
        else:
            said.append(
                f"The true results reach only {wide.largest:.3g} and would fit: a value within the op went over the "
                f"range{self._culprit(bad)}."
            )
        return said

    def _culprit(self, bad: Seen) -> str:
        if self.balls is None:
            return ""
        part = next((p for p in self.balls.parts if p.name == bad.name), None)
        if part is None or part.log10 <= math.log10(self._limit):
            return ""
        return f" (in balls: its {part.primitive} reaches {part.largest})"


def replay(
    run: str | Path, *, step: int | None = None, batch: str | Path | None = None, balls: bool | None = None
) -> Replay:
    """Run one step of a run again: in its own format, in float64 and in balls.

    run: a run directory.  step: that behind checkpoint step-N; None: the one that the guard refused.  batch: a file
    that the guard wrote; None: the newest.  balls: None does them where they take seconds.
    Nothing is updated or written. Raises RunError, CorruptError.
    """
    replayed = run_again(Path(run), step=step, batch=None if batch is None else Path(batch))
    if balls is False or (balls is None and not affordable(replayed)):
        why = "" if balls is False else "too large for balls in seconds: --balls does them anyway"
        return Replay(replayed, None, why)
    if replayed.broken is not None:
        return Replay(replayed, None, "")
    try:
        return Replay(replayed, in_balls(replayed), "")
    except CllmError as error:
        return Replay(replayed, None, f"no balls: {error}")


def _count(seen: Seen) -> str:
    return f"{seen.bad:,} of {seen.of:,}"


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value
