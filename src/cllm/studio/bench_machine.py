"""What a measurement shares the machine with, and how long it takes."""

from __future__ import annotations

import time
from typing import Any

from cllm.cores import clock_ticks, usable_cores

SECONDS = 0.25  # over which the processor is watched
# Seconds of a command with its own options on two cores of an AMD EPYC, which did other work, too; None: more than
# WAITED. Only what was timed is in it; what this workspace has measured itself comes first.
USUAL: dict[str, float | None] = {"machine": 15, "numbers": 123}
WAITED = 170.0


def usual(name: str) -> dict[str, float | None]:
    """{"usual": seconds}, or nothing where nobody has timed the command."""
    return {"usual": USUAL[name]} if name in USUAL else {}


def busy() -> dict[str, Any]:
    """cores, and the share of them that worked during a quarter of a second just now (None where nobody says)."""
    before = clock_ticks()
    time.sleep(SECONDS)
    after = clock_ticks()
    share = None
    if before and after and after[1] > before[1]:
        share = (after[0] - before[0]) / (after[1] - before[1])
    return {"cores": usable_cores(), "busy": share}
