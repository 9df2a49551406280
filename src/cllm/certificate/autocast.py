"""What a bf16 engine is reported beside: torch's own mixed precision on the same weights and batch.

The plain model, torch.autograd under torch.autocast(bfloat16), float32 weights: matrix products and attention in
bfloat16, norms, softmax and loss as autocast chooses. Both are held against the same exact gradient.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cllm.certificate.subjects import Array, Subject
from cllm.config import lattice_options

NAME = "torch autocast bf16"


def comparable(subject: Subject) -> bool:
    """Whether the plain model is the subject's function: no dropout (its masks are ours alone), no lattice option."""
    m = subject.config.model
    return not (m.dropout or m.attention_dropout or lattice_options(m)) and subject.precision == "bfloat16"


def gradients(subject: Subject) -> dict[str, Array]:
    """The mean loss's gradients, float32, by name."""
    m, batch = subject.config.model, subject.spec_batch
    p = {name: torch.from_numpy(value).clone().requires_grad_() for name, value in subject.weights.items()}
    targets = torch.from_numpy(np.where(batch.valid_BT, batch.targets_BT, -100))
    allowed = torch.from_numpy(np.stack([batch.allowed_TT(b) for b in range(batch.rows)]))[:, None]
    approximate = "tanh" if m.activation == "gelu_tanh" else "none"
    with torch.autocast("cpu", torch.bfloat16):
        x = p["tok"][torch.from_numpy(batch.inputs_BT)] + p["pos"][torch.from_numpy(batch.positions_BT)]
        for i in range(m.layers):
            n = _norm(x, p, f"{i}.ln1")
            q, k, v = (_heads(_linear(n, p, f"{i}.attn", c), m.heads) for c in "qkv")
            o = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
            x = x + _linear(o.transpose(1, 2).flatten(2), p, f"{i}.attn", "o")
            h = F.gelu(_linear(_norm(x, p, f"{i}.ln2"), p, f"{i}.ffn", "1"), approximate=approximate)
            x = x + _linear(h, p, f"{i}.ffn", "2")
        logits = F.linear(_norm(x, p, "lnf"), p["tok" if m.tied else "head.w"])
        smoothing = subject.config.train.label_smoothing
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100, label_smoothing=smoothing)
    found = torch.autograd.grad(loss, list(p.values()))
    return {name: g.float().numpy() for name, g in zip(p, found, strict=True)}


def _linear(x: Tensor, p: dict[str, Tensor], part: str, which: str) -> Tensor:
    return F.linear(x, p[f"{part}.w{which}"], p[f"{part}.b{which}"])


def _norm(x: Tensor, p: dict[str, Tensor], name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], p[f"{name}.g"], p[f"{name}.b"], eps=1e-5)


def _heads(x: Tensor, heads: int) -> Any:
    return x.unflatten(2, (heads, -1)).transpose(1, 2)
