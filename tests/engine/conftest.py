"""Lets the tests of this folder import the judges and their shared checks by name; switches the kernels' level."""

import sys
from pathlib import Path

import pytest

from cllm import native

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]


@pytest.fixture
def level(request, monkeypatch):
    """The native kernels at this instruction level: parametrize with `native_levels.LEVELS`, indirect=True."""
    monkeypatch.setenv(native.VARIABLE, request.param)
    return request.param
