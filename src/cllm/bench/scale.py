"""`cllm bench scale`: the measured step of N processes of this machine beside the prediction of `cllm plan`.

Each number of processes is one launch, in which everything is measured in the same minutes: α and β of the collectives,
the pieces of a step in as many processes as there are cores, and whole steps of the training's own stepper, all N at
once. The prediction is made of the first two and knows nothing of the third.
"""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from cllm import config as settings
from cllm.bench import link
from cllm.bench.measure import Table, Timing
from cllm.config import Config
from cllm.cores import clock_ticks, usable_cores
from cllm.data.prepare import open_prepared, prepare
from cllm.errors import UsageError
from cllm.training.distributed import pieces
from cllm.training.distributed.arrange import arrange
from cllm.training.distributed.cost import COLLECTIVES, Link, Machine, Network, Pieces, Prediction, predict
from cllm.training.distributed.group import Group
from cllm.training.distributed.outlook import fullest, mode_of
from cllm.training.distributed.together import together
from cllm.training.state import State
from cllm.training.stepper import Stepper

BAR = 0.20
"""How far a prediction may be off."""
SIZES = tuple(1 << k for k in (10, 14, 18, 20, 22, 24))
TIMES = ("forward_s", "backward_s", "clear_s", "norm_s", "update_s", "squares_s", "written_s")
ROUNDS, STEPS = 3, 8  # pieces and steps take turns; steps of each


def run(
    processes: Sequence[int],
    *,
    preset: str = "small",
    batch: int = 12,
    sequence: int = 128,
    overrides: Sequence[str] = (),
    rounds: int = ROUNDS,
) -> Table:
    """A row for each number of processes. batch: rows of the step, for all of them together.

    Raises UsageError for numbers that make no sense, ConfigError for settings that so many processes cannot share.
    """
    if not processes or min(processes) < 1:
        raise UsageError(f"bench scale: expected numbers of processes of 1 or more, got {list(processes)}")
    sizes = [f"train.batch={batch}", f"train.sequence={sequence}"]
    config = settings.load(preset=preset, overrides=[*sizes, *overrides])
    machine = Machine(usable_cores(), max(processes))
    for count in processes:
        fullest(config, count)
    d = config.distributed
    mode = f"ZeRO {d.zero}" if d.zero else "data parallel"
    table = Table(
        f"scale-{preset}-b{batch}-t{sequence}"
        + (f"-zero{d.zero}" if d.zero else "")
        + ("-fixed" if d.reduction == "fixed" else ""),
        f"{preset}, {batch} rows of {sequence} × {config.train.accumulate}, {mode}, {d.reduction}: "
        f"a step of N processes on {machine.cores} cores, measured beside predicted",
    )
    with tempfile.TemporaryDirectory(prefix="cllm-scale-") as folder:
        prepare_text(config, Path(folder))
        busy, own, begin = busy_core_s(), os.times(), time.perf_counter()
        for count in sorted(set(processes)):
            found = together(
                measure,
                count,
                settings.to_dict(config),
                folder,
                machine.cores,
                rounds,
                threads=machine.threads(count),
            )
            add(table, config, machine, count, found)
    now = os.times()
    others = busy_core_s() - busy - sum(now[:4]) + sum(own[:4])
    table.facts["cores that other work kept busy"] = max(0.0, others / (time.perf_counter() - begin))
    off = max(abs(float(row.figures["off_fraction"] or 0)) for row in table.rows)
    table.facts |= {
        "cores": machine.cores,
        "bar_fraction": BAR,
        "worst off_fraction": off,
        "within the bar": off <= BAR,
    }
    table.notes += [
        "predicted: from α and β of this launch, and pieces measured while min(N, cores) processes compute at once.",
        "off: predicted over measured, less 1. compute and exposed: of the prediction.",
        "alpha, gb_s: of the collective that carries the gradients.",
    ]
    return table


