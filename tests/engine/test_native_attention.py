"""Native attention and dropout masks, at every level of this machine: bounds, exact zeros, bits, cached calls."""

from __future__ import annotations

import pytest
import torch
from attention_checks import Case, Operands, call, check_multihead
from hypothesis import given, settings
from hypothesis import strategies as st
from native_levels import LEVELS

from cllm.engine import attention as torch_twin
from cllm.engine import dropout as torch_dropout
from cllm.engine.dropout import Key
from cllm.engine.native import attention as native_twin
from cllm.engine.native import dropout as native_dropout

DTYPES = (torch.float32, torch.float64, torch.bfloat16)
at_every_level = pytest.mark.parametrize("level", LEVELS, indirect=True)
of_every_type = pytest.mark.parametrize("dtype", DTYPES)
CASES = [
    Case(1, 1, 1, 1),
    Case(2, 1, 3, 5),
    Case(1, 2, 17, 8, documents=True),
    Case(1, 2, 23, 16, p=0.3),
    Case(2, 1, 31, 32, classes=3),
    Case(1, 1, 97, 64),  # three blocks of queries
    Case(1, 2, 50, 128, documents=True, classes=2),
    Case(1, 1, 40, 80, documents=True, p=0.2, classes=4),
    Case(1, 1, 101, 13, documents=True),
    Case(2, 1, 61, 16, documents=True, scattered=True, classes=2),
]


@at_every_level
@of_every_type
@pytest.mark.parametrize("case", CASES, ids=str)
def test_native(level, dtype, case):
    check_multihead(native_twin, dtype, case)


@of_every_type
@pytest.mark.parametrize("case", CASES[:5], ids=str)
def test_torch_twin(dtype, case):
    check_multihead(torch_twin, dtype, case)


def test_torch_twin_over_several_groups_of_rows(monkeypatch):
    monkeypatch.setattr("cllm.engine.attention.SCORES", 64)
    monkeypatch.setattr("cllm.engine.attention.QUERIES", 4)
    check_multihead(torch_twin, torch.float64, Case(5, 2, 7, 3, documents=True, p=0.2, classes=2))


small = st.builds(
    Case, st.integers(1, 3), st.integers(1, 3), st.integers(1, 20), st.integers(1, 20), st.booleans(),
    st.sampled_from([0.0, 0.4]), st.integers(0, 3), st.integers(0, 2**31), st.booleans(),
)  # fmt: skip


@pytest.mark.skipif(LEVELS[-1] not in ("baseline", "avx2", "avx512", "avx512bf16"), reason="no native kernels")
@settings(max_examples=60, deadline=None)
@given(st.sampled_from(DTYPES), small)
def test_native_any_shape(dtype, case):
    check_multihead(native_twin, dtype, case)


@at_every_level
@of_every_type
def test_same_bits_again_and_with_other_threads(level, dtype):
    x = Operands.draw(Case(2, 3, 70, 24, documents=True, p=0.1), dtype)
    threads = torch.get_num_threads()
    try:
        runs = []
        for count in (1, 1, 2):
            torch.set_num_threads(count)
            runs.append(call(native_twin, x))
    finally:
        torch.set_num_threads(threads)
    for other in runs[1:]:
        assert all(torch.equal(other[name], y) for name, y in runs[0].items())


@at_every_level
@of_every_type
def test_cached_calls_give_the_bits_of_one_call(level, dtype):
    """Queries appended in pieces of 1, 6 and 13 positions see what they see in one call of 20."""
    heads, total, width = 2, 20, 9
    x = Operands.draw(Case(2, heads, total, width), dtype)
    joint = x.qkv_N3D.reshape(2, total, -1)
    want = call(native_twin, x)
    acc, start = torch_twin.accumulator(dtype), 0
    for twin in (native_twin, torch_twin):
        cache = [torch.full((2, heads, total + 3, width), torch.nan, dtype=dtype) for _ in range(2)]
        if twin is torch_twin:
            cache = [y.to(acc) for y in cache]
        start = 0
        for count in (1, 6, 13):
            operand = dtype if twin is native_twin else acc
            part = joint[:, start : start + count].reshape(2 * count, -1).to(operand)
            out = torch.empty(2 * count, heads * width, dtype=operand)
            lse = torch.empty(2, heads, count, dtype=acc)
            scratch = twin.scratch(2, count, heads, width, keys=total + 3, backward=False, dtype=operand, device="cpu")
            twin.multihead_cached(part, *cache, out, lse, scratch, offset=start)
            whole = want["heads"].reshape(2, total, -1)[:, start : start + count]
            got = out.view(2, count, -1)
            if twin is native_twin:
                assert torch.equal(got, whole)
                assert torch.equal(lse, want["lse"][:, :, start : start + count])
            elif dtype == torch.float64:
                torch.testing.assert_close(got, whole, rtol=1e-12, atol=1e-13)
            start += count


@at_every_level
def test_dropout_masks_are_those_of_the_definition(level):
    for shape, p, site in (((1, 1, 1), 0.5, 2), ((2, 5, 11), 0.3, 3), ((3, 7, 130), 0.9, 2)):
        want, got = torch.zeros(shape, dtype=torch.bool), torch.ones(shape, dtype=torch.bool)
        key = Key(2**32 - 3, 7, first_row=4)
        torch_dropout.dropout_mask(key, p, 2, site, want)
        native_dropout.dropout_mask(key, p, 2, site, got)
        assert torch.equal(got, want)


@at_every_level
def test_misuse_is_refused(level):
    x = Operands.draw(Case(1, 1, 40, 8), torch.float32)
    lse, out = torch.empty(1, 1, 40), torch.empty(40, 8)
    small = native_twin.scratch(1, 2, 1, 8, backward=False, dtype=torch.float32, device="cpu")
    with pytest.raises(ValueError, match="scratch memory"):
        native_twin.multihead_forward(x.qkv_N3D, out, lse, small)
    right = native_twin.scratch(1, 40, 1, 8, backward=False, dtype=torch.float32, device="cpu")
    with pytest.raises(ValueError, match="contiguous rows"):
        native_twin.multihead_forward(x.qkv_N3D.double(), out, lse, right)
