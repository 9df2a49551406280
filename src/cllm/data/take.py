"""Data that were prepared before, as a run's own: every hash is checked, the files are copied, nothing is prepared."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from cllm.data.prepare import TOKENIZER, Prepared, open_prepared, publish, remove_leftovers
from cllm.data.record import RECORD, read_bytes
from cllm.errors import ConfigError, RunError
from cllm.text.training import KINDS

PARTS: Final = tuple(f"{part}.{kind}" for part in ("train", "val") for kind in ("tokens", "documents", "json"))
FILES: Final = (RECORD, TOKENIZER, *PARTS)
DECIDED: Final = ("vocab_size", "val_fraction", "field", "skip_bad", "dedup", "weights")
"""Settings, besides the tokenizer, that the preparation has decided."""


def take(folder: str | os.PathLike[str], out_dir: str | os.PathLike[str]) -> Prepared:
    """Copies the prepared data in `folder` to the folder `out_dir` (a run's RUN/data), which appears complete or not
    at all; where the same data are already there, they are checked and used again.

    Raises RunError (nothing prepared in `folder`, other data in `out_dir`, no space) or CorruptError."""
    out, source = Path(out_dir), open_prepared(folder)
    work = out.parent / f".{out.name}.preparing-{os.getpid()}"
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            found = open_prepared(out)
            if found.record != source.record:
                raise RunError(f"{out}: it holds other data than {folder}; choose another folder, or remove this one")
            return replace(found, reused=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(out)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        for name in FILES:
            if (source.folder / name).is_file():
                shutil.copyfile(source.folder / name, work / name)
        publish(work, out)
    except OSError as e:
        raise RunError(f"{e.filename or out}: cannot copy the prepared data: {e.strerror}") from e
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return open_prepared(out, verify=False)


def as_prepared(data: Prepared, origin: Path, asked: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """The settings (of `[data]`) that `data`, taken from the folder `origin`, were prepared with.

    asked, default: those of the run, and of a run that says nothing. Raises ConfigError for one that was asked for and
    is another: it would change nothing."""
    made = data.record.settings
    is_kind = made.tokenizer in KINDS
    said = {name: getattr(made, name) for name in DECIDED if name != "weights"}
    said["tokenizer"] = made.tokenizer if is_kind else str(origin / TOKENIZER)
    for name in ("tokenizer", *DECIDED):
        got = asked.get(name)
        if got in (default.get(name), said.get(name)) or (name == "tokenizer" and _is_that(str(got), data)):
            continue
        raise ConfigError(
            f"data.{name}: got {got!r}, but {origin} was prepared with {_words(said.get(name))}; leave the setting "
            "out, or prepare the text anew (cllm data prepare)"
        )
    return said


def _is_that(tokenizer: str, data: Prepared) -> bool:
    return (
        Path(tokenizer).is_file() and hashlib.sha256(read_bytes(Path(tokenizer))).hexdigest() == data.tokenizer.sha256
    )


def _words(value: Any) -> str:
    return "its own" if value is None else repr(value)
