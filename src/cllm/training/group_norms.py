"""The gradient's norm by kind of parameter: which part of the model the step comes from."""

from __future__ import annotations

import math
from weakref import WeakKeyDictionary

from cllm.engine.buffers import Layout
from cllm.model.step import Step
from cllm.training.distributed import squares
from cllm.training.distributed.reduce import Reducer
from cllm.training.optimiser import buffers

GROUPS = ("embeddings", "attention", "feedforward", "norms")

_STRETCHES: WeakKeyDictionary[Layout, list[tuple[str, str, str]]] = WeakKeyDictionary()


def group_of(name: str) -> str:
    """The group of a parameter: tables of tokens and positions and the output matrix are "embeddings"."""
    parts = name.split(".")
    if "attn" in parts:
        return "attention"
    if "ffn" in parts:
        return "feedforward"
    return "norms" if any(part.startswith("ln") for part in parts) else "embeddings"


def _stretches(layout: Layout) -> list[tuple[str, str, str]]:
    """(group, first, last) of neighbours of one group: fewer and longer sums."""
    found = _STRETCHES.get(layout)
    if found is None:
        found = []
        for name in layout.offsets:
            if found and found[-1][0] == group_of(name):
                found[-1] = (found[-1][0], found[-1][1], name)
            else:
                found.append((group_of(name), name, name))
        _STRETCHES[layout] = found
    return found


def norms_by_group(step: Step) -> dict[str, float]:
    """‖Σ g‖ / valid of each group before clipping, in the order of `GROUPS`; the squares add up to the global norm's.

    Call it before the update. Empty in the memory mode "fused", where the gradients are used up in the backward.
    """
    if step.sink is not None:
        return {}
    sums: dict[str, list[float]] = {}
    for part in buffers(step.grads):
        for group, first, last in _stretches(part.layout):
            sums.setdefault(group, []).append(step.kernels.sum_of_squares(part.between(first, last)))
    valid = max(step.sums.valid, 1)
    return {group: math.sqrt(math.fsum(sums[group])) / valid for group in GROUPS if group in sums}


def norms_of_pieces(reducer: Reducer, valid: int) -> dict[str, float]:
    """The same where each rank has the sums of its own pieces only (ZeRO), on all ranks. Collective.

    valid: targets of the step, over all ranks.
    """
    pieces = reducer.plan.shard(reducer.group.rank).pieces
    own = [[(name, ends) for name, ends in pieces.items() if group_of(name) == group] for group in GROUPS]
    found = squares.totals([(reducer.piece(name, *ends) for name, ends in one) for one in own], reducer.group)
    there = {group_of(name) for name in reducer.plan.layout.offsets}
    return {
        group: math.sqrt(square) / max(valid, 1) for group, square in zip(GROUPS, found, strict=True) if group in there
    }
