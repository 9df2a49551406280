"""From a configuration and a group to who keeps what: the plan of buckets, this rank's shard, the reducer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from cllm.config import Config
from cllm.engine.precision import accumulation
from cllm.errors import ConfigError
from cllm.model.layout import layout
from cllm.training.distributed.buckets import Plan, Shard, whole_if
from cllm.training.distributed.group import Group
from cllm.training.distributed.reduce import Reducer
from cllm.training.distributed.split import FIXED, Share, share
from cllm.training.distributed.zero import Passing
from cllm.training.groups import rules
from cllm.training.plan import make_step
from cllm.training.state import DTYPES, State

MIB = 1 << 20


@dataclass(frozen=True)
class Arrangement:
    """What the ranks of a group do and keep of each step of a configuration. One process needs it for "fixed" only."""

    config: Config
    group: Group

    @property
    def fixed(self) -> bool:
        """Whether gradients are added in the fixed tree."""
        return self.config.distributed.reduction == FIXED

    @property
    def zero(self) -> int:
        """0: each rank has everything. 1: its part of the moments. 2: and of the gradients. Alone: 0."""
        return self.config.distributed.zero if self.group.size > 1 else 0

    @cached_property
    def share(self) -> Share:
        """The rows of this rank. Raises ConfigError when there is not something for each."""
        return self._share(self.group.rank)

    def _share(self, rank: int) -> Share:
        c = self.config
        return share(c.train, rank, self.group.size, c.distributed.reduction, in_turn=self.zero == 2)

    @cached_property
    def plan(self) -> Plan:
        """The buckets, and whose their parts are."""
        c, names = self.config, layout(self.config.model)
        limit = max(1, int(c.distributed.bucket_mb * MIB) // self._dtype.itemsize)
        found = rules(c, names)
        whole = whole_if(names, lambda name: bool(self.zero) and found[name].algorithm == "muon")
        return Plan(names, c.model.layers, self.group.size, limit, whole)

    @cached_property
    def shard(self) -> Shard | None:
        """What this rank has the moments of; None: of everything."""
        return self.plan.shard(self.group.rank) if self.zero else None

    @property
    def _dtype(self) -> torch.dtype:
        return accumulation(DTYPES[self.config.precision])

    def reducer(self, device: torch.device | str) -> Reducer | None:
        """What adds the gradients of the ranks and micro-batches; None where the step's own sums are those."""
        count = self.config.train.accumulate if self.fixed else 0
        if self.group.size == 1 and not count:
            return None
        if self.zero == 2:
            rounds = tuple(len(self._share(rank).parts) for rank in range(self.group.size))
            return Passing(self.plan, self.group, self._dtype, device, count=count, rounds=rounds)
        eager = not self.config.log.noise_scale
        return Reducer(self.plan, self.group, self._dtype, device, count=count, spread=self.zero == 0, eager=eager)


def arrange(config: Config, group: Group) -> Arrangement:
    """Raises ConfigError for what several processes cannot do."""
    if group.size > 1:
        refuse_fused(config)
    return Arrangement(config, group)


def refuse_fused(config: Config) -> None:
    """Raises ConfigError for the memory mode that one process only can have."""
    if config.memory == "fused":
        raise ConfigError(
            'memory: "fused" updates each tensor inside the backward, before the gradients of several processes could '
            'be added: use memory = "lean", and distributed.zero = 2 for the smallest gradients'
        )


def bytes_by_part(config: Config, rank: int, size: int) -> dict[str, int]:
    """What rank `rank` of `size` allocates for training, by part, without allocating it; the parts of `plan.size` and
    those of the exchange. Checkpoints come on top: a copy of the whole state on rank 0, while one is written in the
    background."""
    arrangement = arrange(config, Group(rank=rank, size=size))
    state = State.fresh(config, "meta", arrangement.shard)
    reducer = arrangement.reducer("meta")
    grads = None if reducer is None else reducer.grads
    step = make_step(state, fused=True, rows=arrangement.share.most, several=size > 1, grads=grads)
    parts = state.bytes_by_part | step.bytes_by_part
    return parts if reducer is None else parts | reducer.arena.bytes_by_part
