"""Reading `.gz` and `.zst` files as streams, in bounded memory, noticing every kind of damage."""

from __future__ import annotations

import gzip
import importlib
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from cllm.errors import DataError, MissingExtraError

SUFFIXES: Final = (".gz", ".zst")
CHUNK: Final = 1 << 13
"""Compressed bytes unpacked at a time (zstd)."""


@contextmanager
def opened(path: Path, name: str, compression: str) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The unpacked stream of a file, and the file itself (whose `tell` says how far it is read).

    `compression`: "", ".gz" or ".zst". Raises DataError, while it is read too, for a file that cannot be read,
    is cut off, or is not what its suffix says; MissingExtraError without the package that unpacks it.
    """
    try:
        with path.open("rb") as file:
            if compression == ".gz":
                stream: BinaryIO = io.BufferedReader(gzip.GzipFile(fileobj=file, mode="rb"))
            elif compression == ".zst":
                stream = io.BufferedReader(_Zstd(file, name), buffer_size=1 << 16)
            else:
                stream = file
            yield stream, file
    except (EOFError, gzip.BadGzipFile, zlib.error) as e:
        raise DataError(f"{name}: not a whole gzip file: {e}") from None
    except OSError as e:
        raise DataError(f"{name}: cannot read it: {e.strerror or e}") from None


def zstandard() -> Any:
    """The package zstandard. Raises MissingExtraError."""
    try:
        return importlib.import_module("zstandard")
    except ImportError:
        raise MissingExtraError("zstandard (it unpacks .zst files)", "pip install 'cllm[zstd]'") from None


class _Zstd(io.RawIOBase):
    """The content of a zstd file, of one frame or several. (The package's own reader takes a file that is cut
    off for one that ends.)"""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        package = zstandard()
        self._fault: type[Exception] = package.ZstdError
        self._new = package.ZstdDecompressor().decompressobj
        self._frame: Any = None
        self._ready = memoryview(b"")
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            content = self._left or self._file.read(CHUNK)
            self._left = b""
            if not content:
                if self._frame is not None:
                    raise DataError(f"{self._name}: not a whole zstd file: it ends in the middle")
                return 0
            try:
                if self._frame is None:
                    self._frame = self._new()
                self._ready = memoryview(self._frame.decompress(content))
                if self._frame.eof:
                    self._left, self._frame = self._frame.unused_data, None
            except self._fault as e:
                raise DataError(f"{self._name}: not a zstd file, or damaged: {e}") from None
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size
