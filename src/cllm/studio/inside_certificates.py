"""The certificates of a run: the files that `cllm certify` wrote, and jobs that write another."""

from __future__ import annotations

import re
import signal
from typing import Any

import msgspec

from cllm.certificate.budget import BUDGETS, Budget, conditions
from cllm.certificate.record import OUTSIDE, REPORTED, WITHIN, Certificate, read
from cllm.certificate.statement import statement
from cllm.errors import CllmError, CorruptError, UsageError
from cllm.studio.jobs import Jobs, plain
from cllm.studio.workspace import Workspace

NAME = re.compile(r"certificate-[\w-]{1,200}\.json", re.ASCII)
MOST = 50  # the newest of a run
LARGEST = 64 << 20  # bytes of a file
QUIET = (0, 1, 130, -signal.SIGINT)  # 1: not certified, its certificate says why; stopped, by itself or by the system
_PROGRESS = re.compile(r"^progress \S+ (\d+\.\d+)$", re.MULTILINE)


def listed(workspace: Workspace, run: str) -> list[dict[str, Any]]:
    """The certificates in a run's folder, newest first; one that cannot be read says why."""
    names = [path.name for path in workspace.run(run).glob("certificate-*.json") if NAME.fullmatch(path.name)]
    found = []
    for name in names:
        try:
            path = workspace.resolve(f"{run}/{name}")
            changed = path.stat().st_mtime
        except (CllmError, OSError):
            continue  # a link out of the workspace, or just gone
        found.append((changed, name))
    told = []
    for changed, name in sorted(found, reverse=True)[:MOST]:
        try:
            told.append({"name": name, "changed": changed} | _short(_read(workspace, run, name)))
        except CllmError as error:
            told.append({"name": name, "changed": changed, "error": str(error)})
    return told


def _short(c: Certificate) -> dict[str, Any]:
    return {
        "ok": c.ok,
        "enclosure": c.enclosure,
        "verdict": c.verdict,
        "date": c.date,
        "step": c.subject.get("step"),
        "checkpoint": c.subject.get("checkpoint"),
        "tokens": c.subject.get("tokens"),
        "precision": c.engine.get("precision"),
        "worst": c.worst_normwise,
        "adamw": c.adamw is not None,
    }


def _read(workspace: Workspace, run: str, name: str) -> Certificate:
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r}: expected a certificate's name as in certificate-step00000400-64t-….json")
    workspace.run(run)
    path = workspace.resolve(f"{run}/{name}")
    if path.stat().st_size > LARGEST:
        raise CorruptError(f"{name}: larger than {LARGEST >> 20} MB; no certificate of this version is")
    return read(path)


def shown(workspace: Workspace, run: str, name: str) -> dict[str, Any]:
    """One certificate: its figures, its statement, and for each tensor the budget and the verdict."""
    c = _read(workspace, run, name)
    told = _short(c) | {
        "name": name,
        "statement": statement(c),
        "engine": {key: c.engine.get(key) for key in ("name", "commit", "repeatable")},
        "hashes": c.hashes | {"spec": c.spec.get("source_sha256", "")},
        "parameters": c.subject.get("parameters"),
        "bits": c.bits,
        "seconds": c.seconds,
        "loss": msgspec.to_builtins(c.loss),
        "entries": c.entries,
        "radius": c.radius_over_rms,
        "errors": msgspec.to_builtins(c.errors),
        "relative": msgspec.to_builtins(c.relative),
        "beside": msgspec.to_builtins(c.beside),
        "steps": msgspec.to_builtins(c.adamw),
        "bad": msgspec.to_builtins(c.bad),
        "budget": c.budget,
        "structural": msgspec.to_builtins(c.structural),
    }
    return told | {"tensors": judged(c)}


def judged(c: Certificate) -> list[dict[str, Any]]:
    """Each tensor's row with the verdict of the budget that the certificate was judged by."""
    fields = {key: value for key, value in c.budget.items() if key in Budget.__struct_fields__}
    budget = msgspec.convert(fields, Budget) if set(BUDGETS["float32"].__struct_fields__) <= fields.keys() else None
    least = _middle(c.loss.exact) - c.loss.radius
    factor = conditions(least, {row.name: row.rms for row in c.tensors})
    rows = []
    for row in c.tensors:
        why = budget.outside(row.max_over_rms, row.normwise, factor[row.name]) if budget else ""
        rows.append(
            {
                "name": row.name,
                "shape": row.shape,
                "verdict": REPORTED if budget is None else OUTSIDE if why else WITHIN,
                "why": why,
                "rms": row.rms,
                "radius": row.radius_over_rms,
                "max": row.max_over_rms,
                "normwise": row.normwise,
                "allowed": None if budget is None else budget.normwise * factor[row.name],
                "worst": row.worst.index,
                "exact": row.worst.exact,
                "engine": row.engine_at_worst,
            }
        )
    return rows


def _middle(ball: str) -> float:
    """The middle of FLINT's "[middle +/- radius]"."""
    try:
        return float(ball.strip("[] ").partition(" ")[0])
    except ValueError:
        raise CorruptError(f"a certificate's loss reads {ball[:60]!r}, which is no ball") from None


def arguments(run: str, checkpoint: str, tokens: int, *, step: bool) -> list[str]:
    """Those of `cllm certify`, in the workspace."""
    return [plain(run), "--checkpoint", checkpoint, "--tokens", str(tokens), *(["--step"] if step else [])]


def job(jobs: Jobs, run: str) -> dict[str, Any] | None:
    """The newest certification of a run: its state, how far it is (0 … 1), and what it said when it failed."""
    found = jobs.of(run)
    if found is None:
        return None
    steps = _PROGRESS.findall(jobs.log(run)) if found.state != "ended" else []
    return {
        "id": found.id,
        "state": found.state,
        "code": found.code,
        "command": found.command,
        "time": found.time,
        "progress": float(steps[-1]) if steps else 0.0,
        "error": found.error if found.code not in QUIET else None,
    }
