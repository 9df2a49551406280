"""The one place where a step's kernels are chosen, once, when the step is built.

`Kernels` names every op a step calls; `select` returns the set for a device and a precision. A faster set (native
CPU kernels, CUDA) is another `Kernels` value: nothing else changes.

Precisions (`engine/precision.py`): *operands* enter matrix products: matrices, normed activations, qkv, the heads, the
feed-forward activations and the gradients of all these. *Sums* (the residual stream x and its gradient, statistics,
biases, gains, logits, losses, gradients of parameters) are float32 for bfloat16 operands, else of the same type.
2-D operands have contiguous rows and may have a longer distance between rows (`Arena.wide`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cllm.engine import (
    adamw,
    attention,
    cross_entropy,
    cuda,
    dropout,
    embedding,
    gelu,
    layernorm,
    linear,
    moments,
    native,
    rope,
    rounded,
)
from cllm.engine.native import adamw as native_adamw
from cllm.engine.native import attention as native_attention
from cllm.engine.native import cross_entropy as native_cross_entropy
from cllm.engine.native import dropout as native_dropout
from cllm.engine.native import embedding as native_embedding
from cllm.engine.native import gelu as native_gelu
from cllm.engine.native import gemm
from cllm.engine.native import layernorm as native_layernorm
from cllm.engine.native import moments as native_moments
from cllm.engine.native import rounded as native_rounded
from cllm.engine.precision import LABELS

Op = Callable[..., None]


@dataclass(frozen=True)
class Kernels:
    """The ops of a step. Formulas: the module of each op; o = operand, s = sum precision.

    name: "<path>-<precision>", as in torch-fp32 or native-avx512bf16-bf16.
    embedding_forward(tokens_BT, positions_BT | None, e_VD o, p_SD s, x_ND s)
    embedding_backward(dx_ND s, tokens_BT, positions_BT | None, de_VD s +=, dp_SD s +=)
    layernorm_forward(x_ND s, g_D s, b_D s, y_ND o, mean_N1 s, rstd_N1 s)
    layernorm_backward(dy_ND o, x_ND s, mean, rstd, g_D s, dx_ND s +=, rounded_ND o | None, dg_D s +=, db_D s +=)
    linear_forward(x_NI o, w_OI o, b_O s | None, y_NO o | s, residual_NO s | None)
    linear_norm_forward(x_NI o, w_OI o, b_O s, residual_NO s, out_NO s, g_O s, shift_O s, y_NO o, mean_N1 s, rstd_N1 s):
        out = residual + X·Wᵀ + b, and y the layer norm of that; None where no kernel joins the two
    linear_gelu_forward(x_NI o, w_FI o, b_F s, pre_NF o, post_NF o)
    linear_backward_input(dy_NO o, w_OI o, dx_NI o)
    linear_gelu_backward_input(dy_NO o, w_OF o, pre_NF o, dpre_NF o)
    linear_backward_weight(dy_NO o, x_NI o, dw_OI s +=, db_O s | None +=, *, add=True); add=False: dw is written
    narrow_gradients: whether it also takes a bfloat16 dw, added to in float32 and rounded once, and soon=True where dw
        is read at once
    gelu_forward(pre_NF o, post_NF o): to recompute an activation that was not kept
    attention_scratch(batch, sequence, heads, head_width, *, keys, backward, dtype o, device): an object with `bytes`
    attention_forward(qkv_N3D o, heads_ND o, lse_BHT s, scratch, *, documents_BT, dropout, bias)
    attention_cached(qkv_N3D o, k_BHSK o, v_BHSK o, heads_ND o, lse_BHT s, scratch, *, offset, bias)
    attention_backward(dheads_ND o, qkv_N3D o, heads_ND o, lse s, dqkv_N3D o, scratch, *, documents_BT, dropout, bias,
        dbias_CC s +=)
    rope(qkv_N3D o, cos_SJ s, sin_SJ s, positions_BT | None, *, shape, interleaved, inverse): engine/rope.py
    dropout_mask(key, p, layer, site, mask_BTD)       dropout_apply(x_ND s, mask_ND, p, y_ND o | s)
    cross_entropy(z_RV s, targets_R, smoothing, loss_R s, lse_R s, dz_RV o | None)
    adamw, sgd, sum_of_squares: on flat segments, engine/adamw.py; adamw8: engine/moments.py
    adamw_on_device, squares_on_device: the same with a step's numbers on the device, where the host need not wait
    add_rounded, scatter_rounded: sums into bfloat16, engine/rounded.py
    """

    name: str
    embedding_forward: Op
    embedding_backward: Op
    layernorm_forward: Op
    layernorm_backward: Op
    linear_forward: Op
    linear_gelu_forward: Op
    linear_backward_input: Op
    linear_gelu_backward_input: Op
    linear_backward_weight: Op
    gelu_forward: Op
    attention_scratch: Callable[..., Any]
    attention_forward: Op
    attention_cached: Op
    attention_backward: Op
    rope: Op
    dropout_mask: Op
    dropout_apply: Op
    cross_entropy: Op
    adamw: Op
    sgd: Op
    adamw8: Op
    sum_of_squares: Callable[..., float]
    adamw_on_device: Op
    squares_on_device: Callable[..., Tensor]
    add_rounded: Op
    scatter_rounded: Op
    linear_norm_forward: Op | None = None
    narrow_gradients: bool = False


def torch_kernels(operand: torch.dtype, activation: str = "gelu_tanh") -> Kernels:
    """The kernels for operands of this precision (float32, float64 or bfloat16) on torch ops, on the CPU or a GPU.

    activation: "gelu_tanh" or "gelu_erf".
    """
    if operand not in LABELS:
        raise ValueError(f"no kernels for {operand}; float32, float64 and bfloat16 have them")
    tanh = activation == "gelu_tanh"
    forward = gelu.gelu_tanh_forward if tanh else gelu.gelu_erf_forward
    return Kernels(
        name=f"torch-{LABELS[operand]}",
        embedding_forward=embedding.embedding_forward,
        embedding_backward=embedding.embedding_backward,
        layernorm_forward=layernorm.layernorm_forward,
        layernorm_backward=layernorm.layernorm_backward,
        linear_forward=linear.linear_forward,
        linear_gelu_forward=gelu.fused_forward(forward),
        linear_backward_input=linear.linear_backward_input,
        linear_gelu_backward_input=gelu.fused_backward(gelu.gelu_tanh_backward if tanh else gelu.gelu_erf_backward),
        linear_backward_weight=linear.linear_backward_weight,
        gelu_forward=forward,
        attention_scratch=attention.scratch,
        attention_forward=attention.multihead_forward,
        attention_cached=attention.multihead_cached,
        attention_backward=attention.multihead_backward,
        rope=rope.rope,
        dropout_mask=dropout.dropout_mask,
        dropout_apply=dropout.dropout_apply,
        cross_entropy=cross_entropy.cross_entropy,
        adamw=adamw.adamw,
        sgd=adamw.sgd,
        adamw8=moments.adamw8,
        sum_of_squares=adamw.sum_of_squares,
        adamw_on_device=adamw.adamw_on_device,
        squares_on_device=adamw.squares_on_device,
        add_rounded=rounded.add_rounded,
        scatter_rounded=rounded.scatter_rounded,
    )


def select(operand: torch.dtype, activation: str = "gelu_tanh", device: torch.device | str = "cpu") -> Kernels:
    """The fastest kernels there are for operands of this precision: native ones on a CPU, where they were built,
    Triton's on a CUDA device, where it is installed.

    Arguments as of `torch_kernels`; `cllm.native.why_not("engine", "engine")` and `cllm.engine.cuda.why_not()` say why
    a device runs on torch ops.
    """
    if torch.device(device).type == "cuda" and cuda.available():
        return cuda.kernels(operand, activation)
    kernels = torch_kernels(operand, activation)
    if torch.device(device).type not in ("cpu", "meta") or not native.available():
        return kernels
    return replace(
        kernels,
        name=f"native-{native.level()}-{LABELS[operand]}",
        embedding_forward=native_embedding.embedding_forward,
        embedding_backward=native_embedding.embedding_backward,
        layernorm_forward=native_layernorm.layernorm_forward,
        layernorm_backward=native_layernorm.layernorm_backward,
        linear_forward=gemm.linear_forward,
        linear_gelu_forward=partial(gemm.linear_gelu_forward, form=activation),
        linear_backward_input=gemm.linear_backward_input,
        linear_gelu_backward_input=partial(gemm.linear_gelu_backward_input, form=activation),
        linear_backward_weight=gemm.linear_backward_weight,
        narrow_gradients=operand == torch.bfloat16,
        gelu_forward=partial(native_gelu.gelu_forward, form=activation),
        attention_scratch=native_attention.scratch,
        attention_forward=native_attention.multihead_forward,
        attention_cached=native_attention.multihead_cached,
        attention_backward=native_attention.multihead_backward,
        dropout_mask=native_dropout.dropout_mask,
        cross_entropy=native_cross_entropy.cross_entropy,
        adamw=native_adamw.adamw,
        sgd=native_adamw.sgd,
        adamw8=native_moments.adamw8,
        sum_of_squares=native_adamw.sum_of_squares,
        add_rounded=native_rounded.add_rounded,
        scatter_rounded=native_rounded.scatter_rounded,
    )
