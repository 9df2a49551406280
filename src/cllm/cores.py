"""The processor's cores: how many this process may use, and how busy they have been. Imports nothing of the project."""

from __future__ import annotations

import os
from pathlib import Path


def usable_cores() -> int:
    """Cores this process may run on (its affinity), not those the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def clock_ticks() -> tuple[int, int] | None:
    """Clock ticks of all cores since the machine was started: those that worked, whoever for, and all (Linux only).

    `os.sysconf("SC_CLK_TCK")` of them are a second of one core.
    """
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)
