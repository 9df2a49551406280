"""Folders that Hugging Face `datasets` saved with `save_to_disk`: which Arrow files, in which order.

Source: `datasets.Dataset.save_to_disk` and `DatasetDict.save_to_disk`: a data set has `state.json` with the names
of its files; a dictionary of them has `dataset_dict.json` with the names of its splits, each a folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from cllm.errors import DataError

STATE: Final = "state.json"
SPLITS: Final = "dataset_dict.json"


def dataset_files(folder: Path) -> list[Path]:
    """The files of the data set saved in `folder`; none if it holds no such thing. Raises DataError for one that
    is damaged, and for a dictionary of several splits, whose names it says."""
    if (folder / SPLITS).is_file():
        splits = _json(folder / SPLITS).get("splits")
        if not isinstance(splits, list) or not splits or not all(isinstance(s, str) for s in splits):
            raise DataError(f"{folder / SPLITS}: expected the names of the splits")
        if len(splits) > 1:
            named = ", ".join(f"{folder}/{split}" for split in splits)
            raise DataError(
                f"{folder}: it holds {len(splits)} splits; expected one data set: name the one to read ({named})"
            )
        return dataset_files(_inside(folder, splits[0])) or _none(folder / splits[0])
    if not (folder / STATE).is_file() or not (folder / "dataset_info.json").is_file():
        return []
    state = _json(folder / STATE)
    files = state.get("_data_files")
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise DataError(f"{folder}: its rows are chosen by an index; save it again after flatten_indices()")
    if not isinstance(files, list) or not files:
        raise DataError(f"{folder / STATE}: expected the names of the data files")
    found = [_inside(folder, f.get("filename") if isinstance(f, dict) else None) for f in files]
    for path in found:
        if not path.is_file():
            raise DataError(f"{path}: missing, but {STATE} names it; the data set is not whole")
    return found


def _inside(folder: Path, name: object) -> Path:
    if not isinstance(name, str) or Path(name).name != name:
        raise DataError(f"{folder}: expected the name of a file in it, got {name!r}")
    return folder / name


def _none(folder: Path) -> list[Path]:
    raise DataError(f"{folder}: no saved data set here, but {SPLITS} names it")


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as e:
        raise DataError(f"{path}: cannot read it: {e}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: expected a JSON object")
    return found
