"""The op-local certificate as a result: which op is nearest to its budget, and which one is outside."""

from __future__ import annotations

import time

import msgspec
from msgspec import Struct

from cllm.certificate.provenance import source_hash
from cllm.certificate.record import OUTSIDE, WITHIN, Bad, Certificate, OpRow
from cllm.certificate.statement import failure
from cllm.certificate.subjects import Subject
from cllm.certificate.watch import watch
from cllm.config import lattice_options
from cllm.engine.dispatch import Kernels
from cllm.errors import UsageError
from cllm.model.step import Step


class LocalCertificate(Struct, kw_only=True):
    """The op-local certificate of a step: `rows` in the order of the forward pass."""

    engine: str
    precision: str
    hashes: dict[str, str]
    spec_sha256: str
    tokens: int
    rows: list[OpRow]
    bad: Bad | None
    seconds: float

    @property
    def ok(self) -> bool:
        return self.bad is None

    def __str__(self) -> str:
        entries = sum(row.entries for row in self.rows)
        tight = sorted(self.rows, key=lambda row: -row.used)[:3]
        hashes = {**self.hashes, "spec": self.spec_sha256}
        made_of = "  ".join(f"{what} sha256 {value[:12]}…" for what, value in hashes.items())
        counted = f"{len(self.rows)} ops, {entries:,} entries at the kernels' own inputs, {self.tokens} tokens"
        lines = [
            f"{'CERTIFIED' if self.ok else 'NOT CERTIFIED'}  op by op  engine {self.engine}  {made_of}",
            f"{counted}, and every wire between them: {f'all {WITHIN}' if self.ok else OUTSIDE}",
            "  nearest to the a-priori budget: "
            + ", ".join(f"{row.op} {100 * min(row.used, 1e6):.3g} %" for row in tight),
            f"{self.seconds:.1f} s",
        ]
        return "\n".join(lines + (failure(self.bad) if self.bad else []))


def not_covered(subject: Subject) -> list[str]:
    """The lattice options whose ops have no op-local check; the full certificate covers them all."""
    plain = ("init", "init_mix", "positions_start", "symmetry_classes")
    return [key for key in lattice_options(subject.config.model) if key not in plain]


def certify_ops(subject: Subject, kernels: Kernels | None = None, step: type[Step] = Step) -> LocalCertificate:
    """`watch`, as a certificate. Raises UsageError for what is not covered op by op."""
    if subject.precision == "bfloat16":
        raise UsageError(
            "certify --local: precision = bf16: the ops have no a-priori budget for bfloat16 operands; "
            "leave --local out"
        )
    if keys := not_covered(subject):
        raise UsageError(
            f"certify --local: model.{keys[0]} is not checked op by op; leave --local out: "
            "the full certificate covers it"
        )
    begin = time.perf_counter()
    ledger = watch(subject, kernels, step)
    return LocalCertificate(
        engine=subject.engine_step().kernels.name,
        precision=subject.precision,
        hashes=subject.hashes(),
        spec_sha256=source_hash("spec"),
        tokens=subject.rows * subject.sequence,
        rows=list(ledger.rows.values()),
        bad=ledger.first,
        seconds=time.perf_counter() - begin,
    )


def name_the_op(certificate: Certificate, subject: Subject) -> None:
    """Let the op-local certificate say which op a full certificate's fault comes from."""
    if not_covered(subject) or subject.precision == "bfloat16":
        return
    first = watch(subject).first
    if first is not None and certificate.bad is not None:
        certificate.bad = msgspec.structs.replace(certificate.bad, op=first.op)
