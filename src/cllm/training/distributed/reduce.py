"""Gradient sums over the ranks of a run, while the backward still runs.

The backward says which tensors are complete (`complete`). As soon as all tensors of a bucket are, it travels; the
buckets travel in one order on all ranks. What "sum" means is `distributed.reduction`:

"fast"   the library's all-reduce where every rank keeps the sums, else parts added in the order of ranks
"fixed"  a fixed tree over the step's micro-batches (tree.py): the same bits on any number of ranks, one included

Cost, for b bytes of gradients on N ranks: 2(N−1)/N·b in and out of each, in both. "fixed" takes the first half once for
each node that a rank has left (one, when N divides train.accumulate and both are powers of two), and memory like the
gradients' for each level of the rank's own part of the tree. docs/derivations/reduction.md has bounds and proofs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cllm.engine.buffers import Arena, Flat
from cllm.engine.compact import Mixed
from cllm.model.step import Step
from cllm.model.tables import averaged
from cllm.training.distributed import squares
from cllm.training.distributed.buckets import Part, Plan
from cllm.training.distributed.group import Group
from cllm.training.distributed.tree import Node, Pushed, depth, leaves, remaining, tree
from cllm.training.distributed.wire import Pending, Wire

ROOMS = 2
"""Parts of buckets on the way at a time, each in a room of its own: one arrives while the next is sent."""
PART, WAITING = "gradients on the way", "gradients in the tree"  # in the list of memory


@dataclass
class Parcel:
    """A part of a bucket on the way: the ranks' sums to their owners, then, perhaps, the owners' back to all.

    sums: with their nodes, as they arrive; none on the way back.  put: what is to be done when all is there.
    """

    index: int
    part: Part
    room: Tensor
    pending: Pending
    sums: list[tuple[Node, Tensor]] = field(default_factory=list)
    put: Callable[[], None] = lambda: None


class Reducer:
    """Adds the gradients of all ranks; each keeps whole buffers. Behind `finish` they hold the sums of the step:
    everywhere, or in the rank's own pieces (ZeRO-1).

    plan: the buckets.  count: micro-batches of a step for the fixed tree, 0 for "fast".  spread: every rank gets all
    sums.  A step is: `start`, then `begin` and `Step.accumulate` for each micro-batch of this rank, then `finish`.
    """

    in_turn = False
    """Whether the ranks take the leaves of the tree in turn, not in stretches."""

    grads: Mixed | None = None
    """The buffers that the step must use for its gradients; None: its own."""

    def __init__(
        self,
        plan: Plan,
        group: Group,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        *,
        count: int = 0,
        spread: bool = True,
        eager: bool = True,
    ) -> None:
        """eager: False to send nothing before `finish`, so that a rank's own sums can be looked at ("fast" only)."""
        assert eager or not count
        self.plan, self.group, self.dtype, self.count, self.spread = plan, group, dtype, count, spread
        self.arena, self.wire = Arena(dtype, device), Wire(group)
        self.step: Step | None = None
        self._eager = eager
        self._flight: deque[Parcel | tuple[int, Pending]] = deque()
        self._round, self._last, self._next = -1, False, 0
        self._missing: list[set[str]] = []
        self._own = leaves(group.rank, group.size, count, in_turn=self.in_turn)
        size = max((self._room_bytes(part) for bucket in plan.buckets for part in bucket.parts), default=0)
        self.rooms = [self.arena.new(PART, size, dtype=torch.uint8) for _ in range(ROOMS if size else 0)]
        self._free = list(self.rooms)
        self._waiting = self._make_waiting()

    def attach(self, step: Step) -> None:
        """The step whose gradients are added: it says which ones are complete."""
        self.step, step.reducer = step, self

    # ------------------------------------------------------------------------------------------------ a step

    def start(self) -> None:
        """A step begins; its gradient buffers are zero."""
        assert not self._flight, "the step before was not finished"
        self._round, self._next = -1, len(self.plan.buckets)
        for waiting in self._waiting:
            waiting.clear()

    def begin(self, *, last: bool) -> None:
        """The next micro-batch of this rank begins. last: there is none behind it."""
        assert self.step is not None
        assert self._next == len(self.plan.buckets), "the backward before is not complete"
        self._round, self._last, self._next = self._round + 1, last, 0
        self._missing = [set(bucket.names) for bucket in self.plan.buckets]
        if self._round and self._apart:
            self.step.zero_gradients()

    def complete(self, *names: str) -> None:
        """The gradients of these tensors are complete in this micro-batch."""
        for missing in self._missing:
            missing.difference_update(names)
        while self._next < len(self._missing) and not self._missing[self._next]:
            self._next += 1
            if self._eager:
                self._ready(self._next - 1)

    @property
    def _apart(self) -> bool:
        """Whether the micro-batches' gradients are made one by one, not on top of each other."""
        return self.count > 0

    def finish(self) -> None:
        """Wait until the sums are there."""
        assert self._last
        assert self._next == len(self.plan.buckets), "the backward is not complete"
        for index in range(0 if self._eager else self._next):
            self._ready(index)
        while self._flight:
            self._advance()

    # ------------------------------------------------------------------------------------------- the results

    def piece(self, name: str, start: int, stop: int) -> Tensor:
        """Entries [start, stop) of the sums of a tensor that this rank has, flat."""
        assert self.step is not None
        return self.step.grads[name].view(-1)[start:stop]

    def place(self, name: str, start: int) -> tuple[Tensor, int]:
        """The memory of the sums of a tensor, and where in it its entry `start` is, the first of this rank's piece."""
        assert self.step is not None
        grads = self.step.grads
        assert isinstance(grads, Flat)
        return grads.data, grads.layout.offsets[name] + start

    def squares(self) -> float:
        """Σ g² of the step over all tensors, on each rank the same number."""
        assert self.step is not None
        if self.spread:
            return squares.total(gradient.view(-1) for gradient in self.step.grads.values())
        pieces = self.plan.shard(self.group.rank).pieces
        return squares.total((self.piece(name, *ends) for name, ends in pieces.items()), self.group)

    # ------------------------------------------------------------------------------------------ on the way

    def _ready(self, index: int) -> None:
        """All gradients of this bucket are complete in this micro-batch."""
        view = self._view(index)
        nodes: list[tuple[Node, Tensor]] = [((0, 1), view)]
        if self.count:
            leaf, waiting = self._own[self._round], self._waiting[index]
            if not self._last:
                waiting.push((leaf, leaf + 1), view)
                return
            node = waiting.join((leaf, leaf + 1), view)
            nodes = [*waiting.kept(), (node, view)]
        if self._last and self.group.size > 1:
            if self.spread and not self.count:
                self._flight.append((index, self.wire.sum(view)))
            else:
                self._send(index, [value for _, value in nodes])

    def _view(self, index: int) -> Tensor:
        """The gradients of a bucket, flat."""
        assert self.step is not None
        names = self.plan.buckets[index].names
        return self.step.grads.between(names[0], names[-1])

    def _nodes(self, rank: int) -> list[Node]:
        """The sums that a rank sends in this round."""
        if not self.count:
            return [(rank, rank + 1)]
        return remaining(leaves(rank, self.group.size, self.count), self.count)

    def _send(self, index: int, values: list[Tensor]) -> None:
        """A bucket's sums to their owners; values: this rank's, each of the whole bucket."""
        for part in self.plan.buckets[index].parts:
            while not self._free:
                self._advance()
            self._send_part(index, part, values, self._free.pop())

    def _send_part(self, index: int, part: Part, values: list[Tensor], room: Tensor) -> None:
        size, share = self.group.size, part.shares[self.group.rank]
        space = room.view(self.dtype)
        nodes = [self._nodes(rank) for rank in range(size)]
        out = space[: share * sum(map(len, nodes))]
        if part.in_order and len(values) == 1:
            given = values[0]
        else:
            given = space[out.numel() : out.numel() + part.size * len(values)]
            if values:
                torch.cat([value[a:b] for own in part.ranges for value in values for a, b in own], out=given)
        pending = self.wire.exchange(
            out, [share * len(found) for found in nodes], given, [one * len(values) for one in part.shares]
        )
        places = [node for found in nodes for node in found]
        sums = [(node, out[i * share : (i + 1) * share]) for i, node in enumerate(places)]
        self._flight.append(Parcel(index, part, room, pending, sums))

    def _advance(self) -> None:
        """Take in what was sent first; it may go on."""
        first = self._flight.popleft()
        if isinstance(first, tuple):
            index, pending = first
            pending.wait()
            self._average(index)
            return
        first.pending.wait()
        if first.sums:
            self._arrived(first)
        else:
            first.put()
            self._free.append(first.room)

    def _arrived(self, parcel: Parcel) -> None:
        """Add the ranks' sums; the result goes back to all, or stays."""
        view, part = self._view(parcel.index), parcel.part
        mine = added(parcel.sums, self.count)
        unpack(mine, [view[a:b] for a, b in part.ranges[self.group.rank]])
        if not self.spread:
            self._free.append(parcel.room)
            return
        parcel.sums = []
        parcel.pending, parcel.put = spread(self.wire, part, view, parcel.room.view(self.dtype))
        self._flight.append(parcel)

    def _average(self, index: int) -> None:
        """Entries that are equal by construction stay equal, although a ring adds ranks in an order of each place."""
        assert self.step is not None
        for name in self.plan.buckets[index].names:
            if self.step.model.is_averaged(name):
                gradient = self.step.grads[name]
                gradient.copy_(averaged(gradient))

    # --------------------------------------------------------------------------------------------- memory

    def _room_bytes(self, part: Part) -> int:
        """What a part of a bucket needs on its way, besides the gradients: sums that arrive, parts put in order."""
        if self.group.size == 1 or (self.spread and not self.count):
            return 0
        mine = len(self._nodes(self.group.rank))
        arriving = part.shares[self.group.rank] * sum(len(self._nodes(rank)) for rank in range(self.group.size))
        packed = 0 if part.in_order and mine == 1 else part.size * mine
        return max(arriving + packed, spread_room(part, self.group)) * self.dtype.itemsize

    def _make_waiting(self) -> list[Pushed]:
        """The sums that wait in the tree, for each bucket."""
        levels = depth(self._own[:-1], self.count) if self.count else 0
        return [
            Pushed([self.arena.new(WAITING, bucket.size) for _ in range(levels)], self.count)
            for bucket in self.plan.buckets
        ]


