"""Small subjects that several tests share."""

from __future__ import annotations

import pytest

from cllm.certificate.subjects import Subject, of_preset
from cllm.certificate.zoo import scene


@pytest.fixture(scope="session")
def nano() -> Subject:
    return of_preset("nano", 64)


@pytest.fixture(scope="session")
def padded() -> Subject:
    """float64, three rows of 13, the last one padded, tokens repeated."""
    return scene("padded")
