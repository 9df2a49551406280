"""`cllm bench gpu`: the CUDA path checked and timed."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cllm.cli.bench_show import check_folder, show


def gpu(
    *,
    preset: str = "gpt2",
    batch: int = 16,
    sequence: int = 1024,
    precision: Literal["bf16", "fp32"] = "bf16",
    rounds: int = 7,
    save: Path | None = None,
    json: bool = False,
) -> int:
    """The CUDA kernels against float64, whole steps beside the plain model compiled, each kernel, and NCCL.

    Needs an NVIDIA GPU (exit code 2 without one). Exit code 1 when a check fails.

    Examples:

      cllm bench gpu

      cllm bench gpu --preset seed --batch 64 --sequence 256 --save benchmarks

    Parameters
    ----------
    preset: str
        The model's size.
    batch: int
        Rows a step.
    sequence: int
        Tokens a row.
    precision: Literal["bf16", "fp32"]
        Of the operands.
    rounds: int
        Samples of each candidate.
    save: Path
        Also write the results as JSON into this folder.
    json: bool
        Print one JSON object.
    """
    check_folder(save)
    from cllm.bench.gpu import failed, run

    found = run(preset, batch=batch, sequence=sequence, precision=precision, rounds=rounds)
    return show(found, save, json) or int(failed(found) > 0)
