"""Files of records (.jsonl, .csv, .tsv, .parquet, .arrow): the text of each record, one field of it.

A record that cannot be used is not passed over in silence: it is yielded with what is wrong.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from cllm.data.compressed import opened
from cllm.errors import DataError, MissingExtraError, closest

KINDS: Final = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
"""suffix → format"""

NOUN: Final = {"jsonl": "line", "csv": "line", "tsv": "line", "parquet": "row", "arrow": "row"}
"""What the records of a format are counted in (a CSV record is named by its first line)."""

DEFAULT_FIELD: Final = "text"
LONGEST: Final = 1 << 28
"""Bytes of one line or cell; a longer one is refused, since a record is held in memory."""
ROWS: Final = 256
"""Rows of a column held at a time."""
SHOWN: Final = 5

JSON_TYPES: Final = {dict: "an object", list: "a list", int: "a number", float: "a number", bool: "true or false"}


class Record(NamedTuple):
    """One record: its `number` (line or row), and either its `text` or what is `wrong` with it."""

    number: int
    text: str
    wrong: str = ""


@dataclass
class BadRecords:
    """Counts records that cannot be used, and keeps the first of them."""

    count: int = 0
    first: list[str] = field(default_factory=list)
    kept: int = 20

    def add(self, where: str, what: str) -> None:
        """One more."""
        self.count += 1
        if len(self.first) < self.kept:
            self.first.append(f"{where}: {what}")

    def __str__(self) -> str:
        noun = "bad record" if self.count == 1 else "bad records"
        more = f"; and {self.count - SHOWN} more" if self.count > SHOWN else ""
        return f"{self.count} {noun}: {'; '.join(self.first[:SHOWN])}{more}"


def read_records(
    path: Path,
    name: str,
    kind: str,
    compression: str,
    field: str,
    spool: Path,
    read: Callable[[int], None] = lambda done: None,
) -> Iterator[Record]:
    """The records of a file, in order. `read(bytes)` is told how far the file is read.

    `field`: the key, column or, with dots, the path to a nested one. Raises DataError where the file as a whole
    cannot be read (damaged, no such column), MissingExtraError for a package that is missing.
    """
    if kind in ("parquet", "arrow"):
        with _seekable(path, name, compression, spool) as whole:
            size = path.stat().st_size
            yield from (_parquet if kind == "parquet" else _arrow)(whole, name, field, lambda p: read(int(p * size)))
        return
    with opened(path, name, compression) as (stream, file):
        lines = _json_lines(stream, name, field) if kind == "jsonl" else _csv(stream, name, field, kind)
        for n, record in enumerate(lines):
            if n % ROWS == 0:
                read(file.tell())
            yield record


def _json_lines(stream: BinaryIO, name: str, field: str) -> Iterator[Record]:
    number = 0
    while line := stream.readline(LONGEST + 1):
        number += 1
        if len(line) > LONGEST:
            raise DataError(
                f"{name}, line {number}: it is longer than {LONGEST >> 20} MiB; expected one JSON object on each line"
            )
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        try:
            value = json.loads(line.decode())
        except UnicodeDecodeError as e:
            yield Record(number, "", f"not valid UTF-8 at its byte {e.start}")
        except (ValueError, RecursionError) as e:
            yield Record(number, "", f"not JSON: {_json_fault(e)}")
        else:
            yield _of_object(number, value, field)


def _json_fault(e: Exception) -> str:
    if isinstance(e, json.JSONDecodeError):
        return f"{e.msg} (column {e.colno})"
    return "nested too deeply" if isinstance(e, RecursionError) else str(e)


def _of_object(number: int, value: object, field: str) -> Record:
    if not isinstance(value, dict):
        return Record(number, "", f"expected a JSON object, got {_type(value)}")
    if field in value:
        return _of_value(number, value[field], field)
    found: object = value
    for key in field.split("."):
        if not isinstance(found, dict) or key not in found:
            keys = [str(k) for k in value]
            return Record(number, "", f'no field "{field}" (it has {_some(keys)})')
        found = found[key]
    return _of_value(number, found, field)


def _of_value(number: int, value: object, field: str) -> Record:
    if not isinstance(value, str):
        return Record(number, "", f'field "{field}": expected text, got {_type(value)}')
    try:
        value.encode()
    except UnicodeEncodeError as e:
        code = ord(value[e.start])
        what = f"the lone surrogate U+{code:04X}" if not 0xDC80 <= code < 0xDD00 else "bytes that are not valid UTF-8"
        return Record(number, "", f'field "{field}": it holds {what}')
    return Record(number, value)


def _csv(stream: BinaryIO, name: str, field: str, kind: str) -> Iterator[Record]:
    """Rows after the header. Undecodable bytes come as surrogates, so that only the row they are in is bad."""
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(text, delimiter="\t" if kind == "tsv" else ",", strict=True)
    before = csv.field_size_limit(LONGEST)
    try:
        try:
            header = next(reader, None)
        except csv.Error as e:
            raise DataError(f"{name}, line 1: not a CSV header: {e}") from None
        if header is None:
            return
        if header.count(field) != 1:
            raise _no_column(name, field, header)
        at = header.index(field)
        while True:
            line = reader.line_num + 1
            csv.field_size_limit(LONGEST)
            try:
                row = next(reader, None)
            except csv.Error as e:
                yield Record(line, "", f"not CSV: {e}")
                continue
            if row is None:
                return
            if len(row) == len(header):
                yield _of_value(line, row[at], field)
            elif row:
                yield Record(line, "", f"{len(row)} cells, expected {len(header)} as in the header")
    finally:
        csv.field_size_limit(before)
        text.detach()


@contextlib.contextmanager
def _seekable(path: Path, name: str, compression: str, spool: Path) -> Iterator[Path]:
    """A file that one may jump about in: the file, or its content unpacked."""
    if not compression:
        yield path
        return
    target = spool / f"unpacked-{os.getpid()}"
    try:
        unpack(path, name, compression, target)
        yield target
    finally:
        target.unlink(missing_ok=True)


def unpack(path: Path, name: str, compression: str, target: Path, read: Callable[[int], None] | None = None) -> None:
    """Writes the content of a compressed file. Raises DataError (see `opened`); OSError for `target`'s disk."""
    with target.open("wb") as out:
        for block, done in _blocks(path, name, compression):
            out.write(block)
            if read is not None:
                read(done)


