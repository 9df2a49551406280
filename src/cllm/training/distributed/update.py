"""The update under ZeRO: each rank updates its own pieces of the weights, and sends them to the others.

The update of an entry needs nothing but that entry (AdamW, SGD), its block of 256 (8-bit moments) or its matrix (Muon,
which is why those are not cut): so the weights are the same to the bit as when every rank updates everything. While the
weights of one bucket travel, those of the next are updated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cllm.engine.buffers import Flat
from cllm.engine.compact import EightBit, Split
from cllm.engine.dispatch import Kernels
from cllm.engine.muon import muon
from cllm.engine.split import Halves
from cllm.training.distributed.buckets import Bucket
from cllm.training.distributed.reduce import Reducer, spread
from cllm.training.distributed.wire import Pending
from cllm.training.groups import Rule, rules
from cllm.training.optimiser import Norm, finish
from cllm.training.state import State


def update_pieces(state: State, reducer: Reducer, kernels: Kernels, lr: float, norm: Norm, valid: int) -> None:
    """One optimiser step in place, as `optimiser.update`; the moments of `state` are those of its shard.

    valid: targets of the step, over all ranks.
    """
    c, shard = state.config.optim, state.shard
    assert shard is not None
    scale = norm.clip / max(valid, 1)
    if c.clip_value:
        for name, ends in shard.pieces.items():
            reducer.piece(name, *ends).mul_(scale).clamp_(-c.clip_value, c.clip_value)
        scale = 1.0
    found = rules(state.config, state.model.layout)
    senders = _Senders(reducer)
    for bucket in reducer.plan.buckets:
        own = [name for name in bucket.names if name in shard.pieces]
        if isinstance(state.model.params, Split):
            for name in own:
                _update_compact(state, reducer, kernels, name, found[name], lr, scale)
        else:
            for stretch in _stretches(state, reducer, own, found):
                _update_flat(state, kernels, stretch, lr, scale)
        for flat in _stored(state, bucket):
            senders.send(bucket, flat)
    senders.wait()
    state.model.written()
    finish(state, valid)


@dataclass(frozen=True)
class _Stretch:
    """Pieces that are updated alike and lie one behind the other, at the same distances, in all buffers."""

    names: tuple[str, ...]
    rule: Rule
    w: Tensor
    g: Tensor
    m: Tensor
    v: Tensor | None


def _stretches(state: State, reducer: Reducer, own: list[str], found: dict[str, Rule]) -> Iterator[_Stretch]:
    shard = state.shard
    assert shard is not None
    places = {name: _places(state, reducer, name) for name in own}
    group: list[str] = []
    for i, name in enumerate(own):
        group.append(name)
        following = own[i + 1] if i + 1 < len(own) else None
        if following is not None and found[name] == found[following] and found[name].algorithm != "muon":
            here, there = places[name], places[following]
            distances = {b[1] - a[1] for a, b in zip(here, there, strict=True) if a is not None and b is not None}
            same = all((a is None) == (b is None) for a, b in zip(here, there, strict=True))
            if same and len(distances) == 1 and here[1][0] is there[1][0]:
                continue
        first, (start, stop) = places[group[0]], shard.pieces[name]
        length = places[name][0][1] + stop - start - first[0][1]
        w, g, m, v = (None if place is None else place[0][place[1] : place[1] + length] for place in first)
        assert w is not None
        assert g is not None
        assert m is not None
        yield _Stretch(tuple(group), found[name], w, g, m, v)
        group = []


def _places(state: State, reducer: Reducer, name: str) -> tuple[Any, Any, Any, Any]:
    """(memory, where the piece begins) of weights, gradients and both moments."""
    assert state.shard is not None
    params, start = state.model.params, state.shard.pieces[name][0]
    assert isinstance(params, Flat)

    def moment(key: str) -> tuple[Tensor, int] | None:
        flat = state.moments.get(key)
        if flat is None or name not in flat:
            return None
        assert isinstance(flat, Flat)
        return flat.data, flat.layout.offsets[name]

    return (params.data, params.layout.offsets[name] + start), reducer.place(name, start), moment("m"), moment("v")


def _update_flat(state: State, kernels: Kernels, s: _Stretch, lr: float, scale: float) -> None:
    c, rule = state.config.optim, s.rule
    rate = lr * rule.lr
    if rule.algorithm == "muon":
        shape = state.model.params[s.names[0]].shape
        muon(
            s.w.view(shape), s.g.view(shape), s.m.view(shape),
            lr=rate, momentum=c.muon_momentum, decay=rule.decay, scale=scale,
        )  # fmt: skip
    elif rule.algorithm == "adamw":
        assert s.v is not None
        kernels.adamw(
            s.w, s.g, s.m, s.v,
            t=state.step + 1, lr=rate, betas=rule.betas, eps=rule.eps, decay=rule.decay, scale=scale,
        )  # fmt: skip
    else:
        kernels.sgd(
            s.w, s.g, s.m, lr=rate, momentum=c.momentum, nesterov=c.nesterov, decay=rule.decay, scale=scale
        )  # fmt: skip


def _update_compact(
    state: State, reducer: Reducer, kernels: Kernels, name: str, rule: Rule, lr: float, scale: float
) -> None:
    """AdamW on a piece of a split master with 8-bit moments, or of a vector with float32 ones."""
    assert state.shard is not None
    start, stop = state.shard.pieces[name]
    weights, m, v = state.model.params, state.moments["m"], state.moments["v"]
    assert isinstance(weights, Split)
    assert isinstance(m, EightBit)
    assert isinstance(v, EightBit)
    gradient = reducer.piece(name, start, stop)
    settings = {
        "t": state.step + 1, "lr": lr * rule.lr, "betas": rule.betas, "eps": rule.eps, "decay": rule.decay,
        "scale": scale,
    }  # fmt: skip
    if name not in m.codes:
        kernels.adamw(weights.plain[name].view(-1)[start:stop], gradient, m.plain[name], v.plain[name], **settings)
        return
    if name in weights.high:
        halves = weights.halves(name)
        own: Tensor | Halves = Halves(halves.high.view(-1)[start:stop], halves.low.view(-1)[start:stop])
    else:
        own = weights.plain[name].view(-1)[start:stop]
    kernels.adamw8(own, gradient, m.coded(name), v.coded(name), first=weights.layout.offsets[name] + start, **settings)


def _stored(state: State, bucket: Bucket) -> list[Tensor]:
    """The memory of a bucket's weights, flat."""
    params, ends = state.model.params, (bucket.names[0], bucket.names[-1])
    if isinstance(params, Flat):
        return [params.between(*ends)]
    if bucket.names[0] in params.high:
        return [params.high.between(*ends), params.low.between(*ends)]
    return [params.plain.between(*ends)]


class _Senders:
    """Buckets of weights on their way from their owners to all."""

    def __init__(self, reducer: Reducer) -> None:
        self._wire = reducer.wire
        self._free = list(reducer.rooms)
        self._flight: deque[tuple[Pending, Callable[[], None], Tensor]] = deque()

    def send(self, bucket: Bucket, flat: Tensor) -> None:
        """This rank's pieces of `flat`, the memory of a bucket, to all others, theirs into it."""
        for part in bucket.parts:
            if not self._free:
                self._advance()
            room = self._free.pop()
            self._flight.append((*spread(self._wire, part, flat, room.view(flat.dtype)), room))

    def wait(self) -> None:
        """Until all have arrived."""
        while self._flight:
            self._advance()

    def _advance(self) -> None:
        pending, put, room = self._flight.popleft()
        pending.wait()
        put()
        self._free.append(room)
