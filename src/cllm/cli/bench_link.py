"""`cllm bench link` and `cllm bench scale`: what communication costs here, and whole steps beside their prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cllm.cli.bench_show import check_folder, show
from cllm.cli.processes import numbers


def link(
    *,
    processes: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    save: Path | None = None,
    json: bool = False,
) -> int:
    """α (latency) and β (time a byte) of gloo's collectives between processes of this machine, with residuals.

    Examples:

      cllm bench link --processes 2

      cllm bench link --processes 2,3,4 --save benchmarks

    Parameters
    ----------
    processes: list[str]
        How many, as in 2,3,4: measured one after the other. Default: 2.
    save: Path
        Also write the results as JSON into this folder; `cllm plan --local FILE` reads one.
    json: bool
        Print one JSON object.
    """
    check_folder(save)
    from cllm.bench.link import run

    return show([run(count) for count in numbers(processes, [2])], save, json)


def scale(
    *,
    processes: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    preset: str = "small",
    batch: int = 12,
    sequence: int = 128,
    set: Annotated[list[str] | None, Parameter(name="--set")] = None,
    rounds: int = 3,
    save: Path | None = None,
    json: bool = False,
) -> int:
    """The measured step of N processes on this machine beside the prediction of `cllm plan`, error in percent.

    Exit code 1 when a prediction is off by more than 20 %.

    Examples:

      cllm bench scale

      cllm bench scale --preset seed --processes 1,2,4 --set distributed.zero=1 --save benchmarks

    Parameters
    ----------
    processes: list[str]
        How many, as in 1,2,4: measured one after the other. Default: 1,2,3,4.
    preset: str
        The model's size.
    batch: int
        Rows of a micro-batch, shared by all processes.
    sequence: int
        Tokens a row.
    set: list[str]
        One setting, as in --set train.accumulate=4; may be repeated.
    rounds: int
        How often pieces and steps take turns.
    save: Path
        Also write the result as JSON into this folder.
    json: bool
        Print one JSON object.
    """
    check_folder(save)
    from cllm.bench.scale import run

    counts = numbers(processes, [1, 2, 3, 4])
    found = run(counts, preset=preset, batch=batch, sequence=sequence, overrides=set or (), rounds=rounds)
    return show([found], save, json) or int(not found.facts["within the bar"])
