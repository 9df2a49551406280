"""Cached decoding: prefill a prompt through the forward pass of training, then one token at a time.

A single token goes through one native call where there is one (engine/native/decode.py), else through the same
forward pass. Weights may be narrower than the model's: bf16, or int8 with a scale a row (engine/quantise.py);
activations, sums and the cache are then float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cllm.config import ModelConfig, has_symmetry_bias
from cllm.engine import native
from cllm.engine.dispatch import select
from cllm.engine.native.decode import MOST, Network
from cllm.model.activations import Activations
from cllm.model.forward import Cache, Pass, forward, joined_bias, joined_qkv, position_table
from cllm.model.model import Model
from cllm.model.narrow import own_kind, with_weights

PREFILL = 64  # prompt tokens a forward pass takes at once


class Decoder:
    """A model with keys and values of what it has read.

    model: read only.  batch: sequences decoded side by side.
    weights: fp32, bf16 or int8; default: those that the model itself computes with.
    `read(tokens)` appends tokens and returns the logits behind the last one. Full at `model.config.context` tokens.

    >>> from cllm.config import load
    >>> model = Model(load(preset="nano").model).initialise(seed=1)
    >>> decoder = Decoder(model)
    >>> decoder.read(torch.tensor([[10, 11, 12]])).shape, decoder.length
    (torch.Size([1, 512]), 3)
    """

    def __init__(self, model: Model, batch: int = 1, weights: str | None = None) -> None:
        c, kind = model.config, weights or own_kind(model)
        fast = batch <= MOST and _plain(c) and model.dtype == torch.float32 and model.device.type == "cpu"
        fast = fast and native.available()
        self.model = model if weights is None and not fast else with_weights(model, kind)
        self.batch, operand = batch, self.model.operand
        self._kernels = select(operand, c.activation, model.device)
        shape = (c.layers, batch, c.heads, c.context, c.head_width)
        self.cache = Cache(
            torch.zeros(shape, dtype=operand, device=model.device),
            torch.zeros(shape, dtype=operand, device=model.device),
        )
        if self.model.symmetry is not None:
            self.cache.classes_BS = torch.zeros(batch, c.context, dtype=torch.uint8, device=model.device)
        self._acts: dict[int, Activations] = {}
        self._logits_BV = torch.empty(batch, c.vocab, dtype=model.dtype, device=model.device)
        self._network = self._native(kind) if fast else None

    @property
    def length(self) -> int:
        """Tokens read so far."""
        return self.cache.length

    @property
    def room(self) -> int:
        """Tokens that still fit the context."""
        return self.model.config.context - self.cache.length

    @property
    def weight_bytes(self) -> int | None:
        """Bytes of the matrices that a token reads, where the native call does it."""
        return self._network.matrix_bytes if self._network is not None else None

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
        if total == 1 and self._network is not None:
            self._network.token(tokens_BT[:, 0].contiguous(), self.length, self._logits_BV)
            self.cache.length += 1
            return self._logits_BV
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

    def _native(self, kind: str) -> Network:
        """The same network for one token at a time. Narrowing what is narrow already gives the same values again."""
        p, c = self.model.params, self.model.config
        rest = ("ln1.g", "ln1.b", "ln2.g", "ln2.b", "attn.wo", "attn.bo", "ffn.w1", "ffn.b1", "ffn.w2", "ffn.b2")
        layers = [
            {"wqkv": joined_qkv(self.model.operands, i), "bqkv": joined_bias(p, i)}
            | {name.split(".")[1] if name[0] != "l" else name: p[f"{i}.{name}"] for name in rest}
            for i in range(c.layers)
        ]
        mix = torch.empty(c.context, c.width, dtype=self.model.dtype) if c.positions == "mix" else None
        ends = p["tok"], position_table(self.model, mix), (p["lnf.g"], p["lnf.b"]), p[self.model.head]
        return Network(
            kind, layers, *ends, self.cache.k_LBHSK, self.cache.v_LBHSK, erf=c.activation == "gelu_erf"
        )  # fmt: skip


def _plain(c: ModelConfig) -> bool:
    """Whether the network is one that the native call knows: positions by a table, attention without a bias."""
    return c.positions != "rope" and not has_symmetry_bias(c) and not c.lattice_transform
