"""Texts in the workspace to train on: a list of them, and the beginning of one.

Runs in the reading process; the files are read as the training reads them (cllm.data).
"""

from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

from cllm.data.compressed import SUFFIXES, opened
from cllm.data.corpora import NAMED, named_corpus
from cllm.data.inspect import inspect
from cllm.data.records import DEFAULT_FIELD, KINDS, read_records
from cllm.errors import CllmError, DataError
from cllm.studio.workspace import RUN_FILE, Workspace

TEXTS = (".txt", ".md", ".text", ".rst", ".tex", ".org")
MOST = 2000  # files that are listed
HEAD = 6000  # characters that are shown
RECORDS = 8


def texts(root: str) -> dict[str, Any]:
    """Files, folders with several of them, and named corpora that are installed; each with its size in bytes."""
    workspace = Workspace(root)
    files: list[dict[str, Any]] = []
    folders: list[dict[str, Any]] = []
    more = False
    for folder, entries in workspace.walk():
        if any(entry.name == RUN_FILE for entry in entries):
            continue  # a run's own shards are no texts
        found: list[dict[str, Any]] = []
        for entry in entries:
            kind = _kind(Path(entry.name))
            if entry.name.startswith(".") or kind is None or not entry.is_file(follow_symlinks=False):
                continue
            status = entry.stat(follow_symlinks=False)
            found.append(
                {
                    "name": workspace.name(folder / entry.name),
                    "bytes": status.st_size,
                    "kind": kind,
                    "changed": status.st_mtime,
                }
            )
        more = more or len(files) + len(found) > MOST
        files += found[: max(0, MOST - len(files))]
        if len(found) > 1 and folder != workspace.root:
            size = sum(int(one["bytes"]) for one in found)
            folders.append({"name": workspace.name(folder), "bytes": size, "kind": "folder", "files": len(found)})
    return {"files": files, "folders": folders, "corpora": _corpora(), "more": more}


def _corpora() -> list[dict[str, Any]]:
    found = []
    for name in NAMED:
        try:
            documents = named_corpus(name)
        except CllmError:
            continue
        size = sum(document.stop - document.start for document in documents)
        found.append({"name": name, "bytes": size, "kind": "corpus", "files": len(documents)})
    return found


def _kind(path: Path) -> str | None:
    suffix = path.suffix.lower()
    packed = suffix in SUFFIXES
    inner = Path(path.stem).suffix.lower() if packed else suffix
    kind = KINDS.get(inner) or ("text" if inner in TEXTS else None)
    return None if kind is None else f"{kind}, packed" if packed else kind


def preview(path: str, name: str, field: str = DEFAULT_FIELD) -> dict[str, Any]:
    """The beginning of a text or of its first records, and what is wrong with it as far as it was read."""
    target = Path(path)
    suffix = target.suffix.lower()
    compression = suffix if suffix in SUFFIXES else ""
    inner = Path(target.stem).suffix.lower() if compression else suffix
    answer: dict[str, Any] = {"name": name, "bytes": target.stat().st_size, "text": "", "records": [], "problem": None}
    try:
        if kind := KINDS.get(inner):
            with tempfile.TemporaryDirectory(prefix="cllm-preview-") as spool:
                for record in islice(read_records(target, name, kind, compression, field, Path(spool)), RECORDS):
                    text = record.text[: HEAD // RECORDS]
                    answer["records"].append({"number": record.number, "text": text, "wrong": record.wrong})
        else:
            with opened(target, name, compression) as (stream, _):
                data = stream.read(4 * HEAD)
            answer["text"], answer["problem"] = _decoded(data, name)
    except CllmError as error:
        answer["problem"] = str(error)
    return answer


def _decoded(data: bytes, name: str) -> tuple[str, str | None]:
    """The first HEAD characters; a character cut off at the end of `data` is no fault."""
    try:
        return data.decode("utf-8-sig")[:HEAD], None
    except UnicodeDecodeError as error:
        text = data[: error.start].decode("utf-8-sig")
        if len(data) - error.start < 4 and error.reason == "unexpected end of data":
            return text[:HEAD], None
        return text[:HEAD], f"{name}: not UTF-8 at byte {error.start}; convert it first, or choose another file"


def preview_corpus(name: str) -> dict[str, Any]:
    """The beginning of a named corpus's first document."""
    documents = named_corpus(name)
    first = documents[0]
    with first.path.open("rb") as file:
        file.seek(first.start)
        text, problem = _decoded(file.read(min(4 * HEAD, first.stop - first.start)), first.name)
    size = sum(document.stop - document.start for document in documents)
    return {"name": name, "bytes": size, "text": text, "records": [], "problem": problem, "documents": len(documents)}


def looked_through(paths: list[str]) -> dict[str, Any]:
    """Everything `cllm data inspect` says about texts: documents, lengths, copies, characters, faults."""
    if not paths:
        raise DataError("no text chosen")
    return inspect(paths).to_dict()
