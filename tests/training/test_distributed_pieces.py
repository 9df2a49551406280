"""The parts that the ranks' sums are made of, without other processes: tree, buckets, pieces, exact squares, memory."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

from cllm import config as settings
from cllm.engine.compact import EightBit
from cllm.engine.moments import BLOCK
from cllm.errors import ConfigError
from cllm.model.batch import Batch
from cllm.model.layout import hidden_matrix
from cllm.model.model import Model
from cllm.model.step import Step
from cllm.training import plan
from cllm.training.distributed.arrange import Arrangement, arrange, bytes_by_part
from cllm.training.distributed.buckets import Plan, stage
from cllm.training.distributed.group import Group
from cllm.training.distributed.reduce import Reducer, added
from cllm.training.distributed.squares import block_squares, exact, fsum, total
from cllm.training.distributed.tree import Pushed, depth, leaves, remaining, tree
from cllm.training.distributed.wire import Pending
from cllm.training.plan import make_step
from cllm.training.state import State


def config(**changes: Any) -> settings.Config:
    small = {"model.vocab": 64, "train.batch": 4, "train.accumulate": 4, "train.sequence": 8, "train.steps": 3}
    return settings.load(preset="nano", overrides=small | {"precision": "fp32"} | changes)


# ------------------------------------------------------------------------------------------------------ the tree


def recursive(values: list[Tensor]) -> Tensor:
    """T as it is written."""
    if len(values) == 1:
        return values[0]
    middle = 1
    while 2 * middle < len(values):
        middle *= 2
    return recursive(values[:middle]) + recursive(values[middle:])


@given(st.integers(1, 40), st.integers(1, 8), st.booleans())
def test_any_dealing_of_the_leaves_gives_the_sum_of_the_tree(count: int, size: int, in_turn: bool):
    size = min(size, count)
    values = [torch.randn(5, generator=torch.Generator().manual_seed(i)) * 10.0 ** (i % 5) for i in range(count)]
    wanted = recursive([value.clone() for value in values])
    dealt = [leaves(rank, size, count, in_turn=in_turn) for rank in range(size)]
    assert sorted(leaf for own in dealt for leaf in own) == list(range(count))
    if in_turn:  # as they arrive at an owner: the first leaf of every rank, then the second of every rank, …
        waiting = Pushed([torch.empty(5) for _ in range(depth(range(count), count))], count)
        for leaf in range(count):
            waiting.push((leaf, leaf + 1), values[leaf].clone())
        assert waiting.nodes == [(0, count)]
        assert torch.equal(waiting.kept()[0][1], wanted)
        return
    parts = []
    for own in dealt:
        waiting = Pushed([torch.empty(5) for _ in range(depth(own, count))], count)
        for leaf in own:
            waiting.push((leaf, leaf + 1), values[leaf].clone())
        assert waiting.nodes == remaining(own, count)
        parts += [(node, value.clone()) for node, value in waiting.kept()]
    assert torch.equal(added(parts, count), wanted)


def test_a_power_of_two_of_ranks_has_one_node_each():
    for size in (1, 2, 4, 8):
        assert all(len(remaining(leaves(rank, size, 16), 16)) == 1 for rank in range(size))
    assert len(tree(7)) == 13


# --------------------------------------------------------------------------------------------------- the buckets

LAYOUTS = {
    "tied": {},
    "untied": {"model.tied": False},
    "rope": {"model.positions": "rope"},
    "mix": {"model.positions": "mix", "model.positions_mix_trainable": True, "model.symmetry_bias_trainable": True},
}


@pytest.mark.parametrize("changes", LAYOUTS.values(), ids=LAYOUTS)
def test_the_backward_completes_every_tensor_once_and_in_the_order_of_the_stages(changes: dict[str, Any]):
    c = config(**changes)
    step = Step(Model(c.model).initialise(1), 2, 8)
    names: list[str] = []

    class Note:
        def complete(self, *done: str) -> None:
            names.extend(done)

    step.reducer = Note()
    step.accumulate(Batch.of(torch.arange(18).view(2, 9)))
    assert sorted(names) == sorted(step.grads)
    stages = [stage(name, c.model.layers) for name in names]
    assert stages == sorted(stages)


def test_a_gradient_is_not_written_any_more_when_it_is_complete():
    c = config(**LAYOUTS["mix"])
    step = Step(Model(c.model).initialise(1), 2, 8)
    seen: dict[str, Tensor] = {}

    class Note:
        def complete(self, *done: str) -> None:
            seen.update({name: step.grads[name].clone() for name in done})

    step.reducer = Note()
    step.accumulate(Batch.of(torch.arange(18).view(2, 9)))
    assert all(torch.equal(seen[name], gradient) for name, gradient in step.grads.items())


@given(st.integers(1, 9), st.integers(1, 30_000), st.sampled_from(list(LAYOUTS)), st.booleans())
def test_buckets_cover_everything_once_and_pieces_are_cut_between_blocks(size: int, limit: int, kind: str, muon: bool):
    layout = Model(config(**LAYOUTS[kind]).model, device="meta").layout
    whole = [entry.name for entry in layout.entries if muon and hidden_matrix(entry.name)]
    cut = Plan(layout, 2, size, limit, whole)
    names = [name for bucket in cut.buckets for name in bucket.names]
    assert sorted(names) == sorted(layout.offsets) and len(set(names)) == len(names)
    entries = {entry.name: entry for entry in layout.entries}
    for bucket in cut.buckets:
        groups = {entries[name].group for name in bucket.names}
        assert len(groups) == 1 and not entries[bucket.names[0]].joined
        first, last = bucket.names[0], bucket.names[-1]
        assert bucket.size == layout.offsets[last] + entries[last].size - layout.offsets[first]
        ends = [0, *(s.stop for s in bucket.segments)]
        assert [s.start for s in bucket.segments] == ends[:-1] and ends[-1] == bucket.size
        assert sum(bucket.share(rank) for rank in range(size)) == bucket.size
        for rank in range(size):
            own = [i for a, b in bucket.ranges(rank) for i in range(a, b)]
            travel = [i for part in bucket.parts for a, b in part.ranges[rank] for i in range(a, b)]
            assert travel == own
            assert [part.starts[rank] for part in bucket.parts] == list(
                itertools.accumulate((part.shares[rank] for part in bucket.parts[:-1]), initial=0)
            )
        most = max(limit, BLOCK * size) * (2 if len(bucket.parts) == 1 else 1)
        assert all(max(part.shares) * size <= most for part in bucket.parts)
    seen = {name: torch.zeros(entry.size, dtype=torch.int64) for name, entry in entries.items()}
    for rank in range(size):
        shard = cut.shard(rank)
        for name, (start, stop) in shard.pieces.items():
            seen[name][start:stop] += 1
            assert start % BLOCK == 0 and (stop % BLOCK == 0 or stop == entries[name].size) and start < stop
            assert name not in whole or (start, stop) == (0, entries[name].size)
        assert sum(entry.size for entry in shard.layout.entries) == sum(b - a for a, b in shard.pieces.values())
    assert all((count == 1).all() for count in seen.values())


@given(st.integers(1, 40), st.integers(1, 30_000), st.sampled_from(list(LAYOUTS)))
def test_cuts_lie_where_their_definition_puts_them(size: int, limit: int, kind: str):
    """Rank r's part of a bucket begins at r/N of it, moved up to the next block of the tensor that is there, or behind
    that tensor."""
    layout = Model(config(**LAYOUTS[kind]).model, device="meta").layout
    entries = {entry.name: entry for entry in layout.entries}
    for bucket in Plan(layout, 2, size, limit).buckets:
        first = layout.offsets[bucket.names[0]]
        begins = {name: layout.offsets[name] - first for name in bucket.names}
        cuts = [0]
        for rank in range(1, size):
            target = rank * bucket.size // size
            there = max((name for name in bucket.names if begins[name] <= target), key=lambda name: begins[name])
            blocks = [*range(begins[there], begins[there] + entries[there].size, BLOCK)]
            behind = [at for at in begins.values() if at > begins[there]] + [bucket.size]
            cuts.append(max(min(at for at in [*blocks, min(behind)] if at >= target), cuts[-1]))
        expected = [(r, a, b) for r, (a, b) in enumerate(itertools.pairwise([*cuts, bucket.size])) if b > a]
        assert [(s.owner, s.start, s.stop) for s in bucket.segments] == expected
        for rank in range(size):
            assert bucket.ranges(rank) == [(a, b) for owner, a, b in expected if owner == rank]


@pytest.mark.parametrize("size", [2, 4, 7])
def test_shards_are_about_equal(size: int):
    layout = Model(settings.load(preset="seed").model, device="meta").layout
    sizes = [sum(b - a for a, b in Plan(layout, 6, size, 1 << 20).shard(r).pieces.values()) for r in range(size)]
    buckets = len(Plan(layout, 6, size, 1 << 20).buckets)
    assert max(sizes) - min(sizes) <= buckets * 2 * BLOCK


def test_buckets_travel_while_the_backward_runs(monkeypatch: pytest.MonkeyPatch):
    c = config(**{"distributed.bucket_mb": 0.02})
    arrangement = arrange(c, Group(rank=0, size=2))
    reducer = arrangement.reducer("cpu")
    assert reducer is not None
    step = make_step(State.fresh(c), rows=arrangement.share.most, several=True)
    reducer.attach(step)
    left: set[str] = set(step.grads)
    sent: list[tuple[int, int]] = []

    class Watching:
        def complete(self, *names: str) -> None:
            left.difference_update(names)
            reducer.complete(*names)

    class Wire:
        group = reducer.group

        def sum(self, tensor: Tensor) -> Pending:
            sent.append((tensor.numel(), len(left)))
            return Pending(self.group, "nothing", type("Work", (), {"wait": lambda self: None})(), ())

    monkeypatch.setattr(reducer, "wire", Wire())
    step.reducer = Watching()
    step.zero()
    reducer.start()
    for number in range(2):
        reducer.begin(last=number == 1)
        left.update(step.grads)
        step.accumulate(Batch.of(torch.arange(36).view(4, 9)))
        assert bool(sent) == (number == 1), "only the last micro-batch travels"
    assert len(sent) == len(reducer.plan.buckets) and sum(numbers for numbers, _ in sent) >= step.grads["tok"].numel()
    assert [count for _, count in sent] == sorted((count for _, count in sent), reverse=True)
    assert sent[0][1] > len(step.grads) / 2, "the first bucket leaves when most gradients are still to come"


# ----------------------------------------------------------------------------------------------------- the squares


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=64), max_size=60))
def test_a_sum_is_a_few_floats_exactly(values: list[float]):
    terms = exact(values)
    if terms and not math.isfinite(terms[0]):
        assert math.isinf(fsum(values))
        return
    assert sum(map(Fraction, terms)) == sum(map(Fraction, values)) and len(terms) <= 40


def test_squares_do_not_depend_on_where_a_tensor_is_cut():
    for dtype in (torch.float32, torch.float64):
        g = torch.randn(10 * BLOCK + 17, generator=torch.Generator().manual_seed(1), dtype=dtype)
        before, whole = g.clone(), block_squares(g)
        for cut in range(0, g.numel(), BLOCK):
            assert block_squares(g[:cut]) + block_squares(g[cut:]) == whole
        assert torch.equal(g, before)
        assert total([g]) == math.fsum(whole)
        assert abs(total([g]) - float((g.double() ** 2).sum())) <= 2.0**-53 * len(g) * total([g])
    assert math.isnan(total([torch.tensor([math.nan, 1.0])])) and math.isinf(total([torch.tensor([math.inf])]))
    assert math.isnan(fsum([math.inf, -math.inf])) and fsum([1.7e308, 1.7e308]) == math.inf


# ------------------------------------------------------------------------------------------------ states in pieces

STATES: dict[str, dict[str, Any]] = {
    "adamw": {"optim.ema": 0.9},
    "muon": {"optim.name": "muon"},
    "lean": {"precision": "bf16", "memory": "lean"},
}


@pytest.mark.parametrize("changes", STATES.values(), ids=STATES)
@pytest.mark.parametrize("ranks", [2, 3])
def test_a_whole_state_is_cut_for_any_number_of_ranks(changes: dict[str, Any], ranks: int):
    c = config(**{"distributed.zero": 1}, **changes)
    full = State.fresh(c)
    for moment in full.moments.values():
        for i, view in enumerate(moment.stored().values()):
            view.copy_(torch.arange(view.numel()).view(view.shape) % 100 + i)
    weights, rest = full.tensors()
    count = dict.fromkeys(full.moments, 0)
    for rank in range(ranks):
        shard = Arrangement(c, Group(rank=rank, size=ranks)).shard
        assert shard is not None
        state = State.restore(c, weights, rest, full.meta(), shard=shard)
        assert all(torch.equal(value, weights[name]) for name, value in state.evaluated.params.items())
        for kind, moment in state.moments.items():
            assert set(moment) == set(shard.pieces) & set(full.moments[kind])
            for name, value in moment.items():  # 8-bit ones are decoded: codes and scales belong together
                start, stop = shard.pieces[name]
                assert torch.equal(value, full.moments[kind][name].reshape(-1)[start:stop]), name
                count[kind] += value.numel()
            if isinstance(moment, EightBit):
                assert set(moment.codes) == {n for n in moment if full.model.params[n].dim() > 1}
    assert count == {kind: sum(moment[n].numel() for n in moment) for kind, moment in full.moments.items()}


def allocated(*things: Any) -> int:
    """Bytes of the different memory blocks behind tensors."""
    blocks: dict[int, int] = {}

    def look(thing: Any, seen: set[int]) -> None:
        if id(thing) in seen:
            return
        seen.add(id(thing))
        if isinstance(thing, Tensor):
            storage = thing.untyped_storage()
            blocks[storage.data_ptr()] = storage.nbytes()
        elif isinstance(thing, dict):
            for value in thing.values():
                look(value, seen)
        elif isinstance(thing, (list, tuple, set)):
            for value in thing:
                look(value, seen)
        elif type(thing).__module__.startswith("cllm."):
            look(vars(thing) if hasattr(thing, "__dict__") else {}, seen)

    for thing in things:
        look(thing, set())
    return sum(blocks.values())


@pytest.mark.parametrize("changes", STATES.values(), ids=STATES)
@pytest.mark.parametrize("reduction", ["fast", "fixed"])
@pytest.mark.parametrize("zero", [0, 1, 2])
def test_the_bytes_of_a_rank_are_what_it_allocates(changes: dict[str, Any], reduction: str, zero: int):
    c = config(
        **{"distributed.zero": zero, "distributed.reduction": reduction, "distributed.bucket_mb": 0.02}, **changes
    )
    for rank in range(3):
        arrangement = arrange(c, Group(rank=rank, size=3))
        state = State.fresh(c, shard=arrangement.shard)
        reducer = arrangement.reducer("cpu")
        assert reducer is not None
        step = make_step(state, rows=arrangement.share.most, several=True, grads=reducer.grads)
        assert state.model.operands is not None  # in bf16 they are made when they are first used
        parts = bytes_by_part(c, rank, 3)
        for part, count in (state.bytes_by_part | reducer.arena.bytes_by_part).items():
            assert parts[part] == count
        own = [parts[name] for name in ("moments", "gradients", *reducer.arena.bytes_by_part)]
        got = allocated(state.moments) + allocated(step.grads) + allocated(reducer.rooms, reducer._waiting)
        assert got == sum(own), (parts, got)


def test_pieces_need_less_memory_the_more_ranks_share_them():
    c = config(**{"model.width": 64, "model.layers": 4, "distributed.bucket_mb": 0.1})
    alone = plan.size(c).bytes_by_part

    def bytes_of(zero: int, ranks: int) -> dict[str, int]:
        return bytes_by_part(settings.replace(c, {"distributed.zero": 0}) if zero == 0 else
                             settings.replace(c, {"distributed": settings.DistributedConfig(zero=zero, bucket_mb=0.1)}),
                             0, ranks)  # fmt: skip

    assert bytes_of(0, 4)["moments"] == alone["moments"]
    for ranks in (2, 4, 8):
        assert bytes_of(1, ranks)["moments"] < alone["moments"] / ranks * 1.1
        sharded = bytes_of(2, ranks)
        kept = sharded["gradients"] + sharded["gradients of own pieces"]
        assert kept < alone["gradients"] * (0.6 + 1.1 / ranks)


def test_what_is_on_the_way_does_not_grow_with_the_largest_tensor():
    sizes = []
    for vocab in (5_000, 50_000):
        c = config(**{"model.vocab": vocab, "distributed.zero": 1, "distributed.bucket_mb": 0.25})
        sizes.append(bytes_by_part(c, 0, 4)["gradients on the way"])
        assert sizes[-1] <= 2 * 2 * 2**18, "two rooms, each of at most two buckets"
    assert sizes[1] < 2 * sizes[0]


def test_what_cannot_be_combined_is_refused():
    with pytest.raises(ConfigError, match=r'fused.*several processes.*: use memory = "lean"'):
        arrange(config(precision="bf16", memory="fused", **{"optim.clip": 0.0, "train.accumulate": 1}), Group(size=2))
    for changes in ({"distributed.zero": 1}, {"distributed.reduction": "fixed"}):
        with pytest.raises(ConfigError, match=r"distributed\..*fused"):
            config(precision="bf16", memory="fused", **{"optim.clip": 0.0, "train.accumulate": 1}, **changes)
    for changes in ({"distributed.zero": 2}, {"distributed.reduction": "fixed"}):
        with pytest.raises(ConfigError, match="noise_scale"):
            config(**{"log.noise_scale": True}, **changes)
    with pytest.raises(AssertionError):
        Reducer(arrange(config(), Group(size=2)).plan, Group(size=2), torch.float32, count=4, eager=False)
