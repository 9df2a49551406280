"""This machine's measured peak, remembered: what model FLOPs utilisation is a part of.

Measured once for each processor, number of threads, PyTorch and precision (a second), and kept in the user's cache
folder; a measurement that was disturbed can only be too low, so the highest is kept.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import torch

from cllm.bench.machine import cpu_name, gemm_peak

SHAPES = ((1024, 1024, 1024), (2048, 512, 2048), (2048, 2048, 512))
FILE = "peaks.json"


def cache_file() -> Path:
    """`$XDG_CACHE_HOME/cllm/peaks.json`, or below ~/.cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "cllm" / FILE


def peak_flops(precision: str, device: str = "cpu", *, again: bool = False) -> float:
    """Floating-point operations a second of the best matrix product here; from the cache when it is known.

    precision: fp32, bf16 or fp64.  again: measure in any case. A cache that cannot be read or written is done without.
    """
    key = _key(precision, device)
    known = _read()
    if key in known and not again:
        return known[key]
    found = max(gemm_peak(precision, device=device, shapes=SHAPES, rounds=3).flops, known.get(key, 0.0))
    _write(_read() | {key: found})
    return found


def _key(precision: str, device: str) -> str:
    where = torch.cuda.get_device_name() if device.startswith("cuda") else cpu_name()
    return f"{where} | {torch.get_num_threads()} threads | torch {torch.__version__} | {precision}"


def _read() -> dict[str, float]:
    try:
        found = json.loads(cache_file().read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(k): float(v) for k, v in found.items() if isinstance(v, (int, float)) and v > 0}


def _write(known: dict[str, float]) -> None:
    path = cache_file()
    temporary = path.with_name(f".{FILE}.{os.getpid()}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(known, indent=1), encoding="utf-8")
        os.replace(temporary, path)
