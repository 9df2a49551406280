"""Which part of the flat buffers travels when, and which rank it belongs to.

A *bucket* is a stretch of neighbouring tensors of one optimiser group; it can travel as soon as the backward has
completed all of them. Each bucket is cut among all ranks, so that no rank must take in all of it: cuts fall on
multiples of 256 entries from the beginning of a tensor (a block of 8-bit moments) or between tensors, and some tensors
stay whole (Muon's matrices). So every tensor has at most one piece on each rank.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from cllm.engine.buffers import GROUP_ALIGN as BLOCK
from cllm.engine.buffers import Entry, Layout

_STAGES = (("ffn.w2", "ffn.b2"), ("ffn.w1", "ffn.b1"), ("ln2.",), ("attn.wo", "attn.bo"), ("attn.",), ("ln1.",))
_LAST = 1 << 30


def stage(name: str, layers: int) -> int:
    """When the backward has completed this tensor: a number that grows. The output matrix first, then the last norm,
    the layers from the last to the first, and at the end what belongs to the input (embedding, positions, mixes)."""
    layer, _, rest = name.partition(".")
    if layer.isdigit():
        place = next(i for i, starts in enumerate(_STAGES) if rest.startswith(starts))
        return 2 + (layers - 1 - int(layer)) * len(_STAGES) + place
    return 0 if name == "head.w" else 1 if layer == "lnf" else _LAST


@dataclass(frozen=True)
class Segment:
    """Entries [start, stop) of a bucket belong to rank `owner`."""

    owner: int
    start: int
    stop: int


@dataclass(frozen=True)
class Part:
    """What of a bucket travels at a time: for each rank some of the entries that belong to it.

    ranges: by owner, entries [start, stop) of the bucket.  starts: by owner, where they begin among all its entries.
    in_order: this is the whole bucket, and the ranks' entries lie one behind the other.
    """

    ranges: tuple[tuple[tuple[int, int], ...], ...]
    starts: tuple[int, ...]
    in_order: bool

    @cached_property
    def shares(self) -> list[int]:
        """How many entries belong to each rank."""
        return [sum(stop - start for start, stop in own) for own in self.ranges]

    @cached_property
    def size(self) -> int:
        """Entries in all."""
        return sum(self.shares)


@dataclass(frozen=True)
class Bucket:
    """names: neighbours in the layout.  size: entries, padding between included.  segments: without gaps, in order.
    parts: travel one behind the other; more than one where a tensor is larger than buckets should be."""

    names: tuple[str, ...]
    size: int
    segments: tuple[Segment, ...]
    parts: tuple[Part, ...]

    def ranges(self, owner: int) -> list[tuple[int, int]]:
        """What belongs to a rank, in order."""
        return self._owned.get(owner, [])

    @cached_property
    def _owned(self) -> dict[int, list[tuple[int, int]]]:
        found: dict[int, list[tuple[int, int]]] = {}
        for segment in self.segments:
            found.setdefault(segment.owner, []).append((segment.start, segment.stop))
        return found

    def share(self, owner: int) -> int:
        """How many entries belong to a rank."""
        return sum(stop - start for start, stop in self.ranges(owner))


@dataclass(frozen=True)
class Shard:
    """A rank's part of every tensor: name → entries [start, stop) of the flattened tensor; names without one are left
    out. layout: of the pieces alone, each flat, under its tensor's name."""

    rank: int
    size: int
    pieces: Mapping[str, tuple[int, int]]
    layout: Layout


class Plan:
    """The buckets of a layout, in the order in which they travel, cut among `size` ranks.

    limit: entries at which a bucket is full; a tensor may be larger, and travels in parts then.  whole: tensors that
    are not cut among ranks.
    """

    def __init__(self, layout: Layout, layers: int, size: int, limit: int, whole: Collection[str] = ()) -> None:
        self.layout, self.size = layout, size
        self.stages = {entry.name: stage(entry.name, layers) for entry in layout.entries}
        entries = {entry.name: entry for entry in layout.entries}
        parts = [[entries[name] for name in names] for names in _neighbours(layout, self.stages, limit)]
        parts.sort(key=lambda part: max(self.stages[entry.name] for entry in part))
        self.buckets = tuple(_cut(parts, layout, size, frozenset(whole), limit))
        self._shards: dict[int, Shard] = {}

    def shard(self, rank: int) -> Shard:
        """What belongs to a rank of every tensor."""
        if rank not in self._shards:
            self._shards[rank] = self._shard(rank)
        return self._shards[rank]

    def _shard(self, rank: int) -> Shard:
        pieces: dict[str, tuple[int, int]] = {}
        for bucket in self.buckets:
            first, own = self.layout.offsets[bucket.names[0]], bucket.ranges(rank)
            for name in bucket.names:
                begin = self.layout.offsets[name] - first
                stop = begin + self._size[name]
                for low, high in own:
                    if low < stop and begin < high:
                        pieces[name] = (max(low, begin) - begin, min(high, stop) - begin)
        entries = []
        for entry in self.layout.entries:
            if entry.name in pieces:
                low, high = pieces[entry.name]
                entries.append(Entry(entry.name, (high - low,), entry.group))
        ordered = {entry.name: pieces[entry.name] for entry in entries}
        return Shard(rank, self.size, ordered, Layout(entries))

    @cached_property
    def _size(self) -> dict[str, int]:
        return {entry.name: entry.size for entry in self.layout.entries}