def added(parts: list[tuple[Node, Tensor]], count: int) -> Tensor:
    """The sum of parts in the order of their nodes: one after the other, or (count leaves) in the tree. Made in their
    memory."""
    if not count:
        result = parts[0][1]
        for _, part in parts[1:]:
            result.add_(part)
        return result
    stack: list[tuple[Node, Tensor]] = []
    for (first, last), part in parts:
        while stack and (stack[-1][0][0], last) in tree(count):
            (first, _), before = stack.pop()
            part.add_(before)
        stack.append(((first, last), part))
    ((_, result),) = stack
    return result


def spread(wire: Wire, part: Part, into: Tensor, room: Tensor) -> tuple[Pending, Callable[[], None]]:
    """Each rank's entries of a part, in `into`, the memory of the whole bucket, to all. What must be done at the end,
    and how long to wait before. room: of the type of `into`, `spread_room` entries."""
    size, rank = wire.group.size, wire.group.rank
    share = part.shares[rank]
    given = room[: share * size]
    if share:
        torch.cat([into[a:b] for a, b in part.ranges[rank]], out=given[:share])
        given.view(size, share)[1:] = given[:share]
    if part.in_order:
        return wire.exchange(into, part.shares, given, [share] * size), lambda: None
    packed = room[given.numel() : given.numel() + part.size]
    pending = wire.exchange(packed, part.shares, given, [share] * size)
    return pending, lambda: unpack(packed, [into[a:b] for own in part.ranges for a, b in own])


def spread_room(part: Part, group: Group) -> int:
    """Entries that `spread` needs."""
    return part.shares[group.rank] * group.size + (0 if part.in_order else part.size)


def unpack(packed: Tensor, into: list[Tensor]) -> None:
    """The parts from one behind the other."""
    at = 0
    for part in into:
        part.copy_(packed[at : at + part.numel()])
        at += part.numel()
