"""Causal multi-head attention, flash style (Dao et al. 2022): O = A·V, A = softmax(Q·Kᵀ/√K over the allowed keys).

Allowed: key j for query i iff j ≤ i (+ `offset` for cached decoding) and, with a document mask, both belong to the
same document. Forbidden keys get probability exactly 0. Dropout on A is optional.

Only the logsumexp of each query is kept; A is recomputed block by block, so no T×T matrix is stored.
Backward (docs/derivations/attention.md), with m the dropout mask divided by 1−p:
    dV = (A∘m)ᵀ·dO      dA = (dO·Vᵀ)∘m      dS = A∘(dA − rowsum(dA∘A))      dQ = dS·K/√K      dK = dSᵀ·Q/√K
A query that sees a single key has A = 1 and dS = dA − dA = 0 exactly: the arithmetic gives exact zeros there.

Structural zero: Σ_i over queries of dS is 0 for each row, so with additive positions the gradient of the key bias is
exactly 0; the step writes zeros there instead of rounding noise (model/step.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cllm.engine.dropout import Key, attention_mask

Bias = tuple[Tensor, Tensor]  # classes_BT uint8, table_CC: score_ij += table[class of i, class of j]

QUERIES = 64  # queries a block: shorter ones make thin matrix products, longer ones waste work on forbidden keys
SCORES = 1 << 20  # elements of scores a block aims at


class Blocks:
    """How the (rows, queries) of an attention call are cut, and the scratch space of one block.

    shape: (B, H, T, K) of the queries; `keys` the longest key sequence. The blocks depend on the shape only, so
    results do not depend on timing or threads.
    """

    def __init__(
        self,
        batch: int,
        heads: int,
        sequence: int,
        keys: int,
        *,
        backward: bool,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        self.queries = min(sequence, QUERIES)
        self.rows = min(batch, max(1, SCORES // (heads * self.queries * keys)))
        size = self.rows * heads * self.queries * keys
        count = 3 if backward else 1
        self._scratch = torch.empty((count, size), dtype=dtype, device=device)
        query, key = torch.arange(self.queries, device=device), torch.arange(self.queries, device=device)
        self.future = key[None, :] > query[:, None]  # within the last block on the diagonal

    @property
    def bytes(self) -> int:
        return sum(x.numel() * x.element_size() for x in (self._scratch, self.future))

    def cut(self, batch: int, sequence: int) -> Iterator[tuple[range, range]]:
        for row in range(0, batch, self.rows):
            for query in range(0, sequence, self.queries):
                yield (
                    range(row, min(row + self.rows, batch)),
                    range(query, min(query + self.queries, sequence)),
                )

    def scratch(self, index: int, *shape: int) -> Tensor:
        """A contiguous view of scratch area `index` with the given shape."""
        return self._scratch[index, : math.prod(shape)].view(shape)


def _flat(x_BHTK: Tensor, rows: range, span: slice) -> Tensor:
    """[rows·H, span, K] view of a contiguous [B, H, T, K] tensor."""
    return x_BHTK[rows.start : rows.stop].flatten(0, 1)[:, span]


def _scores(
    q: Tensor,
    k: Tensor,
    s: Tensor,
    queries: range,
    offset: int,
    documents: tuple[Tensor, Tensor] | None,
    heads: int,
    future: Tensor,
) -> None:
    """Write S = Q·Kᵀ/√K into s, with −∞ at forbidden keys."""
    torch.baddbmm(s, q, k.transpose(1, 2), beta=0.0, alpha=1.0 / math.sqrt(q.shape[2]), out=s)
    first, count = offset + queries.start, len(queries)  # key number of the block's first query
    s[:, :, first : first + count].masked_fill_(future[:count, :count], -math.inf)
    if documents is not None:
        of_query, of_key = documents
        other = of_query[:, None, :, None] != of_key[:, None, None, :]
        s.view(-1, heads, *s.shape[1:]).masked_fill_(other, -math.inf)


def _documents(documents_BT: Tensor | None, rows: range, queries: range, keys: int) -> tuple[Tensor, Tensor] | None:
    if documents_BT is None:
        return None
    part = documents_BT[rows.start : rows.stop]
    return part[:, queries.start : queries.stop], part[:, :keys]


def _pairs(bias: Bias | None, rows: range, queries: range, keys: int) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Number of the pair of classes, [rows, queries, keys], and the bias there. queries: key positions."""
    if bias is None:
        return None, None
    classes_BT, table_CC = bias
    part = classes_BT[rows.start : rows.stop].long()
    pair = part[:, queries.start : queries.stop, None] * table_CC.shape[0] + part[:, None, :keys]
    return pair, table_CC.view(-1)[pair]


