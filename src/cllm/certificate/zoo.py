"""The zoo: every mutant put through the full, the op-local and the optimiser's certificate, and beside them through
`torch.autograd.gradcheck`; and the healthy engine through all of the tester's inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

from cllm import config as settings
from cllm.certificate.adamw import certify_adamw
from cllm.certificate.full import certify_step, run_engine
from cllm.certificate.mutants import ZOO, Mutant
from cllm.certificate.peers import torch_gradcheck
from cllm.certificate.subjects import Subject, random
from cllm.certificate.watch import watch
from cllm.engine.dispatch import Kernels
from cllm.model.step import Step

TINY: dict[str, Any] = {
    "model.layers": 2, "model.width": 12, "model.heads": 2, "model.ff": 20, "model.vocab": 23, "model.context": 13,
    "train.sequence": 13,
}  # fmt: skip
SCENES: dict[str, dict[str, Any]] = {
    "padded": {},
    "unpadded": {},
    "one token": {"model.context": 1, "train.sequence": 1},
    "dropout": {"model.dropout": 0.25, "model.attention_dropout": 0.125},
    "documents": {"data.document_mask": True},
    "smoothed": {"train.label_smoothing": 0.1},
    "untied erf": {"model.tied": False, "model.activation": "gelu_erf"},
}
"""The tester's inputs, all at perturbed weights, T = 13 or 1, with repeated tokens."""
BITS = 256


def scene(name: str, precision: str = "fp64", seed: int = 1) -> Subject:
    overrides = {**TINY, **SCENES["padded" if name == "adamw" else name], "precision": precision, "seed": seed}
    config = settings.load(preset="nano", overrides=overrides)
    return random(config, 1 if name == "one token" else 3, padded=name not in ("unpadded", "one token"))


class Finding(Struct, frozen=True):
    """What became of a mutant (or of the healthy engine: mutant = "")."""

    mutant: str
    scene: str
    precision: str
    expected: str
    found: bool
    error: float  # worst |engine − exact|/rms of the full certificate; of the optimiser: in lr
    op: str | None  # the first op that the op-local certificate names
    localised: bool
    gradcheck: str


def kind(op: str) -> str:
    """The op's name in the registry, from its place in the step."""
    last = op.split(".")[-1]
    if op.startswith("residual"):
        return "residual"
    if last in ("ln1", "ln2", "lnf"):
        return "layernorm"
    if op.startswith("head") or last in ("qkv", "wo", "w1", "w2"):
        return "linear"
    names = {"attn": "attention", "drop": "dropout"}
    return "cross_entropy" if op.startswith("loss") else names.get(last, last)


def examine(mutant: Mutant | None, name: str, precision: str = "fp64", *, full: bool = True) -> Finding:
    """Put one mutant (None: the healthy engine) through the certificates on one scene."""
    subject = scene(name, precision)
    healthy = subject.engine_step().kernels
    step = mutant.step if mutant else Step

    def made() -> Kernels:
        return mutant.kernels(healthy) if mutant else healthy

    label, expected = (mutant.name, mutant.op) if mutant else ("", "")
    beside = torch_gradcheck(mutant) if mutant else "—"
    if name == "adamw":
        rows, _ = certify_adamw(subject, made())
        bad = any(row.bad is not None for row in rows)
        worst = max(row.error for row in rows)
        return Finding(label, name, precision, expected, bad, worst, "adamw" if bad else None, bad, beside)
    first = watch(subject, made(), step).first
    op = first.op if first else None
    if not full:
        return Finding(label, name, precision, expected, op is not None, 0.0, op, _hit(op, expected), beside)
    engine = run_engine(subject, lambda: subject.engine_step(made(), step))
    found = certify_step(subject, engine=engine, bits=BITS)
    return Finding(label, name, precision, expected, not found.ok, found.errors.max, op, _hit(op, expected), beside)


def _hit(op: str | None, expected: str) -> bool:
    return op is not None and kind(op) == expected


def healthy_findings(*, full: bool = True) -> Iterator[Finding]:
    """The healthy engine on every scene, in both precisions: none may be found."""
    for precision in ("fp32", "fp64"):
        for name in SCENES:
            yield examine(None, name, precision, full=full)
        yield examine(None, "adamw", precision)


def mutant_findings(*, full: bool = True, each: Callable[[int, int], None] | None = None) -> Iterator[Finding]:
    """Every mutant on its scene, in float64."""
    for i, mutant in enumerate(ZOO):
        yield examine(mutant, mutant.scene, full=full)
        if each is not None:
            each(i + 1, len(ZOO))


def table(findings: list[Finding]) -> str:
    """A Markdown table of mutants."""
    lines = ["| mutant | found | error | first op named | torch gradcheck |", "|---|---|---|---|---|"]
    for f in findings:
        unit = "lr" if f.scene == "adamw" else "rms"
        op = f"{f.op}{'' if f.localised else ' (elsewhere)'}"
        error = f"{f.error:.1e}·{unit}" if f.error else ""
        lines.append(f"| {f.mutant} | {'yes' if f.found else 'NO'} | {error} | {op} | {f.gradcheck} |")
    return "\n".join(lines)


def summary(healthy: list[Finding], mutants: list[Finding]) -> str:
    """One sentence on each half of the zoo."""
    found, localised = sum(f.found for f in mutants), sum(f.localised for f in mutants)
    peers = [f.gradcheck for f in mutants]
    alarms = sum(f.found for f in healthy)
    return (
        f"{found} of {len(mutants)} mutants found, {localised} localised to the op; torch.autograd.gradcheck finds "
        f"{peers.count('found')}, passes {peers.count('passes')}, does not apply to {peers.count('does not apply')}\n"
        f"healthy engine: {len(healthy)} scenes, {alarms} false alarms"
    )
