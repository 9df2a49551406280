"""The test of the tests: every wrong formula is refused by the very check that healthy kernels pass."""

from __future__ import annotations

import mutants
import pytest
import torch
from mutants import planted
from op_checks import (
    DTYPES,
    check_attention,
    check_cross_entropy,
    check_dropout,
    check_embedding,
    check_gelu,
    check_layernorm,
    check_linear,
)

from cllm.engine.dispatch import torch_kernels

# the check that the mutants of a table must fail, as k, dtype → None
CHECKS = {
    "LAYERNORM": lambda k, dtype: check_layernorm(k, dtype, 1, 5, 6, 0.1, 0.0),
    "LINEAR": lambda k, dtype: check_linear(k, dtype, 1, 7, 5, 3, True),
    "EMBEDDING": lambda k, dtype: check_embedding(k, dtype, 1, 2, 5, 6, 3, False),
    "GELU": lambda k, dtype: check_gelu(k, dtype, 1, 9, 1.0, "gelu_tanh"),
    "NOT_IN_BF16": lambda k, dtype: check_gelu(k, dtype, 1, 9, 1.0, "gelu_tanh"),
    "GELU_ERF": lambda k, dtype: check_gelu(k, dtype, 1, 9, 1.0, "gelu_erf"),
    "ATTENTION": lambda k, dtype: check_attention(k, dtype, 1, 2, 3, 5, 2, False, 0.0),
    "DOCUMENTS": lambda k, dtype: check_attention(k, dtype, 1, 2, 1, 7, 3, True, 0.0),
    "CROSS_ENTROPY": lambda k, dtype: check_cross_entropy(k, dtype, 1, 6, 7, True, 0.1, 1.0),
    "DROPOUT": lambda k, dtype: check_dropout(k, dtype, 1, 2, 3, 6, 0.3, 2),
    "ONLY_FLOAT64": lambda k, dtype: check_gelu(k, dtype, 1, 9, 1.0, "gelu_tanh"),
}
SEEN_IN = {"NOT_IN_BF16": (torch.float64, torch.float32), "ONLY_FLOAT64": (torch.float64,)}
TABLE = [
    (table, name, dtype) for table in CHECKS for name in getattr(mutants, table) for dtype in SEEN_IN.get(table, DTYPES)
]


def healthy(table, dtype):
    return torch_kernels(dtype, "gelu_erf" if table == "GELU_ERF" else "gelu_tanh")


@pytest.mark.parametrize(("table", "name", "dtype"), TABLE)
def test_the_check_refuses(table, name, dtype):
    with pytest.raises(AssertionError):
        CHECKS[table](planted(healthy(table, dtype), getattr(mutants, table)[name]), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("table", CHECKS)
def test_the_check_passes_the_healthy_kernels(table, dtype):
    CHECKS[table](healthy(table, dtype), dtype)
