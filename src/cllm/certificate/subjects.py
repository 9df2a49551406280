"""What is certified: one training step, given by weights, raw token rows and the dropout key.

Both sides start from the same `Subject` and derive everything else themselves: `spec_batch` and `spec_model` for the
exact function, `engine_step` for the engine.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cllm import config as settings
from cllm import spec
from cllm.config import Config, has_symmetry_bias
from cllm.engine.dispatch import Kernels
from cllm.engine.dropout import Key
from cllm.engine.philox import normal
from cllm.errors import NonFiniteError, UsageError
from cllm.lattice import symmetry_classes
from cllm.model.batch import Batch
from cllm.model.layout import MATRIX, layout
from cllm.model.model import Model
from cllm.model.step import Step
from cllm.model.tables import PREFIX, averaged
from cllm.training.state import DTYPES

Array = NDArray[Any]
FIRST_FREE = 5
"""The first token number that is not a special."""


@dataclass(frozen=True)
class Subject:
    """Weights, rows and settings of one step; `source` says where they come from, enough to make them again.

    weights: the exact floats by name, float32 or float64. In bf16 the matrices are rounded to bfloat16 here: the
    function that is certified is the one at the operands that the engine multiplies by.
    tables: the fixed ones (positions, rotations, transform), exact floats of the same kind.
    tokens_BT1, documents_BT1: raw rows [B, T+1].
    step: the optimiser step (from 0) whose dropout masks are used.
    """

    config: Config
    weights: dict[str, Array]
    tokens_BT1: Array
    documents_BT1: Array
    first_row: int = 0
    step: int = 0
    trained: bool = False
    tables: dict[str, Array] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        m = self.config.model
        if self.config.precision == "bf16":
            object.__setattr__(self, "weights", operands(self.config, self.weights))
        for name, value in self.weights.items():
            if bad := int(np.count_nonzero(~np.isfinite(value))):
                at = np.unravel_index(int(np.argmin(np.isfinite(value))), value.shape)
                raise NonFiniteError(
                    f"certify: the weights are broken: {name} has {bad} of {value.size} values that are NaN or "
                    f"infinite, the first at {list(map(int, at))}; take an earlier checkpoint"
                )
        low, high = int(self.tokens_BT1.min()), int(self.tokens_BT1.max())
        if low < 0 or high >= m.vocab:
            raise UsageError(f"certify: token numbers {low} … {high}: expected 0 … {m.vocab - 1}")

    @property
    def rows(self) -> int:
        return int(self.tokens_BT1.shape[0])

    @property
    def sequence(self) -> int:
        return int(self.tokens_BT1.shape[1]) - 1

    @property
    def precision(self) -> str:
        """Of the engine's operands: float32, float64 or bfloat16."""
        return "bfloat16" if self.config.precision == "bf16" else self.sums

    @property
    def sums(self) -> str:
        """Of sums, vectors and the optimiser: float32 or float64."""
        return str(self.weights["tok"].dtype)

    @property
    def unit(self) -> float:
        """The unit roundoff of sums and of the optimiser."""
        return {"float32": 2.0**-24, "float64": 2.0**-53}[self.sums]

    @cached_property
    def spec_batch(self) -> spec.Batch:
        return spec.Batch(
            self.tokens_BT1,
            self.documents_BT1,
            first_row=self.first_row,
            seed=self.config.seed,
            step=self.step,
            document_mask=self.config.data.document_mask,
        )

    @property
    def spec_model(self) -> spec.Model:
        m, tables = self.config.model, self.tables
        turning = (tables["rope.cos"], tables["rope.sin"], m.rope_interleaved) if m.positions == "rope" else None
        parts = tables.get("positions.parts")
        classes = symmetry_classes(np.arange(m.vocab), m.symmetry_classes) if has_symmetry_bias(m) else None
        return spec.Model(
            m.layers,
            m.heads,
            activation=m.activation,
            tied=m.tied,
            positions=tables.get("positions"),
            parts=parts,
            # weights of a mix that is not trained: as the engine rounds them, exactly
            mix=None if parts is None or m.positions_mix_trainable else rounded(m.positions_mix, self.sums),
            rope=turning,
            classes=classes,
            beta=None if m.symmetry_bias_trainable else m.symmetry_bias,
            transform=tables.get("transform"),
            equivariant=m.equivariant,
            dropout=m.dropout,
            attention_dropout=m.attention_dropout,
            label_smoothing=self.config.train.label_smoothing,
        )

    @property
    def engine_batch(self) -> Batch:
        return Batch.of(self.tokens_BT1, self.documents_BT1, self.first_row)

    @property
    def key(self) -> Key | None:
        m = self.config.model
        return Key(self.config.seed, self.step) if m.dropout or m.attention_dropout else None

    def engine_step(self, kernels: Kernels | None = None, step: type[Step] = Step) -> Step:
        """A fresh engine step at these weights."""
        model = Model(
            self.config.model, DTYPES[{"float32": "fp32", "float64": "fp64", "bfloat16": "bf16"}[self.precision]]
        )
        tables = {PREFIX + name: value for name, value in self.tables.items()}
        model.load({name: torch.from_numpy(value) for name, value in (self.weights | tables).items()})
        smoothing, mask = self.config.train.label_smoothing, self.config.data.document_mask
        return step(model, self.rows, self.sequence, label_smoothing=smoothing, document_mask=mask, kernels=kernels)

    def hashes(self) -> dict[str, str]:
        """SHA-256 of the weights (names, types, shapes, bytes) and of the batch with all that decides its masks."""
        weights, batch = hashlib.sha256(), hashlib.sha256()
        every = self.weights | {PREFIX + name: value for name, value in self.tables.items()}
        for name in sorted(every):
            value = np.ascontiguousarray(every[name])
            weights.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
            weights.update(value.data)
        t, d = (np.ascontiguousarray(x, np.int64) for x in (self.tokens_BT1, self.documents_BT1))
        for x in (t, d):
            batch.update(f"{x.shape}\n".encode())
            batch.update(x.data)
        c = self.config
        batch.update(
            f"{self.first_row} {c.seed} {self.step} {c.model.dropout} {c.model.attention_dropout} "
            f"{c.train.label_smoothing} "
            f"{c.data.document_mask} {c.model.activation} {c.model.tied} {c.model.layers} {c.model.heads}".encode()
        )
        if chosen := settings.lattice_options(c.model):
            batch.update(repr(sorted(chosen.items())).encode())
        return {"weights": weights.hexdigest(), "batch": batch.hexdigest()}


