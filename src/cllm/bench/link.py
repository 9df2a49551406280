"""`cllm bench link`: α and β of gloo's collectives between the processes of this machine, fitted over message sizes.

    t(b) = messages·α + sent(b)·β        (training/distributed/cost.py says how many messages, and how many bytes)

α and β are those of least squares of the *relative* residuals, neither below 0: a fit of seconds would see only the
largest messages. What a collective costs each rank in seconds of a core is fitted alike, from the processes' CPU time.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cllm.bench.measure import FORMAT, Table, Timing
from cllm.errors import UsageError
from cllm.training.distributed.cost import COLLECTIVES, Collective, Link, Network, messages, sent
from cllm.training.distributed.group import Group
from cllm.training.distributed.together import together

SIZES = tuple(1 << k for k in range(10, 25, 2))  # 1 kB … 16 MB
LONGEST_S, CALLS = 0.2, (5, 200)  # of one size: seconds in all, and at least and at most so many calls
KEYS = ("alpha_us", "gb_s", "core_us_per_message", "core_s_per_gb")


def run(processes: int, *, sizes: Sequence[int] = SIZES, threads: int = 1) -> Table:
    """Measure `processes` processes of this machine. sizes: bytes of the whole buffer, multiples of 4.

    The table's facts are the fits, as `network` reads them. Raises UsageError for less than 2 processes or 2 sizes.
    """
    if processes < 2 or len(sizes) < 2:
        raise UsageError(f"bench link: expected 2 processes or more and 2 sizes or more, got {processes}, {len(sizes)}")
    ranks = together(measure, processes, list(sizes), threads=threads)
    table = Table(f"link-gloo-n{processes}", f"gloo between {processes} processes of this machine: α and β")
    table.facts["processes"] = processes
    for what in COLLECTIVES:
        seconds, cores = over_ranks([rank[what] for rank in ranks])
        timings = [Timing.of(found) for found in seconds]
        link = fit(what, processes, sizes, [timing.median_s for timing in timings], cores)
        for size, timing, core in zip(sizes, timings, cores, strict=True):
            model = messages(what, processes) * link.alpha_s + sent(what, processes, size) * link.beta_s
            table.add_timing(
                f"{what} {size // 1024} kB",
                timing,
                model_ms=1e3 * model,
                off_fraction=model / timing.median_s - 1,
                gb_s=sent(what, processes, size) / timing.median_s / 1e9,
                cores=core / timing.median_s,
            )
        figures = (1e6 * link.alpha_s, 1e-9 / link.beta_s, 1e6 * link.core_s_per_message, 1e9 * link.core_s_per_byte)
        table.facts |= {f"{what} {key}": value for key, value in zip(KEYS, figures, strict=True)}
    table.notes += [
        "model: messages·α + sent bytes·β; off: model over measured, less 1. gb_s: bytes that a rank sends, a second.",
        "cores: that a process keeps busy while it communicates (its CPU time over the time), taken from computing.",
        "gloo's reduce-scatter is an all-reduce of which each rank keeps a part, so its β is about twice as large.",
    ]
    return table


def over_ranks(found: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[list[list[float]], list[float]]:
    """One collective, by rank and size, → by size: seconds of each call, until the slowest rank is through, and the
    seconds of a core that it costs a rank."""
    sizes = range(len(found[0]))
    seconds = [[max(each) for each in zip(*(rank[i]["s"] for rank in found), strict=True)] for i in sizes]
    return seconds, [statistics.fmean(rank[i]["core_s"] for rank in found) for i in sizes]


def fit(what: Collective, ranks: int, sizes: Sequence[int], seconds: Sequence[float], cores: Sequence[float]) -> Link:
    """The link whose relative errors over the sizes have the least sum of squares. seconds, cores: one a size."""
    rows = [(float(messages(what, ranks)), sent(what, ranks, size)) for size in sizes]
    alpha, beta = _least_squares(rows, seconds)
    per_message, per_byte = _least_squares(rows, cores)
    return Link(alpha, max(beta, 1e-15), per_byte, per_message)


def _least_squares(rows: Sequence[tuple[float, float]], values: Sequence[float]) -> tuple[float, float]:
    """min Σ ((a·x + b·y − v) / v)² over a, b ≥ 0; x, y of each row are positive."""
    scaled = [(x / v, y / v) for (x, y), v in zip(rows, values, strict=True)]
    xx, xy, yy = (sum(p * q for p, q in pairs) for pairs in (
        [(x, x) for x, _ in scaled], scaled, [(y, y) for _, y in scaled],
    ))  # fmt: skip
    x, y = (sum(column) for column in zip(*scaled, strict=True))
    determinant = xx * yy - xy * xy
    a, b = (x * yy - y * xy) / determinant, (y * xx - x * xy) / determinant
    if a < 0:
        return 0.0, y / yy
    return (x / xx, 0.0) if b < 0 else (a, b)


def network(facts: Mapping[str, Any]) -> Network:
    """The fits of a table's facts. Raises UsageError when they are none."""
    try:
        found = {what: [float(facts[f"{what} {key}"]) for key in KEYS] for what in COLLECTIVES}
        return Network({
            what: Link(alpha * 1e-6, 1e-9 / speed, per_gb * 1e-9, per_message * 1e-6)
            for what, (alpha, speed, per_message, per_gb) in found.items()
        })  # fmt: skip
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UsageError(f"no measured link: {error}; `cllm bench link --save FOLDER` writes one") from None


def load(file: Path) -> tuple[int, Network]:
    """(processes, fits) of a file that `cllm bench link --save` wrote. Raises UsageError when it is another."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{file}: cannot be read: {error.strerror}; expected what `cllm bench link --save FOLDER` wrote"
        ) from None
    try:
        said = json.loads(content)
        if said["format"] != FORMAT or not said["name"].startswith("link-"):
            raise ValueError(f"it is {said['name']!r} of format {said['format']!r}")
        return int(said["facts"]["processes"]), network(said["facts"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file}: expected what `cllm bench link --save` wrote: {error}") from None


def measure(group: Group, sizes: Sequence[int]) -> dict[str, list[dict[str, Any]]]:
    """In each process: for each collective and size, the seconds of each call and the CPU seconds of one."""
    import torch.distributed as dist

    found: dict[str, list[dict[str, Any]]] = {}
    for what in COLLECTIVES:
        found[what] = []
        for size in sizes:
            part = -(-size // (4 * group.size))
            whole, own = torch.zeros(part * group.size), torch.zeros(part)  # 0 + 0 stays finite
            calls: dict[Collective, Callable[[], Any]] = {
                "all-reduce": partial(dist.all_reduce, whole),
                "reduce-scatter": partial(dist.reduce_scatter_tensor, own, whole),
                "all-gather": partial(dist.all_gather_into_tensor, whole, own),
                "all-to-all": partial(dist.all_to_all_single, torch.empty_like(whole), whole),
            }
            found[what].append(_timed(group, calls[what]))
    return found


def _timed(group: Group, call: Callable[[], Any]) -> dict[str, Any]:
    """The ranks begin each call together; all make as many, by the slowest's first."""
    call()
    begin = time.perf_counter()
    call()
    once = group.largest(time.perf_counter() - begin)
    calls = max(CALLS[0], min(CALLS[1], int(LONGEST_S / max(once, 1e-9))))
    seconds, cores = [], 0.0
    for _ in range(calls):
        group.barrier()
        busy, begin = time.process_time(), time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
        cores += time.process_time() - busy
    return {"s": seconds, "core_s": cores / calls}
