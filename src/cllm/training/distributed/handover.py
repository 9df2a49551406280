"""A state from rank 0 to all, one tensor at a time: rank 0 alone reads a checkpoint, and all ranks have its bits, or
what their shard takes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from cllm.config import Config
from cllm.training.checkpoint import Checkpoint
from cllm.training.distributed.arrange import arrange
from cllm.training.distributed.group import Group
from cllm.training.state import State


def hand_over(group: Group, config: Config, found: Checkpoint | None, device: torch.device) -> State:
    """The state of the checkpoint that rank 0 has found (None on the others), on every rank. Collective."""
    if group.size == 1:
        assert found is not None
        return State.restore(config, found.weights, found.state, found.meta, device)
    meta = group.agree(None if found is None else found.meta)
    weights = Arriving(group, None if found is None else found.weights)
    rest = Arriving(group, None if found is None else found.state)
    return State.restore(config, weights, rest, meta, device, arrange(config, group).shard)


def equalise(group: Group, state: State) -> None:
    """Rank 0's weights on every rank, at step 0: drawn alike from the seed, but perhaps by another processor's
    arithmetic, or taken from another run. Collective."""
    if group.size == 1:
        return
    for table in state.model.stored_tables.values():
        table.copy_(_broadcast(group, table, table.shape, table.dtype))
    for weights in [state.model.params] if state.ema is None else [state.model.params, state.ema]:
        for entry in weights.layout.entries:
            mine = weights[entry.name] if group.first else None
            weights.put(entry.name, _broadcast(group, mine, entry.shape, weights.dtype))


class Arriving(Mapping[str, Tensor]):
    """Rank 0's tensors, by name, on every rank: each is sent when it is asked for, which all ranks must do in the same
    order."""

    def __init__(self, group: Group, own: Mapping[str, Tensor] | None) -> None:
        self._group, self._own = group, own
        described: dict[str, Any] | None = None
        if own is not None:
            described = {name: [list(one.shape), str(one.dtype).removeprefix("torch.")] for name, one in own.items()}
        self._kinds: dict[str, Any] = group.agree(described)

    def __getitem__(self, name: str) -> Tensor:
        shape, kind = self._kinds[name]
        return _broadcast(self._group, None if self._own is None else self._own[name], shape, getattr(torch, kind))

    def __contains__(self, name: object) -> bool:
        return name in self._kinds

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)


def _broadcast(group: Group, own: Tensor | None, shape: Any, dtype: torch.dtype) -> Tensor:
    """On the CPU."""
    found = torch.empty(tuple(shape), dtype=dtype) if own is None else own.detach().to("cpu").contiguous()
    if found.numel():
        group.broadcast_(found.reshape(-1).view(torch.uint8))
    return found
