"""A state from rank 0 to all: nothing but rank 0's checkpoint is read, and all ranks begin with its bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cllm.config import Config
from cllm.training.checkpoint import Checkpoint
from cllm.training.distributed.group import Group
from cllm.training.state import State


def hand_over(group: Group, config: Config, found: Checkpoint | None, device: torch.device) -> State:
    """The state of the checkpoint that rank 0 has found (None on the others), on every rank. Collective."""
    saved = None if found is None else (found.weights, found.state, found.meta)
    if group.size == 1:
        assert saved is not None
        return State.restore(config, *saved, device)
    return State.restore(config, *_to_all(group, saved), device)


def equalise(group: Group, state: State) -> None:
    """Rank 0's fresh state on every rank: drawn alike from the seed, but perhaps by another processor's arithmetic, or
    taken from another run's weights. Collective."""
    if group.size == 1:
        return
    saved = (*state.tensors(), state.meta()) if group.first else None
    weights, rest, meta = _to_all(group, saved)
    if not group.first:
        again = State.restore(state.config, weights, rest, meta, state.model.device)
        state.model, state.moments, state.ema = again.model, again.moments, again.ema


def _to_all(
    group: Group, saved: tuple[Mapping[str, Tensor], Mapping[str, Tensor], dict[str, Any]] | None
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    described: Any = None
    if saved is not None:
        parts = [
            [(name, list(one.shape), str(one.dtype).removeprefix("torch.")) for name, one in tensors.items()]
            for tensors in saved[:2]
        ]
        described = [*parts, saved[2]]
    weights, rest, meta = group.agree(described)
    return (
        {name: _one(group, saved[0][name] if saved else None, shape, kind) for name, shape, kind in weights},
        {name: _one(group, saved[1][name] if saved else None, shape, kind) for name, shape, kind in rest},
        meta,
    )


def _one(group: Group, tensor: Tensor | None, shape: list[int], kind: str) -> Tensor:
    if tensor is None:
        mine = torch.empty(shape, dtype=getattr(torch, kind))
    else:
        mine = tensor.detach().to("cpu").contiguous()
    if mine.numel():
        group.broadcast_(mine.reshape(-1).view(torch.uint8))
    return mine
