"""Texts that the studio edits: Markdown and study files of the workspace.

A save names the version it began with; where the file has another one by then nothing is written (`Conflict`). A file
is replaced whole, by a rename within its own folder.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import threading
from pathlib import Path
from typing import Any

from cllm.errors import DataError, LimitError, RunError, UsageError
from cllm.studio.workspace import RUN_FILE, Missing, Outside, Workspace

MARKDOWN = (".md", ".markdown")
STUDY = ".toml"
LIMIT = 256 << 10  # bytes of a text
MOST = 2000  # files that are listed
PICTURES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
}
PICTURE_LIMIT = 8 << 20  # bytes
_NAME = re.compile(r"[\w][\w .,+()=-]{0,99}")  # of each part of a new file's name
_BOM = b"\xef\xbb\xbf"
_saving = threading.Lock()


class Conflict(RunError):
    """The file on disk is not the one that the edit began with. found: what is there now (see `read`), or None."""

    def __init__(self, message: str, found: dict[str, Any] | None) -> None:
        super().__init__(message)
        self.found = found


def listing(root: str) -> dict[str, Any]:
    """Every Markdown file of the workspace: name, bytes, changed, title (its first heading, or None)."""
    workspace = Workspace(root)
    found: list[dict[str, Any]] = []
    more = False
    for folder, entries in workspace.walk():
        for entry in entries:
            if entry.name.startswith(".") or not entry.name.lower().endswith(MARKDOWN):
                continue
            if not entry.is_file(follow_symlinks=False):
                continue
            if len(found) >= MOST:
                more = True
                break
            status = entry.stat(follow_symlinks=False)
            found.append(
                {
                    "name": workspace.name(folder / entry.name),
                    "bytes": status.st_size,
                    "changed": status.st_mtime,
                    "title": _title(Path(entry.path)),
                }
            )
    return {"notes": found, "more": more}


def _title(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            head = file.read(2048).decode("utf-8", "replace")
    except OSError:
        return None
    line = next((line for line in head.splitlines() if line.startswith("# ")), "")
    return line.removeprefix("# ").strip() or None


def place(workspace: Workspace, name: str, *, exists: bool = True) -> Path:
    """The real path of a text that may be edited. Raises Outside, Missing, UsageError."""
    path = workspace.resolve(name, exists=exists)
    for suffix in (Path(name).suffix.lower(), path.suffix.lower()):  # of the link, and of what it leads to
        if suffix not in (*MARKDOWN, STUDY):
            raise UsageError(f"{name[:200]}: only Markdown (.md) and study files (.toml) are edited here")
    if path.name == RUN_FILE:
        raise UsageError(f"{name[:200]}: the settings of a run are not edited; start a new run like it")
    if any(part.startswith(".") for part in path.relative_to(workspace.root).parts):
        raise Outside(f"{name[:200]}: hidden files and folders are not edited here")
    if path.exists() and not path.is_file():
        raise UsageError(f"{name[:200]}: not a file")
    return path


def read(workspace: Workspace, name: str) -> dict[str, Any]:
    """name, text (lines end in \\n), version, changed. Raises Missing, LimitError, DataError."""
    path = place(workspace, name)
    data = _bytes(path, name)
    return {
        "name": workspace.name(path),
        "text": _text(data, name).replace("\r\n", "\n"),
        "version": _version(data),
        "changed": path.stat().st_mtime,
    }


def save(workspace: Workspace, name: str, text: str, version: str | None) -> dict[str, Any]:
    """Replace the text whole; `version` is that of the text which was edited, None for a file that must not exist yet.

    A byte-order mark and \\r\\n line ends stay as they are. Answers what `read` would. Raises Conflict, LimitError.
    """
    path = place(workspace, name, exists=False)
    if version is None and not all(_NAME.fullmatch(part) for part in name.split("/")):
        raise UsageError(f"the name {name[:100]!r}: expected letters, digits, spaces and . _ , + ( ) = - in each part")
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{name}: it holds half a character (a lone surrogate); it cannot be saved as UTF-8") from None
    with _saving:
        before = path.read_bytes() if path.exists() else None
        _unchanged(workspace, path, name, before, version)
        if before is not None:
            if before.count(b"\r\n") and before.count(b"\r\n") == before.count(b"\n"):
                data = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
            if before.startswith(_BOM):
                data = _BOM + data
        if len(data) > LIMIT:
            raise LimitError(f"{name}: {len(data):,} bytes; at most {LIMIT:,} are saved here")
        try:
            _replace(path, data, new=before is None)
        except FileExistsError:
            raise Conflict(f"{name}: there is a file of that name now", read(workspace, name)) from None
        except OSError as error:
            raise RunError(f"{name}: cannot be written: {error.strerror}") from None
    return read(workspace, name)


def _unchanged(workspace: Workspace, path: Path, name: str, before: bytes | None, version: str | None) -> None:
    if version is None:
        if before is not None:
            raise Conflict(f"{name}: there is a file of that name already", read(workspace, name))
    elif before is None:
        raise Conflict(f"{name}: the file was removed meanwhile", None)
    elif _version(before) != version:
        raise Conflict(f"{name}: the file was changed on disk meanwhile", read(workspace, name))


def _replace(path: Path, data: bytes, *, new: bool) -> None:
    """Written beside it, made durable, then renamed; a new file is linked, which fails where one is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    mode = 0o644 if new else path.stat().st_mode & 0o777
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(file, "wb") as out:
            os.fchmod(out.fileno(), mode)
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        if new:
            os.link(temporary, path)
        else:
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def picture(workspace: Workspace, name: str) -> tuple[bytes, str]:
    """A picture of the workspace that a note shows: bytes and media type."""
    path = workspace.resolve(name)
    kind = PICTURES.get(path.suffix.lower())
    if kind is None or not path.is_file():
        raise Missing(f"{name[:200]}: no picture ({', '.join(PICTURES)})")
    if any(part.startswith(".") for part in path.relative_to(workspace.root).parts):
        raise Outside(f"{name[:200]}: hidden files and folders are not shown here")
    size = path.stat().st_size
    if size > PICTURE_LIMIT:
        raise LimitError(f"{name}: {size:,} bytes; pictures of at most {PICTURE_LIMIT:,} are shown")
    return path.read_bytes(), kind


def _bytes(path: Path, name: str) -> bytes:
    with path.open("rb") as file:
        data = file.read(LIMIT + 1)
    if len(data) > LIMIT:
        raise LimitError(f"{name}: it has {path.stat().st_size:,} bytes; texts of at most {LIMIT:,} are opened here")
    return data


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: not UTF-8 at byte {error.start}; it is not opened, so that nothing is lost") from None


def _version(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
