"""`cllm train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from cllm.cli.arguments import Text, data_names


def train(
    *data: Text,
    run: Path | None = None,
    out: Path | None = None,
    resume: bool = False,
    start: Annotated[Path | None, Parameter(name="--from")] = None,
    preset: str | None = None,
    set: Annotated[list[str] | None, Parameter(name="--set")] = None,
    device: Literal["auto", "cpu", "cuda"] | None = None,
    quiet: bool = False,
) -> int:
    """Train a language model on text.

    Without --set train.steps or train.max_minutes it trains for 5 minutes: the first steps are timed and the number
    of steps is fixed. Ctrl-C finishes the step, saves and says how to go on; nothing is ever overwritten.

    Examples:

      cllm train book.txt --preset nano --set train.max_minutes=2

      cllm train shakespeare --run runs/small.toml --out runs/shakespeare

      cllm train --resume --out runs/shakespeare

    Parameters
    ----------
    data: str
        Text files, folders, globs, - for standard input, or a named corpus (shakespeare).
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
    quiet: bool
        Show nothing but errors.
    """
    names = data_names(data, train)
    from cllm import api

    settings = list(set or [])
    if device is not None:
        settings.append(f"device={device}")
    found = api.train(names, run=run, preset=preset, out=out, resume=resume, start=start, set=settings, quiet=quiet)
    return 130 if found.outcome is not None and found.outcome.reason == "interrupted" else 0
