"""Sums over several GPUs by NCCL: whether they are right, and how fast they are."""

from __future__ import annotations

import socket
import time
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import spawn

from cllm.bench.measure import Table

SIZES = (1 << 10, 1 << 20, 1 << 26)  # bytes
ROUNDS = 5
TIMEOUT = timedelta(seconds=120)


def links(count: int, backend: str, sizes: tuple[int, ...] = SIZES) -> Table:
    """All-reduce among `count` processes, one a GPU (backend "nccl"), or on the CPU ("gloo")."""
    table = Table("gpu-links", f"all-reduce over {count} {'GPUs' if backend == 'nccl' else 'processes'}, {backend}")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    results = get_context("spawn").SimpleQueue()
    spawn(_rank, args=(count, backend, port, sizes, results), nprocs=count)
    for size in sizes:
        wrong, seconds = results.get()
        # each rank sends and receives 2·(N − 1)/N of the bytes
        bus = 2 * (count - 1) / count * size / seconds / 1e9
        table.add(f"{size} bytes", ms=1e3 * seconds, bus_gb_s=bus, failed=wrong)
    return table


def _rank(rank: int, count: int, backend: str, port: int, sizes: tuple[int, ...], results: object) -> None:
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    if backend == "nccl":
        torch.cuda.set_device(device)
    dist.init_process_group(
        backend, init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=count, timeout=TIMEOUT
    )
    try:
        for size in sizes:
            wrong, seconds = _measure(rank, count, size, device)
            if rank == 0:
                results.put((wrong, seconds))  # type: ignore[attr-defined]
    finally:
        dist.destroy_process_group()


def _measure(rank: int, count: int, size: int, device: torch.device) -> tuple[int, float]:
    """(entries that are wrong, the least seconds of a sum). Whole numbers: their sum is exact in any order."""
    times = []
    start = torch.arange(size // 4, dtype=torch.float32, device=device) % 1000 + rank
    for _ in range(ROUNDS):
        x = start.clone()
        dist.barrier()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        begin = time.perf_counter()
        dist.all_reduce(x)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begin)
    want = count * (start - rank) + count * (count - 1) / 2
    return int((x != want).sum()), min(times)
