"""Peers from packages that may be installed: models of the same sizes, trained by the same recipe.

Rows are named by the package and the precision of autocast. Each model begins with its own random weights.
transformers' GPT-2 runs eagerly. litgpt's model is compiled, as its own pre-training does it; it has rotary positions
(it knows no table of them), all else as here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cllm.bench.peers import whole_step
from cllm.config import ModelConfig


def _transformers(package: Any, config: ModelConfig) -> _Logits:
    model: Any = package.GPT2LMHeadModel(
        package.GPT2Config(
            vocab_size=config.vocab, n_positions=config.context, n_embd=config.width, n_layer=config.layers,
            n_head=config.heads, n_inner=config.ff, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
            bos_token_id=None, eos_token_id=None, use_cache=False,
        )
    ).train()  # fmt: skip
    return _Logits(model, lambda x_BT: model(x_BT).logits)


def _litgpt(package: Any, config: ModelConfig) -> _Logits:
    model: Any = package.GPT(
        package.Config(
            block_size=config.context, vocab_size=config.vocab, padded_vocab_size=config.vocab,
            n_layer=config.layers, n_head=config.heads, n_embd=config.width, intermediate_size=config.ff,
            mlp_class_name="GptNeoxMLP", norm_class_name="LayerNorm", gelu_approximate="tanh",
            parallel_residual=False, bias=True, attn_bias=True, rotary_percentage=1.0,
        )
    ).train()  # fmt: skip
    if config.tied:
        model.lm_head.weight = model.transformer.wte.weight
    return _Logits(model, torch.compile(model))


class _Logits:
    """A model as a function from tokens [B, T] to logits [B, T, V], and its parameters."""

    def __init__(self, model: torch.nn.Module, forward: Callable[[Tensor], Tensor]) -> None:
        self.parameters, self._forward = list(model.parameters()), forward

    def __call__(self, x_BT: Tensor) -> Tensor:
        return self._forward(x_BT)


_MAKE = {"transformers bf16": _transformers, "litgpt bf16": _litgpt}
PACKAGES = tuple(_MAKE)
"""The rows that need a package."""
COMPILED = ("litgpt bf16",)
"""Those that need a C++ compiler, too."""


def package_step(name: str, config: ModelConfig, tokens_BT1: Tensor, *, lr: float, clip: float) -> Callable[[], float]:
    """One whole training step (autocast, clip, fused AdamW) of the row's model at these sizes.

    Raises ImportError when the package, or one that it needs, is not installed.
    """
    model = _MAKE[name](importlib.import_module(name.split()[0]), config)

    def mean_loss(x_BT: Tensor, y_BT: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(x_BT)
        return F.cross_entropy(logits.flatten(0, 1).float(), y_BT.flatten())

    decayed = [p for p in model.parameters if p.ndim == 2]
    others = [p for p in model.parameters if p.ndim != 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), eps=1e-8, fused=True)
    return whole_step(mean_loss, optimiser, tokens_BT1, clip)
