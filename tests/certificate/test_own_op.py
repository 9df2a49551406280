"""gradcheck of anyone's op: torch, numpy, several precisions, wrong formulas, wrong shapes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from cllm.certificate import OpCheck, gradcheck
from cllm.errors import UsageError

EXAMPLE = Path(__file__).parents[2] / "examples" / "certify_your_kernel.py"


def formula(S, x, w):
    return S.tanh(S.mm(x, S.t(w)))


def torch_kernel(x, w):
    return torch.tanh(x @ w.T)


def torch_backward(g, x, w):
    t = torch.tanh(x @ w.T)
    d = g * (1 - t * t)
    return d @ w, d.T @ x


def numpy_kernel(x, w):
    return np.tanh(x @ w.T)


def numpy_backward(g, x, w):
    t = np.tanh(x @ w.T)
    d = g * (1 - t * t)
    return d @ w, d.T @ x


def torch_inputs(dtype=torch.float32):
    draw = torch.Generator().manual_seed(3)
    return [torch.randn(9, 6, generator=draw).to(dtype), torch.randn(4, 6, generator=draw).to(dtype)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_torch_kernel(dtype: torch.dtype) -> None:
    found = gradcheck(formula, torch_kernel, torch_backward, torch_inputs(dtype))
    assert found.ok and bool(found) and [r.entries for r in found.rows] == [36, 54, 24]
    assert "CERTIFIED  op torch_kernel" in str(found) and "PROVEN" in str(found)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_numpy_kernel(dtype: type) -> None:
    inputs = [x.numpy().astype(dtype) for x in torch_inputs()]
    assert gradcheck(formula, numpy_kernel, numpy_backward, inputs).ok


def test_autograd_stands_in_for_a_backward() -> None:
    assert gradcheck(formula, torch_kernel, None, torch_inputs(torch.float64)).ok


def test_a_broken_backward_is_named() -> None:
    def broken(g, x, w):
        return torch_backward(g, x, w)[0], (g * (1 - torch.tanh(x @ w.T))).T @ x

    found = gradcheck(formula, torch_kernel, broken, torch_inputs())
    assert not found.ok and found.bad.op == "grad of input 1" and "OUTSIDE" in str(found)


def test_a_wrong_forward_with_its_own_backward_is_found() -> None:
    """torch.autograd.gradcheck passes it."""
    inputs = [x.requires_grad_() for x in torch_inputs(torch.float64)]
    scaled = lambda x, w: torch.tanh(x @ w.T * 0.999999)  # noqa: E731
    assert torch.autograd.gradcheck(scaled, inputs)
    assert not gradcheck(formula, scaled, None, [x.detach() for x in inputs]).ok


def test_a_small_error_in_one_entry_is_found() -> None:
    for dtype, size in ((torch.float32, 1e-3), (torch.float64, 1e-11)):

        def slightly(g, x, w, size=size):
            dx, dw = torch_backward(g, x, w)
            dx[2, 3] *= 1 + size
            return dx, dw

        found = gradcheck(formula, torch_kernel, slightly, torch_inputs(dtype))
        assert not found.ok and found.bad.index == [2, 3]


def test_none_means_not_checked_and_settings_reach_the_formula() -> None:
    def scaled(S, x, w, *, c):
        return S.scale(formula(S, x, w), c)

    found = gradcheck(
        scaled, lambda x, w: 3 * torch_kernel(x, w), lambda g, x, w: (None, 3 * torch_backward(g, x, w)[1]),
        torch_inputs(), settings={"c": 3},
    )  # fmt: skip
    assert found.ok and [r.op for r in found.rows] == ["result", "grad of input 1"]


def test_what_does_not_fit_is_said() -> None:
    x, w = torch_inputs()
    with pytest.raises(UsageError, match="one precision"):
        gradcheck(formula, torch_kernel, torch_backward, [x, w.double()])
    with pytest.raises(UsageError, match="one precision"):
        gradcheck(formula, torch_kernel, torch_backward, [[1.0], w])
    with pytest.raises(UsageError, match="returned 1 arrays for 2 inputs"):
        gradcheck(formula, torch_kernel, lambda g, x, w: (g,), [x, w])
    with pytest.raises(UsageError, match="the kernel gives"):
        gradcheck(formula, lambda x, w: torch_kernel(x, w)[:3], torch_backward, [x, w])
    with pytest.raises(UsageError, match="one array"):
        gradcheck(lambda S, x, w: (x, w), torch_kernel, torch_backward, [x, w])


def test_the_example() -> None:
    specification = importlib.util.spec_from_file_location("certify_your_kernel", EXAMPLE)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    good, bad = module.softsign(), module.broken()
    assert isinstance(good, OpCheck)
    assert gradcheck(good.forward, good.kernel, good.kernel_backward, good.inputs).ok
    assert gradcheck(bad.forward, bad.kernel, bad.kernel_backward, bad.inputs).bad.op == "grad of input 0"
