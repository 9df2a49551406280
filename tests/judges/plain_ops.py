"""Each op as the plain formula of the textbook, on torch tensors under autograd. Nothing shared with the engine."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def linear(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    y = x @ w.T
    return y if b is None else y + b


def embedding(tokens: Tensor, positions: Tensor, e: Tensor, p: Tensor) -> Tensor:
    return e[tokens] + p[positions]


def layernorm(x: Tensor, g: Tensor, b: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return g * (x - mean) / torch.sqrt(variance + 1e-5) + b


def gelu(x: Tensor, form: str) -> Tensor:
    if form == "gelu_tanh":
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def allowed_keys(documents_BT: Tensor | None, batch: int, sequence: int) -> Tensor:
    """[B, 1, T, T] bool: query i may see key j."""
    seen = torch.tensor([[j <= i for j in range(sequence)] for i in range(sequence)]).view(1, 1, sequence, sequence)
    if documents_BT is None:
        return seen.expand(batch, 1, sequence, sequence)
    return seen & (documents_BT[:, None, :, None] == documents_BT[:, None, None, :])


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    allowed: Tensor,
    keep: Tensor | None = None,
    p: float = 0.0,
    added: Tensor | None = None,
) -> Tensor:
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if added is not None:
        scores = scores + added
    a = torch.softmax(scores.masked_fill(~allowed, -math.inf), dim=-1)
    if keep is not None:
        a = a * keep / (1 - p)
    return a @ v


def dropout(x: Tensor, keep: Tensor, p: float) -> Tensor:
    return x * keep / (1 - p)


def cross_entropy(z: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Loss per row in nats; ignored rows (target −1) are 0."""
    log_p = torch.log_softmax(z, dim=-1)
    rows = []
    for row, target in zip(log_p, targets.tolist(), strict=True):
        if target < 0:
            rows.append(row.new_zeros(()))
        else:
            q = torch.full_like(row, smoothing / row.numel())
            q[target] += 1 - smoothing
            rows.append(-(q * row).sum())
    return torch.stack(rows)
