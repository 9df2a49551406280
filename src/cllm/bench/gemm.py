"""The native matrix products at the shapes of training, beside torch's and beside the register loop.

A row is one linear map of a model: its forward Y = X·Wᵀ + b, its input gradient dX = dY·W or its weight gradient
dW += dYᵀ·X, each a product of 2·N·K·M operations. Ours, torch's product into a given buffer (without the bias, and
written instead of added) and the register loop take turns; every ratio is taken between samples of the same round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cllm import native
from cllm.bench.machine import PRECISIONS, memory_bandwidth, register_loop, register_peak
from cllm.bench.measure import Table, interleave, ratio
from cllm.errors import UsageError

# rows N, inner K → M: `seed` at 8 rows of 256 tokens (the head in portions of 512 rows), `small` at 16 of 128
MAPS = {
    "attention out": (2048, 512, 512),
    "qkv": (2048, 512, 1536),
    "ffn 1": (2048, 512, 2048),
    "ffn 2": (2048, 2048, 512),
    "head": (512, 512, 10000),
    "small: attention out": (2048, 128, 128),
    "small: qkv": (2048, 128, 384),
    "small: ffn 1": (2048, 128, 512),
    "small: ffn 2": (2048, 512, 128),
}
KINDS = ("forward", "dX", "dW")


def products(kind: str, n: int, k: int, m: int, dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """Ours ("cllm") and torch's on the same operands; rows of activations lie 32 elements further apart than needed."""
    from cllm.engine.native import gemm

    def activations(columns: int) -> Tensor:
        return torch.randn(n, columns + 32).to(dtype)[:, :columns]

    space, sums = gemm.Workspace(), gemm.accumulator(dtype)
    x, dy, w = activations(k), activations(m), torch.randn(m, k).to(dtype)
    if kind == "forward":
        y, b = torch.empty(n, m, dtype=dtype), torch.randn(m, dtype=sums)
        return {
            "cllm": lambda: gemm.linear_forward(x, w, b, y, workspace=space),
            "torch": lambda: torch.mm(x, w.t(), out=y),
        }
    if kind == "dX":
        dx = torch.empty(n, k, dtype=dtype)
        return {
            "cllm": lambda: gemm.linear_backward_input(dy, w, dx, workspace=space),
            "torch": lambda: torch.mm(dy, w, out=dx),
        }
    dw, out = torch.zeros(m, k, dtype=sums), torch.empty(m, k, dtype=dtype)
    return {
        "cllm": lambda: gemm.linear_backward_weight(dy, x, dw, workspace=space),
        "torch": lambda: torch.mm(dy.t(), x, out=out),
    }


def run(
    *, precisions: Sequence[str] = ("bf16", "fp32"), maps: Sequence[str] = tuple(MAPS), rounds: int = 9
) -> list[Table]:
    """A table a precision. peak_fraction: of the register loop in the same rounds (best_fraction: of the fastest sample
    of each); torch_ratio: torch's time over ours.

    precisions: of fp32, bf16, fp64; maps: of MAPS. Raises UsageError for others and without native kernels.
    """
    why = native.why_not("engine", "engine")
    if why:
        raise UsageError(f"bench gemm measures the native kernels, and there are none here: {why}")
    for names, known in ((precisions, list(PRECISIONS)), (maps, list(MAPS))):
        for name in names:
            if name not in known:
                raise UsageError(f"bench gemm: expected one of {', '.join(known)}, got {name!r}")
    return [_table(precision, maps, rounds) for precision in precisions]


def _table(precision: str, maps: Sequence[str], rounds: int) -> Table:
    loop = register_loop(precision)
    if loop is None:
        raise UsageError(f"bench gemm: no register loop for {precision} at this instruction level")
    table = Table(f"gemm-{precision}", f"linear maps in {precision}, {torch.get_num_threads()} threads")
    in_loop = loop()
    for name in maps:
        n, k, m = MAPS[name]
        work = 2.0 * n * k * m
        for kind in KINDS:
            timings = interleave(
                {**products(kind, n, k, m, PRECISIONS[precision]), "peak": loop}, rounds, warmup=2, least_s=0.01
            )
            ours, theirs = timings["cllm"], timings["torch"]
            table.add_timing(
                f"{name} {kind}",
                ours,
                n_k_m=f"{n} {k} {m}",
                gflops=work / ours.median_s / 1e9,
                peak_fraction=ratio(timings["peak"], ours).median * work / in_loop,
                best_fraction=min(timings["peak"].samples) / min(ours.samples) * work / in_loop,
                torch_gflops=work / theirs.median_s / 1e9,
                torch_ratio=ratio(theirs, ours).median,
            )
    for kind in (precision, "int8"):
        peak = register_peak(kind, rounds=rounds)
        table.facts[f"{kind} register loop (Gop/s)"] = None if peak is None else peak / 1e9
    memory = memory_bandwidth(rounds=3)
    table.facts |= {"memory read (GB/s)": memory.read / 1e9, "memory write (GB/s)": memory.write / 1e9}
    table.facts["instruction level"] = native.level("engine", "engine")
    return table
