"""The model: a configuration and its parameters in one flat buffer.

In bf16 the parameters themselves (the master weights) are float32, and the matrices have a copy rounded to bfloat16,
which is what the kernels multiply by: the function that a bf16 model computes is the one at the rounded matrices.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from cllm.config import ModelConfig
from cllm.engine.buffers import Flat
from cllm.engine.compact import Mixed, Split
from cllm.engine.philox import normal
from cllm.engine.precision import accumulation
from cllm.model.layout import MATRIX, layout

INIT_STD = 0.02
Weights = Flat | Split
Operands = Flat | Mixed


class Model:
    """Parameters with their shapes. `model.params["0.attn.wq"]` is a view of `model.params.data`.

    dtype: torch.float32, torch.float64 or torch.bfloat16 (float32 parameters, rounded matrices in `operands`).
    device: "cpu", "cuda", or "meta" (shapes without memory).
    split: keep the matrices as a split master (engine/split.py): `params` is then a `Split`.
    The parameters are zero until `initialise` or `load`.
    """

    def __init__(
        self,
        config: ModelConfig,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        *,
        split: bool = False,
    ) -> None:
        self.config = config
        self.layout = layout(config)
        self.operand = dtype
        self.params: Weights = (
            Split(self.layout, lambda entry: entry.group == MATRIX, device)
            if split
            else Flat(self.layout, accumulation(dtype), device)
        )
        self._rounded: Flat | None = None
        self._rounded_at = -1

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters; `operand` is that of the matrices in products."""
        return self.params.dtype

    @property
    def operands(self) -> Operands:
        """The matrices as the kernels take them: `params` itself, or in bf16 their rounded copy, made afresh when the
        parameters were written to since (through any view of theirs)."""
        if isinstance(self.params, Split):
            return self.params.operands
        if self.operand == self.dtype:
            return self.params
        if self._rounded is None:
            self._rounded = Flat(self.layout.only(lambda entry: entry.group == MATRIX), self.operand, self.device)
        if self._rounded_at != (now := self.params.data._version):
            self._rounded.data.copy_(self.params.segment(MATRIX))
            self._rounded_at = now
        return self._rounded

    def rounded(self) -> None:
        """Say that the parameters were just written, and the rounded copy with them (by an optimiser's kernel)."""
        assert isinstance(self.params, Flat)
        self._rounded_at = self.params.data._version

    @property
    def operand_bytes(self) -> int:
        """Bytes of the rounded copy."""
        if self.operand == self.dtype or isinstance(self.params, Split):
            return 0
        start, stop = self.layout.segments[MATRIX]
        return (stop - start) * self.operand.itemsize

    @property
    def device(self) -> torch.device:
        return self.params.device

    def initialise(self, seed: int) -> Model:
        """N(0, 0.02²) for matrices and positions, Wo and W2 divided by √(2L), biases 0, γ = 1 (GPT-2's rule).

        A pure function of (seed, tensor, index): the same in every precision up to its rounding.
        """
        shrink = 1.0 / math.sqrt(2 * self.config.layers)
        for stream, entry in enumerate(self.layout.entries):
            name, value = entry.name, torch.zeros(entry.shape, dtype=self.dtype)
            if name.endswith(".g"):
                value.fill_(1.0)
            elif value.dim() > 1:
                std = INIT_STD * (shrink if name.endswith((".wo", ".w2")) else 1.0)
                value.copy_((normal((seed, 0), stream, value.numel()) * std).view_as(value))
            self.params.put(name, value)
        return self

    def load(self, weights: dict[str, Tensor]) -> Model:
        """Copy named tensors in. Raises ValueError for a missing, unknown or misshapen tensor."""
        missing, unknown = self.params.keys() - weights.keys(), weights.keys() - self.params.keys()
        if missing or unknown:
            raise ValueError(f"tensors missing: {sorted(missing)[:5]}, unknown: {sorted(unknown)[:5]}")
        for entry in self.layout.entries:
            if weights[entry.name].shape != entry.shape:
                raise ValueError(f"{entry.name}: got {tuple(weights[entry.name].shape)}, expected {entry.shape}")
            self.params.put(entry.name, weights[entry.name])
        return self

    def with_params(self, params: Weights) -> Model:
        """The same network over another flat buffer of the same layout (a moving average, say); shares its memory."""
        other = copy.copy(self)
        other.params, other._rounded, other._rounded_at = params, None, -1
        return other

    @property
    def head(self) -> str:
        """The name of the output matrix: the token embedding itself when tied."""
        return "tok" if self.config.tied else "head.w"
