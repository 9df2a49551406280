"""Flat buffers: places, alignment, padding; the arena's count."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cllm.engine.buffers import ALIGN, GROUP_ALIGN, Arena, Entry, Flat, Layout

shapes = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=2).map(tuple), min_size=1, max_size=6)


def layout_of(groups, joined=()):
    return Layout(
        [
            Entry(f"{g}.{i}", shape, str(g), joined=(g, i) in joined)
            for g, part in enumerate(groups)
            for i, shape in enumerate(part)
        ]
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(shapes, min_size=1, max_size=3), st.sampled_from([torch.float32, torch.float64]))
def test_views_are_aligned_disjoint_and_cover_all_but_the_padding(groups, dtype):
    flat = Flat(layout_of(groups), dtype)
    for view in flat.values():
        assert (view.data_ptr() - flat.data.data_ptr()) % 64 == 0
        assert view.is_contiguous()
        assert not view.any()
        view.fill_(1.0)
    # every element was written once: the sum is the count, and the rest is padding
    assert flat.data.sum() == flat.layout.parameters == sum(v.numel() for v in flat.values())
    assert flat.data.numel() == flat.layout.total
    assert flat.layout.total % GROUP_ALIGN == 0
    covered = 0
    for group, (start, stop) in flat.layout.segments.items():
        assert start == covered and stop % GROUP_ALIGN == 0
        covered = stop
        inside = [flat[e.name] for e in flat.layout.entries if e.group == group]
        assert flat.segment(group).sum() == sum(v.numel() for v in inside)
        assert flat.segment(group).data_ptr() == inside[0].data_ptr()
    assert covered == flat.layout.total


def test_the_buffer_itself_is_aligned():
    assert all(Flat(layout_of([[(n,)]]), torch.float32).data.data_ptr() % 64 == 0 for n in (1, 33, 1000, 100000))


def test_joined_neighbours_are_one_matrix():
    flat = Flat(layout_of([[(3, 3), (3, 3), (3, 3), (2,)]], joined={(0, 1), (0, 2)}), torch.float64)
    for i in range(3):
        flat[f"0.{i}"].fill_(i + 1.0)
    joint = flat.span("0.0", "0.2", (9, 3))
    assert joint.tolist() == [[i + 1.0] * 3 for i in range(3) for _ in range(3)]
    joint.zero_()
    assert not flat.data.any()
    assert flat.layout.offsets["0.3"] % ALIGN == 0


def test_zeroing_spares_what_it_is_told_to():
    flat = Flat(layout_of([[(3, 3), (3, 3), (2,), (5,)], [(4,), (1,)]], joined={(0, 1)}), torch.float32)
    for but in (set(), {"0.0"}, {"0.1"}, {"0.0", "0.1", "1.1"}, set(flat)):
        flat.data.fill_(1)
        flat.zero_(but)
        assert {name for name in flat if flat[name].any()} == but == {name for name in flat if flat[name].all()}


def test_a_torn_group_is_refused():
    with pytest.raises(ValueError, match="not contiguous"):
        Layout([Entry("a", (2,), "x"), Entry("b", (2,), "y"), Entry("c", (2,), "x")])


def test_the_arena_counts_what_it_allocates_also_on_meta():
    counts = []
    for device in ("cpu", "meta"):
        arena = Arena(torch.float64, device)
        made = [arena.new("a", 3, 5), arena.new("b", 7, dtype=torch.bool), arena.new("a", 2)]
        assert sum(x.untyped_storage().nbytes() for x in made) == sum(arena.bytes_by_part.values())
        counts.append(arena.bytes_by_part)
    assert counts[0] == counts[1] == {"a": 17 * 8, "b": 7}
