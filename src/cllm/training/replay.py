"""A step again, seen op by op: how large its values get in the run's format and in float64.

The step is the one behind a checkpoint, on the batch that the guard wrote (`nonfinite-step-*.safetensors`) or on the
rows that the data stream gives there. The same kernels run in both formats, with a probe behind every op.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from cllm import config as settings
from cllm.config import Config
from cllm.data.prepare import open_prepared
from cllm.data.stream import Stream
from cllm.engine.dropout import Key
from cllm.errors import CorruptError, RunError
from cllm.model.batch import Batch
from cllm.model.step import Step
from cllm.training import checkpoint
from cllm.training.guard import batch_files
from cllm.training.optimiser import gradient_norm
from cllm.training.plan import device_of, make_step
from cllm.training.run import DATA_FOLDER, read_run_file
from cllm.training.state import State

Place = tuple[int | None, str]
"""Layer (None: outside the layers) and op, as the step's probe names them."""
LARGEST = {name: float(torch.finfo(dtype).max) for name, dtype in
           (("fp32", torch.float32), ("fp64", torch.float64), ("bf16", torch.bfloat16))}  # fmt: skip
"""The largest finite number of each format."""


@dataclass(frozen=True)
class Seen:
    """The results of one op over the whole step: the largest finite |value|, and how many are not finite."""

    layer: int | None
    op: str
    largest: float
    bad: int
    of: int

    @property
    def name(self) -> str:
        """`0.attn.qkv`, `embedding`."""
        return self.op if self.layer is None else f"{self.layer}.{self.op}"


@dataclass(frozen=True)
class Pass:
    """One run of the step: every op in order, gradients of tensors last; loss (nats a token) and gradient norm."""

    precision: str
    ops: tuple[Seen, ...]
    loss: float
    norm: float
    bad_row: int | None

    @property
    def first_bad(self) -> Seen | None:
        """The first op with a value that is not finite."""
        return next((seen for seen in self.ops if seen.bad), None)


@dataclass(frozen=True)
class Replayed:
    """A step run again in its own format and in float64, from the same weights and rows.

    step: optimiser steps finished before it.  source: the batch's file, or the checkpoint.  weights, tables (fixed
    ones), tokens_RT1, documents_RT1: what went in, for whoever looks closer.  broken: a parameter that was not finite
    to begin with.
    """

    config: Config
    step: int
    source: str
    native: Pass
    exact: Pass
    broken: str | None
    weights: dict[str, Tensor]
    tables: dict[str, Tensor]
    tokens_RT1: Tensor
    documents_RT1: Tensor


def replay(run_dir: Path, *, step: int | None = None, batch: Path | None = None) -> Replayed:
    """Run one step of a run again; nothing is updated or written.

    step: that behind checkpoint `step-N`, on the rows of the data stream.  batch: a file that the guard wrote.
    Without either: the newest such file. Raises RunError when there is no such step, batch or checkpoint,
    CorruptError for a damaged one.
    """
    read_run_file(run_dir)  # says what is wrong with a folder that is no run
    if step is None:
        files = [batch] if batch is not None else batch_files(run_dir)
        if not files:
            raise RunError(
                f"{run_dir}: the guard has written no batch here: no step was refused. Say which step to run again: "
                f"--step N, one of {', '.join(_steps(run_dir))}"
            )
        batch = files[-1]
        step = _step_of(batch)
    found = checkpoint.load(run_dir, checkpoint.checkpoint_name(step))
    config = settings.load(base=found.meta["config"])
    state = State.restore(config, found.weights, found.state, found.meta, device_of(config))
    if batch is not None:
        tokens, documents = _read(batch, config)
    else:
        tokens, documents = _rows(run_dir, config, state)
    size = config.train.batch
    batches = [Batch(tokens[i : i + size], documents[i : i + size], i) for i in range(0, len(tokens), size)]
    m = config.model
    key = Key(config.seed, step) if m.dropout or m.attention_dropout else None
    native = observe(make_step(state), batches, key, config.precision)
    weights = {name: view.detach().cpu().clone() for name, view in state.model.params.items()}
    broken = next((name for name, view in weights.items() if not torch.isfinite(view).all()), None)
    exact = observe(make_step(_in_float64(state)), batches, key, "fp64")
    source = batch.name if batch is not None else found.name
    tables = {name: table.detach().cpu().clone() for name, table in state.model.tables.items()}
    return Replayed(config, step, source, native, exact, broken, weights, tables, tokens, documents)


