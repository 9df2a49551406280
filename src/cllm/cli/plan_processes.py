"""The part of `cllm plan` about several processes: the job that the options describe, its table and its picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cllm.config import Config
    from cllm.training.distributed.outlook import Job, Line


def job(bandwidth: float, latency: float, per_machine: int, local: Path | None, algorithm: str, weak: bool) -> Job:
    """Where the processes would run. Raises UsageError for a link that makes no sense or a file that is none."""
    from cllm.bench import link
    from cllm.training.distributed.cost import Link, Network
    from cllm.training.distributed.outlook import Job

    between = Network.uniform(Link.of(bandwidth, latency), algorithm)
    return Job(between, None if local is None else link.load(local)[1], per_machine, weak)


def lines(config: Config, processes: Sequence[int], job: Job, file: Path | None) -> list[Line]:
    """The outlook. file: where the measured pieces are, or are kept."""
    from cllm.training.distributed.measured import Measured
    from cllm.training.distributed.outlook import outlook

    there = file is not None and file.exists()
    measured = Measured.load(file, config) if file is not None and there else Measured(config)
    found = outlook(config, processes, job, measured=measured)
    if file is not None and not there:
        measured.save(file)
    return found


def described(config: Config, link: Mapping[str, Any]) -> str:
    """The job in words."""
    d = config.distributed
    rows = f"{config.train.batch} × {config.train.accumulate} rows a {'process and ' if link['weak'] else ''}step"
    mode = f"ZeRO {d.zero}" if d.zero else "data parallel"
    fixed = ", fixed tree" if d.reduction == "fixed" else f", {link['algorithm']}"
    where = f"{link['per_machine']} process{'es' if link['per_machine'] > 1 else ''} a machine"
    return f"{config.preset}, {rows}, {mode}{fixed}, {where}, {link['bandwidth']:g} GB/s, {link['latency']:g} µs"


def show(lines: Sequence[Line], config: Config, link: Mapping[str, Any]) -> None:
    """The table on standard output."""
    print(described(config, link))
    print("predicted, not run: pieces of a step as measured, communication by the model of docs/scale.md")
    print("processes    rows    step ms  exposed ms      tokens/s  efficiency  memory MB   sent MB")
    refused = ""
    for line in lines:
        found = line.prediction
        if found is None:
            print(f"{line.processes:9,}       —")
            refused = refused or line.why_not
            continue
        print(
            f"{line.processes:9,}{found.rows * found.micro_batches:8,}{1e3 * found.step_s:11,.1f}"
            f"{1e3 * found.exposed_s:12,.1f}{line.tokens_per_s:14,.0f}{line.efficiency:12.1%}"
            f"{line.memory_bytes / 1e6:11,.1f}{found.sent_bytes / 1e6:10,.1f}"
        )
    print("rows, memory, sent: of one process a step; exposed: communication that computing does not hide;")
    print("efficiency: tokens/s over one process's with a machine to itself, by the machines used (or the GPUs)")
    if refused:
        print(f"—: {refused}")


def write_picture(file: Path, lines: Sequence[Line], config: Config, link: Mapping[str, Any]) -> None:
    """The efficiency as an SVG. Raises OSError when it cannot be written."""
    from cllm.training.distributed.outlook import chart

    file.write_text(chart(lines, "Efficiency, predicted", described(config, link)).svg(), encoding="utf-8")
