"""`cllm bench link`: what communication between processes costs here."""

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
