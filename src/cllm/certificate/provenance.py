"""What made a certificate: hashes of the sources, the commit, versions of what is assumed."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from functools import cache
from pathlib import Path

import flint
import numpy as np
import torch

import cllm
from cllm import native

ROOT = Path(cllm.__file__).parent


@cache
def source_hash(*rooms: str) -> str:
    """SHA-256 over the source files of these folders of the package, names included."""
    found = hashlib.sha256()
    for room in rooms:
        for path in sorted((ROOT / room).rglob("*")):
            if path.suffix in (".py", ".cpp", ".h", ".hpp", ".cu") and path.is_file():
                content = path.read_bytes()
                found.update(f"{path.relative_to(ROOT).as_posix()} {len(content)}\n".encode() + content)
    return found.hexdigest()


@cache
def commit() -> str | None:
    """The commit of the tree that runs, with + when tracked files differ; None outside a repository of ours."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(ROOT), *words], capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", "errors.py") is None:
        return None
    head = git("rev-parse", "--short=12", "HEAD")
    return head and head + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def assumptions(*, accelerated: bool = False) -> list[str]:
    """What has to be right for the enclosure to hold."""
    return [
        *([f"ball arithmetic in C++ ({native.level('spec', 'slices')}) on float64 BLAS"] if accelerated else []),
        f"FLINT {flint.__FLINT_VERSION__}",
        "GMP",
        "IEEE-754 binary64",
        f"CPython {platform.python_version()}",
        f"NumPy {np.__version__}",
        "the spec and its primitives",
    ]


NOT_CERTIFIED = ["chained steps", "other batches", 'that training is "right"']


def engine_versions() -> dict[str, str]:
    return {"torch": str(torch.__version__), "threads": str(torch.get_num_threads()), "machine": platform.machine()}
