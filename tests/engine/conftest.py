"""Switches the kernels' level."""

import pytest

from cllm import native


@pytest.fixture
def level(request, monkeypatch):
    """The native kernels at this instruction level: parametrize with `native_levels.LEVELS`, indirect=True."""
    monkeypatch.setenv(native.VARIABLE, request.param)
    return request.param
