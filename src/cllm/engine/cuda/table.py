"""The ops of a step on a CUDA device."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from cllm.engine.cuda import adamw, attention, cross_entropy, dropout, embedding, gelu, layernorm, linear
from cllm.engine.dispatch import Kernels, torch_kernels
from cllm.engine.precision import LABELS


def kernels(operand: torch.dtype, activation: str = "gelu_tanh") -> Kernels:
    """As `dispatch.torch_kernels`, which gives those that are not replaced here: rope, SGD, 8-bit moments, …"""
    linear.exact_sums()
    return replace(
        torch_kernels(operand, activation),
        name=f"cuda-{LABELS[operand]}",
        embedding_forward=embedding.embedding_forward,
        embedding_backward=embedding.embedding_backward,
        layernorm_forward=layernorm.layernorm_forward,
        layernorm_backward=layernorm.layernorm_backward,
        linear_forward=linear.linear_forward,
        linear_norm_forward=layernorm.linear_norm_forward,
        linear_gelu_forward=partial(gelu.linear_gelu_forward, form=activation),
        linear_backward_input=linear.linear_backward_input,
        linear_gelu_backward_input=partial(gelu.linear_gelu_backward_input, form=activation),
        linear_backward_weight=linear.linear_backward_weight,
        gelu_forward=partial(gelu.gelu_forward, form=activation),
        attention_scratch=attention.scratch,
        attention_forward=attention.multihead_forward,
        attention_cached=attention.multihead_cached,
        attention_backward=attention.multihead_backward,
        dropout_mask=dropout.dropout_mask,
        cross_entropy=cross_entropy.cross_entropy,
        adamw=adamw.adamw,
        adamw_on_device=adamw.adamw_on_device,
        sum_of_squares=adamw.sum_of_squares,
    )
