"""A model with narrower weights, for inference."""

from __future__ import annotations

import copy

import torch

from cllm.engine.buffers import Flat
from cllm.engine.quantise import KINDS, narrowed
from cllm.errors import UsageError, closest
from cllm.model.layout import MATRIX
from cllm.model.model import Model


def own_kind(model: Model) -> str:
    """The weights a model computes with by itself: bf16 where its products take bfloat16, else fp32."""
    return "bf16" if model.operand == torch.bfloat16 else "fp32"


def with_weights(model: Model, kind: str) -> Model:
    """The model whose matrices hold the values that `kind` (fp32, bf16 or int8) can store.

    Biases, norms and positions stay, and so does the arithmetic: products in the parameters' own type. This is what
    narrow weights compute, not what they save. The model itself where it is that already.
    """
    if kind not in KINDS:
        raise UsageError(f'weights: expected {", ".join(KINDS)}, got "{kind}"{closest(kind, KINDS)}')
    if kind == "fp32" and model.operand == model.dtype and isinstance(model.params, Flat):
        return model
    params = Flat(model.layout, model.dtype, model.device)
    for entry in model.layout.entries:
        value = model.params[entry.name]
        params[entry.name].copy_(narrowed(value, kind) if entry.group == MATRIX else value)
    other = copy.copy(model).with_params(params)
    other.operand = model.dtype
    return other
