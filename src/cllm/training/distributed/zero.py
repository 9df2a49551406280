"""ZeRO-2 (Rajbhandari et al. 2020): no rank keeps the whole gradient.

The sums of a rank's own pieces are kept; everything else only until it has travelled. The layers' matrices take turns
in two stretches of memory, each of the largest bucket: while one bucket is on its way, the backward writes the next.
Embedding, output matrix and vectors are kept whole: they are written at both ends of the backward, or small.

Every micro-batch travels. In the fixed tree the ranks take the leaves in turn, so that they arrive in the order in
which the owner adds them: the tree's waiting sums are then of the owner's size, too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cllm.engine.buffers import Flat, Layout
from cllm.engine.compact import Shared
from cllm.model.layout import hidden_matrix
from cllm.training.distributed.buckets import Part, Plan
from cllm.training.distributed.group import Group
from cllm.training.distributed.reduce import Parcel, Reducer, spread_room
from cllm.training.distributed.tree import Node, Pushed, depth

TURNS = 2
OWN = "gradients of own pieces"


class Passing(Reducer):
    """Adds the gradients of all ranks, each rank those of its own pieces.

    rounds: for each rank, how many micro-batches it has in a step ("fast"; the fixed tree knows).
    """

    in_turn = True

    def __init__(
        self,
        plan: Plan,
        group: Group,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        *,
        count: int = 0,
        rounds: tuple[int, ...] = (),
    ) -> None:
        self._rounds = tuple(len(range(r, count, group.size)) for r in range(group.size)) if count else rounds
        super().__init__(plan, group, dtype, device, count=count, spread=False)
        self._places = self._own_places()
        self._turning = [i for i, b in enumerate(plan.buckets) if all(map(hidden_matrix, b.names))]
        self.grads: Shared = self._buffers(device)

    def _buffers(self, device: torch.device | str) -> Shared:
        layout, buckets = self.plan.layout, self.plan.buckets
        turning = {name for i in self._turning for name in buckets[i].names}
        kept = Flat(layout.only(lambda entry: entry.name not in turning), self.dtype, device)
        entries = {entry.name: entry for entry in layout.entries}
        layouts = [Layout([entries[name] for name in buckets[i].names]) for i in self._turning]
        largest = max(layouts, key=lambda each: each.total)
        turns = [Flat(largest, self.dtype, device) for _ in range(min(TURNS, len(layouts)))]
        views = [Flat(each, self.dtype, device, room=turns[i % TURNS].data) for i, each in enumerate(layouts)]
        return Shared(layout, [kept, *views], [kept, *turns])

    def start(self) -> None:
        super().start()
        self._begun: set[tuple[int, int]] = set()  # whose sums hold something of this step

    def begin(self, *, last: bool) -> None:
        while self._flight:  # what is on its way is still read
            self._advance()
        super().begin(last=last)

    @property
    def _apart(self) -> bool:
        return True

    def finish(self) -> None:
        """Wait until the sums are there. A rank with fewer micro-batches than others takes in theirs."""
        while self._round + 1 < max(self._rounds):
            assert self._last
            self._round += 1
            for index in range(len(self.plan.buckets)):
                self._send(index, [])
        super().finish()

    def piece(self, name: str, start: int, stop: int) -> Tensor:
        sums, first = self.place(name, start)
        return sums[first : first + stop - start]

    def place(self, name: str, start: int) -> tuple[Tensor, int]:
        index, at = self._places[name]  # of this rank's piece, which begins at `start`
        return self._sums[index], at

    def _ready(self, index: int) -> None:
        self._send(index, [self._view(index)])
        if index in self._turning:
            turn = self._turning.index(index)
            before = self._turning[turn - 1] if turn else None
            while any(isinstance(parcel, Parcel) and parcel.index == before for parcel in self._flight):
                self._advance()  # the next bucket is written where that one lies

    def _nodes(self, rank: int) -> list[Node]:
        if self._round >= self._rounds[rank]:
            return []
        leaf = self._round * self.group.size + rank
        return [(leaf, leaf + 1)]

    def _arrived(self, parcel: Parcel) -> None:
        """Add the ranks' sums to those of this rank's pieces."""
        index, start = parcel.index, parcel.part.starts[self.group.rank]
        sums = self._sums[index][start : start + parcel.part.shares[self.group.rank]]
        for node, value in parcel.sums:
            if self.count:
                self._tree(index, parcel.part).push(node, value)
            elif (index, start) in self._begun:
                sums.add_(value)
            else:
                sums.copy_(value)
                self._begun.add((index, start))
        self._free.append(parcel.room)

    def _tree(self, index: int, part: Part) -> Pushed:
        """The sums that wait in the tree, of what this rank has of a part of a bucket."""
        return self._waiting[self._first_part[index] + self.plan.buckets[index].parts.index(part)]

    def _own_places(self) -> dict[str, tuple[int, int]]:
        """Bucket and place, within what this rank has of it, of each of its pieces."""
        found = {}
        for name, (start, _) in self.plan.shard(self.group.rank).pieces.items():
            index = next(i for i, bucket in enumerate(self.plan.buckets) if name in bucket.names)
            bucket = self.plan.buckets[index]
            where = self.plan.layout.offsets[name] - self.plan.layout.offsets[bucket.names[0]] + start
            at = 0
            for low, high in bucket.ranges(self.group.rank):
                if low <= where < high:
                    found[name] = (index, at + where - low)
                at += high - low
        return found

    def _room_bytes(self, part: Part) -> int:
        arriving = part.shares[self.group.rank] * self.group.size
        packed = 0 if part.in_order else part.size
        return max(arriving + packed, spread_room(part, self.group)) * self.dtype.itemsize

    def _make_waiting(self) -> list[Pushed]:
        levels, rank = depth(range(self.count), self.count) if self.count else 1, self.group.rank
        self._sums: list[Tensor] = []
        self._first_part: list[int] = []
        waiting: list[Pushed] = []
        for bucket in self.plan.buckets:
            memory = [self.arena.new(OWN, bucket.share(rank)) for _ in range(levels)]
            self._sums.append(memory[0])
            self._first_part.append(len(waiting))
            for part in bucket.parts:
                there = slice(part.starts[rank], part.starts[rank] + part.shares[rank])
                waiting.append(Pushed([level[there] for level in memory], self.count))
        return waiting
