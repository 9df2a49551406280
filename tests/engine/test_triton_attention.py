"""Attention through torch's fused kernels: the views, masks and copies round them, with the kernel that torch has for
the device (CLLM_TEST_DEVICE=cuda: flash and memory-efficient attention), and which cases go to the engine's own."""

from __future__ import annotations

import math

import elsewhere
import pytest
import torch
from attention_checks import OPERAND, Case, Operands, call, check_multihead
from torch import Tensor

from cllm.engine import attention as own
from cllm.engine.cuda import attention
from judges import bounds_fused, plain_ops
from judges.bounds import UNIT, Bounded, check


class Twin:
    """The module's functions as `attention_checks` calls them, on the device of the tests."""

    multihead_forward = staticmethod(elsewhere.here(attention.multihead_forward))
    multihead_backward = staticmethod(elsewhere.here(attention.multihead_backward))

    @staticmethod
    def scratch(*args, **kwargs):
        return attention.scratch(*args, **kwargs | {"device": elsewhere.DEVICE})


CASES = [
    Case(2, 3, 13, 8),
    Case(1, 2, 37, 16),
    Case(1, 1, 1, 8),
    Case(2, 2, 17, 8, documents=True),
    Case(1, 2, 19, 8, documents=True, scattered=True),
    Case(3, 1, 5, 8, documents=True, scattered=True, seed=3),
]


def split(joint: Tensor, case: Case) -> Tensor:
    return joint.reshape(case.batch, case.sequence, -1, case.heads, case.width).permute(2, 0, 3, 1, 4)


def check_fused(twin: object, dtype: torch.dtype, case: Case) -> None:
    x = Operands.draw(case, dtype)
    got = call(twin, x)
    b, h, t, width = case.batch, case.heads, case.sequence, case.width
    u, operand = UNIT[torch.float32], OPERAND[dtype]
    exp = bounds_fused.EXP_BESIDE_BF16 if operand and elsewhere.DEVICE == "cpu" else bounds_fused.EXP
    allowed = plain_ops.allowed_keys(x.options.get("documents_BT"), b, t).expand(b, h, t, t)
    q, k, v = (part.double().requires_grad_() for part in split(x.qkv_N3D, case))
    do = split(x.do_ND, case).double()[0]
    scores = q @ k.mT / math.sqrt(width)
    scores = scores.masked_fill(~allowed, -math.inf)
    o = torch.softmax(scores, dim=-1) @ v
    exact = torch.autograd.grad(o, (q, k, v), do)
    bq, bk, bv, bdo = (Bounded(y.detach(), u) for y in (q, k, v, do))
    bo, blse = bounds_fused.attention_forward(bq, bk, bv, allowed, operand=operand, exp=exp)
    check("heads", split(got["heads"], case)[0], o.detach(), bo)
    check("lse", got["lse"].unsqueeze(3), torch.logsumexp(scores, 3, keepdim=True).detach(), blse)
    found = bounds_fused.attention_gradients(bdo, bq, bk, bv, bo, blse, allowed, operand=operand, exp=exp)
    single = (allowed.sum(-1) == 1).unsqueeze(-1)
    unseen = (allowed.sum(-2) == 1).unsqueeze(-1) & single
    for name, y, want, bound in zip(("dq", "dk", "dv"), split(got["dqkv"], case), exact, found, strict=True):
        if name == "dq":
            want = want.masked_fill(single, 0.0)
            assert not y.masked_select(single).any(), "dq: a query that sees one key has gradient exactly 0"
        if name == "dk":
            want = want.masked_fill(unseen, 0.0)
            assert not y.masked_select(unseen).any(), "dk: a key that only such a query sees has gradient exactly 0"
        check(name, y, want, bound)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("case", CASES)
