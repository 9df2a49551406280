"""Peers from packages that may be installed: the same sizes as transformers' GPT-2, trained by the same recipe."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cllm.bench.peers import whole_step
from cllm.config import ModelConfig

PACKAGES = ("transformers bf16",)
"""Rows that need a package: its name, and the precision of autocast."""


def package_step(name: str, config: ModelConfig, tokens_BT1: Tensor, *, lr: float, clip: float) -> Callable[[], float]:
    """One whole training step of the package's own model at these sizes (its own random weights), eager, autocast."""
    package = importlib.import_module(name.split()[0])
    model: Any = package.GPT2LMHeadModel(
        package.GPT2Config(
            vocab_size=config.vocab, n_positions=config.context, n_embd=config.width, n_layer=config.layers,
            n_head=config.heads, n_inner=config.ff, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
            bos_token_id=None, eos_token_id=None, use_cache=False,
        )
    ).train()  # fmt: skip

    def mean_loss(x_BT: Tensor, y_BT: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(x_BT).logits
        return F.cross_entropy(logits.flatten(0, 1).float(), y_BT.flatten())

    decayed = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), eps=1e-8, fused=True)
    return whole_step(mean_loss, optimiser, tokens_BT1, clip)
