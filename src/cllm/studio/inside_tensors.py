"""What a checkpoint is made of, and how the numbers of a tensor are distributed.

Tensors are read from the checkpoint's file one at a time, so that a model of any size can be looked at.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cllm.api import Run
from cllm.errors import CorruptError, UsageError
from cllm.model.layout import layout
from cllm.model.tables import PREFIX, fixed_tables
from cllm.training import checkpoint as checkpoints

BINS = 64
CHUNK = 1 << 22  # entries at a time


def resolved(folder: str, which: str) -> str:
    """The name of a run's checkpoint: what `latest` or `best` names, or the name itself."""
    if which in (checkpoints.LATEST, checkpoints.BEST):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return (Path(folder) / which).read_text().strip() or which
    return which


def structure(folder: str, checkpoint: str) -> dict[str, Any]:
    """The model's sizes and its tensors: names, shapes, whether they are trained. No weight is read."""
    run = Run(folder, checkpoint)
    c = run.config
    entries = layout(c.model).entries
    tables = fixed_tables(c.model, torch.float32, "meta")
    return {
        "checkpoint": resolved(folder, checkpoint),
        "model": msgspec.to_builtins(c.model),
        "precision": c.precision,
        "document_mask": c.data.document_mask,
        "tensors": [{"name": e.name, "shape": list(e.shape), "count": e.size, "trained": True} for e in entries]
        + [
            {"name": PREFIX + name, "shape": list(table.shape), "count": table.numel(), "trained": False}
            for name, table in tables.items()
        ],
    }


def summary(x: Tensor) -> dict[str, Any]:
    """How the entries of a tensor are distributed, calculated in float64.

    count; nan, infinite: how many are no numbers.  Of the others: zeros (how many), norm (Euclidean), rms, mean, std
    (of the population), min, max, and counts: a histogram of BINS equal bins from min to max.  Where no entry is finite
    the figures are None.
    """
    flat = x.detach().reshape(-1)
    chunks = [flat[i : i + CHUNK] for i in range(0, flat.numel(), CHUNK)]
    finite = zeros = nan = 0
    total = squares = 0.0
    low, high = math.inf, -math.inf
    for chunk in chunks:
        good = _finite(chunk)
        finite += good.numel()
        if good.numel() < chunk.numel():
            nan += int(chunk.isnan().sum())
        if good.numel():
            zeros += good.numel() - int(good.count_nonzero())
            total += float(good.sum())
            squares += float(good.dot(good))
            least, most = good.aminmax()
            low, high = min(low, float(least)), max(high, float(most))
    found: dict[str, Any] = {"count": flat.numel(), "nan": nan, "infinite": flat.numel() - finite - nan}
    if not finite:
        return found | dict.fromkeys(("zeros", "norm", "rms", "mean", "std", "min", "max")) | {"counts": []}
    mean, spread = total / finite, 0.0
    counts = torch.zeros(BINS, dtype=torch.float64)
    for chunk in chunks:
        good = _finite(chunk)
        if low < high:
            counts += torch.histc(good, BINS, low, high)
        else:  # one value, in the middle
            counts[BINS // 2] += good.numel()
        off = good.sub_(mean)
        spread += float(off.dot(off))
    return found | {
        "zeros": zeros,
        "norm": math.sqrt(squares),
        "rms": math.sqrt(squares / finite),
        "mean": mean,
        "std": math.sqrt(spread / finite),
        "min": low,
        "max": high,
        "counts": counts.long().tolist(),
    }


def _finite(chunk: Tensor) -> Tensor:
    wide = chunk.to("cpu", torch.float64, copy=True)
    return wide if math.isfinite(float(wide.sum())) else wide[wide.isfinite()]


def tensor(folder: str, checkpoint: str, name: str) -> dict[str, Any]:
    """The statistics of one tensor. Raises UsageError for a name that the checkpoint does not have."""
    with _weights(folder, checkpoint) as file:
        if name not in file.keys():  # noqa: SIM118 (it is no mapping)
            raise UsageError(f"{name!r}: no tensor of this checkpoint; expected a name as in tok or 0.attn.wq")
        return _told(name, file.get_tensor(name))


def tensors(folder: str, checkpoint: str) -> Iterator[dict[str, Any]]:
    """The statistics of all of them, one by one, in the order of the model."""
    names = [one["name"] for one in structure(folder, checkpoint)["tensors"]]
    with _weights(folder, checkpoint) as file:
        held = set(file.keys())
        for name in names:
            if name in held:  # fixed tables may be left out of a file
                yield _told(name, file.get_tensor(name))


def _told(name: str, value: Tensor) -> dict[str, Any]:
    return {"name": name, "shape": list(value.shape)} | summary(value)


@contextlib.contextmanager
def _weights(folder: str, checkpoint: str) -> Iterator[Any]:
    """The checkpoint's file of weights, its hash verified when it is first opened."""
    path = Path(folder) / checkpoints.FOLDER / resolved(folder, checkpoint)
    try:
        status = (path / checkpoints.WEIGHTS).stat()
        _verified(str(path), status.st_mtime_ns, status.st_size)
        with safe_open(path / checkpoints.WEIGHTS, "pt") as file:
            yield file
    except OSError as error:
        raise CorruptError(f"{path / checkpoints.WEIGHTS}: cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        raise CorruptError(f"{path / checkpoints.WEIGHTS}: {error}") from None


@lru_cache(maxsize=32)
def _verified(path: str, changed: int, size: int) -> None:
    del changed, size  # a file that changed is verified again
    checkpoints.verify(path, with_state=False)
