"""Arrays of balls on disk, exactly: integers for mantissa and exponent of midpoint and radius, and a hash.

A file is a numpy archive (`.npz`, no pickles) of: `shape`; `offsets` (int64, n+1) into `mantissas`, the midpoint
mantissas as little-endian two's complement bytes one after another; `exponents` (int64); `radius_mantissas` and
`radius_exponents` (int64); `sha256` of all these in that order.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from cllm.errors import CorruptError, LimitError
from cllm.numbers.convert import dyadic, restore
from cllm.numbers.matrices import BallMatrix
from cllm.numbers.vectors import BallVector

_FIELDS = ("shape", "offsets", "mantissas", "exponents", "radius_mantissas", "radius_exponents")


def save_balls(path: str | Path, balls: BallVector | BallMatrix) -> None:
    """Write an array of balls; the file appears whole or not at all.

    Raises:
        LimitError: an exponent beyond 64 bits.
    """
    vector = balls.vector() if isinstance(balls, BallMatrix) else balls
    middles = [dyadic(x.mid()) for x in vector.flint]
    radii = [dyadic(x.rad()) for x in vector.flint]
    pieces = [m.to_bytes(m.bit_length() // 8 + 1, "little", signed=True) for m, _ in middles]
    offsets = np.zeros(len(pieces) + 1, np.int64)
    np.cumsum([len(p) for p in pieces], out=offsets[1:])
    try:
        fields = {
            "shape": np.array(vector.shape, np.int64),
            "offsets": offsets,
            "mantissas": np.frombuffer(b"".join(pieces), np.uint8),
            "exponents": np.array([e for _, e in middles], np.int64),
            "radius_mantissas": np.array([m for m, _ in radii], np.int64),
            "radius_exponents": np.array([e for _, e in radii], np.int64),
        }
    except OverflowError:
        raise LimitError(f"save_balls: {path}: an exponent is beyond the format's limit of 64 bits") from None
    fields["sha256"] = np.frombuffer(_digest(fields), np.uint8)
    target = Path(path)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
        try:
            np.savez(file, **fields)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            os.unlink(file.name)
            raise
    os.replace(file.name, target)


def load_balls(path: str | Path) -> BallVector:
    """Read what `save_balls` wrote; equal ball for ball.

    Raises:
        CorruptError: not such a file, or its hash differs.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            fields: dict[str, Any] = {name: archive[name] for name in (*_FIELDS, "sha256")}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CorruptError(f"{path}: not an array of balls ({error}); expected a file of save_balls") from None
    if bytes(fields["sha256"]) != _digest(fields):
        raise CorruptError(f"{path}: the hash of the contents differs from the one written; restore it from a copy")
    data, offsets = fields["mantissas"].tobytes(), fields["offsets"].tolist()
    columns = [fields[name].tolist() for name in _FIELDS[3:]]
    balls = [
        restore(int.from_bytes(data[start:stop], "little", signed=True), e, r, f)
        for start, stop, e, r, f in zip(offsets[:-1], offsets[1:], *columns, strict=True)
    ]
    return BallVector.of(balls, tuple(fields["shape"].tolist()))


def _digest(fields: dict[str, Any]) -> bytes:
    found = hashlib.sha256()
    for name in _FIELDS:
        found.update(np.ascontiguousarray(fields[name]).tobytes())
    return found.digest()
