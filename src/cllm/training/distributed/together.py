"""A function in N processes at once on this machine, by torchrun: for measurements.

    python -m torch.distributed.run … -m cllm.training.distributed.together
        MODULE:FUNCTION ANSWER.json ARGUMENTS cpu|cuda

The function gets the group and the arguments (JSON), and returns something JSON-able.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from cllm.errors import RunError
from cllm.training.distributed.group import Group

TOLD = 12  # last lines of all processes' words that are repeated, where none says why it failed


def together(
    function: Callable[..., Any],
    processes: int,
    *arguments: Any,
    threads: int = 1,
    wait_s: float = 600.0,
    cuda: bool = False,
) -> list[Any]:
    """What `function(group, *arguments)` returned in each of `processes` processes of `threads` threads, by rank.

    function: of a module's top level.  arguments: JSON-able.  cuda: each has a GPU of its own (NCCL).

    Raises RunError with the last words of a process that failed, or when they take longer than `wait_s`.
    """
    name = f"{function.__module__}:{function.__qualname__}"
    with tempfile.TemporaryDirectory(prefix="cllm-together-") as folder:
        answer = Path(folder) / "answer.json"
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1",
            f"--nproc-per-node={processes}", "-m", __name__, name, str(answer), json.dumps(arguments),
            "cuda" if cuda else "cpu",
        ]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        environment.setdefault("OMP_WAIT_POLICY", "passive")
        with tempfile.TemporaryFile("w+") as words:
            running = subprocess.Popen(command, env=environment, stdout=words, stderr=words)
            try:
                code = running.wait(wait_s)
            except subprocess.TimeoutExpired:
                raise RunError(f"{name}: {processes} processes took longer than {wait_s:g} s") from None
            finally:
                if running.poll() is None:
                    running.terminate()  # torchrun ends its processes
                    running.wait()
            if code != 0:
                words.seek(0)
                last = _why(answer) or "".join(words.readlines()[-TOLD:])
                raise RunError(f"{name}: one of {processes} processes failed (exit code {code}):\n{last}")
        found: list[Any] = json.loads(answer.read_bytes())
        return found


def _why(answer: Path) -> str:
    """What the process said that failed first."""
    said = sorted(answer.parent.glob(f"{answer.name}.*"), key=lambda file: file.stat().st_mtime_ns)
    return said[0].read_text(encoding="utf-8") if said else ""


def _main(name: str, answer: str, arguments: str, device: str) -> None:
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    module, _, function = name.partition(":")
    group = Group.from_environment(cuda=device == "cuda")
    try:
        found = group.gather_objects(getattr(import_module(module), function)(group, *json.loads(arguments)))
    except Exception as error:
        Path(f"{answer}.{group.rank}").write_text(f"rank {group.rank}: {type(error).__name__}: {error}", "utf-8")
        raise
    if group.first:
        Path(answer).write_text(json.dumps(found), encoding="utf-8")
    group.barrier()
    group.close()


if __name__ == "__main__":
    _main(*sys.argv[1:])
