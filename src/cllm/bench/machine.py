"""What a figure was measured on: the machine's description and its measured limits.

The *peak* of a precision is what its multiply-add instructions do when they never wait: a loop that stays in the
registers, on all threads. The *GEMM peak* is the fastest `torch.mm` over several shapes. The memory's speed is taken
over arrays far larger than the caches. All of them in the same minutes as what is compared with them.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cllm.bench.measure import interleave
from cllm.cores import usable_cores
from cllm.errors import UsageError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}
# rows × inner × columns: squares, and the shapes of a transformer's layers (tall activations)
SHAPES = (
    (512, 512, 512),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (2048, 512, 2048),
    (2048, 2048, 512),
    (4096, 1024, 1024),
)
_TELLING = ("sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512dq", "avx512bw", "avx512vl",
            "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16",
            "asimd", "asimddp", "asimdhp", "bf16", "i8mm", "sve", "sve2", "sme")  # fmt: skip


def describe() -> dict[str, Any]:
    """The machine and the libraries, JSON-able: goes into every saved result."""
    return {
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "cores_online": os.cpu_count(),
        "instructions": instructions(),
        "torch_path": torch.backends.cpu.get_cpu_capability(),
        "memory_gb": _memory_gb(),
        "gpus": [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())],
        "system": f"{platform.system()} {platform.release()}",
        "threads": torch.get_num_threads(),
        "allocator": _allocator(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Of Python, cllm and what the arithmetic rests on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "torch": str(torch.__version__)}
    for package in ("cllm", "numpy", "python-flint"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def cpu_name() -> str:
    """The processor's name as the system tells it."""
    for line in _lines("/proc/cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Hardware") and value.strip():
            return value.strip()
    if sys.platform == "darwin":
        import subprocess

        done = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False)
        if done.stdout.strip():
            return done.stdout.strip()
    return platform.processor() or platform.machine()


