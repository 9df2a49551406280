"""What a step takes: planned, allocated and resident bytes are one figure."""

from __future__ import annotations

import sys

import pytest

from cllm.bench import memory


@pytest.mark.parametrize("row", list(memory.ROWS))
def test_the_plan_is_what_is_allocated(row: str):
    config = memory.configuration(row, "nano", 2, 16)
    state, one = memory.one_step(config)
    one()
    held = [state, one]
    if config.optim.ema:
        average = state.evaluated
        assert average.operands["tok"] is not None  # its rounded copy comes with the first evaluation
        held.append(average)
    assert memory.allocated_bytes(*held) == pytest.approx(memory.size(config).total_bytes, rel=0.01)


@pytest.mark.prove
@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
@pytest.mark.parametrize("row", list(memory.ROWS))
def test_planned_allocated_and_resident_agree_within_five_percent(row: str):
    figures = memory.measured(memory.configuration(row, "seed", 8, 256))
    assert memory.disagreement(figures) <= 0.05, figures