def busy_core_s() -> float:
    """Seconds that the machine's cores have not been idle since it was started, whoever used them (Linux; else 0)."""
    ticks = clock_ticks()
    return 0.0 if ticks is None else ticks[0] / os.sysconf("SC_CLK_TCK")


def prepare_text(config: Config, folder: Path) -> None:
    """Data for the stepper: letters at random, since no time depends on them."""
    letters = random.Random(0)
    rows = config.train.batch * config.train.accumulate * (config.train.sequence or 1)
    text = folder / "text.txt"
    text.write_text("".join(letters.choice("abcdefghij ") for _ in range(max(20_000, 8 * rows))))
    prepare([str(text)], folder / "data", tokenizer="char", seed=1)


def add(
    table: Table,
    config: Config,
    machine: Machine,
    count: int,
    found: list[dict[str, Any]],
    sizes: Sequence[int] = SIZES,
) -> None:
    """The row of `count` processes. found: what `measure` returned in each, with these sizes of messages."""
    share = fullest(config, count)[1]
    own = [msgspec.convert(one["pieces"], list[Pieces]) for one in found if one["pieces"]]
    mine = pieces.slowest([middle(each) for each in own])
    network = _network(count, [one["link"] for one in found], sizes) if count > 1 else Network({})
    mode = mode_of(config, count)
    said: Prediction = predict(mine, count, len(share.parts), network, machine, mode)
    timing = Timing.of(found[0]["steps"])
    carrier = network.links.get("all-to-all" if mode.zero or mode.nodes else "all-reduce")
    table.add_timing(
        str(count),
        timing,
        predicted_ms=1e3 * said.step_s,
        off_fraction=said.step_s / timing.median_s - 1,
        compute_ms=1e3 * said.compute_s,
        exposed_ms=1e3 * said.exposed_s,
        alpha_us=None if carrier is None else 1e6 * carrier.alpha_s,
        gb_s=None if carrier is None else 1e-9 / carrier.beta_s,
    )


def middle(each: Sequence[Pieces]) -> Pieces:
    """The median of every piece over repetitions."""
    return replace(each[0], **{name: statistics.median(getattr(one, name) for one in each) for name in TIMES})


def _network(count: int, found: list[dict[str, list[dict[str, Any]]]], sizes: Sequence[int]) -> Network:
    links: dict[str, Link] = {}
    for what in COLLECTIVES:
        seconds, cores = link.over_ranks([ranks[what] for ranks in found])
        links[what] = link.fit(what, count, sizes, [statistics.median(each) for each in seconds], cores)
    return Network(links)


def measure(
    group: Group, told: dict[str, Any], folder: str, cores: int, rounds: int, sizes: Sequence[int] = SIZES
) -> dict[str, Any]:
    """In each process: its links, its pieces (of the first `cores` processes), seconds of whole steps, peak memory."""
    config = settings.load(base=told)
    share = fullest(config, group.size)[1]
    links = link.measure(group, sizes) if group.size > 1 else {}
    arrangement = arrange(config, group)
    stepper = Stepper(
        State.fresh(config, "cpu", arrangement.shard), open_prepared(Path(folder) / "data").train, group=group
    )
    found: list[Pieces] = []
    steps: list[float] = []
    for _ in range(rounds):
        if group.rank < cores:
            found.append(pieces.measure(config, share.most, group=group, beside=min(cores, group.size)))
        else:
            pieces.wait(group)
        group.barrier()
        begin = time.perf_counter()
        for i in range(STEPS + 1):
            norm = stepper.gradients(stepper.batches(stepper.state.position), stepper.state.step)
            assert stepper.finite(norm)
            stepper.update(0.0, norm)
            begin, before = time.perf_counter(), begin
            if i:  # the first one finds the caches as the pieces left them
                steps.append(begin - before)
    return {
        "link": links, "pieces": msgspec.to_builtins(found), "steps": steps,
    }  # fmt: skip
