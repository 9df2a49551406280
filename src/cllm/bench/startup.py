"""`cllm bench startup`: how long a command takes before it does anything, each time in a new process."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cllm
from cllm.bench.measure import Table, interleave, ratio
from cllm.errors import RunError

TARGETS_S = {"cllm --help": 0.3, "cllm generate, first token": 3.0}
CLLM = (sys.executable, "-m", "cllm")


def _done(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise RunError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")


def run(preset: str = "seed", *, rounds: int = 5) -> Table:
    """Commands in turn, from the start of the process to its end; the model is trained for one step on this package's
    own source, so its vocabulary is small. Python itself and `import torch`, which no command can undercut, beside."""
    table = Table("startup", f"start-up: whole commands in new processes, {preset}")
    with tempfile.TemporaryDirectory() as place:
        texts = sorted(str(path) for path in Path(cllm.__file__).parent.rglob("*.py"))
        settings = [f"--set={key}" for key in ("train.steps=1", "train.batch=1", "train.sequence=32")]
        made = str(Path(place) / "run")
        _done([*CLLM, "train", *texts[:40], "--out", made, "--preset", preset, "--quiet", *settings])
        commands = {
            "python": [sys.executable, "-c", ""],
            "python, import torch": [sys.executable, "-c", "import torch"],
            "cllm --help": [*CLLM, "--help"],
            "cllm generate, first token": [*CLLM, "generate", made, "--prompt", "import", "--max-tokens", "1"],
        }
        timings = interleave(
            {name: lambda command=command: _done(command) for name, command in commands.items()},  # type: ignore[misc]
            rounds=rounds,
        )
    for name, timing in timings.items():
        target = TARGETS_S.get(name)
        table.add_timing(
            name,
            timing,
            times_import_torch=ratio(timing, timings["python, import torch"]).median,
            target_s=target,
            within_target=None if target is None else timing.median_s <= target,
        )
    return table
