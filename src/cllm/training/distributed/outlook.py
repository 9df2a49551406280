"""`cllm plan --processes`: a step on N processes, from pieces measured here and links that are given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from cllm import config as settings
from cllm.config import Config
from cllm.errors import ConfigError, UsageError
from cllm.training.chart import Chart, Series
from cllm.training.distributed.arrange import arrange, bytes_by_part, refuse_fused
from cllm.training.distributed.cost import Machine, Mode, Network, Pieces, Prediction, predict
from cllm.training.distributed.group import Group
from cllm.training.distributed.measured import Measured
from cllm.training.distributed.split import FIXED, Share
from cllm.training.distributed.tree import leaves, remaining
from cllm.training.plan import Speed
from cllm.training.state import State


@dataclass(frozen=True)
class Job:
    """Where the processes would run. between: the network between machines.  inside: between processes of one machine
    (None: the same).  per_machine: processes of one.  weak: every process gets the whole `train.accumulate` micro-
    batches, so that the global batch grows with their number; otherwise it stays, and they share it."""

    between: Network
    inside: Network | None = None
    per_machine: int = 1
    weak: bool = False


@dataclass(frozen=True)
class Line:
    """The step on `processes` processes. speedup: in tokens/s over one process that has a machine (on GPUs: a device)
    for itself.  efficiency: speedup by the number of machines (or devices) used.  why_not: instead of it all."""

    processes: int
    machines: int
    rows_a_step: int = 0
    prediction: Prediction | None = None
    tokens_per_s: float = 0.0
    speedup: float = 0.0
    efficiency: float = 0.0
    memory_bytes: int = 0
    why_not: str = ""

    @property
    def speed(self) -> Speed:
        """As `cllm plan` has it of one process."""
        assert self.prediction is not None
        return Speed(self.prediction.step_s, self.tokens_per_s)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, flat."""
        found = {key: value for key, value in asdict(self).items() if key != "prediction"}
        return found | (asdict(self.prediction) if self.prediction else {})


def outlook(
    config: Config, processes: Sequence[int], job: Job, *, measured: Measured | None = None, memory: bool = True
) -> list[Line]:
    """A line for each number of processes, rising. measured: the pieces (default: here and now).  memory:
    False to leave it out (seconds, at thousands of processes).

    Raises UsageError for numbers that make no sense, ConfigError for a memory mode that cannot be shared.
    """
    if not processes or min(processes) < 1 or job.per_machine < 1:
        raise UsageError(
            f"processes: expected 1 or more, got {list(processes)} with {job.per_machine} a machine; as in "
            "--processes 1,2,4 --per-machine 2"
        )
    refuse_fused(config)
    measured = measured or Measured(config)
    machine = Machine(measured.cores, job.per_machine)

    def pieces(rows: int, ranks: int) -> Pieces:
        threads = measured.threads if ranks == 1 else machine.threads(ranks)
        return measured.pieces(rows, max(1, min(machine.here(ranks), machine.cores)), threads)

    alone = _line(config, 1, job, machine, pieces)
    lines = []
    for ranks in sorted(set(processes)):
        try:
            line = _line(config, ranks, job, machine, pieces)
        except ConfigError as error:
            lines.append(Line(ranks, machine.count(ranks), why_not=str(error)))
            continue
        speedup = line.tokens_per_s / alone.tokens_per_s
        held = _memory(config, ranks, job) if memory else 0
        lines.append(replace(line, speedup=speedup, efficiency=speedup / line.machines, memory_bytes=held))
    return lines


def _line(config: Config, ranks: int, job: Job, machine: Machine, pieces: Callable[[int, int], Pieces]) -> Line:
    config = _grown(config, ranks, job)
    share = fullest(config, ranks)[1]
    rows, sequence = config.train.batch * config.train.accumulate, config.train.sequence or config.model.context
    network = job.between if ranks > job.per_machine or job.inside is None else job.inside
    found = predict(pieces(share.most, ranks), ranks, len(share.parts), network, machine, mode_of(config, ranks))
    return Line(ranks, machine.count(ranks), rows, found, rows * sequence / found.step_s)


def _memory(config: Config, ranks: int, job: Job) -> int:
    config = _grown(config, ranks, job)
    return sum(bytes_by_part(config, fullest(config, ranks)[0], ranks).values())


def _grown(config: Config, ranks: int, job: Job) -> Config:
    return settings.replace(config, {"train.accumulate": config.train.accumulate * ranks}) if job.weak else config


def fullest(config: Config, ranks: int) -> tuple[int, Share]:
    """A rank that has the most to do, and its share. Raises ConfigError when there is not something for each."""
    shares = ((rank, arrange(config, Group(rank=rank, size=ranks)).share) for rank in range(ranks))
    return max(shares, key=lambda found: (found[1].most * len(found[1].parts), found[1].rows))


def mode_of(config: Config, ranks: int) -> Mode:
    """How the ranks of this configuration divide the work."""
    zero, count, nodes = config.distributed.zero if ranks > 1 else 0, config.train.accumulate, 0
    if config.distributed.reduction == FIXED:
        # under ZeRO 2 every leaf travels by itself
        nodes = 1 if zero == 2 else max(len(remaining(leaves(rank, ranks, count), count)) for rank in range(ranks))
    return Mode(zero, nodes, State.fresh(config, "meta").model.params.nbytes)


def chart(lines: Iterable[Line], title: str, subtitle: str) -> Chart:
    """Efficiency against the number of processes, and what it would be if nothing of the communication were hidden."""
    known = [(line, line.prediction) for line in lines if line.prediction is not None]
    x = [float(line.processes) for line, _ in known]
    bare = [
        line.efficiency * found.step_s / max(found.compute_s + found.communicate_s, found.step_s)
        for line, found in known
    ]
    return Chart(
        [
            Series("efficiency", x, [line.efficiency for line, _ in known]),
            Series("without overlap", x, bare, colour=1),
        ],
        title,
        "processes",
        "efficiency",
        subtitle,
        log_x=True,
    )
