"""One token through the whole network by one native call (src/decode.cpp)."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cllm.engine.native import INT, POINTER, function, pointer
from cllm.engine.quantise import quantise_rows

MOST = 16  # sequences side by side that the kernel is made for
_ROW, _BLOCK = 64, 32  # of decode.hpp: narrow columns and rows are padded to a multiple
_LONGEST = 2**31 // (255 * 127)  # columns whose products with bytes add up in 32 bits
_SUFFIX = {"fp32": "f32", "bf16": "bf16", "int8": "int8"}


class _Matrix(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("weights", "scale", "bias", "sums")),
        *((name, ctypes.c_int64) for name in ("rows", "columns", "ld")),
    ]


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, _Matrix) for name in ("qkv", "out", "up", "down")),
        *(
            (name, ctypes.c_void_p)
            for name in ("norm1_gain", "norm1_bias", "norm2_gain", "norm2_bias", "keys", "values")
        ),
    ]


class _Network(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in ("batch", "layers", "width", "heads", "ff", "vocab", "context", "position", "erf")
        ),
        *((name, ctypes.c_void_p) for name in ("tokens", "positions", "layer", "norm_gain", "norm_bias")),
        ("head", _Matrix),
        ("scratch", ctypes.c_void_p),
        ("scratch_bytes", ctypes.c_int64),
    ]


class Network:
    """The weights of a decoder of one kind, and where its cache is.

    layers: per layer the tensors wqkv [3D, D], bqkv, wo, bo, w1 [F, D], b1, w2, b2, ln1.g, ln1.b, ln2.g, ln2.b, all
    float32 on the CPU; fp32 weights are used where they are, others are copied narrow.
    tok [V, D], pos [context, D] or None, norm: gain and bias behind the last layer, head [V, D].
    keys, values: [layers, batch, heads, context, width of a head] float32, appended to by `token`.
    """

    def __init__(
        self,
        kind: str,
        layers: Sequence[Mapping[str, Tensor]],
        tok_VD: Tensor,
        pos_TD: Tensor | None,
        norm: tuple[Tensor, Tensor],
        head_VD: Tensor,
        keys_LBHSK: Tensor,
        values_LBHSK: Tensor,
        *,
        erf: bool,
    ) -> None:
        count, batch, heads, context, _ = keys_LBHSK.shape
        self.kind, self.shape, self.matrix_bytes = kind, keys_LBHSK.shape, 0
        self._held: list[Any] = [tok_VD, pos_TD, *norm, keys_LBHSK, values_LBHSK]
        ff = layers[0]["w1"].shape[0]
        call = _Network(
            batch=batch, layers=count, width=tok_VD.shape[1], heads=heads, ff=ff, vocab=head_VD.shape[0],
            context=context, erf=erf,
        )  # fmt: skip
        table = (_Layer * count)()
        for i, layer in enumerate(layers):
            table[i] = _Layer(
                *(self._matrix(layer[f"w{n}"], layer[f"b{n}"]) for n in ("qkv", "o", "1", "2")),
                *(self._float(layer[n]) for n in ("ln1.g", "ln1.b", "ln2.g", "ln2.b")),
                self._float(keys_LBHSK[i]),
                self._float(values_LBHSK[i]),
            )
        self._held.append(table)
        call.layer = ctypes.addressof(table)
        call.tokens = self._float(tok_VD)
        call.positions = None if pos_TD is None else self._float(pos_TD)
        call.norm_gain, call.norm_bias = (self._float(x) for x in norm)
        call.head = self._matrix(head_VD, None)
        self._call, self._threads = call, 0

    def token(self, tokens_B: Tensor, position: int, logits_BV: Tensor) -> None:
        """Read one token of each sequence at `position` of the cache and write the logits behind it."""
        call = self._call
        if not 0 <= position < call.context:
            raise ValueError(f"position {position}: the cache has {call.context}")
        low, high = (int(x) for x in torch.aminmax(tokens_B))
        if low < 0 or high >= call.vocab:
            raise ValueError(f"tokens from {low} to {high}: the vocabulary has {call.vocab}")
        if self._threads != torch.get_num_threads():
            self._allot(torch.get_num_threads())
        call.position = position
        function(f"decode_{_SUFFIX[self.kind]}", POINTER, POINTER, POINTER)(
            ctypes.addressof(call),
            pointer(tokens_B, (call.batch,), torch.int64),
            pointer(logits_BV, (call.batch, call.vocab), torch.float32),
        )

    def _allot(self, threads: int) -> None:
        size = ctypes.c_int64()
        function("decode_scratch", POINTER, INT, POINTER)(ctypes.addressof(self._call), threads, ctypes.byref(size))
        self._scratch = torch.zeros(size.value, dtype=torch.uint8)
        self._call.scratch, self._call.scratch_bytes = self._scratch.data_ptr(), size.value
        self._threads = threads

    def _float(self, x: Tensor) -> int:
        self._held.append(x)
        return pointer(x, x.shape, torch.float32)

    def _matrix(self, w_MK: Tensor, bias_M: Tensor | None) -> _Matrix:
        rows, columns = w_MK.shape
        bias = None if bias_M is None else self._float(bias_M)
        if self.kind == "fp32":
            self.matrix_bytes += 4 * rows * columns
            return _Matrix(self._float(w_MK), None, bias, None, rows, columns, columns)
        if self.kind == "int8" and columns > _LONGEST:
            raise ValueError(f"int8 weights: rows of {columns} columns, the kernel adds up to {_LONGEST}")
        ld, padded = _up(columns, _ROW), _up(rows, _BLOCK)
        narrow = torch.zeros(padded, ld, dtype=torch.bfloat16 if self.kind == "bf16" else torch.int8)
        scale = sums = None
        if self.kind == "bf16":
            narrow[:rows, :columns] = w_MK
        else:
            scales = torch.zeros(padded)
            narrow[:rows, :columns], scales[:rows] = quantise_rows(w_MK)
            totals = narrow.sum(dim=1, dtype=torch.int32)
            self._held.append(totals)
            scale, sums = self._float(scales), totals.data_ptr()
        lanes = narrow.view(padded // _BLOCK, _BLOCK, -1, 4 // narrow.element_size()).transpose(1, 2).contiguous()
        self._held.append(lanes)
        self.matrix_bytes += lanes.numel() * lanes.element_size()
        return _Matrix(lanes.data_ptr(), scale, bias, sums, rows, columns, ld)


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