def instructions() -> list[str]:
    """The vector and matrix instruction sets that matter here, of those the processor reports."""
    for line in _lines("/proc/cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            have = set(value.split())
            return [name for name in _TELLING if name in have]
    return []


def rss_bytes() -> int | None:
    """Memory resident now, bytes (Linux)."""
    lines = _lines("/proc/self/statm")
    return int(lines[0].split()[1]) * os.sysconf("SC_PAGE_SIZE") if lines else None


def peak_rss_bytes() -> int | None:
    """The largest resident memory this process has had, bytes; None where the system does not tell.

    On Linux VmHWM: `ru_maxrss` of a process that was started by a larger one keeps that one's peak through exec.
    """
    for line in _lines("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else 1024 * peak)


@dataclass(frozen=True, slots=True)
class Peak:
    """The best over shapes of the median time: flops a second, at which shape (m, k, n), with what spread."""

    flops: float
    shape: tuple[int, int, int]
    spread: float

    @property
    def gflops(self) -> float:
        return self.flops / 1e9


def gemm_peak(
    precision: str,
    *,
    device: str = "cpu",
    shapes: tuple[tuple[int, int, int], ...] = SHAPES,
    rounds: int = 5,
    longest_s: float = 0.5,
) -> Peak:
    """The fastest C = A·B by `torch.mm` into a given buffer, shapes interleaved; 2·m·k·n flops each.

    precision: fp32, bf16 or fp64. Shapes that would take over `longest_s` a call, going by the first shape's
    rate (a processor without bf16 instructions), are left out.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"gemm_peak: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
    sync = torch.cuda.synchronize if device.startswith("cuda") else None
    calls: dict[str, Callable[[], object]] = {}
    flops: dict[str, tuple[float, tuple[int, int, int]]] = {}
    rate = 0.0
    for shape in shapes:
        m, k, n = shape
        work = 2.0 * m * k * n
        if rate and work / rate > longest_s:
            continue
        call = _product(m, k, n, PRECISIONS[precision], device)
        name = f"{m}×{k}×{n}"
        if not rate:
            rate = work / interleave({name: call}, rounds=1, warmup=2, sync=sync)[name].median_s
        calls[name], flops[name] = call, (work, shape)
    timings = interleave(calls, rounds, warmup=2, sync=sync, least_s=0.02)
    best = max(calls, key=lambda name: flops[name][0] / timings[name].median_s)
    return Peak(flops[best][0] / timings[best].median_s, flops[best][1], timings[best].spread)


STEPS = 20_000  # of the register loop: about a millisecond


def register_loop(kind: str) -> Callable[[], float] | None:
    """A call of the register loop that returns its number of operations; None where there is none of this kind.

    kind: fp32, fp64, bf16 or int8.
    """
    from cllm.engine import native

    if not native.available():
        return None
    from cllm.engine.native.peak import multiply_adds

    return (lambda: multiply_adds(kind, STEPS)) if multiply_adds(kind, 1) else None


def register_peak(kind: str, *, rounds: int = 5) -> float | None:
    """Operations a second of the register loop, all threads, median; None where there is none of this kind."""
    loop = register_loop(kind)
    if loop is None:
        return None
    return loop() / interleave({kind: loop}, rounds, warmup=2, least_s=0.02)[kind].median_s


def _product(m: int, k: int, n: int, dtype: torch.dtype, device: str) -> Callable[[], object]:
    # Values of both signs that stay finite; their time does not depend on them.
    a = torch.randn(m, k, dtype=torch.float32, device=device).to(dtype)
    b = torch.randn(k, n, dtype=torch.float32, device=device).to(dtype)
    c = torch.empty(m, n, dtype=dtype, device=device)
    return lambda: torch.mm(a, b, out=c)


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Bytes a second: reading or writing a large array, copying (reads and writes counted each); spread of reading."""

    read: float
    copy: float
    spread: float
    write: float


def memory_bandwidth(*, device: str = "cpu", bytes_each: int = 1 << 28, rounds: int = 5) -> Bandwidth:
    """The memory's speed over arrays of `bytes_each` (256 MB: far above any cache in reach), all threads."""
    sync = torch.cuda.synchronize if device.startswith("cuda") else None
    source = torch.ones(bytes_each // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    calls: dict[str, Callable[[], object]] = {
        "read": source.sum,
        "write": lambda: target.fill_(1.0),
        "copy": lambda: target.copy_(source),
    }
    from cllm.engine import native

    if device == "cpu" and native.available():
        from cllm.engine.native import peak

        calls |= {"read": lambda: peak.read(source), "write": lambda: peak.write(target, 1.0)}
    timings = interleave(calls, rounds, warmup=1, sync=sync)
    read, write, copy = (source.numel() * 4 / timings[name].median_s for name in ("read", "write", "copy"))
    return Bandwidth(read, 2 * copy, timings["read"].spread, write)


def limits(*, device: str = "cpu", rounds: int = 3) -> dict[str, float]:
    """The machine's measured limits for a table's facts, in some ten seconds; measure beside what is compared with it.

    `fp32_peak_gflops`, also fp64, bf16 and int8 (operations): the register loop, on a CPU with native kernels;
    `fp32_gflops`, also fp64 and bf16: the GEMM peak; `read_gb_s`, `write_gb_s`, `copy_gb_s`.
    """
    found: dict[str, float] = {}
    for kind in (*PRECISIONS, "int8") if device == "cpu" else ():
        peak = register_peak(kind, rounds=rounds)
        if peak is not None:
            found[f"{kind}_peak_gflops"] = peak / 1e9
    found |= {f"{name}_gflops": gemm_peak(name, device=device, rounds=rounds).gflops for name in PRECISIONS}
    memory = memory_bandwidth(device=device, rounds=rounds)
    return {
        **found, "read_gb_s": memory.read / 1e9, "write_gb_s": memory.write / 1e9, "copy_gb_s": memory.copy / 1e9,
    }  # fmt: skip


def peak_gflops(limits: Mapping[str, float], precision: str) -> float:
    """What a fraction of the peak is taken of: the register loop's peak, or the GEMM peak where there is no loop."""
    return limits.get(f"{precision}_peak_gflops", limits[f"{precision}_gflops"])


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _allocator() -> str:
    """A preloaded allocator changes what a step costs, so it is part of the machine."""
    loaded = {Path(line.split()[-1]).name for line in _lines("/proc/self/maps") if line.count(" ") > 4}
    for known in ("tcmalloc", "jemalloc", "mimalloc"):
        if any(known in name for name in loaded):
            return known
    return "system"
