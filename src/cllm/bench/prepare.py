"""`cllm bench prepare`: time and memory of `cllm data prepare` for texts of growing size.

The text is made here: lines of invented words whose frequencies fall as in a language (Zipf), so no part of it repeats
another. Each size is prepared by the real command in processes of its own, whose memory is watched from outside: the
proportional set size (Linux), summed over the command and the encoders it starts, so shared pages count once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cllm.bench.measure import Table
from cllm.errors import RunError, UsageError

TARGET_MB = 500
"""Of memory, however large the text."""
WORDS, LINE, BLOCK = 60_000, 12, 1 << 20  # different words, words a line, words made at a time
EVERY_S = 0.1


def write_text(path: Path, size: int, seed: int = 0) -> None:
    """A text of `size` bytes (to a line): 12 words a line, the r-th word as frequent as 1/r."""
    rng = np.random.default_rng(seed)
    letters = np.frombuffer(b"etaoinshrdlucmfwypvbgkqjxz", np.uint8)
    lengths = rng.integers(2, 11, WORDS)
    words = np.array([bytes(rng.choice(letters, n)).decode() for n in lengths], dtype=object)
    shares = 1.0 / np.arange(1, WORDS + 1)
    edges = np.cumsum(shares / shares.sum())
    written = 0
    with path.open("w", encoding="ascii") as file:
        while written < size:
            chosen = words[np.searchsorted(edges, rng.random(BLOCK)).clip(max=WORDS - 1)]
            for start in range(0, BLOCK, LINE):
                written += file.write(" ".join(chosen[start : start + LINE]) + "\n")
                if written >= size:
                    break


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found, open_ = [], [pid]
    while open_:
        one = open_.pop()
        found.append(one)
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                open_ += map(int, (task / "children").read_text().split())
        except OSError:
            continue  # it has ended
    return found


def proportional_bytes(pid: int) -> int:
    """Memory of a process, shared pages divided by their users; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def watched(command: Sequence[str]) -> tuple[float, int, int]:
    """Seconds, largest memory of all its processes together in bytes, and of the first one."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=told, stderr=told)
        together = first = 0
        while process.poll() is None:
            sizes = [proportional_bytes(pid) for pid in family(process.pid)]
            together, first = max(together, sum(sizes)), max(first, sizes[0])
            time.sleep(EVERY_S)
        if process.returncode:
            told.seek(0)
            raise RunError(f"{' '.join(command)} failed: {told.read().decode(errors='replace')[-2000:]}")
    return time.perf_counter() - start, together, first


def run(sizes_mb: Sequence[int] = (50, 200), *, vocab_size: int = 1000, folder: Path | None = None) -> Table:
    """One row a size (MB = 10⁶ bytes). folder: where text and shards lie meanwhile (default: the temporary one)."""
    if not Path("/proc/self/smaps_rollup").exists():
        raise UsageError("bench prepare: reads /proc/PID/smaps_rollup, which only Linux has")
    table = Table("prepare", f"cllm data prepare: byte-pair encoding, {vocab_size} tokens")
    for size in sizes_mb:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            text = Path(place) / "text.txt"
            write_text(text, size * 10**6)
            command = [sys.executable, "-m", "cllm", "data", "prepare", str(text), "--out", str(Path(place) / "out")]
            seconds, together, first = watched([*command, "--vocab-size", str(vocab_size)])
            table.add(
                f"{size:,} MB",
                seconds=seconds,
                mb_per_s=os.path.getsize(text) / 1e6 / seconds,
                memory_mb=together / 1e6,
                first_process_mb=first / 1e6,
                within_target=together <= TARGET_MB * 10**6,
            )
    table.notes.append(f"memory_mb: all processes together, proportional set size. Target: {TARGET_MB} MB.")
    return table
