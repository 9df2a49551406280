"""Tables of primes and of arithmetic functions as CSV or Parquet, written in pieces."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cllm.errors import DomainError, LimitError, MissingExtraError
from cllm.lattice.counting import MAX_COUNT, prime_count
from cllm.lattice.factor_tables import MAX_VALUE, factor_table
from cllm.lattice.sieve import primes_between

MAX_NUMBERS = 10**10
_PIECE = 1 << 22

Columns = dict[str, Any]


def write_table(path: str | Path, start: int, stop: int, *, factors: bool = False) -> int:
    """Write the primes p, start ≤ p ≤ stop, with their index (π(p)), or every number with least, Ω, ω, μ; returns rows.

    The file appears whole or not at all.

    Raises:
        DomainError: a name that ends in neither .csv nor .parquet, an empty or negative range.
        LimitError: more than 10¹⁰ numbers, or numbers above 10¹⁵ (with factors 10¹⁴).
        MissingExtraError: Parquet without pyarrow.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise DomainError(f"write_table: the name must end in .csv or .parquet, got {path.name!r}")
    if not (factors <= start <= stop):
        raise DomainError(f"write_table: expected {int(factors)} ≤ start ≤ stop, got {start} and {stop}")
    limit = MAX_VALUE - 1 if factors else MAX_COUNT
    if stop - start >= MAX_NUMBERS or stop > limit:
        raise LimitError(f"write_table: at most 10^10 numbers, none above {limit}; got {start} … {stop}")
    pieces = _factors(start, stop) if factors else _primes(start, stop)
    partial = path.with_name(path.name + ".part")
    try:
        rows = _parquet(partial, pieces) if kind == ".parquet" else _csv(partial, pieces)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return rows


def _primes(start: int, stop: int) -> Iterator[Columns]:
    index = prime_count(start - 1)
    for low in range(start, stop + 1, 8 * _PIECE):
        found = primes_between(low, min(low + 8 * _PIECE, stop + 1))
        yield {"index": np.arange(index + 1, index + 1 + found.size, dtype=np.int64), "prime": found}
        index += found.size


def _factors(start: int, stop: int) -> Iterator[Columns]:
    for low in range(start, stop + 1, _PIECE):
        yield factor_table(low, min(low + _PIECE, stop + 1))._asdict()


def _csv(path: Path, pieces: Iterator[Columns]) -> int:
    rows = 0
    with path.open("w", encoding="ascii", newline="") as file:
        for number, columns in enumerate(pieces):
            if number == 0:
                file.write(",".join(columns) + "\n")
            lists = [column.tolist() for column in columns.values()]
            file.writelines(",".join(map(str, row)) + "\n" for row in zip(*lists, strict=True))
            rows += len(lists[0])
    return rows


def _parquet(path: Path, pieces: Iterator[Columns]) -> int:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("pyarrow (for Parquet files)", "pip install 'cllm[parquet]'") from None
    rows, writer = 0, None
    try:
        for columns in pieces:
            table = pyarrow.table(columns)
            writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table)
            rows += table.num_rows
    finally:
        if writer is not None:
            writer.close()
    return rows
