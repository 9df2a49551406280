"""The one place where a step's kernels are chosen, once, when the step is built.

`Kernels` names every op a step calls; `select` returns the set for a device and a precision. A faster set (native
CPU kernels, CUDA) is another `Kernels` value: nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from cllm.engine import adamw, attention, cross_entropy, dropout, embedding, gelu, layernorm, linear, moments


@dataclass(frozen=True)
class Kernels:
    """The ops of a step. Signatures and formulas: the module of each op."""

    name: str
    embedding_forward: Callable[..., None]
    embedding_backward: Callable[..., None]
    layernorm_forward: Callable[..., None]
    layernorm_backward: Callable[..., None]
    linear_forward: Callable[..., None]
    linear_backward_input: Callable[..., None]
    linear_backward_weight: Callable[..., None]
    attention_forward: Callable[..., None]
    attention_backward: Callable[..., None]
    activation_forward: Callable[..., None]
    activation_backward: Callable[..., None]
    dropout_mask: Callable[..., None]
    dropout_apply: Callable[..., None]
    cross_entropy_forward: Callable[..., None]
    cross_entropy_backward: Callable[..., None]
    adamw: Callable[..., None]
    sgd: Callable[..., None]
    adamw8: Callable[..., None]
    sum_of_squares: Callable[..., float]


def select(dtype: torch.dtype, activation: str = "gelu_tanh") -> Kernels:
    """The kernels for float32 or float64 tensors: torch ops, on the CPU or a GPU.

    activation: "gelu_tanh" or "gelu_erf".
    """
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"no kernels for {dtype}; float32 and float64 have them")
    tanh = activation == "gelu_tanh"
    return Kernels(
        name=f"torch-{'fp32' if dtype == torch.float32 else 'fp64'}",
        embedding_forward=embedding.embedding_forward,
        embedding_backward=embedding.embedding_backward,
        layernorm_forward=layernorm.layernorm_forward,
        layernorm_backward=layernorm.layernorm_backward,
        linear_forward=linear.linear_forward,
        linear_backward_input=linear.linear_backward_input,
        linear_backward_weight=linear.linear_backward_weight,
        attention_forward=attention.attention_forward,
        attention_backward=attention.attention_backward,
        activation_forward=gelu.gelu_tanh_forward if tanh else gelu.gelu_erf_forward,
        activation_backward=gelu.gelu_tanh_backward if tanh else gelu.gelu_erf_backward,
        dropout_mask=dropout.dropout_mask,
        dropout_apply=dropout.dropout_apply,
        cross_entropy_forward=cross_entropy.cross_entropy_forward,
        cross_entropy_backward=cross_entropy.cross_entropy_backward,
        adamw=adamw.adamw,
        sgd=adamw.sgd,
        adamw8=moments.adamw8,
        sum_of_squares=adamw.sum_of_squares,
    )
