"""The native kernels of a step through the checks of the torch ops, at every instruction level; and what only they
promise: the same bits in every run and for any number of threads, and nothing written beside the results."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from native_levels import LEVELS
from op_checks import (
    DTYPES,
    Draw,
    check_cross_entropy,
    check_dropout,
    check_embedding,
    check_gelu,
    check_layernorm,
    check_linear,
    check_linear_gelu,
)

from cllm.engine import cross_entropy as torch_cross_entropy
from cllm.engine.dispatch import select, torch_kernels

pytestmark = pytest.mark.parametrize("level", LEVELS, indirect=True)
seeds = st.integers(0, 2**31)
dtypes = st.sampled_from(DTYPES)
few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
widths = st.integers(1, 70)  # below, at and beyond the lanes of every level


def kernels(dtype, activation="gelu_tanh"):
    found = select(dtype, activation)
    assert found.name.startswith("native-")
    return found


def test_the_name_says_the_level(level):
    assert [kernels(dtype).name for dtype in DTYPES] == [f"native-{level}-{x}" for x in ("fp64", "fp32", "bf16")]


@few
@given(dtypes, seeds, st.integers(1, 70), widths, st.sampled_from([1e-2, 1.0, 30.0]), st.sampled_from([0.0, 1.0]))
@example(torch.bfloat16, 1, 131, 127, 1.0, 0.0)
@example(torch.float64, 1, 3, 1, 1.0, 0.0)  # one channel: x − μ = 0
@example(torch.float32, 1, 64 * 40, 3, 1.0, 0.0)  # more than the most blocks
def test_layernorm(level, dtype, seed, n, width, scale, shift):
    check_layernorm(kernels(dtype), dtype, seed, n, width, scale, shift)


@few
@given(dtypes, seeds, st.integers(1, 4), st.integers(1, 9), st.integers(1, 150), st.integers(1, 5), st.booleans())
@example(torch.float32, 1, 4, 9, 6, 1, False)  # one token, 36 times
def test_embedding(level, dtype, seed, b, t, width, vocab, restart):
    check_embedding(kernels(dtype), dtype, seed, b, t, width, vocab, restart)


@few
@given(
    dtypes, seeds, st.integers(1, 9), st.integers(2, 150), st.booleans(), st.sampled_from([0.0, 0.1, 0.5]),
    st.sampled_from([0.1, 3.0, 40.0]),
)  # fmt: skip
@example(torch.bfloat16, 1, 3, 1009, True, 0.1, 3.0)
def test_cross_entropy(level, dtype, seed, n, vocab, ignored, smoothing, scale):
    check_cross_entropy(kernels(dtype), dtype, seed, n, vocab, ignored, smoothing, scale)


@few
@given(dtypes, seeds, st.integers(1, 40), st.sampled_from([1e-4, 1.0, 4.0, 100.0]))
@pytest.mark.parametrize("form", ["gelu_tanh", "gelu_erf"])
def test_gelu(level, form, dtype, seed, n, scale):
    check_gelu(kernels(dtype, form), dtype, seed, n, scale, form)


@few
@given(dtypes, seeds, st.integers(1, 9), widths, widths, st.booleans(), st.booleans())
def test_linear(level, dtype, seed, n, i, o, bias, joins):
    check_linear(kernels(dtype), dtype, seed, n, i, o, bias, joins)


@few
@given(dtypes, seeds, st.integers(1, 9), widths, widths, widths)
def test_linear_with_gelu(level, dtype, seed, n, i, f, o):
    check_linear_gelu(kernels(dtype), dtype, seed, n, i, f, o)


@few
@given(dtypes, seeds, st.integers(1, 3), st.integers(1, 5), st.integers(1, 9), st.floats(0.01, 0.9))
def test_dropout(level, dtype, seed, b, t, width, p):
    check_dropout(kernels(dtype), dtype, seed, b, t, width, p, 2)


def guarded(rows: int, columns: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """A contiguous matrix in the middle of a larger buffer of 7s, and the buffer."""
    buffer = torch.full((rows * columns + 128,), 7.0, dtype=dtype)
    return buffer[64 : 64 + rows * columns].view(rows, columns), buffer


def run_all(dtype: torch.dtype) -> list[torch.Tensor]:
    """Every op of this file once, at odd sizes, into guarded results; those, with the guards checked."""
    k, d = kernels(dtype), Draw(7, dtype)
    n, width, vocab = 67, 35, 131
    found: list[torch.Tensor] = []
    buffers: list[torch.Tensor] = []

    def room(rows: int, columns: int, kind: torch.dtype, start: torch.Tensor | None = None) -> torch.Tensor:
        view, buffer = guarded(rows, columns, kind)
        view.copy_(torch.zeros(()) if start is None else start.view(rows, columns))
        found.append(view)
        buffers.append(buffer)
        return view

    x, dy, g, b = d.wide(n, width), d.normal(n, width), d.wide(width), d.wide(width)
    y, mean, rstd = room(n, width, dtype), room(n, 1, d.sums), room(n, 1, d.sums)
    k.layernorm_forward(x, g, b, y, mean, rstd)
    dx, rounded = room(n, width, d.sums, d.wide(n, width)), room(n, width, dtype)
    dg, db = room(1, width, d.sums), room(1, width, d.sums)
    k.layernorm_backward(dy, x, mean, rstd, g, dx, rounded, dg[0], db[0])
    tokens = d.ints(5, 1, n)
    e, p = d.normal(5, width), d.wide(n, width)
    k.embedding_forward(tokens, None, e, p, room(n, width, d.sums))
    k.embedding_backward(x, tokens, None, room(5, width, d.sums), room(n, width, d.sums))
    z, targets = room(n, vocab, d.sums, d.wide(n, vocab)), d.ints(vocab, n)
    loss, lse = room(1, n, d.sums), room(1, n, d.sums)
    k.cross_entropy(z, targets, 0.1, loss[0], lse[0], torch_cross_entropy.in_place(z, dtype))
    k.gelu_forward(dy, room(n, width, dtype))
    for buffer in buffers:
        assert (buffer[:64] == 7).all() and (buffer[-64:] == 7).all(), "written beside a result"
    return [x.clone() for x in found]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_bits_in_every_run_and_for_any_number_of_threads(level, dtype):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        once, twice = run_all(dtype), run_all(dtype)
        torch.set_num_threads(2)
        other = run_all(dtype)
    finally:
        torch.set_num_threads(before)
    for a, b, c in zip(once, twice, other, strict=True):
        assert torch.equal(a.view(torch.uint8), b.view(torch.uint8))
        assert torch.equal(a.view(torch.uint8), c.view(torch.uint8))


def test_nothing_is_hidden_by_the_kernels(level):
    """What is not finite stays so: the guard must see it."""
    k = kernels(torch.float32)
    z = torch.zeros(3, 40)
    z[1, 7], z[2, 8] = torch.nan, torch.inf
    loss, lse = torch.zeros(3), torch.zeros(3)
    k.cross_entropy(z, torch.tensor([0, 0, 0]), 0.0, loss, lse, z)
    assert loss.isfinite().tolist() == [True, False, False]
    x, y, one = torch.ones(2, 40), torch.zeros(2, 40), torch.ones(40)
    x[1, 3] = torch.nan
    k.layernorm_forward(x, one, one, y, torch.zeros(2, 1), torch.zeros(2, 1))
    assert y[0].isfinite().all() and y[1].isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_embedding_without_positions(level, dtype):
    k, d = kernels(dtype), Draw(3, dtype)
    tokens, e, dx = torch.tensor([[0, 2, 2]]), d.normal(4, 37), d.wide(3, 37)
    x, de = d.room(3, 37), torch.zeros(4, 37, dtype=d.sums)
    k.embedding_forward(tokens, None, e, None, x)
    k.embedding_backward(dx, tokens, None, de, None)
    assert torch.equal(x, e[tokens[0]].to(d.sums))
    assert torch.equal(de[0], dx[0]) and torch.equal(de[2], dx[1] + dx[2]) and not de[[1, 3]].any()


def test_rows_that_do_not_exist_are_refused(level):
    k = kernels(torch.float32)
    e, p, x = torch.zeros(3, 4), torch.zeros(5, 4), torch.zeros(5, 4)
    for tokens in ([[0, 1, 3, 0, 0]], [[0, 1, -1, 0, 0]]):
        with pytest.raises(IndexError, match="of a table of 3"):
            k.embedding_forward(torch.tensor(tokens), None, e, p, x)
    with pytest.raises(IndexError, match="the table has 4"):
        k.embedding_forward(torch.zeros(1, 5, dtype=torch.int64), None, e, p[:4], x)
    with pytest.raises(ValueError, match="target 9"):
        k.cross_entropy(torch.zeros(1, 9), torch.tensor([9]), 0.0, torch.zeros(1), torch.zeros(1), None)


def test_a_tensor_of_another_kind_is_refused(level):
    k = kernels(torch.float32)
    x, y = torch.zeros(2, 8), torch.zeros(2, 8)
    with pytest.raises(ValueError, match="expected a contiguous"):
        k.layernorm_forward(x[:, ::2], x[0, :4], x[0, :4], y[:, :4], torch.zeros(2, 1), torch.zeros(2, 1))
    with pytest.raises(ValueError, match="contiguous rows"):
        k.gelu_forward(x.t(), y.t())


def test_torch_and_native_are_both_there(level):
    assert torch_kernels(torch.float32).name == "torch-fp32"
