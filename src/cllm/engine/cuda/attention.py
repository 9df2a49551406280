"""Attention by torch's fused kernels, forward and backward called by name; formulas as in engine/attention.py.

| case | path |
|---|---|
| bfloat16, causal | flash attention |
| float32, or a document mask | memory-efficient attention, the mask added to the scores |
| dropout, a bias of the scores, float64, caches, odd head widths | the torch ops of engine/attention.py |

Dropout stays with the torch ops: its masks are those of Philox by row, head, query and key (engine/dropout.py), which
torch's kernels cannot draw. Elsewhere than on CUDA torch has one fused kernel that takes a mask; the tests run the
same views, masks and copies through it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cllm.engine import attention
from cllm.engine.attention import Bias
from cllm.engine.dropout import Key

WIDTH_STEP = 8  # head widths that the fused kernels take without padding
WIDEST = 256
_aten = torch.ops.aten


@dataclass
class Scratch:
    """The torch ops' scratch memory, made when a call needs it, and what the fused forward tells its backward."""

    batch: int
    sequence: int
    heads: int
    width: int
    keys: int | None
    backward: bool
    dtype: torch.dtype
    device: torch.device | str
    random: tuple[Tensor, Tensor] | None = None
    _own: attention.Scratch | None = None

    @property
    def own(self) -> attention.Scratch:
        if self._own is None:
            self._own = attention.scratch(
                self.batch, self.sequence, self.heads, self.width,
                keys=self.keys, backward=self.backward, dtype=self.dtype, device=self.device,
            )  # fmt: skip
        return self._own

    @property
    def bytes(self) -> int:
        return 0 if self._own is None else self._own.bytes


def scratch(
    batch: int,
    sequence: int,
    heads: int,
    width: int,
    *,
    keys: int | None = None,
    backward: bool,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    classes: int = 0,
) -> Scratch:
    """Arguments as of `engine.attention.scratch`."""
    del classes
    return Scratch(batch, sequence, heads, width, keys, backward, dtype, device)


def fused(qkv_N3D: Tensor, heads: int, dropout: object, bias: object) -> bool:
    """Whether torch's kernels do this case. (They could add a bias, but rounded to bfloat16, and not train it.)"""
    width = qkv_N3D.shape[1] // 3 // heads
    fits = width % WIDTH_STEP == 0 and width <= WIDEST
    return fits and qkv_N3D.dtype != torch.float64 and dropout is None and bias is None


def multihead_forward(
    qkv_N3D: Tensor,
    heads_ND: Tensor,
    lse_BHT: Tensor,
    scratch: Scratch,
    *,
    documents_BT: Tensor | None = None,
    dropout: tuple[Key, float, int] | None = None,
    bias: Bias | None = None,
) -> None:
    """Write heads = A·V, the heads side by side, and the logsumexps; arguments as of the torch op."""
    if not fused(qkv_N3D, lse_BHT.shape[1], dropout, bias):
        attention.multihead_forward(
            qkv_N3D, heads_ND, lse_BHT, scratch.own, documents_BT=documents_BT, dropout=dropout, bias=bias
        )
        return
    q, k, v = by_head(qkv_N3D, 3, lse_BHT)
    o, lse, scratch.random = _forward(q, k, v, mask(documents_BT, lse_BHT, qkv_N3D.dtype))
    by_head(heads_ND, 1, lse_BHT)[0].copy_(o)
    lse_BHT.copy_(lse[:, :, : lse_BHT.shape[2]])


def multihead_backward(
    dheads_ND: Tensor,
    qkv_N3D: Tensor,
    heads_ND: Tensor,
    lse_BHT: Tensor,
    dqkv_N3D: Tensor,
    scratch: Scratch,
    *,
    documents_BT: Tensor | None = None,
    dropout: tuple[Key, float, int] | None = None,
    bias: Bias | None = None,
    dbias_CC: Tensor | None = None,
) -> None:
    """Write dqkv from dheads; arguments as of the torch op."""
    if not fused(qkv_N3D, lse_BHT.shape[1], dropout, bias):
        attention.multihead_backward(
            dheads_ND, qkv_N3D, heads_ND, lse_BHT, dqkv_N3D, scratch.own,
            documents_BT=documents_BT, dropout=dropout, bias=bias, dbias_CC=dbias_CC,
        )  # fmt: skip
        return
    q, k, v = by_head(qkv_N3D, 3, lse_BHT)
    (do,), (o,) = by_head(dheads_ND, 1, lse_BHT), by_head(heads_ND, 1, lse_BHT)
    added = mask(documents_BT, lse_BHT, qkv_N3D.dtype)
    with _in_a_fixed_order():
        found = _backward(do, q, k, v, o, lse_BHT, added, scratch.random)
    into = by_head(dqkv_N3D, 3, lse_BHT)
    for part, gradient in zip(into, found, strict=True):
        part.copy_(gradient)
    for part, zero in zip(into, exact_zeros(documents_BT, lse_BHT), strict=False):
        part.masked_fill_(zero, 0.0)  # the kernels leave rounding noise there, which AdamW would turn into full steps


