"""`cllm certify --check`: a certificate file held against this machine: hashes first, then the proof again at another
precision, whose balls must overlap the recorded ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from flint import arb

from cllm.certificate.full import Progress, certify_step
from cllm.certificate.provenance import source_hash
from cllm.certificate.record import Certificate, TensorRow, read
from cllm.certificate.subjects import Subject, of_preset, of_run
from cllm.errors import CertificateError
from cllm.spec.balls import working


def subject_of(path: str | os.PathLike[str], certificate: Certificate) -> Subject:
    """The step that a certificate file speaks of, made again. A run is looked for where the file lies, too."""
    s = certificate.subject
    if "preset" in s:
        return of_preset(s["preset"], s["tokens"], seed=s["seed"], precision=s["precision"], overrides=s["overrides"])
    beside = Path(path).parent
    run = beside if (beside / "run.toml").exists() else Path(s["run"])
    return of_run(run, s["tokens"], which=s["checkpoint"])


def check(
    path: str | os.PathLike[str], *, bits: int | None = None, progress: Progress | None = None
) -> tuple[Certificate, list[str]]:
    """Re-make a certificate. Returns the new one and what was compared, in words.

    bits: the other precision (default: half as much again). Raises CertificateError when a hash differs or a ball
    does not overlap, CorruptError or RunError when the file or the run cannot be read.
    """
    old = read(path)
    subject = subject_of(path, old)
    for what, hashed in subject.hashes().items():
        _same(f"the {what}", old.hashes[what], hashed)
    _same("the specification's source", old.spec["source_sha256"], source_hash("spec"))
    _same("the engine's source", old.engine["source_sha256"], source_hash("engine", "model"))
    bits = bits or old.bits * 3 // 2
    if bits == old.bits:
        raise CertificateError(f"check: {bits} bits is the precision of the certificate itself; take another")
    new = certify_step(subject, bits=bits, progress=progress)
    with working(2 * max(bits, old.bits)):
        _overlap("the loss", old.loss.exact, new.loss.exact)
        compared = sum(_tensor(a, b) for a, b in zip(old.tensors, new.tensors, strict=True))
    same = old.engine["result_sha256"] == new.engine["result_sha256"]
    entries = f"{compared:,} recorded gradient entries of {len(new.tensors)} tensors"
    words = [
        "hashes of weights, batch, specification and engine agree",
        f"{bits} bit against {old.bits} bit: the loss and {entries} overlap",
        "the engine's result is " + ("equal, bit for bit" if same else "different in bits (another build or machine)"),
    ]
    return new, words


def _tensor(a: TensorRow, b: TensorRow) -> int:
    """The recorded entries of one tensor; its rms must agree, too, since it is a bound of the same number."""
    if a.name != b.name or not abs(a.rms - b.rms) <= 1e-6 * a.rms:
        raise CertificateError(f"check: {a.name}: rms {a.rms!r} in the file, {b.rms!r} now")
    again = {tuple(e.index): e.exact for e in (*b.sample, b.worst)}
    common = [e for e in (*a.sample, a.worst) if tuple(e.index) in again]
    for e in common:
        _overlap(f"{a.name}{e.index}", e.exact, again[tuple(e.index)])
    return len(common)


def _overlap(what: str, a: str, b: str) -> None:
    try:
        meet = arb(a).overlaps(arb(b))
    except ValueError:
        raise CertificateError(f"check: {what}: {a!r} is not a ball") from None
    if not meet:
        raise CertificateError(f"check: {what}: {a} in the file and {b} now do not overlap: one of them is wrong")


def _same(what: str, recorded: Any, found: Any) -> None:
    if recorded != found:
        raise CertificateError(
            f"check: {what} is not what was certified: sha256 {str(found)[:16]}…, the file says "
            f"{str(recorded)[:16]}…; certify again"
        )