def _blocks(path: Path, name: str, compression: str) -> Iterator[tuple[bytes, int]]:
    """The content in blocks, each with how far the file is read. (A generator: what goes wrong with the disk that
    the blocks are written to is not caught here.)"""
    with opened(path, name, compression) as (stream, file):
        while block := stream.read(1 << 16):
            yield block, file.tell()


def _parquet(path: Path, name: str, field: str, read: Callable[[float], None]) -> Iterator[Record]:
    arrow = _pyarrow("pyarrow")
    parquet = _pyarrow("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path) as file:
            column = _column(arrow, file.schema_arrow, name, field)
            total, first = max(file.metadata.num_rows, 1), 0
            for batch in file.iter_batches(ROWS, columns=[column], use_threads=False):
                yield from _of_column(batch.column(0), first + 1, field, column)
                first += batch.num_rows
                read(first / total)
    except (arrow.ArrowException, OSError) as e:
        raise DataError(f"{name}: not a readable Parquet file: {_first_line(e)}") from None


def _arrow(path: Path, name: str, field: str, read: Callable[[float], None]) -> Iterator[Record]:
    """Arrow IPC, the stream format (Hugging Face `datasets` saved on disk) or the file format (Feather 2)."""
    arrow = _pyarrow("pyarrow")
    ipc = _pyarrow("pyarrow.ipc")
    try:
        with arrow.OSFile(str(path)) as file:
            size = max(file.size(), 1)
            batches: Iterable[Any]
            if file.read(6) == b"ARROW1":
                reader = ipc.open_file(file)
                batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
            else:
                file.seek(0)
                reader = batches = ipc.open_stream(file)
            column = _column(arrow, reader.schema, name, field)
            first = 0
            for batch in batches:
                values = batch.column(reader.schema.get_field_index(column))
                for at in range(0, len(values), ROWS):
                    yield from _of_column(values.slice(at, ROWS), first + at + 1, field, column)
                first += batch.num_rows
                read(file.tell() / size)
    except (arrow.ArrowException, OSError) as e:
        raise DataError(f"{name}: not a readable Arrow file: {_first_line(e)}") from None


def _column(arrow: Any, schema: Any, name: str, field: str) -> str:
    """The column to read. DataError if there is none, or it holds no text."""
    names = list(schema.names)
    column = field if field in names else field.split(".")[0]
    if names.count(column) != 1:
        raise _no_column(name, field, names)
    kind = schema.field(column).type
    for key in field.split(".")[1:] if column != field else ():
        if not arrow.types.is_struct(kind) or kind.get_field_index(key) < 0:
            raise DataError(f'{name}: no column "{field}": "{column}" holds {kind}')
        kind = kind.field(kind.get_field_index(key)).type
    plain = kind.value_type if arrow.types.is_dictionary(kind) else kind
    if str(plain) not in ("string", "large_string", "string_view", "null"):
        raise DataError(f'{name}: the column "{field}" holds {kind}, expected text')
    return column


def _of_column(values: Any, first: int, field: str, column: str) -> Iterator[Record]:
    keys = () if column == field else tuple(field.split(".")[1:])
    try:
        listed: Iterable[object] = values.to_pylist()
    except UnicodeDecodeError:
        listed = (_one(value) for value in values)
    for number, value in enumerate(listed, first):
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else value
        if isinstance(value, UnicodeDecodeError):
            yield Record(number, "", f'field "{field}": not valid UTF-8 at its byte {value.start}')
        else:
            yield _of_value(number, value, field)


def _one(value: Any) -> object:
    try:
        return value.as_py()
    except UnicodeDecodeError as e:
        return e


def _pyarrow(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingExtraError("pyarrow (it reads Parquet and Arrow files)", "pip install 'cllm[parquet]'") from None


def _no_column(name: str, field: str, names: list[str]) -> DataError:
    what = f'the column "{field}" twice' if field in names else f'no column "{field}"'
    return DataError(
        f"{name}: {what}; its columns: {_some(names)}{closest(field, names)} (say which holds the text: data.field)"
    )


def _some(names: list[str]) -> str:
    if not names:
        return "none"
    return ", ".join(n[:40] for n in names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _type(value: object) -> str:
    return "null" if value is None else "text" if isinstance(value, str) else JSON_TYPES.get(type(value), "no text")


def _first_line(e: Exception) -> str:
    return (str(e).strip().splitlines() or [type(e).__name__])[0]