def attention_forward(
    q_BHTK: Tensor,
    k_BHSK: Tensor,
    v_BHSK: Tensor,
    o_BHTK: Tensor,
    lse_BHT: Tensor,
    blocks: Blocks,
    *,
    documents_BT: Tensor | None = None,
    offset: int = 0,
    dropout: tuple[Key, float, int] | None = None,
    bias: Bias | None = None,
) -> None:
    """Write O and the logsumexp of each query.

    q, o: (B, H, T, K); k, v: (B, H, S, K) with S ≥ offset + T, query i standing at key position offset + i.
    documents_BT: document number per position (no offset then), or None.  dropout: (key, p, layer), or None.
    bias: classes of the key positions and the table, or None.
    """
    batch, heads, sequence, _ = q_BHTK.shape
    for rows, queries in blocks.cut(batch, sequence):
        keys, span = offset + queries.stop, slice(queries.start, queries.stop)
        group = len(rows) * heads
        q, k, v = (
            _flat(q_BHTK, rows, span),
            _flat(k_BHSK, rows, slice(keys)),
            _flat(v_BHSK, rows, slice(keys)),
        )
        s = blocks.scratch(0, group, len(queries), keys)
        documents = _documents(documents_BT, rows, queries, keys)
        _, added = _pairs(bias, rows, range(offset + queries.start, keys), keys)
        _scores(q, k, s, queries, offset, documents, heads, blocks.future)
        if added is not None:
            s.view(-1, heads, *s.shape[1:]).add_(added.unsqueeze(1))
        top = s.amax(dim=2, keepdim=True)
        s.sub_(top).exp_()
        total = s.sum(dim=2, keepdim=True)
        s.div_(total)
        lse_BHT[rows.start : rows.stop, :, span].view(len(rows), heads, -1).copy_(
            top.add_(total.log_()).view(len(rows), heads, -1)
        )
        if dropout is not None:
            key, p, layer = dropout
            keep = attention_mask(key, p, layer, rows, heads, queries, keys, s.device)
            s.mul_(keep.flatten(0, 1)).mul_(1.0 / (1.0 - p))
        _flat(o_BHTK, rows, span).copy_(torch.bmm(s, v))


def attention_backward(
    do_BHTK: Tensor,
    q_BHTK: Tensor,
    k_BHTK: Tensor,
    v_BHTK: Tensor,
    lse_BHT: Tensor,
    dq_BHTK: Tensor,
    dk_BHTK: Tensor,
    dv_BHTK: Tensor,
    blocks: Blocks,
    *,
    documents_BT: Tensor | None = None,
    dropout: tuple[Key, float, int] | None = None,
    bias: Bias | None = None,
    dbias_CC: Tensor | None = None,
) -> None:
    """Write dQ, dK and dV from dO; all (B, H, T, K). A is recomputed from Q, K and the logsumexp.

    dbias_CC: the sums of dS by pair of classes are added to it.
    """
    batch, heads, sequence, width = q_BHTK.shape
    scale = 1.0 / math.sqrt(width)
    dk_BHTK.zero_()
    dv_BHTK.zero_()
    for rows, queries in blocks.cut(batch, sequence):
        keys, span = queries.stop, slice(queries.start, queries.stop)
        q, do = _flat(q_BHTK, rows, span), _flat(do_BHTK, rows, span)
        k, v = _flat(k_BHTK, rows, slice(keys)), _flat(v_BHTK, rows, slice(keys))
        dk, dv = _flat(dk_BHTK, rows, slice(keys)), _flat(dv_BHTK, rows, slice(keys))
        shape = (len(rows) * heads, len(queries), keys)
        a, da, product = (blocks.scratch(i, *shape) for i in range(3))
        pair, added = _pairs(bias, rows, queries, keys)
        _scores(q, k, a, queries, 0, _documents(documents_BT, rows, queries, keys), heads, blocks.future)
        if added is not None:
            a.view(-1, heads, *shape[1:]).add_(added.unsqueeze(1))
        a.sub_(_flat(lse_BHT.unsqueeze(3), rows, span)).exp_()
        torch.bmm(do, v.transpose(1, 2), out=da)
        if dropout is None:
            dv.baddbmm_(a.transpose(1, 2), do)
        else:
            key, p, layer = dropout
            keep = attention_mask(key, p, layer, rows, heads, queries, keys, a.device).flatten(0, 1)
            torch.mul(a, keep, out=product).mul_(1.0 / (1.0 - p))
            dv.baddbmm_(product.transpose(1, 2), do)
            da.mul_(keep).mul_(1.0 / (1.0 - p))
        torch.mul(da, a, out=product)
        da.sub_(product.sum(dim=2, keepdim=True)).mul_(a)  # dS
        if dbias_CC is not None and pair is not None:
            per_row = da.view(-1, heads, *shape[1:]).sum(dim=1)
            dbias_CC.view(-1).index_add_(0, pair.flatten(), per_row.flatten())
        da.mul_(scale)
        _flat(dq_BHTK, rows, span).copy_(torch.bmm(da, k))
        dk.baddbmm_(da.transpose(1, 2), q)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The type in which operands of `dtype` are multiplied and summed."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class Scratch:
    """Working memory of the calls below: operands split by head for `blocks.rows` rows at a time, and the blocks'."""

    def __init__(self, blocks: Blocks, parts: int, size: int, dtype: torch.dtype, device: torch.device | str) -> None:
        self.blocks = blocks
        self._split = torch.empty((parts, size), dtype=dtype, device=device)

    @property
    def bytes(self) -> int:
        return self.blocks.bytes + self._split.numel() * self._split.element_size()

    def split(self, index: int, *shape: int) -> Tensor:
        """A contiguous view of as many areas as the shape needs, from number `index` on."""
        return self._split[index:].view(-1)[: math.prod(shape)].view(shape)


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
    """Memory for calls of up to `sequence` queries and `keys` keys (default: the same).

    width: channels a head.  backward: also for the backward.  classes: the most classes of a bias; 0: none.
    """
    del classes  # nothing here depends on it
    acc = accumulator(dtype)
    blocks = Blocks(batch, heads, sequence, keys or sequence, backward=backward, dtype=acc, device=device)
    return Scratch(blocks, 7 if backward else 4, blocks.rows * heads * sequence * width, acc, device)


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
    """Attention of all heads on the joint buffer: write heads = A·V, the heads side by side, and the logsumexps.

    qkv: rows of Q, K, V, each D wide; N = B·T.  B, H, T are those of lse (accumulator dtype; the rest: operand dtype).
    """
    for rows, options in _groups(lse_BHT, scratch, documents_BT, dropout, bias):
        q, k, v = _split(qkv_N3D, 3, lse_BHT, rows, scratch)
        o = scratch.split(3, *q.shape)
        attention_forward(q, k, v, o, lse_BHT[rows.start : rows.stop], scratch.blocks, **options)
        _merge(o.unsqueeze(0), heads_ND, rows)


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
    """Write dqkv from dheads; arguments as in the forward. dbias_CC: sums of dS by pair of classes, added to it."""
    del heads_ND  # a kernel may use it for the row sums
    for rows, options in _groups(lse_BHT, scratch, documents_BT, dropout, bias):
        q, k, v = _split(qkv_N3D, 3, lse_BHT, rows, scratch)
        (do,) = _split(dheads_ND, 1, lse_BHT, rows, scratch, 3)
        dq, dk, dv = grads = scratch.split(4, 3, *q.shape)
        lse = lse_BHT[rows.start : rows.stop]
        attention_backward(do, q, k, v, lse, dq, dk, dv, scratch.blocks, **options, dbias_CC=dbias_CC)
        _merge(grads, dqkv_N3D, rows)


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
    """Append the T new keys and values at position `offset` of the cache, then attend to all of it."""
    sequence = lse_BHT.shape[2]
    for rows, options in _groups(lse_BHT, scratch, None, None, bias):
        part = slice(rows.start, rows.stop)
        q, k, v = _split(qkv_N3D, 3, lse_BHT, rows, scratch)
        k_BHSK[part, :, offset : offset + sequence] = k
        v_BHSK[part, :, offset : offset + sequence] = v
        o = scratch.split(3, *q.shape)
        keys, values = k_BHSK[part].to(q.dtype), v_BHSK[part].to(q.dtype)
        attention_forward(q, keys, values, o, lse_BHT[part], scratch.blocks, **options, offset=offset)
        _merge(o.unsqueeze(0), heads_ND, rows)


