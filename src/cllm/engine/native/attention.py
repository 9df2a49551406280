"""Attention on the joint buffer of Q, K and V; formulas and arguments as in engine/attention.py."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cllm.engine.attention import accumulator
from cllm.engine.dropout import Key
from cllm.engine.native import POINTER, SUFFIX, function, pointer


class _Call(ctypes.Structure):
    """struct Attention of src/attention.hpp, field by field."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("batch", "heads", "queries", "keys", "width", "offset")),
        *((name, ctypes.c_void_p) for name in ("q", "k", "v")),
        *((name, ctypes.c_int64) for name in ("q_batch", "q_head", "q_row", "kv_batch", "kv_head", "kv_row")),
        ("o", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("o_batch", "o_head", "o_row")),
        *((name, ctypes.c_void_p) for name in ("lse", "dq", "dk", "dv")),
        *((name, ctypes.c_int64) for name in ("d_batch", "d_head", "d_row")),
        ("documents", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("seed", "step", "first_row", "layer", "threshold")),
        ("factor", ctypes.c_double),
        ("classes", ctypes.c_void_p),
        ("table", ctypes.c_void_p),
        ("class_count", ctypes.c_int64),
        ("dtable", ctypes.c_void_p),
        ("scratch", ctypes.c_void_p),
        ("scratch_bytes", ctypes.c_int64),
    ]


@dataclass
class Scratch:
    """Working memory of a call, shared by the threads."""

    data: Tensor

    @property
    def bytes(self) -> int:
        return self.data.numel()


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
    """Memory for calls of up to `sequence` queries and `keys` keys (default: the same), for the threads of now.

    width: channels a head.  backward: also for the backward.  classes: the most classes of a bias; 0: none.
    """
    call = _Call(batch=batch, heads=heads, queries=sequence, keys=keys or sequence, width=width)
    call.documents = call.classes = 1  # counted, not read
    call.class_count, call.dtable = classes, 1 if classes else None
    need = max(_needed(call, name, dtype) for name in ("forward", *(("backward",) if backward else ())))
    return Scratch(torch.empty(need * torch.get_num_threads(), dtype=torch.uint8, device=device))


def _needed(call: _Call, name: str, dtype: torch.dtype) -> int:
    """Bytes of scratch memory a thread needs for this call."""
    size = ctypes.c_int64()
    function(f"attention_{name}_scratch_{SUFFIX[dtype]}", POINTER, POINTER)(ctypes.byref(call), ctypes.byref(size))
    return size.value


def _run(call: _Call, name: str, dtype: torch.dtype) -> None:
    if call.scratch_bytes < (need := _needed(call, name, dtype)):
        raise ValueError(f"attention {name}: scratch memory of {call.scratch_bytes} bytes, needs {need} a thread")
    function(f"attention_{name}_{SUFFIX[dtype]}", POINTER)(ctypes.byref(call))


def multihead_forward(
    qkv_N3D: Tensor,
    heads_ND: Tensor,
    lse_BHT: Tensor,
    scratch: Scratch,
    *,
    documents_BT: Tensor | None = None,
    dropout: tuple[Key, float, int] | None = None,
    bias: tuple[Tensor, Tensor] | None = None,
) -> None:
    call = _joint(qkv_N3D, heads_ND, lse_BHT, scratch)
    _options(call, documents_BT, dropout, bias, accumulator(qkv_N3D.dtype))
    _run(call, "forward", qkv_N3D.dtype)


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
    bias: tuple[Tensor, Tensor] | None = None,
    dbias_CC: Tensor | None = None,
) -> None:
    call = _joint(qkv_N3D, dheads_ND, lse_BHT, scratch)
    _options(call, documents_BT, dropout, bias, accumulator(qkv_N3D.dtype))
    if dbias_CC is not None:
        if bias is None:
            raise ValueError("dbias_CC without a bias")
        call.dtable = pointer(dbias_CC, bias[1].shape, bias[1].dtype)
    call.dq, call.dk, call.dv = _thirds(dqkv_N3D, qkv_N3D.shape, qkv_N3D.dtype)
    call.d_batch, call.d_head, call.d_row = call.queries * dqkv_N3D.stride(0), call.width, dqkv_N3D.stride(0)
    _run(call, "backward", qkv_N3D.dtype)


