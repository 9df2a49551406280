"""exp, tanh and erf of the native header against mpmath, at every instruction level of this machine."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from native_levels import LEVELS

from cllm.engine.native import INT, POINTER, SUFFIX, function

ULPS = {"exp": 1.0, "tanh": 2.0, "erf": 2.0}  # what vectormath.hpp states
DTYPES = {torch.float32: np.float32, torch.float64: np.float64}
LIMITS = {"exp": (0.0, math.inf), "tanh": (-1.0, 1.0), "erf": (-1.0, 1.0)}


def apply(name: str, x: torch.Tensor) -> torch.Tensor:
    y = torch.full((x.numel() + 2,), 7.0, dtype=x.dtype)
    function(f"{name}_{SUFFIX[x.dtype]}", INT, POINTER, POINTER)(x.numel(), x.data_ptr(), y[1:].data_ptr())
    assert y[0] == y[-1] == 7.0, "written outside"
    return y[1:-1].clone()


def arguments(name: str, dtype: torch.dtype) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    scale = 30.0 if name == "exp" else 2.0
    parts = [
        torch.randn(1500, generator=g, dtype=torch.float64) * scale,
        torch.linspace(-1.2, 1.2, 601, dtype=torch.float64),
        torch.logspace(-36, 0, 50, dtype=torch.float64),
    ]
    if name == "exp":  # to the largest number, and down through the denormal ones
        low, high = (-103.5, 88.7) if dtype == torch.float32 else (-744.9, 709.7)
        parts += [torch.linspace(low, low * 0.85, 300, dtype=torch.float64), torch.tensor([high], dtype=torch.float64)]
    return torch.cat(parts).to(dtype)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ULPS)
def test_error_in_ulps(level, name, dtype):
    x = arguments(name, dtype)
    y = apply(name, x)
    with mpmath.workprec(150):
        for a, b in zip(x.tolist(), y.tolist(), strict=True):
            true = getattr(mpmath, name)(mpmath.mpf(a))
            ulp = mpmath.mpf(float(np.spacing(DTYPES[dtype](abs(float(true))))))
            assert abs(mpmath.mpf(b) - true) <= ULPS[name] * ulp, (a, b)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ULPS)
def test_limits_signs_and_nan(level, name, dtype):
    x = torch.tensor([-math.inf, -1e4, 1e4, math.inf, math.nan, 0.0, -0.0], dtype=dtype)
    y = apply(name, x).tolist()
    low, high = LIMITS[name]
    assert y[:4] == [low, low, high, high] and math.isnan(y[4])
    assert y[5:] == ([1.0, 1.0] if name == "exp" else [0.0, 0.0])


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ULPS)
def test_an_element_does_not_depend_on_its_place(level, name, dtype):
    x = torch.linspace(-3, 3, 67, dtype=torch.float64).to(dtype)
    whole = apply(name, x)
    for start, stop in ((0, 1), (5, 12), (31, 67), (66, 67)):
        assert torch.equal(apply(name, x[start:stop].clone()), whole[start:stop])
