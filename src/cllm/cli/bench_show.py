"""What every `cllm bench` command does with its tables."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cllm.bench.measure import Table


def check_folder(save: Path | None) -> None:
    """Before minutes of measuring: that the results can be written there."""
    if save is None:
        return
    from cllm.errors import UsageError

    there = next(path for path in (save, *save.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UsageError(f"--save {save}: expected a folder, but {there} is a file")
    if not os.access(there, os.W_OK):
        raise UsageError(f"--save {save}: {there} cannot be written to")


def show(tables: list[Table], save: Path | None, json: bool) -> int:
    """The tables on the terminal, into the folder `save`, and as one JSON object on standard output."""
    from cllm.bench.machine import describe

    here = describe()
    for table in tables:
        table.render()
        if save is not None:
            print(f"written: {table.save(save, here)}", file=sys.stderr)
    if json:
        import msgspec

        found = [table.to_dict(here) for table in tables]
        print(msgspec.json.encode(found[0] if len(found) == 1 else found).decode())
    return 0
