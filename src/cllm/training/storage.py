"""The file-system seam: every call that a checkpoint's save makes goes through a `Storage`.

Durability is a protocol of single calls (write, fsync, rename, fsync of the folder). With each of them behind
one small interface a test can lose power at any of them, with everything that was not yet synced gone.
`PosixStorage` is the real thing.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from cllm.errors import UsageError

CHUNK = 1 << 24
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class Storage(Protocol):
    """The calls of a file system; each raises OSError as the system does. Files are plain integers."""

    def create(self, path: Path) -> int:
        """Opens a new file for writing; an existing one is an error."""

    def write(self, file: int, data: bytes | memoryview) -> None:
        """Appends all of `data`."""

    def fsync(self, file: int) -> None:
        """Returns once the file's content is durable (its name may still not be)."""

    def close(self, file: int) -> None:
        """Closes the file; says nothing about durability."""

    def read(self, path: Path) -> bytes:
        """The whole content of a small file."""

    def listdir(self, path: Path) -> list[str]:
        """The names in a folder, in no particular order."""

    def mkdir(self, path: Path) -> None:
        """Makes one folder; an existing one is an error."""

    def replace(self, source: Path, target: Path) -> None:
        """Renames a file over a file, or a folder to a free name; atomic."""

    def unlink(self, path: Path) -> None:
        """Removes a file's name."""

    def rmdir(self, path: Path) -> None:
        """Removes an empty folder."""

    def fsync_dir(self, path: Path) -> None:
        """Returns once the folder's entries (names made, renamed, removed) are durable."""


class PosixStorage:
    """The real file system."""

    def create(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o644)

    def write(self, file: int, data: bytes | memoryview) -> None:
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[os.write(file, rest[:CHUNK]) :]

    def fsync(self, file: int) -> None:
        full_sync = _full_sync()
        if full_sync is not None:
            import fcntl

            try:
                fcntl.fcntl(file, full_sync)
                return
            except OSError as error:  # some network file systems refuse it
                if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                    raise
        os.fsync(file)

    def close(self, file: int) -> None:
        os.close(file)

    def read(self, path: Path) -> bytes:
        return Path(path).read_bytes()

    def listdir(self, path: Path) -> list[str]:
        return os.listdir(path)

    def mkdir(self, path: Path) -> None:
        os.mkdir(path)

    def replace(self, source: Path, target: Path) -> None:
        os.replace(source, target)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def rmdir(self, path: Path) -> None:
        os.rmdir(path)

    def fsync_dir(self, path: Path) -> None:
        if os.name == "nt":  # folders cannot be opened there; renames are journalled
            return
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _full_sync() -> int | None:
    """macOS: fsync stops at the drive's cache; this control code goes through it."""
    if os.name == "nt":
        return None
    import fcntl

    return getattr(fcntl, "F_FULLFSYNC", None)


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: length in bytes and SHA-256 in hex."""

    bytes: int
    sha256: str


def write_file(storage: Storage, path: Path, chunks: Iterable[bytes | memoryview]) -> Written:
    """A new file from chunks, synced and closed, hashed on the way. OSError as the storage raises it."""
    digest, length = hashlib.sha256(), 0
    file = storage.create(path)
    try:
        for chunk in chunks:
            storage.write(file, chunk)
            digest.update(chunk)
            length += len(chunk)
        storage.fsync(file)
    finally:
        storage.close(file)
    return Written(length, digest.hexdigest())


def remove_tree(storage: Storage, path: Path) -> None:
    """Removes a file or a folder with all in it; a missing one is fine."""
    try:
        names = storage.listdir(path)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        storage.unlink(path)
        return
    for name in names:
        remove_tree(storage, path / name)
    storage.rmdir(path)


def safetensors_chunks(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The safetensors file of `tensors`, piece by piece: the length of the header, the header, each tensor.

    Byte for byte what the safetensors library writes (tensors ordered by the width of their type, widest
    first, then by name; header padded with spaces to 8 bytes), but without its two copies of everything:
    the extra memory is one tensor at most, and none for contiguous CPU tensors.

    A mapping with an attribute `kinds` (name → tensor of the same type and shape, on any device) is asked for each
    tensor once, when it is written: it may be gathered only then.  Raises UsageError for a type that safetensors has no
    name for.
    """
    kinds: Mapping[str, Tensor] = getattr(tensors, "kinds", tensors)
    for name, tensor in kinds.items():
        if tensor.dtype not in DTYPES:
            raise UsageError(f"tensor {name!r}: a checkpoint cannot hold {tensor.dtype}")
    order = sorted(kinds, key=lambda name: (-_rank(kinds[name]), name))
    header: dict[str, object] = {}
    start = 0
    for name in order:
        tensor = kinds[name]
        end = start + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    for name in order:
        flat = tensors[name].detach().cpu().reshape(-1)
        if flat.numel():
            data = flat.view(torch.uint8).numpy().data
            for at in range(0, len(data), CHUNK):
                yield data[at : at + CHUNK]


def _rank(tensor: Tensor) -> int:
    """The library's order of types: by alignment, ties by its own enumeration."""
    order = ["BOOL", "U8", "I8", "I16", "F16", "BF16", "I32", "F32", "F64", "I64"]
    return order.index(DTYPES[tensor.dtype])
