"""Processes as the system sees them: is this still the one that was started, and is it stopped?

A process id alone is not enough: it is given again after its process has ended. With the time the process started it
names one process for ever (Linux: clock ticks since this boot, and the boot's own id; elsewhere what `ps` says).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

State = Literal["running", "paused", "gone"]
LINUX = sys.platform.startswith("linux")


def birth(pid: int) -> str | None:
    """What, with `pid`, names this process; None when there is none, or it has ended and waits to be reaped."""
    return _look(pid)[0]


def state(pid: int, born: str) -> State:
    """Of the process that `birth` described."""
    now, letter = _look(pid)
    if now != born:
        return "gone"
    return "paused" if letter in ("T", "t") else "running"


def _look(pid: int) -> tuple[str | None, str]:
    if LINUX:
        try:
            # the name, in parentheses, may hold anything: the fields begin behind the last one
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return None, ""
        if fields[0] in ("Z", "X"):
            return None, ""
        return f"{boot}/{fields[19]}", fields[0]
    found = subprocess.run(["ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    letter, _, started = found.stdout.strip().partition(" ")
    if not started or letter.startswith("Z"):
        return None, ""
    return started.strip(), letter[:1]


def holds(pid: int, path: Path) -> bool:
    """Whether a process has this file open (Linux only; elsewhere False)."""
    try:
        wanted = path.stat()
        opened = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False
    for number in opened:
        try:
            found = os.stat(f"/proc/{pid}/fd/{number}")
        except OSError:  # closed in between
            continue
        if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
            return True
    return False
