"""Attention on the joint buffer, forward and backward, against autograd of the plain formula: for either twin."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType

import torch
from op_checks import Draw
from torch import Tensor

from cllm.engine.attention import accumulator
from cllm.engine.dropout import Key
from judges import bounds, plain_ops
from judges.bounds import UNIT, Bounded, check
from judges.philox_reference import attention_keep

OPERAND = {torch.bfloat16: 2.0**-8, torch.float32: None, torch.float64: None}
GUARD = 3  # columns and rows round an output that must stay as they were


@dataclass(frozen=True)
class Case:
    batch: int
    heads: int
    sequence: int
    width: int
    documents: bool = False
    p: float = 0.0
    classes: int = 0
    seed: int = 1
    scattered: bool = False  # documents come back after others


class Guarded:
    """An output matrix in the middle of a larger one."""

    def __init__(self, rows: int, columns: int, dtype: torch.dtype) -> None:
        self.whole = torch.full((rows + 2 * GUARD, columns + 2 * GUARD), 7.0, dtype=dtype)
        self.inner = self.whole[GUARD:-GUARD, GUARD:-GUARD]

    def check(self) -> None:
        rest = self.whole.clone()
        rest[GUARD:-GUARD, GUARD:-GUARD] = 7.0
        assert (rest == 7.0).all(), "written outside the output"


@dataclass
class Operands:
    """A case's inputs, the options that the calls take, and room for a gradient of the bias."""

    case: Case
    qkv_N3D: Tensor
    do_ND: Tensor
    options: dict
    dbias_CC: Tensor | None

    @classmethod
    def draw(cls, case: Case, dtype: torch.dtype) -> Operands:
        d = Draw(case.seed, torch.float64)
        rows, width = case.batch * case.sequence, case.heads * case.width
        qkv, do = (Guarded(rows, n * width, dtype).inner.copy_(d.normal(rows, n * width)) for n in (3, 1))
        shape = (case.batch, case.sequence)
        options = {}
        if case.documents:
            options["documents_BT"] = d.ints(3, *shape) if case.scattered else d.ints(2, *shape).cumsum(1)
        if case.p:
            options["dropout"] = (Key(case.seed, 3, first_row=2), case.p, 1)
        dbias = None
        if case.classes:
            table = d.normal(case.classes, case.classes).to(accumulator(dtype))
            options["bias"] = (d.ints(case.classes, *shape).to(torch.uint8), table)
            dbias = torch.ones_like(table)  # added to
        return cls(case, qkv, do, options, dbias)


def call(twin: ModuleType, x: Operands) -> dict[str, Tensor]:
    """heads, lse, dqkv and, with a bias, dbias by one twin; scratch memory holds NaNs beforehand."""
    c, dtype = x.case, x.qkv_N3D.dtype
    acc = accumulator(dtype)
    rows, width = c.batch * c.sequence, c.heads * c.width
    scratch = twin.scratch(
        c.batch, c.sequence, c.heads, c.width, backward=True, dtype=dtype, device="cpu", classes=c.classes
    )
    heads, dqkv = Guarded(rows, width, dtype), Guarded(rows, 3 * width, dtype)
    lse = torch.empty(c.batch, c.heads, c.sequence, dtype=acc)
    _spoil(scratch)
    twin.multihead_forward(x.qkv_N3D, heads.inner, lse, scratch, **x.options)
    _spoil(scratch)
    out = {"heads": heads.inner, "lse": lse, "dqkv": dqkv.inner}
    extra = {}
    if x.dbias_CC is not None:
        extra["dbias_CC"] = out["dbias"] = x.dbias_CC.clone()
    twin.multihead_backward(x.do_ND, x.qkv_N3D, heads.inner, lse, dqkv.inner, scratch, **x.options, **extra)
    heads.check()
    dqkv.check()
    return out


def _spoil(scratch: object) -> None:
    if hasattr(scratch, "data"):
        scratch.data.fill_(255)


def check_multihead(twin: ModuleType, dtype: torch.dtype, case: Case) -> None:
    x = Operands.draw(case, dtype)
    got = call(twin, x)
    b, h, t, k = case.batch, case.heads, case.sequence, case.width

    def split(joint: Tensor) -> Tensor:
        return joint.reshape(b, t, -1, h, k).permute(2, 0, 3, 1, 4)

    u, operand = UNIT[accumulator(dtype)], OPERAND[dtype]
    documents = x.options.get("documents_BT")
    allowed = plain_ops.allowed_keys(documents, b, t).expand(b, h, t, t)
    keep = attention_keep(case.p, case.seed, 3, 2, 1, (b, h, t, t)) if case.p else None
    q, key, v = (part.double().requires_grad_() for part in split(x.qkv_N3D).double())
    do = split(x.do_ND).double()[0]
    scores, table, pair = q @ key.mT / math.sqrt(k), None, None
    if case.classes:
        classes, table = x.options["bias"][0].long(), x.options["bias"][1].double().requires_grad_()
        pair = (classes[:, None, :, None] * case.classes + classes[:, None, None, :]).expand(b, h, t, t)
        scores = scores + table.view(-1)[pair]
    scores = scores.masked_fill(~allowed, -math.inf)
    a = torch.softmax(scores, dim=-1)
    o = (a if keep is None else a * keep / (1.0 - case.p)) @ v
    leaves = [q, key, v] + ([table] if table is not None else [])
    exact = torch.autograd.grad(o, leaves, do)

    bq, bk, bv, bdo = (Bounded(y.detach(), u) for y in (q, key, v, do))
    bias = Bounded(table.detach().view(-1)[pair], u) if table is not None else None
    bo, blse = bounds.attention_forward(bq, bk, bv, allowed, keep, case.p, bias=bias, operand=operand)
    check("heads", split(got["heads"])[0], o.detach(), bo)
    check("lse", got["lse"].unsqueeze(3), torch.logsumexp(scores, 3, keepdim=True).detach(), blse)
    *found, bds = bounds.attention_gradients(
        bdo, bq, bk, bv, blse, allowed, keep, case.p, bias=bias, operand=operand
    )  # fmt: skip
    single = (allowed.sum(-1) == 1).unsqueeze(-1)
    for name, y, want, bound in zip(("dq", "dk", "dv"), split(got["dqkv"]), exact, found, strict=False):
        if name == "dq":  # autograd's softmax leaves rounding noise where the engine gives exact zeros
            want = want.masked_fill(single, 0.0)
            assert not y.masked_select(single).any(), "dq: a query that sees one key has gradient exactly 0"
        check(name, y, want, bound)
    if table is not None:
        n, flat = b * h * t * t, pair.flatten()
        zero = torch.zeros(case.classes**2, dtype=torch.float64)
        spread = bds.e + bounds.gamma(n + bounds.EXTRA, u) * bds.size
        e = zero.index_add(0, flat, spread.flatten()) + bounds.gamma(n + bounds.EXTRA, u)  # it started at 1
        bound = Bounded(1.0 + zero.index_add(0, flat, bds.v.flatten()), u, e)
        check("dbias", got["dbias"].view(-1), 1.0 + exact[3].view(-1), bound)
