"""Checkpoints of older versions of the format, brought up to date when they are read; the files stay as they are.

docs/formats.md says what each version changed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cllm.errors import RunError

Manifest = dict[str, Any]


def _from_1(manifest: Manifest) -> Manifest:
    """Version 2 keeps running statistics with the state (the spike policy's, the noise scale's): there were none."""
    manifest["meta"].setdefault("statistics", {})
    return manifest


STEPS: dict[int, Callable[[Manifest], Manifest]] = {1: _from_1}
"""Version → how to make the next one of it."""


def upgraded(manifest: Manifest, newest: int, where: Path) -> Manifest:
    """A manifest of any known version as one of the newest.

    Raises RunError for a version that this program does not know, too new or too old; KeyError without one.
    """
    version = manifest["version"]
    if not isinstance(version, int) or isinstance(version, bool):
        return manifest  # the caller says what is wrong with it
    if version > newest:
        raise RunError(f"{where}: checkpoint format {version}, but this cllm knows up to {newest}. Upgrade cllm.")
    manifest = copy.deepcopy(manifest)
    while version < newest:
        step = STEPS.get(version)
        if step is None:
            oldest = min(STEPS, default=newest)
            raise RunError(
                f"{where}: checkpoint format {version}, but this cllm reads {oldest} to {newest} only. Open it with "
                "the version that wrote it"
            )
        if not isinstance(manifest.get("meta"), dict):
            return manifest
        manifest = step(manifest)
        version += 1
        manifest["version"] = version
    return manifest
