"""Each kernel of a CUDA device at the sizes of a step, beside the torch ops that it replaces and the memory's speed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cllm.bench.measure import Table, interleave, ratio
from cllm.config import Config
from cllm.engine.cross_entropy import in_place
from cllm.engine.dispatch import Kernels, select, torch_kernels
from cllm.engine.dropout import Key
from cllm.engine.precision import accumulation
from cllm.model.step import HEAD_ROWS
from cllm.training.state import DTYPES

WEIGHTS = 1 << 22  # that an update is timed on


@dataclass(frozen=True)
class Op:
    """A call of an op through a table of kernels, and the bytes that it must read and write at least."""

    call: Callable[[Kernels], object]
    moved: int


def ops(config: Config, device: torch.device, rounds: int) -> Table:
    """A row an op: milliseconds, share of the memory's speed, and how many times as long the torch ops take."""
    from cllm.bench.machine import memory_bandwidth

    operand = DTYPES[config.precision]
    tables = {"ours": select(operand, config.model.activation, device), "torch": torch_kernels(operand)}
    sync = torch.cuda.synchronize if device.type == "cuda" else None
    speed = memory_bandwidth(device=device.type, rounds=3).copy
    table = Table("gpu-ops", f"ops of a step, {config.preset}, {config.precision}", facts={"copy_gb_s": speed / 1e9})
    for name, op in calls(config, device).items():
        both = {key: _bound(op, kernels) for key, kernels in tables.items()}
        timings = interleave(both, rounds=rounds, warmup=3, sync=sync, least_s=0.05)
        ours = timings["ours"]
        table.add_timing(
            name,
            ours,
            gb_s=op.moved / ours.median_s / 1e9,
            memory_fraction=op.moved / ours.median_s / speed,
            torch_ratio=ratio(timings["torch"], ours).median,
        )
    table.notes.append("memory_fraction: of a copy's bytes a second. torch_ratio: torch ops' time over ours.")
    return table


def _bound(op: Op, kernels: Kernels) -> Callable[[], object]:
    return lambda: op.call(kernels)


def calls(config: Config, device: torch.device) -> dict[str, Op]:
    """The ops that are limited by memory, over tensors of their sizes in a step."""
    m, operand = config.model, DTYPES[config.precision]
    sums, t = accumulation(operand), config.train.sequence or config.model.context
    n, d, f, v = config.train.batch * t, m.width, m.ff, m.vocab
    generator = torch.Generator().manual_seed(0)

    def made(*shape: int, dtype: torch.dtype = sums) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype).to(device)

    x, dx, y, dy = made(n, d), made(n, d), made(n, d, dtype=operand), made(n, d, dtype=operand)
    gain, shift, mean, rstd = made(d), made(d), made(n, 1), made(n, 1)
    pre, post = made(n, f, dtype=operand), made(n, f, dtype=operand)
    rows = min(n, HEAD_ROWS)
    z, loss, lse = made(rows, v), made(rows), made(rows)
    targets = torch.randint(v, (rows,), generator=generator).to(device)
    tokens = torch.randint(v, (config.train.batch, t), generator=generator).to(device)
    table, de, p, dp = made(v, d, dtype=operand), made(v, d), made(m.context, d), made(m.context, d)
    mask = torch.zeros((config.train.batch, t, d), dtype=torch.bool, device=device)
    w, g, first, second = made(WEIGHTS), made(WEIGHTS), made(WEIGHTS), made(WEIGHTS).abs_()
    s, o = sums.itemsize, operand.itemsize
    adamw = {"t": 3, "lr": 1e-4, "betas": (0.9, 0.95), "eps": 1e-8, "decay": 0.1}
    # logits that a call has overwritten are as good as any, once small: softmax of them is again a gradient
    return {
        "layernorm_forward": Op(lambda k: k.layernorm_forward(x, gain, shift, y, mean, rstd), n * d * (s + o)),
        "layernorm_backward": Op(
            lambda k: k.layernorm_backward(dy, x, mean, rstd, gain, dx, y, gain, shift), n * d * (3 * s + 2 * o)
        ),
        "gelu_forward": Op(lambda k: k.gelu_forward(pre, post), 2 * n * f * o),
        "cross_entropy": Op(
            lambda k: k.cross_entropy(z, targets, 0.0, loss, lse, in_place(z, operand)), rows * v * (2 * s + o)
        ),
        "embedding_forward": Op(lambda k: k.embedding_forward(tokens, None, table, p, x), n * d * (o + 2 * s)),
        "embedding_backward": Op(lambda k: k.embedding_backward(dx, tokens, None, de, dp), n * d * 4 * s),
        "dropout_mask": Op(lambda k: k.dropout_mask(Key(1, 2), 0.1, 0, 2, mask), n * d),
        "adamw": Op(lambda k: k.adamw(w, g, first, second, **adamw), 7 * w.numel() * s),
    }