def _groups(
    lse_BHT: Tensor,
    scratch: Scratch,
    documents_BT: Tensor | None,
    dropout: tuple[Key, float, int] | None,
    bias: Bias | None,
) -> Iterator[tuple[range, dict[str, Any]]]:
    """As many rows at a time as the scratch memory holds, with the options for them."""
    batch = lse_BHT.shape[0]
    for row in range(0, batch, scratch.blocks.rows):
        rows = range(row, min(row + scratch.blocks.rows, batch))
        part = slice(rows.start, rows.stop)
        options: dict[str, Any] = {}
        if documents_BT is not None:
            options["documents_BT"] = documents_BT[part]
        if dropout is not None:
            key, p, layer = dropout
            options["dropout"] = (Key(key.seed, key.step, key.first_row + row), p, layer)
        if bias is not None:
            options["bias"] = (bias[0][part], bias[1])
        yield rows, options


def _split(joint: Tensor, parts: int, lse_BHT: Tensor, rows: range, scratch: Scratch, index: int = 0) -> Tensor:
    """Copy the rows' D-wide parts, split by head, into scratch areas from `index` on: [parts, rows, H, T, K]."""
    _, heads, sequence = lse_BHT.shape
    part = joint[rows.start * sequence : rows.stop * sequence]
    view = part.unflatten(1, (parts, heads, -1)).unflatten(0, (len(rows), sequence)).permute(2, 0, 3, 1, 4)
    return scratch.split(index, *view.shape).copy_(view)


def _merge(parts: Tensor, joint: Tensor, rows: range) -> None:
    """[parts, rows, H, T, K] → rows of a joint buffer."""
    count, _, heads, sequence, width = parts.shape
    part = joint[rows.start * sequence : rows.stop * sequence]
    part.unflatten(1, (count, heads, width)).unflatten(0, (len(rows), sequence)).copy_(parts.permute(1, 3, 0, 2, 4))
