"""What a certificate says, as data: the JSON file of the run directory, and numbers rounded the safe way."""

from __future__ import annotations

import os
import sys
import time
from decimal import ROUND_CEILING, Context, Decimal
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from cllm.errors import CorruptError, UsageError

FORMAT, VERSION = "cllm-certificate", 1
MOST = sys.float_info.max
PROVEN, WITHIN, OUTSIDE, REPORTED = "PROVEN", "WITHIN BUDGET", "OUTSIDE BUDGET", "REPORTED"


class Bad(Struct, frozen=True):
    """Where the engine is wrong: the first op (when the op-local certificate names one), tensor and entry."""

    tensor: str
    index: list[int]
    exact: str
    engine: str
    why: str
    op: str | None = None


class Entry(Struct, frozen=True):
    """One enclosed gradient entry, kept so that another precision can be held against it."""

    index: list[int]
    exact: str


class TensorRow(Struct, frozen=True):
    """One tensor. Bounds are upper bounds, in units of `rms` (of the exact gradient) where the name says so."""

    name: str
    shape: list[int]
    rms: float
    radius_over_rms: float
    max_over_rms: float
    normwise: float
    worst: Entry
    engine_at_worst: str
    sample: list[Entry]


class Structural(Struct, frozen=True):
    """Entries whose exact gradient is 0 by structure, in absolute units."""

    what: str
    tensor: str
    entries: int
    exact_bound: float
    engine_max: float


class Quantiles(Struct, frozen=True):
    """Upper bounds of 50 %, 99 %, 99.9 % and all of the entries."""

    p50: float
    p99: float
    p999: float
    max: float


class Loss(Struct, frozen=True):
    exact: str
    radius: float
    engine: float
    error: float


class AdamWRow(Struct, frozen=True):
    """One optimiser step: |w engine − w exact| ≤ `error`·lr over the entries checked; `budget` = largest allowed."""

    t: int
    lr: float
    error: float
    used: float
    bad: Bad | None = None


class OpRow(Struct, frozen=True):
    """One op of the step: its largest error and radius as parts of the a-priori budget (above 1: outside)."""

    op: str
    entries: int
    used: float
    bad: Bad | None = None


class Beside(Struct):
    """Another engine at the same weights and batch, against the same exact gradient: normwise errors of its tensors."""

    name: str
    median: float
    worst: float


class Certificate(Struct, kw_only=True):
    """A full certificate of one training step. `str()` is the statement; `ok` is False when the engine is outside."""

    format: str = FORMAT
    version: int = VERSION
    date: str = ""
    enclosure: str
    verdict: str
    engine: dict[str, Any]
    spec: dict[str, Any]
    hashes: dict[str, str]
    subject: dict[str, Any]
    bits: int
    notes: list[str] = field(default_factory=list)
    loss: Loss
    entries: int
    radius_over_rms: float
    errors: Quantiles
    relative: Quantiles
    worst_normwise: float
    worst_tensor: str
    median_normwise: float = 0.0
    beside: Beside | None = None
    structural: list[Structural]
    tensors: list[TensorRow]
    budget: dict[str, Any]
    bad: Bad | None = None
    adamw: list[AdamWRow] | None = None
    adamw_entries: int = 0
    local: list[OpRow] | None = None
    assumes: list[str]
    not_certified: list[str]
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.enclosure == PROVEN and self.bad is None and self.verdict != OUTSIDE

    def __str__(self) -> str:
        from cllm.certificate.statement import statement

        return statement(self)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write `certificate-<step>-<tokens>-<time>.json` into `folder`, whole or not at all; returns its path."""
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        path = Path(folder) / f"certificate-step{self.subject['step']:08d}-{self.subject['tokens']}t-{stamp}.json"
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")
        os.replace(temporary, path)
        return path


def read(path: str | os.PathLike[str]) -> Certificate:
    """A certificate file. Raises UsageError when it cannot be read, CorruptError when it is not one."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read: {error.strerror}; expected a certificate, RUN/certificate-*.json"
        ) from None
    try:
        found = msgspec.json.decode(content, type=Certificate)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptError(f"{path}: not a certificate that this version can read ({error})") from None
    if found.format != FORMAT or found.version != VERSION:
        raise CorruptError(f"{path}: format {found.format!r} version {found.version}, expected {FORMAT!r} {VERSION}")
    return found


def finite(x: float) -> float:
    """x, or the largest float for infinity and nan: JSON has neither, and both mean that nothing is known."""
    return x if abs(x) <= MOST else MOST


def above(x: float, digits: int = 2) -> str:
    """x as a decimal of so many digits, never below x."""
    if not x < MOST:
        return "unbounded"
    if x == 0:
        return "0"
    rounded = Context(prec=digits, rounding=ROUND_CEILING).plus(Decimal(x))
    mantissa, _, exponent = f"{rounded:.{digits - 1}e}".partition("e")
    return f"{mantissa}e{int(exponent)}"
