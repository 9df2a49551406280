"""Scoring validation rows: loss, bits per byte, accuracy. Used while training and by `cllm eval`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cllm.data.stream import Rows, SequentialRows, bytes_of_targets
from cllm.model.batch import Batch
from cllm.model.model import Model
from cllm.model.step import Step
from cllm.training.distributed.group import Group

TOP = 5


@dataclass(frozen=True)
class Score:
    """Sums over the valid targets scored. `bytes`: UTF-8 bytes of text they stand for (None: the tokenizer loses some).

    loss in nats a token; bits_per_byte = total nats / (ln 2 · bytes).
    """

    nats: float
    targets: int
    bytes: int | None
    correct: int
    in_top: int

    @property
    def loss(self) -> float:
        return self.nats / max(self.targets, 1)

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def bits_per_byte(self) -> float | None:
        return self.nats / (math.log(2) * self.bytes) if self.bytes else None

    @property
    def accuracy(self) -> float:
        return self.correct / max(self.targets, 1)

    @property
    def top_accuracy(self) -> float:
        return self.in_top / max(self.targets, 1)

    def to_dict(self) -> dict[str, Any]:
        """The figures, JSON-able."""
        return {
            "loss": self.loss,
            "perplexity": self.perplexity,
            "bits_per_byte": self.bits_per_byte,
            "accuracy": self.accuracy,
            f"top{TOP}_accuracy": self.top_accuracy,
            "targets": self.targets,
            "bytes": self.bytes,
        }


def score(
    step: Step,
    model: Model,
    rows: SequentialRows,
    byte_lengths_V: npt.NDArray[Any] | None,
    *,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
    group: Group | None = None,
    whole_batches: bool = False,
) -> Score | None:
    """Score all rows, or `limit` of them spread evenly over the whole (the same ones every time).

    step: its buffers and kernels are used; model: the weights, which may be a moving average.
    byte_lengths_V: bytes each token stands for, or None.  progress: called with (rows done, rows in all).
    stop: asked before every batch; when it says so, the result is None.  group: ranks with the same weights, each of
    which scores a part of the rows; all get the same result.  whole_batches: cut only between batches of `step.batch`
    rows, the same on all ranks: then the result has the bits that one process gets.
    """
    wanted = len(rows) if limit is None else min(limit, len(rows))
    places = [i * len(rows) // wanted for i in range(wanted)]
    each: list[float] = []  # nats of each batch
    targets, size, correct, in_top, stopped = 0, 0, 0, 0, False
    group = group or Group.alone()
    if group.size > 1:
        unit = step.batch if whole_batches else 1
        first, last = (rank * -(-wanted // unit) // group.size * unit for rank in (group.rank, group.rank + 1))
        places = places[first:last]
        wanted = len(places)
    for at in range(0, wanted, step.batch):
        if stop():
            stopped = True
            break
        part, fresh = _rows(rows, places[at : at + step.batch])
        result = step.evaluate(Batch(torch.from_numpy(part.tokens_BT1), torch.from_numpy(part.documents_BT1)), model)
        valid = (result.targets_BT >= 0) & torch.from_numpy(fresh).to(result.targets_BT.device)
        each.append(float(result.losses_BT[valid].sum(dtype=torch.float64)))
        targets += int(valid.sum())
        correct += int(((result.ranks_BT == 0) & valid).sum())
        in_top += int(((result.ranks_BT < TOP) & valid).sum())
        if byte_lengths_V is not None:
            size += bytes_of_targets(part, byte_lengths_V, document_mask=step.document_mask, fresh_BT=fresh)
        if progress:
            progress(min(at + step.batch, wanted), wanted)
    if group.size > 1:
        every = group.gather_objects([each, targets, size, correct, in_top, stopped])
        each = [nats for one in every for nats in one[0]]
        targets, size, correct, in_top, stopped = (sum(one[i] for one in every) for i in range(1, 6))
    if stopped:
        return None
    nats = 0.0
    for one in each:
        nats += one
    return Score(nats, targets, size if byte_lengths_V is not None else None, correct, in_top)


def _rows(rows: SequentialRows, places: list[int]) -> tuple[Rows, npt.NDArray[np.bool_]]:
    """The rows at these places and which of their targets count; a run of neighbours is read at once."""
    if places[-1] - places[0] == len(places) - 1:
        return rows.rows(places[0], len(places)), rows.fresh(places[0], len(places))
    parts = [rows.rows(place, 1) for place in places]
    return Rows(
        np.concatenate([part.tokens_BT1 for part in parts]), np.concatenate([part.documents_BT1 for part in parts])
    ), np.concatenate([rows.fresh(place, 1) for place in places])
