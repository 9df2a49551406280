"""Each op, forward and backward, against autograd of the plain formula, within the a priori bound of its algorithm."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from op_checks import (
    DTYPES,
    check_attention,
    check_cross_entropy,
    check_dropout,
    check_embedding,
    check_gelu,
    check_layernorm,
    check_linear,
    check_linear_gelu,
)

from cllm.engine.attention import QUERIES
from cllm.engine.dispatch import torch_kernels
from cllm.engine.philox import normal, philox, words
from judges.philox_reference import KNOWN
from judges.philox_reference import philox as reference

seeds = st.integers(0, 2**31)
dtypes = st.sampled_from(DTYPES)
few = settings(max_examples=40, deadline=None)
sizes = st.integers(1, 9)


@few
@given(dtypes, seeds, sizes, st.integers(1, 17), sizes, st.booleans(), st.booleans())
@example(torch.float32, 1, 300, 6, 70, True, True)
def test_linear(dtype, seed, n, i, o, bias, joins):
    check_linear(torch_kernels(dtype), dtype, seed, n, i, o, bias, joins)


@few
@given(dtypes, seeds, sizes, sizes, sizes, sizes)
def test_linear_with_gelu(dtype, seed, n, i, f, o):
    check_linear_gelu(torch_kernels(dtype), dtype, seed, n, i, f, o)


@few
@given(dtypes, seeds, st.integers(1, 4), sizes, st.integers(1, 7), st.integers(1, 5), st.booleans())
@example(torch.float32, 1, 4, 9, 6, 1, False)  # one token, 36 times
def test_embedding(dtype, seed, b, t, width, vocab, restart):
    check_embedding(torch_kernels(dtype), dtype, seed, b, t, width, vocab, restart)


@few
@given(dtypes, seeds, sizes, st.integers(2, 13), st.sampled_from([1e-2, 1.0, 30.0]), st.sampled_from([0.0, 1.0]))
@example(torch.float64, 1, 70000 // 6, 6, 1.0, 0.0)  # several blocks of rows
@example(torch.float64, 1, 3, 1, 1.0, 0.0)  # one channel: x − μ = 0
def test_layernorm(dtype, seed, n, width, scale, shift):
    check_layernorm(torch_kernels(dtype), dtype, seed, n, width, scale, shift)


@few
@given(dtypes, seeds, st.integers(1, 40), st.sampled_from([1e-4, 1.0, 4.0, 100.0]))
@pytest.mark.parametrize("form", ["gelu_tanh", "gelu_erf"])
def test_gelu(form, dtype, seed, n, scale):
    check_gelu(torch_kernels(dtype, form), dtype, seed, n, scale, form)


@pytest.mark.parametrize("form", ["gelu_tanh", "gelu_erf"])
def test_gelu_of_huge_values_has_the_slopes_0_and_1(form):
    x = torch.tensor([[1e14], [-1e14], [1e30], [-1e30]])
    y, dx, one = torch.empty_like(x), torch.empty_like(x), torch.ones(1, 1)
    k = torch_kernels(torch.float32, form)
    k.gelu_forward(x, y)
    k.linear_gelu_backward_input(torch.ones_like(x), one, x, dx)
    assert torch.equal(y, x.clamp_min(0)) and dx[:, 0].tolist() == [1.0, 0.0, 1.0, 0.0]


def test_gelu_takes_every_block():
    check_gelu(torch_kernels(torch.float32), torch.float32, 1, 3 << 15, 1.0, "gelu_tanh")


@few
@given(
    dtypes, seeds, st.integers(1, 3), st.integers(1, 3), sizes, st.integers(1, 5), st.booleans(),
    st.sampled_from([0.0, 0.0, 0.3]),
)  # fmt: skip
@example(torch.float64, 1, 2, 2, 1, 3, False, 0.0)  # T = 1
@example(torch.float32, 1, 1, 1, 7, 5, False, 0.0)  # one head, odd T
@example(torch.float64, 3, 2, 1, 9, 2, True, 0.3)
def test_attention(dtype, seed, b, h, t, width, documents, p):
    check_attention(torch_kernels(dtype), dtype, seed, b, h, t, width, documents, p)


@pytest.mark.parametrize("documents", [False, True])
def test_attention_over_several_blocks_of_queries(documents):
    check_attention(torch_kernels(torch.float64), torch.float64, 5, 2, 1, 2 * QUERIES + 3, 3, documents, 0.0)


def test_attention_over_several_blocks_of_rows(monkeypatch):
    monkeypatch.setattr("cllm.engine.attention.SCORES", 64)
    monkeypatch.setattr("cllm.engine.attention.QUERIES", 4)
    check_attention(torch_kernels(torch.float64), torch.float64, 5, 5, 2, 7, 3, True, 0.2)


@few
@given(
    dtypes, seeds, sizes, st.integers(2, 12), st.booleans(), st.sampled_from([0.0, 0.1, 0.5]),
    st.sampled_from([0.1, 3.0, 40.0]),
)  # fmt: skip
def test_cross_entropy(dtype, seed, n, vocab, ignored, smoothing, scale):
    check_cross_entropy(torch_kernels(dtype), dtype, seed, n, vocab, ignored, smoothing, scale)


@few
@given(
    dtypes,
    seeds,
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(1, 9),
    st.floats(0.01, 0.9),
    st.sampled_from([2, 3]),
)
def test_dropout(dtype, seed, b, t, width, p, site):
    check_dropout(torch_kernels(dtype), dtype, seed, b, t, width, p, site)


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_philox_gives_random123_known_answers(counter, key, output):
    assert reference(key, counter) == output
    got = philox(key, tuple(torch.tensor([c]) for c in counter))
    assert tuple(int(x) for x in got) == output


def test_normal_values_are_pure_in_key_stream_and_index():
    long = normal((9, 0), 4, 70001)
    assert torch.equal(normal((9, 0), 4, 11), long[:11])
    assert not torch.equal(normal((9, 0), 5, 11), long[:11])
    # mean and variance within 5 standard errors; Kolmogorov–Smirnov within its 1e-6 quantile
    n = long.numel()
    assert abs(long.mean()) < 5 / n**0.5
    assert abs(long.var() - 1) < 5 * (2 / n) ** 0.5
    cdf = 0.5 * (1 + torch.erf(long.sort().values / 2**0.5))
    assert (cdf - torch.arange(n) / n).abs().max() < 2.7 / n**0.5


def test_words_of_many_channels_are_those_of_few():
    rows = torch.tensor([3, 4])
    many = words((1, 2), 11, torch.tensor([5, 6]), rows, 77)
    assert torch.equal(words((1, 2), 3, torch.tensor([5, 6]), rows, 77), many[:, :3])


def test_select_refuses_a_precision_without_kernels():
    with pytest.raises(ValueError, match="float16"):
        torch_kernels(torch.float16)
