"""The model: a configuration and its parameters in one flat buffer."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from cllm.config import ModelConfig
from cllm.engine.buffers import Flat
from cllm.engine.philox import normal
from cllm.model.layout import layout

INIT_STD = 0.02


class Model:
    """Parameters with their shapes. `model.params["0.attn.wq"]` is a view of `model.params.data`.

    dtype: torch.float32 or torch.float64.  device: "cpu", "cuda", or "meta" (shapes without memory).
    The parameters are zero until `initialise` or `load`.
    """

    def __init__(
        self, config: ModelConfig, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> None:
        self.config = config
        self.layout = layout(config)
        self.params = Flat(self.layout, dtype, device)

    @property
    def dtype(self) -> torch.dtype:
        return self.params.data.dtype

    @property
    def device(self) -> torch.device:
        return self.params.data.device

    def initialise(self, seed: int) -> Model:
        """N(0, 0.02²) for matrices and positions, Wo and W2 divided by √(2L), biases 0, γ = 1 (GPT-2's rule).

        A pure function of (seed, tensor, index): the same in every precision up to its rounding.
        """
        shrink = 1.0 / math.sqrt(2 * self.config.layers)
        for stream, (name, view) in enumerate(self.params.items()):
            if name.endswith(".g"):
                view.fill_(1.0)
            elif view.dim() == 1:
                view.zero_()
            else:
                std = INIT_STD * (shrink if name.endswith((".wo", ".w2")) else 1.0)
                view.copy_((normal((seed, 0), stream, view.numel()) * std).view_as(view))
        return self

    def load(self, weights: dict[str, Tensor]) -> Model:
        """Copy named tensors in. Raises ValueError for a missing, unknown or misshapen tensor."""
        missing, unknown = self.params.keys() - weights.keys(), weights.keys() - self.params.keys()
        if missing or unknown:
            raise ValueError(f"tensors missing: {sorted(missing)[:5]}, unknown: {sorted(unknown)[:5]}")
        for name, view in self.params.items():
            if weights[name].shape != view.shape:
                raise ValueError(f"{name}: got {tuple(weights[name].shape)}, expected {tuple(view.shape)}")
            view.copy_(weights[name])
        return self

    def with_params(self, params: Flat) -> Model:
        """The same network over another flat buffer of the same layout (a moving average, say); shares its memory."""
        other = copy.copy(self)
        other.params = params
        return other

    @property
    def head(self) -> str:
        """The name of the output matrix: the token embedding itself when tied."""
        return "tok" if self.config.tied else "head.w"
