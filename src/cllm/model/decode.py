"""Cached decoding: prefill a prompt, then one token at a time, through the same forward pass as training."""

from __future__ import annotations

import torch
from torch import Tensor

from cllm.engine.dispatch import select
from cllm.model.activations import Activations
from cllm.model.forward import Cache, Pass, forward
from cllm.model.model import Model

PREFILL = 64  # prompt tokens a forward pass takes at once


class Decoder:
    """A model with keys and values of what it has read.

    model: read only.  batch: sequences decoded side by side.
    `read(tokens)` appends tokens and returns the logits behind the last one. Full at `model.config.context` tokens.

    >>> from cllm.config import load
    >>> model = Model(load(preset="nano").model).initialise(seed=1)
    >>> decoder = Decoder(model)
    >>> decoder.read(torch.tensor([[10, 11, 12]])).shape, decoder.length
    (torch.Size([1, 512]), 3)
    """

    def __init__(self, model: Model, batch: int = 1) -> None:
        c = model.config
        self.model, self.batch = model, batch
        self._kernels = select(model.operand, c.activation)
        shape = (c.layers, batch, c.heads, c.context, c.head_width)
        self.cache = Cache(
            torch.zeros(shape, dtype=model.operand, device=model.device),
            torch.zeros(shape, dtype=model.operand, device=model.device),
        )
        self._acts: dict[int, Activations] = {}
        self._logits_BV = torch.empty(batch, c.vocab, dtype=model.dtype, device=model.device)

    @property
    def length(self) -> int:
        """Tokens read so far."""
        return self.cache.length

    @property
    def room(self) -> int:
        """Tokens that still fit the context."""
        return self.model.config.context - self.cache.length

    def reset(self) -> None:
        """Forget everything read; the memory stays."""
        self.cache.length = 0

    def read(self, tokens_BT: Tensor) -> Tensor:
        """Append int64 tokens [B, T ≥ 1]; returns the logits [B, V] behind the last (reused by the next call).

        Raises ValueError when they do not fit the context.
        """
        if tokens_BT.shape[0] != self.batch or not 1 <= tokens_BT.shape[1] <= self.room:
            raise ValueError(
                f"tokens of shape {tuple(tokens_BT.shape)}: expected {self.batch} rows of 1 to {self.room} tokens "
                f"(context {self.model.config.context}, {self.length} read)"
            )
        tokens_BT = tokens_BT.to(self.model.device)
        start, total = 0, tokens_BT.shape[1]
        while start < total:
            # whole blocks first, the rest token by token in one block of its own length
            count = min(PREFILL, total - start)
            hidden = self._forward(tokens_BT[:, start : start + count])
            start += count
        last = hidden.view(self.batch, count, -1)[:, -1]
        self._kernels.linear_forward(last, self.model.operands[self.model.head], None, self._logits_BV, None)
        return self._logits_BV

    def _forward(self, tokens_BT: Tensor) -> Tensor:
        count = tokens_BT.shape[1]
        if count not in self._acts:
            # lengths other than a block and a single token come once a prompt: not kept
            context = self.model.config.context
            acts = Activations(self.model, self._kernels, self.batch, count, keep=False, keys=context)
            if count in (1, PREFILL):
                self._acts[count] = acts
        else:
            acts = self._acts[count]
        positions = torch.arange(self.length, self.length + count, device=self.model.device)
        run = Pass(self.model, self._kernels, acts, cache=self.cache)
        return forward(run, tokens_BT, positions.expand(self.batch, -1))
