"""`cllm train`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from cllm.cli.arguments import Text, data_names
from cllm.errors import CllmError, UsageError


def train(
    *data: Text,
    run: Path | None = None,
    out: Path | None = None,
    resume: bool = False,
    start: Annotated[Path | None, Parameter(name="--from")] = None,
    preset: str | None = None,
    set: Annotated[list[str] | None, Parameter(name="--set")] = None,
    device: Literal["auto", "cpu", "cuda"] | None = None,
    processes: int | None = None,
    restarts: int | None = None,
    quiet: bool = False,
) -> int:
    """Train a language model on text.

    Without --set train.steps or train.max_minutes it trains for 5 minutes: the first steps are timed and the number
    of steps is fixed. Ctrl-C finishes the step, saves and says how to go on; nothing is ever overwritten.

    Examples:

      cllm train book.txt --preset nano --set train.max_minutes=2

      cllm train shakespeare --run runs/demo.toml --out runs/shakespeare

      cllm train --resume --out runs/shakespeare

      cllm train book.txt --preset small --processes 2

      cllm train --resume --out runs/shakespeare --processes 4 --set distributed.zero=1

    Parameters
    ----------
    data: str
        Text files, folders, globs, - for standard input, a named corpus (shakespeare), or one folder that
        `cllm data prepare` made.
    run: Path
        A run file (TOML); see runs/ for some.
    out: Path
        The run directory. Default: runs/ and the name of the data.
    resume: bool
        Go on with the run in --out, byte for byte as if it had not stopped.
    start: Path
        Start from the weights, model and tokenizer of this run (or of one checkpoint's folder), with a fresh optimiser
        at step 0. Another text or context is said and recorded.
    preset: str
        The model's size: nano, small (default), seed, medium, large or gpt2.
    set: list[str]
        One setting, as in --set optim.lr=3e-4; may be repeated. `cllm info --settings` lists them all.
    device: str
        auto takes a GPU where there is one.
    processes: int
        So many processes on this machine share every step (several machines: docs/distributed.md).
    restarts: int
        How often the processes start again by themselves, from the newest checkpoint, when one dies. Default: 3.
    quiet: bool
        Show nothing but errors.
    """
    names = data_names(data, train)
    from cllm import api

    settings = list(set or [])
    if device is not None:
        settings.append(f"device={device}")
    given: dict[str, Any] = {"run": run, "preset": preset, "out": out, "resume": resume, "start": start}
    if processes is None and restarts is not None:
        raise UsageError("--restarts: it is about --processes N; leave it out")
    if processes is not None and api.check_processes(names, processes, restarts, set=settings, **given) > 1:
        from cllm.training.distributed.launch import RESTARTS, launch

        said = ["train", *names, *_options(given), *(f"--set={one}" for one in settings), *["--quiet"] * quiet]
        return launch(said, processes, restarts=RESTARTS if restarts is None else restarts)
    rank = os.environ.get("RANK")
    try:
        found = api.train(names, set=settings, quiet=quiet, **given)
    except CllmError as error:
        if rank is None:
            raise
        return _end_rank(error, rank)
    if found.outcome is None or found.outcome.reason != "interrupted":
        return 0
    return 130 if rank is None else 0  # a rank that was asked to stop has not failed: torchrun must not start it again


def _options(given: dict[str, Any]) -> list[str]:
    """As they are written on the command line."""
    names = {"start": "from"}
    return [
        f"--{names.get(key, key)}" if value is True else f"--{names.get(key, key)}={value}"
        for key, value in given.items()
        if value not in (None, False)
    ]


def _end_rank(error: CllmError, rank: str) -> int:
    """One of several processes ends: the one that failed says why, once."""
    from cllm.training.distributed.group import PeerLost, SaidElsewhere
    from cllm.training.distributed.launch import report

    report(error)
    if not isinstance(error, SaidElsewhere):
        who = "" if rank == "0" or isinstance(error, PeerLost) else f"rank {rank}: "
        print(f"cllm: {who}{error}", file=sys.stderr)
    return error.exit_code
