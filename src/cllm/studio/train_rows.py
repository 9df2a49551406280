"""A run as the screen Train lists it: its figures, its state, and that in a few words."""

from __future__ import annotations

from typing import Any

from cllm.studio.jobs import Job
from cllm.studio.store import Listed
from cllm.studio.summary import Summary


def unwritten(name: str) -> Listed:
    """A run whose job has not written anything yet."""
    return Listed(name, "", None, {}, Summary(), 0)


def row(run: Listed, job: Job | None) -> dict[str, Any]:
    """What the list and the head of a run's page show."""
    s = run.summary
    state, word = state_of(run, job)
    loss, score = (s.metrics.get(key) for key in ("step.loss", "eval.loss"))
    return {
        "name": run.name,
        "preset": run.preset,
        "state": state,
        "words": word,
        "step": s.step,
        "steps": s.steps or run.settings.get("train.steps"),
        "tokens": s.tokens,
        "parameters": s.parameters,
        "loss": loss.last if loss else None,
        "best": score.low if score else None,
        "best_step": score.low_step if score else None,
        "bits": bits.last
        if (bits := s.metrics.get("final.bits_per_byte") or s.metrics.get("eval.bits_per_byte"))
        else None,
        "tokens_per_s": s.rate,
        "curve": s.curve,
        "alerts": s.alerts,
        "samples": s.samples,
        "checkpoints": s.checkpoints,
        "metrics": sorted(s.metrics),
        "changed": max(run.changed / 1e9, job.time if job else 0.0),
        "began": s.began,
        "seen": s.seen,
    }


def state_of(run: Listed, job: Job | None) -> tuple[str, str]:
    """One of running, paused, stopping, starting, done, stopped, failed, and a few words."""
    s = run.summary
    if job is not None and job.state != "ended":
        if job.state == "paused":
            return "paused", "paused; it stays in memory"
        if job.state == "stopping":
            return "stopping", "finishing its step and saving"
        begun = s.seen is not None and s.seen >= job.time - 1 and s.stopped is None
        return ("running", "running") if begun else ("starting", "preparing data and model")
    if s.stopped == "non-finite":
        return "failed", "a value was not finite; the update was refused, and the state before it is saved"
    if job is not None and job.error and (s.seen is None or s.seen <= job.time or s.stopped in (None, "non-finite")):
        return "failed", job.error
    if s.stopped is None:
        if run.problem:
            return "failed", run.problem
        return "stopped", "ended without a last word: killed, or the machine went off; resume it"
    if s.stopped in ("done", "early stop"):
        return "done", "all steps made" if s.stopped == "done" else "stopped early: no progress in validation"
    return "stopped", "stopped and saved; resume it whenever you like"
