"""One folder that the studio works in. Every path that comes from a browser is resolved below it, links followed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cllm.errors import UsageError

OWN = ".cllm-studio"  # the studio's own folder: index, jobs, logs
DEPTH = 5  # folders deep that runs and texts are looked for
SKIP = {"node_modules", "__pycache__", "checkpoints"}
RUN_FILE = "run.toml"
RUN_PARTS = (RUN_FILE, "events.jsonl", "notes.md", "latest", "best", "checkpoints", "tokenizer.json", "data")


class Outside(UsageError):
    """A path that leads out of the workspace (answered with 403)."""


class Missing(UsageError):
    """Nothing of that name in the workspace (answered with 404)."""


class Workspace:
    """root: an existing folder. Raises UsageError when it is none."""

    def __init__(self, root: str | Path) -> None:
        try:
            self.root = Path(root).resolve(strict=True)
        except OSError as error:
            raise UsageError(f"{root}: no such workspace: {error.strerror}; make the folder first") from None
        if not self.root.is_dir():
            raise UsageError(f"{root}: a file; the workspace is a folder")

    @property
    def own(self) -> Path:
        """Where the studio keeps its index, jobs and logs; made when missing."""
        path = self.root / OWN
        if path.is_symlink():
            raise UsageError(f"{path}: a link; the studio's own folder must be a real one")
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def resolve(self, name: str, *, exists: bool = True) -> Path:
        """`name`, relative to the root (or beginning with it) with `/` between folders, as a real path below it.

        Raises Outside for anything that leads elsewhere (absolute, "..", a link out of the workspace) or into the
        studio's own folder, Missing when `exists` and nothing is there.
        """
        name = name.removeprefix(f"{self.root.as_posix()}/")  # as a run that was started from a terminal may say it
        if "\0" in name or "\\" in name or any("\ud800" <= sign <= "\udfff" for sign in name):
            raise Outside(f"{name!r}: not a path in the workspace")
        parts = name.split("/")
        if name.startswith("/") or ".." in parts or (parts and parts[0] == "~"):
            raise Outside(f"{name}: leads out of the workspace {self.root}; give a path below it")
        try:
            path = (self.root / name).resolve()
            inside = path == self.root or path.is_relative_to(self.root)
            there = path.exists()
        except (OSError, RuntimeError, ValueError) as error:  # a name too long, a loop of links
            raise Missing(f"{name[:200]}: cannot be opened: {error}") from None
        if not inside or path.is_relative_to(self.root / OWN):
            raise Outside(f"{name}: leads out of the workspace {self.root}; links are followed")
        if exists and not there:
            raise Missing(f"{name}: not in the workspace {self.root}")
        return path

    def name(self, path: Path) -> str:
        """The name of a path below the root, as `resolve` takes it."""
        return path.relative_to(self.root).as_posix()

    def run(self, name: str) -> Path:
        """A run's folder. Raises Missing when it holds no run, Outside when one of its files is a link out of here."""
        path = self.resolve(name)
        for part in RUN_PARTS:
            if (path / part).is_symlink():
                self.resolve(f"{self.name(path)}/{part}", exists=False)
        if not (path / RUN_FILE).is_file() and not (path / "events.jsonl").is_file():
            raise Missing(f"{name}: no run there (it has neither run.toml nor events.jsonl)")
        return path

    def walk(self, limit: int = 20_000) -> Iterator[tuple[Path, list[os.DirEntry[str]]]]:
        """Folders up to DEPTH deep and their entries by name; links to folders are not followed, at most `limit`
        folders are looked into. A run's own sub-folders are left out."""
        todo: list[tuple[Path, int]] = [(self.root, 0)]
        seen = 0
        while todo and seen < limit:
            folder, depth = todo.pop()
            seen += 1
            try:
                with os.scandir(folder) as found:
                    entries = sorted(found, key=lambda entry: entry.name)
            except OSError:
                continue
            yield folder, entries
            if depth >= DEPTH or any(entry.name == RUN_FILE for entry in entries):
                continue
            for entry in reversed(entries):
                hidden = entry.name.startswith(".") or entry.name in SKIP
                if not hidden and entry.is_dir(follow_symlinks=False):
                    todo.append((folder / entry.name, depth + 1))
