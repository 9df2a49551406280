"""Memory that is known beforehand: flat parameter buffers with named views, and an arena for activations."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

# Offsets are multiples of 32 elements: 64 bytes in bf16, more in float32 and float64, so that one table of offsets
# serves every precision. Groups start at multiples of 256: the block of 8-bit moments and the cut of ZeRO shards.
ALIGN = 32
GROUP_ALIGN = 256
WIDER = 32


@dataclass(frozen=True)
class Entry:
    """One named tensor of a flat buffer. `joined`: placed right behind its predecessor, so that both can be used
    as one matrix (Wq, Wk, Wv as one 3D×D operand)."""

    name: str
    shape: tuple[int, ...]
    group: str
    joined: bool = False

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class Layout:
    """Where each named tensor lies in a flat buffer; groups are contiguous segments.

    entries: in order; those of one group must be adjacent.
    Attributes: `offsets` name → first element; `segments` group → (start, stop); `total` elements with padding.
    """

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries
        self.offsets: dict[str, int] = {}
        self.segments: dict[str, tuple[int, int]] = {}
        position, group = 0, None
        for entry in entries:
            if entry.group != group:
                if entry.group in self.segments:
                    raise ValueError(f"group {entry.group} is not contiguous")
                position = _round_up(position, GROUP_ALIGN)
                group, start = entry.group, position
            elif not entry.joined:
                position = _round_up(position, ALIGN)
            self.offsets[entry.name] = position
            position += entry.size
            self.segments[entry.group] = (start, _round_up(position, GROUP_ALIGN))
        self.total = _round_up(position, GROUP_ALIGN)
        self.parameters = sum(entry.size for entry in entries)

    def only(self, keep: Callable[[Entry], bool]) -> Layout:
        """The layout of some of the tensors, in the same order. A joined one stays joined to what is then before it,
        so `keep` must treat joined neighbours alike."""
        return Layout([entry for entry in self.entries if keep(entry)])


class Flat(Mapping[str, Tensor]):
    """One contiguous tensor with named views. `flat["0.attn.wq"]` is the view; `flat.data` the whole buffer.

    The padding between views is zero and stays zero: gradients there are zero, and so are the updates.
    """

    def __init__(
        self, layout: Layout, dtype: torch.dtype, device: torch.device | str = "cpu", *, room: Tensor | None = None
    ) -> None:
        """room: a flat tensor of `dtype` whose first part is used instead of new memory."""
        self.layout = layout
        self.data = torch.zeros(layout.total, dtype=dtype, device=device) if room is None else room[: layout.total]
        self._views = {
            entry.name: self.data[offset : offset + entry.size].view(entry.shape)
            for entry, offset in zip(layout.entries, layout.offsets.values(), strict=True)
        }

    def __getitem__(self, name: str) -> Tensor:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def segment(self, group: str) -> Tensor:
        """The contiguous part of one optimiser group."""
        start, stop = self.layout.segments[group]
        return self.data[start:stop]

    def between(self, first: str, last: str) -> Tensor:
        """The contiguous part from the first entry of `first` to the last one of `last`, padding between included."""
        return self.data[self.layout.offsets[first] : self.layout.offsets[last] + self._views[last].numel()]

    @property
    def dtype(self) -> torch.dtype:
        return self.data.dtype

    @property
    def device(self) -> torch.device:
        return self.data.device

    def put(self, name: str, value: Tensor) -> None:
        """Store `value` under `name`."""
        self._views[name].copy_(value)

    def zero_(self, but: Container[str] = ()) -> None:
        """Zero all tensors except `but`; what lies between those is not touched either."""
        start = 0
        for name, offset in self.layout.offsets.items():
            if name in but:
                self.data[start:offset].zero_()
                start = offset + self._views[name].numel()
        self.data[start:].zero_()

    def copy_(self, other: Flat) -> None:
        self.data.copy_(other.data)

    def lerp_(self, other: Flat, weight: float) -> None:
        """self ← self + weight·(other − self)."""
        self.data.lerp_(other.data, weight)

    def stored(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: the views."""
        return dict(self)

    @property
    def nbytes(self) -> int:
        """Bytes allocated, padding included."""
        return self.data.numel() * self.data.element_size()

    def span(self, first: str, last: str, shape: tuple[int, ...]) -> Tensor:
        """Joined neighbours `first`…`last` as one view of `shape`."""
        start = self.layout.offsets[first]
        stop = self.layout.offsets[last] + self._views[last].numel()
        return self.data[start:stop].view(shape)


@dataclass
class Arena:
    """Allocates named buffers once and keeps count of their bytes by part.

    On the device "meta" nothing is allocated but the count is the same: that is how `cllm info` knows the memory
    of a step without making it.
    """

    dtype: torch.dtype
    device: torch.device | str = "cpu"
    bytes_by_part: dict[str, int] = field(default_factory=dict)

    def new(self, part: str, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """A zeroed tensor of `shape`, counted under `part`."""
        tensor = torch.zeros(shape, dtype=dtype or self.dtype, device=self.device)
        self.bytes_by_part[part] = self.bytes_by_part.get(part, 0) + tensor.numel() * tensor.element_size()
        return tensor

    def wide(self, part: str, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        """A matrix whose rows lie `columns` + 32 apart: at distances that are powers of two, rows share cache sets."""
        return self.new(part, rows, columns + WIDER, dtype=dtype)[:, :columns]


def matrix_in(room: Tensor, first: int, rows: int, columns: int, dtype: torch.dtype, *, apart: int = 0) -> Tensor:
    """A matrix [rows, columns] of `dtype` in flat memory, from its element `first` on; its rows lie `apart` (default:
    `columns`) elements from each other."""
    apart = apart or columns
    return room.view(dtype)[first : first + rows * apart].view(rows, apart)[:, :columns]


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
