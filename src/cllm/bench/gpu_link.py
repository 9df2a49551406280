"""Sums over several GPUs by NCCL: whether they are right, and how fast they are."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cllm.bench.measure import Table
from cllm.training.distributed.group import NCCL, Group
from cllm.training.distributed.pieces import now
from cllm.training.distributed.together import together

SIZES = (1 << 10, 1 << 20, 1 << 26)  # bytes
ROUNDS = 5
WAIT_S = 120.0


def links(count: int, backend: str, sizes: Sequence[int] = SIZES) -> Table:
    """All-reduce among `count` processes, one a GPU (backend "nccl"), or on the CPU ("gloo")."""
    table = Table("gpu-links", f"all-reduce over {count} {'GPUs' if backend == NCCL else 'processes'}, {backend}")
    first = together(measure, count, list(sizes), wait_s=WAIT_S, cuda=backend == NCCL)[0]
    for size, (wrong, seconds) in zip(sizes, first, strict=True):
        # each rank sends and receives 2·(N − 1)/N of the bytes
        bus = 2 * (count - 1) / count * size / seconds / 1e9
        table.add(f"{size} bytes", ms=1e3 * seconds, bus_gb_s=bus, failed=wrong)
    return table


def measure(group: Group, sizes: Sequence[int]) -> list[tuple[int, float]]:
    """In each process, a size: (entries that are wrong, the least seconds of a sum)."""
    device = torch.device("cuda", group.local_rank) if group.backend == NCCL else torch.device("cpu")
    return [_one(group, size, device) for size in sizes]


def _one(group: Group, size: int, device: torch.device) -> tuple[int, float]:
    """Whole numbers: their sum is exact in any order."""
    times, count = [], group.size
    start = torch.arange(size // 4, dtype=torch.float32, device=device) % 1000 + group.rank
    for _ in range(ROUNDS):
        x = start.clone()
        group.barrier()
        begin = now(device)
        group.sum_(x)
        times.append(now(device) - begin)
    want = count * (start - group.rank) + count * (count - 1) / 2
    return int((x != want).sum()), min(times)
