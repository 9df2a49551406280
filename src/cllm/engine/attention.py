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

import torch
from torch import Tensor

from cllm.engine.dropout import Key, attention_mask

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
) -> None:
    """Write O and the logsumexp of each query.

    q, o: (B, H, T, K); k, v: (B, H, S, K) with S ≥ offset + T, query i standing at key position offset + i.
    documents_BT: document number per position (no offset then), or None.  dropout: (key, p, layer), or None.
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
        _scores(q, k, s, queries, offset, documents, heads, blocks.future)
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
) -> None:
    """Write dQ, dK and dV from dO; all (B, H, T, K). A is recomputed from Q, K and the logsumexp."""
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
        _scores(q, k, a, queries, 0, _documents(documents_BT, rows, queries, keys), heads, blocks.future)
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
        da.sub_(product.sum(dim=2, keepdim=True)).mul_(a).mul_(scale)  # dS/√K
        _flat(dq_BHTK, rows, span).copy_(torch.bmm(da, k))
        dk.baddbmm_(da.transpose(1, 2), q)