def operands(config: Config, weights: dict[str, Array]) -> dict[str, Array]:
    """The weights with their matrices rounded to bfloat16, as float32 arrays."""
    matrices = {entry.name for entry in layout(config.model).entries if entry.group == MATRIX}
    return {
        name: torch.from_numpy(value).bfloat16().float().numpy() if name in matrices else value
        for name, value in weights.items()
    }


def rounded(values: tuple[float, ...], precision: str) -> tuple[float, ...]:
    """The nearest floats of this precision."""
    return tuple(float(x) for x in np.array(values, dtype=precision))


def shape_for(tokens: int, longest: int) -> tuple[int, int]:
    """(rows, sequence) of about `tokens` tokens: whole rows of at most `longest`."""
    if tokens < 1:
        raise UsageError(f"certify: --tokens {tokens}: expected at least 1")
    sequence = min(tokens, longest)
    return tokens // sequence, sequence


Before = Callable[[Config, int, int], None]
"""Called with the configuration, rows and sequence before any memory is taken."""


def of_run(
    path: str | os.PathLike[str], tokens: int = 64, which: str = "latest", *, before: Before | None = None
) -> Subject:
    """The step that the run's newest checkpoint would take next, on rows of its own training data.

    The weights are those that the run is used with (their moving average where it keeps one). Raises RunError,
    CorruptError, NonFiniteError.
    """
    from cllm.data.prepare import open_prepared
    from cllm.data.stream import Stream
    from cllm.training import checkpoint
    from cllm.training.run import DATA_FOLDER, read_run_file

    run_dir = Path(path)
    config = read_run_file(run_dir)
    rows, sequence = shape_for(tokens, config.train.sequence or config.model.context)
    if before is not None:
        before(config, rows, sequence)
    found = checkpoint.load(run_dir, which, with_state=False)
    held = {name: tensor.cpu().numpy() for name, tensor in found.weights.items()}
    weights = {name: value for name, value in held.items() if not name.startswith(PREFIX)}
    tables = {name.removeprefix(PREFIX): value for name, value in held.items() if name.startswith(PREFIX)}
    shard = open_prepared(run_dir / DATA_FOLDER).train
    position = int(found.meta["position"])
    taken = Stream(shard, sequence, seed=config.seed, pack=config.data.pack).rows(position, rows)
    source = {"run": str(run_dir), "checkpoint": found.name, "rows_from": position}
    return Subject(config, weights, *taken, step=found.step, trained=found.step > 0, tables=tables, source=source)


def of_preset(
    preset: str,
    tokens: int = 64,
    *,
    seed: int = 1,
    precision: str = "fp32",
    overrides: dict[str, Any] | None = None,
    before: Before | None = None,
) -> Subject:
    """A preset at random weights, every one of them away from its initial value (gains from 1, biases from 0).

    The position table has just the rows that are used.
    """
    longest = settings.load(preset=preset, overrides=overrides or {}).model.context
    rows, sequence = shape_for(tokens, longest)
    asked = {"seed": seed, "precision": precision, "model.context": sequence, "train.sequence": sequence}
    config = settings.load(preset=preset, overrides={**(overrides or {}), **asked})
    if before is not None:
        before(config, rows, sequence)
    source = {"preset": preset, "seed": seed, "precision": precision, "overrides": overrides or {}}
    return random(config, rows, source=source)


def random(config: Config, rows: int, *, padded: bool = False, source: dict[str, Any] | None = None) -> Subject:
    """Perturbed random weights of a configuration, and random rows in which tokens repeat.

    padded: the last row ends in padding. Weights: the usual initial ones plus N(0, 0.1²) on vectors and
    N(0, 0.25/columns) on matrices, from the seed.
    """
    model = Model(config.model, DTYPES[config.precision]).initialise(config.seed)
    for stream, (name, view) in enumerate(model.params.items()):
        noise = normal((config.seed, 1), stream, view.numel()).view_as(view)
        view.add_(noise * (0.1 if view.dim() == 1 else 0.5 / view.shape[1] ** 0.5))
        if model.is_averaged(name):
            view.copy_(averaged(view))
    sequence = config.train.sequence or config.model.context
    draw = np.random.default_rng(config.seed)
    vocab = config.model.vocab
    tokens = draw.integers(min(FIRST_FREE, vocab - 1), vocab, (rows, sequence + 1))
    again = draw.random(tokens.shape) < min(0.25, 16 / sequence)  # about as often as a common word
    tokens[again] = tokens[0, 0]
    documents = np.cumsum(draw.random(tokens.shape) < min(4 / (sequence + 1), 0.3), axis=1)
    if not config.data.document_mask:
        documents[:] = 0
    if padded:
        cut = sequence // 2 + 1
        tokens[-1, cut:], documents[-1, cut:] = 0, -1
    weights = {name: view.numpy() for name, view in model.params.items()}
    tables = {name: table.numpy() for name, table in model.tables.items()}
    return Subject(config, weights, tokens, documents, tables=tables, source=source or {})