def test_fused(dtype, case, monkeypatch):
    monkeypatch.setattr(own, "multihead_forward", None)  # that it is these kernels that are tested
    monkeypatch.setattr(own, "multihead_backward", None)
    check_fused(Twin, dtype, case)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    "case",
    [Case(2, 2, 9, 8, p=0.3), Case(2, 2, 9, 8, documents=True, p=0.3), Case(1, 2, 9, 8, classes=3), Case(1, 3, 9, 5)],
)
def test_what_the_fused_kernels_cannot_do_goes_the_engines_own_way(dtype, case):
    check_multihead(Twin, dtype, case)


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_kernels_of_cuda_are_called_as_they_want(dtype, documents):
    """On the device "meta" torch checks the arguments of its CUDA ops, and says the shapes of their results."""
    b, h, t, width = 2, 3, 40, 16
    rows = torch.zeros(b, t, dtype=torch.int64, device="meta") if documents else None
    qkv, do = (torch.zeros(b * t, n * h * width, dtype=dtype, device="meta") for n in (3, 1))
    heads, dqkv, lse = torch.empty_like(do), torch.empty_like(qkv), torch.zeros(b, h, t, device="meta")
    scratch = attention.scratch(b, t, h, width, backward=True, dtype=dtype, device="meta")
    attention.multihead_forward(qkv, heads, lse, scratch, documents_BT=rows)
    assert scratch.random is not None and scratch.bytes == 0
    attention.multihead_backward(do, qkv, heads, lse, dqkv, scratch, documents_BT=rows)


def test_which_way():
    qkv = torch.zeros(4, 48, dtype=torch.bfloat16)
    assert attention.fused(qkv, 2, None, None) and attention.fused(qkv.float(), 2, None, None)
    assert not attention.fused(qkv.double(), 2, None, None)
    assert not attention.fused(qkv, 4, None, None), "heads of 4"
    assert not attention.fused(qkv, 2, object(), None) and not attention.fused(qkv, 2, None, object())


def test_the_setting_of_fixed_orders_is_put_back():
    for before, warn in ((False, False), (True, True)):
        torch.use_deterministic_algorithms(before, warn_only=warn)
        try:
            with attention._in_a_fixed_order():
                assert torch.are_deterministic_algorithms_enabled()
                assert not torch.is_deterministic_algorithms_warn_only_enabled()
            assert torch.are_deterministic_algorithms_enabled() == before
            assert torch.is_deterministic_algorithms_warn_only_enabled() == warn
        finally:
            torch.use_deterministic_algorithms(False)


def test_scratch_memory_is_made_when_it_is_needed():
    scratch = attention.scratch(2, 9, 2, 8, backward=True, dtype=torch.float32)
    assert scratch.bytes == 0
    assert scratch.own is scratch.own and scratch.bytes > 0


WRONG = {
    "no document mask": ("mask", lambda documents, lse, dtype: None),
    "no mask of the future": (
        "mask",
        lambda documents, lse, dtype: torch.zeros(lse.shape[2], lse.shape[2], dtype=dtype),
    ),
    "noise where there is one key": ("exact_zeros", lambda documents, lse: (torch.tensor(False), torch.tensor(False))),
}


@pytest.mark.skipif(elsewhere.DEVICE != "cpu", reason="tests of the checks, not of the device")
@pytest.mark.parametrize("name", WRONG)
def test_the_check_refuses(name, monkeypatch):
    monkeypatch.setattr(attention, *WRONG[name])
    with pytest.raises(AssertionError):
        for seed in range(5):
            check_fused(Twin, torch.float32, Case(2, 2, 17, 8, documents=True, seed=seed))


@pytest.mark.skipif(elsewhere.DEVICE != "cpu", reason="tests of the checks, not of the device")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_check_refuses_parts_in_another_order(dtype, monkeypatch):
    right = attention.by_head
    swapped = lambda joint, parts, lse: right(joint, parts, lse)[::-1]  # noqa: E731
    monkeypatch.setattr(attention, "by_head", swapped)
    with pytest.raises(AssertionError):
        check_fused(Twin, dtype, Case(2, 3, 13, 8))
