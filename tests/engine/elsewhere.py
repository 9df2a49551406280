"""The kernels of one device on tensors of another: so that one set of checks, with its judges on the CPU, serves both.

CLLM_TEST_DEVICE=cuda runs the tests of the CUDA kernels on a GPU; without it Triton's interpreter runs them here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields, replace
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from cllm.engine import cuda
from cllm.engine.dispatch import Kernels

DEVICE = os.environ.get("CLLM_TEST_DEVICE", "cpu")


def kernels(dtype: torch.dtype, activation: str = "gelu_tanh") -> Kernels:
    """The CUDA kernels, for tensors on the CPU."""
    found = cuda.kernels(dtype, activation)
    return found if DEVICE == "cpu" else moved(found, DEVICE)


def here(op: Callable[..., Any]) -> Callable[..., Any]:
    """An op that is not in the table, for tensors on the CPU."""
    return op if DEVICE == "cpu" else there(op, DEVICE)


def moved(table: Kernels, device: str) -> Kernels:
    """A table whose ops take CPU tensors, run on `device` and bring the results back."""
    ops = {f.name: getattr(table, f.name) for f in fields(table)}
    kept = ("name", "attention_scratch")
    changed = {name: there(op, device) for name, op in ops.items() if name not in kept}

    def scratch(*args: Any, **kwargs: Any) -> Any:
        return table.attention_scratch(*args, **kwargs | {"device": device})

    return replace(table, **changed, attention_scratch=scratch)


def there(op: Callable[..., Any], device: str) -> Callable[..., Any]:
    """Whole storages are copied, once each, and copied back: views keep their strides, and share what they shared."""

    @wraps(op)
    def call(*args: Any, **kwargs: Any) -> Any:
        copies: dict[int, tuple[Tensor, Tensor]] = {}

        def move(x: Any) -> Any:
            if isinstance(x, tuple) and type(x) is tuple:
                return tuple(map(move, x))
            if not isinstance(x, Tensor):
                return x
            storage = x.untyped_storage()
            if storage.data_ptr() not in copies:
                whole = torch.empty(0, dtype=torch.uint8).set_(storage)
                copies[storage.data_ptr()] = whole, whole.to(device, copy=True)
            copy = copies[storage.data_ptr()][1].untyped_storage()
            return torch.empty(0, dtype=x.dtype, device=device).set_(copy, x.storage_offset(), x.size(), x.stride())

        found = op(*map(move, args), **{key: move(value) for key, value in kwargs.items()})
        for whole, copy in copies.values():
            whole.copy_(copy)
        return found

    return call
