"""Small JSON records that carry their own hash, so that any changed byte is noticed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from cllm.errors import CorruptError, RunError

R = TypeVar("R", bound=msgspec.Struct)
RECORD: Final = "prepared.json"
"""That of a folder of prepared data, which names the rest of it."""


def is_prepared(folder: str | os.PathLike[str]) -> bool:
    """Whether `folder` holds prepared data (of any version, in any state)."""
    return (Path(folder) / RECORD).is_file()


def write_record(path: Path, record: msgspec.Struct) -> str:
    """Writes `record` with the hash of its content as `sha256`, flushed to the disk; returns that hash."""
    content, digest = _canonical(msgspec.to_builtins(record))
    write_bytes(path, content)
    return digest


def read_record(path: Path, form: type[R], version: int) -> tuple[R, str]:
    """The record in `path` and its hash. Raises CorruptError unless it is byte for byte what `write_record`
    wrote, and RunError if it is of a newer version or missing."""
    content = read_bytes(path)
    try:
        fields = json.loads(content)
        stated = fields.pop("sha256")
        expected, digest = _canonical(fields)
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        raise CorruptError(f"{path}: not a readable record; {PREPARE_AGAIN}") from None
    if stated != digest or expected != content:
        raise CorruptError(f"{path}: its content does not have the hash that it states; {PREPARE_AGAIN}")
    if fields.get("version") != version:
        raise RunError(f"{path}: version {fields.get('version')!r} of the format, expected {version}; {PREPARE_AGAIN}")
    try:
        return msgspec.convert(fields, form), digest
    except msgspec.ValidationError as e:
        raise CorruptError(f"{path}: {e}; {PREPARE_AGAIN}") from None


PREPARE_AGAIN = "remove the folder and prepare the data again"


def read_bytes(path: Path) -> bytes:
    """The content of a small file; RunError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as e:
        raise RunError(f"{path}: cannot read it: {e.strerror}; {PREPARE_AGAIN}") from None


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a small file and flushes it to the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _canonical(fields: dict[str, Any]) -> tuple[bytes, str]:
    """The one form in which these fields are written, and their hash."""
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
    content = json.dumps({**fields, "sha256": digest}, sort_keys=True, ensure_ascii=True, indent=1) + "\n"
    return content.encode(), digest