def observe(step: Step, batches: Sequence[Batch], key: Key | None, precision: str) -> Pass:
    """Run the micro-batches with a probe behind every op; the gradient sums of `step` are overwritten."""
    found: dict[Place, Seen] = {}
    bad_row: int | None = None
    rows = 0

    def look(layer: int | None, op: str, result: Tensor) -> None:
        nonlocal bad_row
        seen = _seen(layer, op, result)
        if seen.bad and bad_row is None and (row := _row_of(result, rows, step.sequence)) is not None:
            bad_row = first + row
        old = found.get((layer, op))
        if old is not None:
            seen = replace(seen, largest=max(seen.largest, old.largest), bad=seen.bad + old.bad, of=seen.of + old.of)
        found[layer, op] = seen

    step.zero()
    for batch in batches:
        rows, first = step.batch, batch.first_row
        step.accumulate(batch, key, probe=look)
    ops = list(found.values())
    ops += [_seen(None, f"gradient of {name}", view) for name, view in step.grads.items()]
    return Pass(precision, tuple(ops), step.sums.mean, gradient_norm(step, 0.0).value, bad_row)


def _seen(layer: int | None, op: str, result: Tensor) -> Seen:
    finite = torch.isfinite(result)
    bad = result.numel() - int(finite.sum())
    size = torch.where(finite, result, torch.zeros_like(result)).abs().max() if result.numel() else 0.0
    return Seen(layer, op, float(size), bad, result.numel())


def _row_of(result: Tensor, rows: int, sequence: int) -> int | None:
    """The row of the first value that is not finite, for results laid out row by row."""
    if result.shape[0] not in (rows, rows * sequence):
        return None
    bad = ~torch.isfinite(result).reshape(rows, -1).all(dim=1)
    return int(bad.nonzero()[0]) if bad.any() else None


def _in_float64(state: State) -> State:
    config = settings.replace(state.config, {"precision": "fp64", "memory": "standard"})
    wide = State.fresh(config, state.model.device)
    wide.model.load(dict(state.model.params.items()) | state.model.stored_tables)
    return wide


def _rows(run_dir: Path, config: Config, state: State) -> tuple[Tensor, Tensor]:
    shard = open_prepared(run_dir / DATA_FOLDER).train
    stream = Stream(shard, config.train.sequence or config.model.context, seed=config.seed, pack=config.data.pack)
    rows = stream.rows(state.position, config.train.batch * config.train.accumulate)
    return torch.from_numpy(rows.tokens_BT1), torch.from_numpy(rows.documents_BT1)


def _read(path: Path, config: Config) -> tuple[Tensor, Tensor]:
    """The rows that the guard wrote."""
    try:
        tensors = safetensors.torch.load_file(path)
        tokens, documents = tensors["tokens"], tensors["documents"]
    except FileNotFoundError:
        raise RunError(f"{path}: there is no such batch") from None
    except (SafetensorError, KeyError, OSError) as error:
        raise CorruptError(f"{path}: not a batch that the guard wrote ({error})") from None
    columns = (config.train.sequence or config.model.context) + 1
    fits = tokens.dim() == 2 and tokens.shape == documents.shape and tokens.shape[1] == columns
    if not fits or tokens.dtype != torch.int64 or documents.dtype != torch.int64 or not len(tokens):
        raise CorruptError(f"{path}: got tokens {tuple(tokens.shape)}, expected rows of {columns}: another run's batch")
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= config.model.vocab:
        raise CorruptError(f"{path}: tokens {low} … {high}, expected 0 … {config.model.vocab - 1}: another run's batch")
    return tokens, documents


def _step_of(path: Path) -> int:
    digits = path.stem.rpartition("-")[2]
    if not digits.isdecimal():
        raise RunError(f"{path}: expected a file that the guard wrote, nonfinite-step-N.safetensors")
    return int(digits)


def _steps(run_dir: Path) -> list[str]:
    return [str(int(name.removeprefix("step-"))) for name in checkpoint.list_checkpoints(run_dir)] or ["none yet"]
