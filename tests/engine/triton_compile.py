"""Every Triton kernel, as a training step launches it, to machine code of a GPU: no GPU is needed for that.

Run as a script (Triton must not be in its interpreter): prints a JSON list of what was compiled. The interpreter knows
neither the compiler's types nor its limits, so this finds mistakes that the checks of values cannot.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from cllm.engine import cuda
from cllm.engine.dropout import Key

NAMES = {
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.bfloat16: "*bf16",
    torch.int64: "*i64",
    torch.uint8: "*u8",
}
ROWS, FF, VOCAB = 64, 2048, 50257
Found = dict[tuple[str, ...], tuple[Any, dict[str, str], dict[str, Any], list[int], int]]


def launches(operand: torch.dtype, WIDTH: int) -> Found:
    """Kernels, signatures, constants, aligned arguments and warps that the wrappers would launch.

    Aligned: addresses and numbers that 16 divides. The launcher tells the compiler about them, for wide loads.
    """
    found: Found = {}

    def noted(kernel: Any, grid: object, *arguments: Any, **options: Any) -> None:
        warps = options.pop("num_warps", 4)
        signature = {
            name: NAMES[x.dtype] if isinstance(x, torch.Tensor) else "i32" if abs(x) < 2**31 else "i64"
            for name, x in zip(kernel.arg_names, arguments, strict=False)
        }
        rest = kernel.arg_names[len(arguments) :]
        assert set(rest) == options.keys(), f"{kernel.__name__}: {rest} are left, {list(options)} given"
        signature |= dict.fromkeys(rest, "constexpr")
        module = kernel.fn.__module__.rpartition(".")[2]
        aligned = [i for i, x in enumerate(arguments) if isinstance(x, torch.Tensor) or x % 16 == 0]
        found[module, kernel.__name__, str(signature), str(options)] = kernel, signature, options, aligned, warps

    for name in ("adamw", "cross_entropy", "dropout", "embedding", "gelu", "layernorm", "linear"):
        importlib.import_module(f"cllm.engine.cuda.{name}").launch = noted
    sums = torch.float64 if operand == torch.float64 else torch.float32

    def s(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=sums)

    def o(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=operand)

    for form in ("gelu_tanh", "gelu_erf"):
        k = cuda.kernels(operand, form)
        k.linear_gelu_forward(o(ROWS, WIDTH), o(FF, WIDTH), s(FF), o(ROWS, FF), o(ROWS, FF))
        k.linear_gelu_backward_input(o(ROWS, WIDTH), o(WIDTH, FF), o(ROWS, FF), o(ROWS, FF))
        k.gelu_forward(o(ROWS, FF), o(ROWS, FF))
    x, row, statistics = s(ROWS, WIDTH), s(WIDTH), s(ROWS, 1)
    k.layernorm_forward(x, row, row, o(ROWS, WIDTH), statistics, statistics)
    for rounded in (None, o(ROWS, WIDTH)):
        k.layernorm_backward(o(ROWS, WIDTH), x, statistics, statistics, row, x, rounded, row, row)
    join = importlib.import_module("cllm.engine.cuda.layernorm").joined_layernorm_forward
    join(x, o(ROWS, WIDTH), row, x, row, row, o(ROWS, WIDTH), statistics, statistics)
    k.linear_forward(o(ROWS, WIDTH), o(WIDTH, WIDTH), row, o(ROWS, WIDTH), None)
    tokens = torch.zeros(2, ROWS // 2, dtype=torch.int64)
    for positions in (None, tokens):
        k.embedding_forward(tokens, positions, o(VOCAB, WIDTH), s(ROWS, WIDTH), x)
    k.embedding_backward(x, tokens, tokens, s(VOCAB, WIDTH), s(ROWS, WIDTH))
    z, targets = s(ROWS, VOCAB), torch.zeros(ROWS, dtype=torch.int64)
    for smoothing in (0.0, 0.1):
        for dz in (None, z if operand == sums else z.view(operand)[:, :VOCAB]):
            k.cross_entropy(z, targets, smoothing, s(ROWS), s(ROWS), dz)
    k.dropout_mask(Key(2**32 - 1, 5), 0.1, 1, 2, torch.zeros(2, ROWS // 2, WIDTH, dtype=torch.bool))
    shadow = torch.zeros(4096, dtype=torch.bfloat16) if operand == torch.bfloat16 else None
    k.adamw(*(s(4096) for _ in range(4)), t=1, lr=0.1, betas=(0.9, 0.95), eps=1e-8, decay=0.1, shadow=shadow)
    return found


def stack(code: bytes) -> int:
    """Bytes of memory that a thread needs beside its registers: 0 unless they were too few."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        command = [Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump", "-res-usage", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    (found,) = re.findall(r"STACK:(\d+)", done.stdout)
    return int(found)


def main(capability: int, width: int, operands: list[str]) -> None:
    report = []
    for operand in operands:
        found = launches(getattr(torch, operand), width)
        for (module, name, *_), (kernel, signature, constants, aligned, warps) in found.items():
            known = {(i,): [["tt.divisibility", 16]] for i in aligned}
            source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=known)
            made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})
            text = made.asm["ptx"]
            report.append(
                {
                    "kernel": f"{module}{name}",
                    "operand": operand,
                    "bytes": len(made.asm["cubin"]),
                    "shared": made.metadata.shared,
                    "stack": stack(made.asm["cubin"]),
                    "wide": len(re.findall(r"ld\.global\S*\.v[248]", text)),
                    "atomics": len(re.findall(r"\b(?:atom|red)\.", text)),
                    "barriers": len(re.findall(r"\bbar(?:rier)?\.", text)),
                    "approximate": len(re.findall(r"\b(?:div\.(?:full|approx)|sqrt\.approx|rsqrt\.approx)", text)),
                }
            )
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
