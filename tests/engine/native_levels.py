"""The instruction levels that this machine can run; `level` (conftest.py) switches a test to one of them."""

from __future__ import annotations

import os

import pytest

from cllm import native

_HIGHEST = native.level("engine", "engine")
_FORCED = os.environ.get(native.VARIABLE)
LEVELS = (
    [pytest.param("off", marks=pytest.mark.skip(reason=native.why_not("engine", "engine")))]
    if _HIGHEST == "off"
    else [_FORCED]
    if _FORCED
    else list(native.LEVELS[: native.LEVELS.index(_HIGHEST) + 1])
)
