"""Flat buffers of the smaller memory modes: several types in one mapping, a split master, 8-bit moments.

All offer what `Flat` offers as a mapping: name → tensor, in the order of the layout, `zero_()` and `nbytes`; and
`stored()`, the tensors that must be kept to keep it exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from cllm.engine.buffers import Entry, Flat, Layout
from cllm.engine.moments import Coded, blocks, decode_m, decode_v
from cllm.engine.split import Halves, join, split


class Mixed(Mapping[str, Tensor]):
    """Several flat buffers as one mapping, in the order of `layout`: each name is looked up in the part that has it."""

    def __init__(self, layout: Layout, parts: Sequence[Flat]) -> None:
        self.layout, self.parts = layout, tuple(parts)
        self._part = {name: part for part in parts for name in part}

    def __getitem__(self, name: str) -> Tensor:
        return self._part[name][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout.offsets)

    def __len__(self) -> int:
        return len(self.layout.offsets)

    def span(self, first: str, last: str, shape: tuple[int, ...]) -> Tensor:
        """Joined neighbours `first`…`last` as one view of `shape`."""
        return self._part[first].span(first, last, shape)

    def between(self, first: str, last: str) -> Tensor:
        """As of `Flat`; both in one part."""
        return self._part[first].between(first, last)

    def zero_(self, but: Container[str] = ()) -> None:
        """Zero all tensors except `but`."""
        for part in self.parts:
            part.zero_(but)

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)


class Shared(Mixed):
    """Gradients of which some use the same memory, one after the other. own: the buffers that are allocated."""

    def __init__(self, layout: Layout, parts: Sequence[Flat], own: Sequence[Flat]) -> None:
        super().__init__(layout, parts)
        self.parts = tuple(own)


class Split(Mapping[str, Tensor]):
    """Weights as a split master where `halved` says so, plain float32 elsewhere: 4 bytes a weight, no shadow copy.

    `self[name]` of a halved tensor is its float32 value, joined into a fresh tensor at each access; of a plain one the
    tensor itself. `operands` are what matrix products read: the bfloat16 halves, and the plain tensors.
    """

    def __init__(self, layout: Layout, halved: Callable[[Entry], bool], device: torch.device | str = "cpu") -> None:
        self.layout = layout
        matrices = layout.only(halved)
        self.high = Flat(matrices, torch.bfloat16, device)
        self.low = Flat(matrices, torch.int16, device)
        self.plain = Flat(layout.only(lambda entry: not halved(entry)), torch.float32, device)
        self.operands = Mixed(layout, (self.high, self.plain))

    def __getitem__(self, name: str) -> Tensor:
        return join(self.halves(name)) if name in self.high else self.plain[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout.offsets)

    def __len__(self) -> int:
        return len(self.layout.offsets)

    @property
    def dtype(self) -> torch.dtype:
        """Of the values: float32."""
        return torch.float32

    @property
    def device(self) -> torch.device:
        return self.high.data.device

    def span(self, first: str, last: str, shape: tuple[int, ...]) -> Tensor:
        """Joined neighbours as one float32 tensor: a view of plain ones, fresh from halves."""
        if first in self.high:
            return join(Halves(self.high.span(first, last, shape), self.low.span(first, last, shape)))
        return self.plain.span(first, last, shape)

    def halves(self, name: str) -> Halves:
        """The two views of a halved tensor."""
        return Halves(self.high[name], self.low[name])

    def put(self, name: str, value: Tensor) -> None:
        """Store float32 `value` under `name`."""
        if name in self.high:
            split(value.to(self.device).contiguous(), self.halves(name))
        else:
            self.plain[name].copy_(value)

    def copy_(self, other: Split) -> None:
        for mine, theirs in zip(self._parts, other._parts, strict=True):
            mine.data.copy_(theirs.data)

    def lerp_(self, other: Split, weight: float, rows: int = 1 << 16) -> None:
        """self ← self + weight·(other − self), in pieces of `rows` entries."""
        self.plain.data.lerp_(other.plain.data, weight)
        for at in range(0, self.high.data.numel(), rows):
            part = slice(at, at + rows)
            mine = Halves(self.high.data[part], self.low.data[part])
            theirs = Halves(other.high.data[part], other.low.data[part])
            split(join(mine).lerp_(join(theirs), weight), mine)

    @property
    def _parts(self) -> tuple[Flat, ...]:
        return self.high, self.low, self.plain

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self._parts)


class EightBit(Mapping[str, Tensor]):
    """One moment of AdamW: 8-bit codes with a scale for each 256 where `coded` says so, plain float32 elsewhere.

    kind: "m" (signed) or "v".  `self[name]` of a coded tensor is its float32 value, freshly decoded.
    """

    def __init__(
        self, layout: Layout, kind: str, coded: Callable[[Entry], bool], device: torch.device | str = "cpu"
    ) -> None:
        self.layout, self.kind = layout, kind
        entries = [entry for entry in layout.entries if coded(entry)]
        self.codes = Flat(Layout(entries), torch.int8 if kind == "m" else torch.uint8, device)
        scales = Layout([Entry(entry.name, (blocks(entry.size),), entry.group) for entry in entries])
        self.scales = Flat(scales, torch.float32, device)
        self.plain = Flat(layout.only(lambda entry: not coded(entry)), torch.float32, device)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.codes:
            return self.plain[name]
        decode = decode_m if self.kind == "m" else decode_v
        return decode(self.coded(name)).view(self.codes[name].shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout.offsets)

    def __len__(self) -> int:
        return len(self.layout.offsets)

    def coded(self, name: str) -> Coded:
        """Codes (flat) and scales of a coded tensor: views."""
        return Coded(self.codes[name].view(-1), self.scales[name])

    def stored(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: NAME (codes, or float32) and NAME.scale; views."""
        found = {name: self.codes[name] if name in self.codes else self.plain[name] for name in self}
        return found | {f"{name}.scale": scales for name, scales in self.scales.items()}

    def zero_(self) -> None:
        for part in (self.codes, self.scales, self.plain):
            part.zero_()

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in (self.codes, self.scales, self.plain))
