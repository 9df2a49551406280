"""From the shards of all ranks to one whole state, and what that takes of memory: one tensor at a time.

A checkpoint is the same whatever number of ranks wrote it. Rank 0 asks for one tensor of moments after the other, when
the file gets to it; each rank sends its piece. The weights, and their moving average, every rank has whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from cllm.training.distributed.buckets import Plan, Shard
from cllm.training.distributed.group import Group
from cllm.training.state import State, piece, zero_moments

T = TypeVar("T")
DONE = -1


def whole(
    state: State, plan: Plan, group: Group, use: Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], T]
) -> T | None:
    """What `use` gives on rank 0 for (weights, everything else) of the whole state, as in `State.tensors`; None on the
    other ranks, which serve until it is through. All ranks call this together.

    The moments of a sharded state are gathered when they are asked for, each time; `kinds` of the second mapping says
    types and shapes before (see `storage.safetensors_chunks`). Raises what `use` raises, on rank 0.
    """
    if state.shard is None:
        return use(*state.tensors()) if group.first else None
    gathered = Gathered(state, plan, group)
    if not group.first:
        gathered.serve()
        return None
    try:
        return use(state.weights(), gathered)
    finally:
        gathered.end()


class Gathered(Mapping[str, Tensor]):
    """Everything of a state but its weights, whole, by its name in a checkpoint; on rank 0. The others `serve`."""

    def __init__(self, state: State, plan: Plan, group: Group) -> None:
        self._state, self._group = state, group
        self._shards = [plan.shard(rank) for rank in range(group.size)]
        meta = zero_moments(state.config, state.model.layout, "meta")
        self._moments = {f"{n}.{key}": kind for n, moment in meta.items() for key, kind in moment.stored().items()}
        self._names = list(self._moments)
        self._raw = state.raw()
        self.kinds: dict[str, Tensor] = self._raw | self._moments

    def __iter__(self) -> Iterator[str]:
        return iter(self.kinds)

    def __len__(self) -> int:
        return len(self.kinds)

    def __getitem__(self, name: str) -> Tensor:
        if name in self._raw:
            return self._raw[name]
        number = self._names.index(name) if name in self._moments else None
        if number is None:
            raise KeyError(name)
        self._group.broadcast_(torch.tensor([number]))
        kind = self._moments[name]
        device = self._state.model.device
        found = torch.empty(kind.shape, dtype=kind.dtype, device=device)
        for rank in range(self._group.size):
            part = self._part(found, name, self._shards[rank])
            if part is None:
                continue
            if rank == 0:
                part.copy_(self._own(name))
            else:
                self._receive(part, rank)
        return found

    def serve(self) -> None:
        """Send what rank 0 asks for, until it needs no more."""
        while (number := int(self._group.broadcast_(torch.tensor([DONE])))) != DONE:
            name = self._names[number]
            if name.partition(".")[2].removesuffix(".scale") in self._shards[self._group.rank].pieces:
                self._send(self._own(name))

    def end(self) -> None:
        """Rank 0 needs no more."""
        self._group.broadcast_(torch.tensor([DONE]))

    def _own(self, name: str) -> Tensor:
        """This rank's part of a stored moment, flat."""
        moment, _, key = name.partition(".")
        return self._state.moments[moment].stored()[key].reshape(-1)

    @staticmethod
    def _part(found: Tensor, name: str, shard: Shard) -> Tensor | None:
        key = name.partition(".")[2]
        return piece(found, shard, key) if key.removesuffix(".scale") in shard.pieces else None

    def _send(self, tensor: Tensor) -> None:
        import torch.distributed as dist

        with self._group.lost("the sending of a piece"):
            dist.send(tensor, 0)

    def _receive(self, into: Tensor, rank: int) -> None:
        import torch.distributed as dist

        with self._group.lost("the gathering of a piece"):
            dist.recv(into, rank)
