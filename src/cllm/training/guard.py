"""A loss or gradient that is not finite: stop before the update, and say where it was born."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from cllm.engine.dropout import Key
from cllm.model.batch import Batch
from cllm.model.step import Step


@dataclass(frozen=True)
class Birthplace:
    """The first op whose result held a value that is not finite. layer None: outside the layers."""

    layer: int | None
    op: str
    bad: int
    of: int

    def __str__(self) -> str:
        where = self.op if self.layer is None else f"layer {self.layer}, {self.op}"
        return f"{where} ({self.bad} of {self.of} values)"


class _Found(Exception):
    def __init__(self, place: Birthplace) -> None:
        self.place = place


def birthplace(step: Step, batches: Sequence[Batch], dropout: Key | None) -> Birthplace | None:
    """Run the micro-batches again and look behind every op; None when all ops are finite (a sum overflowed).

    Parameters that are already not finite are named first. The gradient sums are overwritten.
    """
    for name, view in step.model.params.items():
        bad = _bad(view)
        if bad:
            return Birthplace(None, f"parameter {name}", bad, view.numel())

    def look(layer: int | None, op: str, result: Tensor) -> None:
        bad = _bad(result)
        if bad:
            raise _Found(Birthplace(layer, op, bad, result.numel()))

    reducer, step.reducer = step.reducer, None  # only this rank runs again
    try:
        for batch in batches:
            step.zero()
            step.accumulate(batch, dropout, probe=look)
            for name, view in step.grads.items():
                look(None, f"gradient of {name}", view)
    except _Found as found:
        return found.place
    finally:
        step.reducer = reducer
    return None


def _bad(tensor: Tensor) -> int:
    return int((~torch.isfinite(tensor)).sum())


BATCH_FILE = "nonfinite-step-{:08d}.safetensors"


def batch_files(run_dir: Path) -> list[Path]:
    """The batches of refused steps in a run directory, by step."""
    return sorted(run_dir.glob("nonfinite-step-*.safetensors"))


def write_batch(path: Path, batches: Sequence[Batch]) -> str:
    """Write the step's rows for a replay; returns their SHA-256."""
    tensors = {
        "tokens": torch.cat([batch.tokens_BT1 for batch in batches]),
        "documents": torch.cat([batch.documents_BT1 for batch in batches]),
    }
    digest = hashlib.sha256()
    for tensor in tensors.values():
        digest.update(tensor.numpy().tobytes())
    path.write_bytes(safetensors.torch.save(tensors))
    return digest.hexdigest()
