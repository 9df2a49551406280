"""`cllm bench curves`: the same training in every precision and memory mode as in plain float32 torch, paired by seed.

Every candidate starts from the same weights, sees the same batches and follows the same schedule; what differs is the
arithmetic. The validation loss at the end is compared with that of the plain torch.nn model with torch's AdamW, trained
in float32. The text is this package's own source, as bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import cllm
from cllm import config as settings
from cllm.bench.measure import Table
from cllm.bench.peers import PlainGPT, adamw
from cllm.model.batch import Batch
from cllm.model.model import Model
from cllm.training.optimiser import gradient_norm, update
from cllm.training.plan import make_step
from cllm.training.state import State

TARGET = 0.005
"""Nats a token between paired validation losses."""
MODES: dict[str, dict[str, Any]] = {
    "cllm fp32": {"precision": "fp32"},
    "cllm bf16": {"precision": "bf16"},
    "cllm bf16, lean": {"precision": "bf16", "memory": "lean"},
    "cllm bf16, fused": {"precision": "bf16", "memory": "fused", "optim.clip": 0.0},
}
"""fused knows no global norm: its peer does not clip either."""
LR, WARMUP, ROWS = 1e-3, 30, 64  # ROWS of validation


@dataclass(frozen=True)
class Task:
    """tokens: of training and of validation, int64."""

    config: settings.Config
    train: Tensor
    validation: Tensor
    steps: int

    def rate(self, step: int) -> float:
        """Warm-up, then half a cosine to a tenth."""
        if step < WARMUP:
            return LR * (step + 1) / WARMUP
        return LR * (0.1 + 0.45 * (1 + math.cos(math.pi * (step - WARMUP) / max(1, self.steps - WARMUP))))

    def batches(self, seed: int) -> list[Tensor]:
        """The rows of every step, [B, T+1]; a function of the seed."""
        generator = torch.Generator().manual_seed(seed)
        t = self.config.train
        starts = torch.randint(len(self.train) - self.length, (self.steps, t.batch), generator=generator)
        return [torch.stack([self.train[i : i + self.length] for i in row.tolist()]) for row in starts]

    @property
    def length(self) -> int:
        return (self.config.train.sequence or self.config.model.context) + 1

    def held_out(self) -> Tensor:
        """Rows of validation, spread evenly over it."""
        last = len(self.validation) - self.length
        return torch.stack([self.validation[i * last // ROWS :][: self.length] for i in range(ROWS)])


def own_source() -> Tensor:
    """This package's Python files, in the order of their names, as bytes."""
    root = Path(cllm.__file__).parent
    text = b"".join(path.read_bytes() for path in sorted(root.rglob("*.py")))
    return torch.frombuffer(bytearray(text), dtype=torch.uint8).long()


def task(preset: str, steps: int, batch: int, sequence: int) -> Task:
    """The source's last tenth is validation."""
    sizes = {"train.batch": batch, "train.sequence": sequence, "model.vocab": 256, "precision": "fp32"}
    data = own_source()
    cut = len(data) * 9 // 10
    return Task(settings.load(preset=preset, overrides=sizes), data[:cut], data[cut:], steps)


def ours(t: Task, changes: dict[str, Any], seed: int) -> float:
    """Train our step; the validation loss at the end, in its own precision."""
    config = settings.load(base=settings.to_dict(t.config), overrides={**changes, "seed": seed})
    state = State.fresh(config)
    step = make_step(state, fused=True)
    for i, rows in enumerate(t.batches(seed)):
        if step.sink is not None:
            step.sink.arm(t.rate(i))
        step.zero()
        step.accumulate(Batch.of(rows))
        update(state, step, step.kernels, t.rate(i), gradient_norm(step, config.optim.clip))
    losses = [step.evaluate(Batch.of(rows)).losses_BT for rows in t.held_out().split(config.train.batch)]
    return float(torch.cat(losses).double().mean())


def plain(t: Task, clip: float, seed: int) -> float:
    """Train the plain model in float32 with torch's AdamW."""
    m, o = t.config.model, t.config.optim
    sizes = {
        key: getattr(m, key) for key in ("layers", "width", "heads", "ff", "context", "vocab", "tied", "activation")
    }
    model = PlainGPT(**sizes)
    model.load_named(Model(m).initialise(seed).params)
    optimiser = adamw(model, LR, o.betas, o.weight_decay)
    for i, rows in enumerate(t.batches(seed)):
        for group in optimiser.param_groups:
            group["lr"] = t.rate(i)
        (model.loss_sum(rows[:, :-1], rows[:, 1:]) / rows[:, 1:].numel()).backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    with torch.no_grad():
        total = sum(float(model.loss_sum(x[:, :-1], x[:, 1:])) for x in t.held_out().split(t.config.train.batch))
    return total / (ROWS * (t.length - 1))


def run(
    preset: str = "small",
    *,
    steps: int = 300,
    seeds: Sequence[int] = (1, 2, 3),
    batch: int = 16,
    sequence: int = 64,
    modes: Sequence[str] = tuple(MODES),
    report: Callable[[str], None] = lambda line: None,
) -> Table:
    """A row for each candidate and seed; `difference` is to the plain model of the same seed."""
    t = task(preset, steps, batch, sequence)
    table = Table(
        "curves", f"{steps} steps of {preset}, {batch} × {sequence} bytes: validation loss beside plain torch"
    )
    found: dict[str, list[float]] = {}
    clip = t.config.optim.clip
    for seed in seeds:
        judges: dict[float, float] = {}
        for name in modes:
            own_clip = float(MODES[name].get("optim.clip", clip))
            if own_clip not in judges:
                judges[own_clip] = plain(t, own_clip, seed)
                table.add(f"plain torch fp32{'' if own_clip else ', no clipping'}", seed=seed, loss=judges[own_clip])
            loss = ours(t, MODES[name], seed)
            difference = loss - judges[own_clip]
            found.setdefault(name, []).append(difference)
            table.add(name, seed=seed, loss=loss, difference=difference, within_target=abs(difference) <= TARGET)
            report(f"seed {seed}: {name}: {loss:.5f}, {difference:+.5f}")
    for name, differences in found.items():
        table.facts[f"{name}: largest difference (nats)"] = max(differences, key=abs)
    table.notes.append(f"difference: to the plain model of the same seed, nats a token; the target is {TARGET}.")
    return table