def multihead_cached(
    qkv_N3D: Tensor,
    k_BHSK: Tensor,
    v_BHSK: Tensor,
    heads_ND: Tensor,
    lse_BHT: Tensor,
    scratch: Scratch,
    *,
    offset: int,
    bias: tuple[Tensor, Tensor] | None = None,
) -> None:
    batch, heads, queries = lse_BHT.shape
    shape = (batch, heads, k_BHSK.shape[2], qkv_N3D.shape[1] // (3 * heads))
    call = _joint(qkv_N3D, heads_ND, lse_BHT, scratch)
    call.keys, call.offset = offset + queries, offset
    if call.keys > shape[2]:
        raise ValueError(f"cache of {shape[2]} positions: no room for {queries} behind {offset}")
    joint = qkv_N3D.view(batch, queries, 3, heads, -1)
    k_BHSK[:, :, offset : call.keys] = joint[:, :, 1].transpose(1, 2)
    v_BHSK[:, :, offset : call.keys] = joint[:, :, 2].transpose(1, 2)
    call.k, call.v = (pointer(x, shape, qkv_N3D.dtype) for x in (k_BHSK, v_BHSK))
    call.kv_batch, call.kv_head, call.kv_row = k_BHSK.stride()[:3]
    _options(call, None, None, bias, accumulator(qkv_N3D.dtype))
    _run(call, "forward", qkv_N3D.dtype)


def _rows(x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """The address of a CPU matrix whose rows are contiguous, at any distance from each other."""
    if x.dtype != dtype or x.shape != shape or x.stride(1) != 1 or x.device.type != "cpu":
        raise ValueError(
            f"native attention: expected a {dtype} CPU matrix of shape {tuple(shape)} with contiguous rows, "
            f"got {x.dtype} {tuple(x.shape)} with strides {x.stride()} on {x.device}"
        )
    return x.data_ptr()


def _thirds(joint_N3D: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[int, int, int]:
    first, third = _rows(joint_N3D, shape, dtype), joint_N3D.shape[1] // 3 * joint_N3D.element_size()
    return first, first + third, first + 2 * third


def _joint(qkv_N3D: Tensor, heads_ND: Tensor, lse_BHT: Tensor, scratch: Scratch) -> _Call:
    batch, heads, sequence = lse_BHT.shape
    rows, dtype = batch * sequence, qkv_N3D.dtype
    width = qkv_N3D.shape[1] // (3 * heads)
    call = _Call(batch=batch, heads=heads, queries=sequence, keys=sequence, width=width)
    call.q, call.k, call.v = _thirds(qkv_N3D, (rows, 3 * heads * width), dtype)
    call.q_batch, call.q_head, call.q_row = sequence * qkv_N3D.stride(0), width, qkv_N3D.stride(0)
    call.kv_batch, call.kv_head, call.kv_row = call.q_batch, call.q_head, call.q_row
    call.o = _rows(heads_ND, (rows, heads * width), dtype)
    call.o_batch, call.o_head, call.o_row = sequence * heads_ND.stride(0), width, heads_ND.stride(0)
    call.lse = pointer(lse_BHT, (batch, heads, sequence), accumulator(dtype))
    call.scratch, call.scratch_bytes = scratch.data.data_ptr(), scratch.bytes
    call.threshold = -1
    return call


def _options(
    call: Any,
    documents_BT: Tensor | None,
    dropout: tuple[Key, float, int] | None,
    bias: tuple[Tensor, Tensor] | None,
    dtype: torch.dtype,
) -> None:
    if documents_BT is not None:
        call.documents = pointer(documents_BT, (call.batch, call.keys), torch.int64)
    if dropout is not None:
        key, p, call.layer = dropout
        call.seed, call.step, call.first_row = key.seed, key.step, key.first_row
        call.threshold, call.factor = math.floor(p * 2**32), 1.0 / (1.0 - p)
    if bias is not None:
        classes_BT, table_CC = bias
        call.classes = pointer(classes_BT, (call.batch, call.keys), torch.uint8)
        call.class_count = table_CC.shape[0]
        call.table = pointer(table_CC, (table_CC.shape[0],) * 2, dtype)