def _neighbours(layout: Layout, stages: Mapping[str, int], limit: int) -> list[list[str]]:
    """Stretches of the layout: of one group, not through joined tensors, full at `limit`; what is complete at the
    beginning or at the end of the backward only does not wait for the layers, nor they for it."""
    found: list[list[str]] = []
    held, last = 0, None
    for entry in reversed(layout.entries):
        kind = entry.group, stages[entry.name] in (0, _LAST)
        if kind != last or held >= limit:
            found.append([])
            held, last = 0, kind
        found[-1].insert(0, entry.name)
        held = held + entry.size if not entry.joined else min(held + entry.size, limit - 1)
    return found


def _cut(
    parts: Sequence[Sequence[Entry]], layout: Layout, size: int, whole: frozenset[str], limit: int
) -> list[Bucket]:
    load = [0] * size
    owners: dict[str, int] = {}
    mixed = [part for part in parts if any(entry.name in whole for entry in part)]
    cuts = {id(part): _even(part, layout, size) for part in parts if part not in mixed}
    for segments in cuts.values():
        for segment in segments:
            load[segment.owner] += segment.stop - segment.start
    for entry in sorted((e for part in mixed for e in part if e.name in whole), key=lambda e: -e.size):
        owners[entry.name] = owner = load.index(min(load))
        load[owner] += entry.size
    out = []
    for part in parts:
        segments = cuts[id(part)] if id(part) in cuts else _by_tensor(part, layout, size, owners)
        names = tuple(entry.name for entry in part)
        out.append(Bucket(names, segments[-1].stop, tuple(segments), _parts(segments, size, limit)))
    return out


def _parts(segments: Sequence[Segment], size: int, limit: int) -> tuple[Part, ...]:
    """So many that no rank takes in much more than `limit` entries at a time, from all."""
    own: list[list[tuple[int, int]]] = [[] for _ in range(size)]
    for segment in segments:
        own[segment.owner].append((segment.start, segment.stop))
    shares = [sum(b - a for a, b in ranges) for ranges in own]
    most = max(1, limit // size // BLOCK) * BLOCK
    count = 1 if max(shares) <= 2 * most else -(-max(shares) // most)  # a copy is saved where all goes at once
    steps = [-(-share // (count * BLOCK)) * BLOCK for share in shares]
    in_order = count == 1 and all(a.owner < b.owner for a, b in pairwise(segments))
    return tuple(
        Part(
            tuple(tuple(_between(own[r], i * steps[r], (i + 1) * steps[r])) for r in range(size)),
            tuple(min(i * steps[r], shares[r]) for r in range(size)),
            in_order,
        )
        for i in range(count)
    )


def _between(ranges: Sequence[tuple[int, int]], start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Entries start … stop − 1 of those in the ranges."""
    at = 0
    for low, high in ranges:
        a, b = max(low, low + start - at), min(high, low + stop - at)
        if a < b:
            yield a, b
        at += high - low


def _even(part: Sequence[Entry], layout: Layout, size: int) -> list[Segment]:
    """About equal parts, cut between blocks."""
    begins = [layout.offsets[entry.name] - layout.offsets[part[0].name] for entry in part]
    total = begins[-1] + part[-1].size
    cuts, place = [0], 0
    for rank in range(1, size):
        target = rank * total // size
        while place + 1 < len(part) and begins[place + 1] <= target:
            place += 1
        at = begins[place] + -(-(target - begins[place]) // BLOCK) * BLOCK
        if at >= begins[place] + part[place].size:
            at = begins[place + 1] if place + 1 < len(part) else total
        cuts.append(max(at, cuts[-1]))
    return [Segment(rank, a, b) for rank, (a, b) in enumerate(pairwise([*cuts, total])) if b > a]


def _by_tensor(part: Sequence[Entry], layout: Layout, size: int, owners: Mapping[str, int]) -> list[Segment]:
    """Whole tensors to their owners, the others cut by themselves."""
    first, out = layout.offsets[part[0].name], list[Segment]()
    ends = [*(layout.offsets[e.name] - first for e in part[1:]), layout.offsets[part[-1].name] + part[-1].size - first]
    for entry, end in zip(part, ends, strict=True):
        begin = layout.offsets[entry.name] - first
        if entry.name in owners:
            out.append(Segment(owners[entry.name], begin, end))
            continue
        own = [Segment(s.owner, begin + s.start, begin + s.stop) for s in _even([entry], layout, size)]
        out += [*own[:-1], Segment(own[-1].owner, own[-1].start, end)]  # the padding behind goes with the last
    merged = out[:1]
    for segment in out[1:]:
        if segment.owner == merged[-1].owner:
            merged[-1] = Segment(segment.owner, merged[-1].start, segment.stop)
        else:
            merged.append(segment)
    return merged


def whole_if(layout: Layout, keep: Callable[[str], bool]) -> frozenset[str]:
    """The names of the tensors for which `keep` holds."""
    return frozenset(entry.name for entry in layout.entries if keep(entry.name))