def multihead_cached(
    qkv_N3D: Tensor,
    k_BHSK: Tensor,
    v_BHSK: Tensor,
    heads_ND: Tensor,
    lse_BHT: Tensor,
    scratch: Scratch,
    *,
    offset: int,
    bias: Bias | None = None,
) -> None:
    """Decoding with a cache: by the torch ops."""
    attention.multihead_cached(qkv_N3D, k_BHSK, v_BHSK, heads_ND, lse_BHT, scratch.own, offset=offset, bias=bias)


def by_head(joint: Tensor, parts: int, lse_BHT: Tensor) -> list[Tensor]:
    """The D-wide parts of a joint buffer as [B, H, T, K] views of it."""
    batch, heads, sequence = lse_BHT.shape
    return list(joint.unflatten(1, (parts, heads, -1)).unflatten(0, (batch, sequence)).permute(2, 0, 3, 1, 4))


def mask(documents_BT: Tensor | None, lse_BHT: Tensor, dtype: torch.dtype) -> Tensor | None:
    """What is added to the scores, [B, H, T, T] (the heads share memory): −∞ at forbidden keys, 0 elsewhere.

    None: nothing but the causal mask. Rows lie a multiple of 16 entries apart, as the kernels want them.
    """
    if documents_BT is None:
        return None
    batch, heads, sequence = lse_BHT.shape
    apart, place = -(-sequence // 16) * 16, torch.arange(sequence, device=lse_BHT.device)
    added = torch.zeros((batch, sequence, apart), dtype=dtype, device=lse_BHT.device)[:, :, :sequence]
    added.masked_fill_(documents_BT.unsqueeze(2) != documents_BT.unsqueeze(1), -math.inf)
    added.masked_fill_(place > place.unsqueeze(1), -math.inf)
    return added.unsqueeze(1).expand(batch, heads, sequence, sequence)


def exact_zeros(documents_BT: Tensor | None, lse_BHT: Tensor) -> tuple[Tensor, Tensor]:
    """Where dQ and dK are exactly 0, [B or 1, 1, T, 1]: queries that see no key but their own, which give their scores
    no gradient, and keys that no other query sees."""
    place = torch.arange(lse_BHT.shape[2], device=lse_BHT.device)
    if documents_BT is None:
        first = place == 0
        return first.view(1, 1, -1, 1), (first & (place == len(place) - 1)).view(1, 1, -1, 1)
    same = documents_BT.unsqueeze(2) == documents_BT.unsqueeze(1)
    first = ~(same & (place < place.unsqueeze(1))).any(dim=2)
    last = ~(same & (place > place.unsqueeze(1))).any(dim=2)
    shape = len(documents_BT), 1, -1, 1
    return first.view(shape), (first & last).view(shape)


def _forward(
    q: Tensor, k: Tensor, v: Tensor, added: Tensor | None
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]:
    """O, the logsumexp, and the state of a generator that is not used but that the backward wants."""
    causal = added is None
    if q.device.type == "cpu":
        o, lse = _aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, attn_mask=added)
        return o, lse, None
    if q.dtype == torch.bfloat16 and causal:
        o, lse, _, _, _, _, seed, offset, _ = _aten._scaled_dot_product_flash_attention(q, k, v, 0.0, True, False)
    else:
        o, lse, seed, offset = _aten._scaled_dot_product_efficient_attention(q, k, v, added, True, 0.0, causal)
    return o, lse, (seed, offset)


def _backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, added: Tensor | None,
    random: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dQ, dK, dV."""
    causal, t = added is None, q.shape[2]
    if q.device.type == "cpu":
        dq, dk, dv = _aten._scaled_dot_product_flash_attention_for_cpu_backward(
            do, q, k, v, o, lse, 0.0, causal, attn_mask=added
        )
        return dq, dk, dv
    assert random is not None, "attention: the backward comes behind a forward"
    if q.dtype == torch.bfloat16 and causal:
        dq, dk, dv = _aten._scaled_dot_product_flash_attention_backward(
            do, q, k, v, o, lse, None, None, t, t, 0.0, True, *random
        )
        return dq, dk, dv
    padded = torch.nn.functional.pad(lse, (0, -t % 32), value=math.inf)  # as that forward returns it
    wanted = [True, True, True, False]
    dq, dk, dv, _ = _aten._scaled_dot_product_efficient_attention_backward(
        do, q, k, v, added, o, padded, *random, 0.0, wanted, causal
    )
    return dq, dk, dv


@contextmanager
def _in_a_fixed_order() -> Iterator[None]:
    """Ask torch's kernels for sums in a fixed order (flash attention adds up dQ by atomics otherwise)."""
    before, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    settings: Any = torch.utils.deterministic
    fill = settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)  # with warn_only these kernels warn and keep their atomics
    settings.fill_uninitialized_memory = False  # it would write all new memory once more
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn)
        settings.fill_uninitialized_memory = fill
