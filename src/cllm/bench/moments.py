"""What 8-bit moments and bfloat16 gradients cost in quality: whole trainings in pairs that differ in `memory` alone.

Both members of a pair start from the same weights, see the same rows in the same order and are scored on the whole
validation part. Their weights drift apart (one rounding is enough), so a difference of losses has a spread of its own:
the same training with another seed for its data order and weights shows how large it is.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from cllm import config as settings
from cllm.bench.measure import Table
from cllm.data.prepare import Prepared, prepare
from cllm.data.stream import SequentialRows
from cllm.training.plan import schedule_of, settle
from cllm.training.schedule import lr_at
from cllm.training.state import State
from cllm.training.stepper import Stepper
from cllm.training.validation import score

ALLOWED = 0.005  # nats a token


def run(
    text: list[str],
    *,
    preset: str = "nano",
    steps: int = 5000,
    seeds: tuple[int, ...] = (1, 2, 3),
    modes: tuple[str, ...] = ("standard", "lean"),
    overrides: dict[str, Any] | None = None,
) -> Table:
    """Train every mode with every seed; the table has one row a mode, and the mean difference as a fact."""
    losses: dict[str, list[float]] = {mode: [] for mode in modes}
    with tempfile.TemporaryDirectory() as folder:
        data: Prepared | None = None
        for seed in seeds:
            for mode in modes:
                config = configuration(preset, steps, seed, mode, overrides or {})
                if data is None:
                    data = prepare(text, Path(folder) / "data", vocab_size=config.model.vocab, seed=1)
                    config = settings.replace(config, {"model.vocab": data.tokenizer.vocab_size})
                config = settings.replace(config, {"model.vocab": data.tokenizer.vocab_size})
                losses[mode].append(trained(config, data))
                print(f"seed {seed}, {mode}: {losses[mode][-1]:.4f} nats a token", file=sys.stderr, flush=True)
    table = Table("moments", f"8-bit moments: validation loss of {preset} after {steps} steps, nats a token")
    for mode, found in losses.items():
        gaps = [a - b for a, b in zip(found, losses[modes[0]], strict=True)]
        each = {f"seed_{seed}": loss for seed, loss in zip(seeds, found, strict=True)}
        table.add(mode, **each, mean=statistics.fmean(found), mean_difference=statistics.fmean(gaps))
    spread = statistics.stdev(losses[modes[0]]) if len(seeds) > 1 else None
    table.facts = {"steps": steps, "spread between seeds of the first mode (standard deviation, nats)": spread}
    table.notes.append(f"Wanted: |mean difference| ≤ {ALLOWED} nats. Data: {', '.join(text)}.")
    return table


def configuration(preset: str, steps: int, seed: int, mode: str, overrides: dict[str, Any]) -> settings.Config:
    """A bf16 run of `preset` in a memory mode; everything else is the same."""
    values: dict[str, Any] = {
        "precision": "bf16", "train.steps": steps, "train.batch": 16, "train.sequence": 64, "optim.lr": 5e-3,
        "model.context": 64, "model.vocab": 512,
    }  # fmt: skip
    config = settings.load(preset=preset, overrides=values | overrides | {"seed": seed, "memory": mode})
    return settle(config, steps)


def trained(config: settings.Config, data: Prepared) -> float:
    """The validation loss after the training."""
    state = State.fresh(config)
    stepper, schedule = Stepper(state, data.train), schedule_of(config)
    while state.step < (config.train.steps or 0):
        lr = lr_at(schedule, state.step)
        norm = stepper.gradients(stepper.batches(state.position), state.step, lr)
        stepper.update(lr, norm)
    assert data.val is not None
    rows = SequentialRows(data.val, stepper.step.sequence, pack=config.data.pack)
    found = score(stepper.step, state.evaluated, rows, None)
    assert found is not None
    return found.loss
