"""All that exists between two steps, and its exact journey to a checkpoint and back."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cllm import config as settings
from cllm.config import Config
from cllm.engine.buffers import Flat
from cllm.errors import CorruptError
from cllm.model.model import Model

DTYPES = {"fp32": torch.float32, "fp64": torch.float64}


@dataclass
class State:
    """Parameters, moments, counters. The RNG needs no state of its own: every random word is a function of
    (seed, step, place), and the data stream of (seed, position).

    model: the parameters.  moments: flat buffers by name ("m", "v" for AdamW, "m" for SGD).
    ema: moving average of the parameters, or None.  step: optimiser steps done.  tokens: valid targets seen.
    position: rows taken from the data stream.  best: lowest validation loss so far (nats a token).  waited: evaluations
    since then.  statistics: running figures of the spike policy and the noise scale, by name (JSON-able).
    """

    config: Config
    model: Model
    moments: dict[str, Flat]
    ema: Flat | None = None
    step: int = 0
    tokens: int = 0
    position: int = 0
    best: float | None = None
    waited: int = 0
    statistics: dict[str, dict[str, float]] = field(default_factory=dict)

    @classmethod
    def fresh(cls, config: Config, device: torch.device | str = "cpu") -> State:
        """Step 0: parameters drawn from the seed, moments zero."""
        model = Model(config.model, DTYPES[config.precision], device)
        if model.device.type != "meta":
            model.initialise(config.seed)
        names = ("m", "v") if config.optim.name == "adamw" else ("m",)
        moments = {name: Flat(model.layout, model.dtype, device) for name in names}
        ema = None
        if config.optim.ema:
            ema = Flat(model.layout, model.dtype, device)
            ema.data.copy_(model.params.data)
        return cls(config, model, moments, ema)

    @property
    def evaluated(self) -> Model:
        """The model to evaluate and generate with: the moving average of the weights when it is on."""
        if self.ema is None:
            return self.model
        return self.model.with_params(self.ema)

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(weights to use the model with, everything else), by name; views, not copies.

        With a moving average the weights are the average, and the raw parameters go with the state.
        """
        rest = {f"{name}.{key}": view for name, flat in self.moments.items() for key, view in flat.items()}
        if self.ema is not None:
            rest |= {f"raw.{key}": view for key, view in self.model.params.items()}
        return dict(self.evaluated.params.items()), rest

    def meta(self) -> dict[str, Any]:
        """The counters and the configuration, JSON-able."""
        return {
            "config": settings.to_dict(self.config),
            "step": self.step,
            "tokens": self.tokens,
            "position": self.position,
            "best": self.best,
            "waited": self.waited,
            "statistics": copy.deepcopy(self.statistics),
        }

    @classmethod
    def restore(
        cls,
        config: Config,
        weights: dict[str, Tensor],
        rest: dict[str, Tensor],
        meta: dict[str, Any],
        device: torch.device | str = "cpu",
    ) -> State:
        """The exact state that was saved. Raises CorruptError when tensors do not fit the configuration."""
        state = cls.fresh(config, "meta")
        model = Model(config.model, DTYPES[config.precision], device)

        def fill(flat: Flat, source: dict[str, Tensor], prefix: str) -> Flat:
            for key, view in flat.items():
                tensor = source.get(f"{prefix}{key}")
                if tensor is None or tensor.shape != view.shape or tensor.dtype != view.dtype:
                    got = "nothing" if tensor is None else f"{tuple(tensor.shape)} {tensor.dtype}"
                    raise CorruptError(
                        f"checkpoint: {prefix}{key}: got {got}, expected {tuple(view.shape)} {view.dtype}; "
                        "it belongs to another configuration"
                    )
                view.copy_(tensor)
            return flat

        def flat() -> Flat:
            return Flat(model.layout, model.dtype, device)

        averaged = state.ema is not None
        fill(model.params, rest if averaged else weights, "raw." if averaged else "")
        return cls(
            config,
            model,
            {name: fill(flat(), rest, f"{name}.") for name in state.moments},
            fill(flat(), weights, "") if averaged else None,
            step=meta["step"],
            tokens=meta["tokens"],
            position=meta["position"],
            best=meta["best"],
            waited=meta["waited"],
            statistics=copy.deepcopy(meta.get("statistics", {})),
        )

    @property
    def bytes_by_part(self) -> dict[str, int]:
        """Bytes of the flat buffers, padding included."""
        size = self.model.params.data.numel() * self.model.params.data.element_size()
        parts = {"weights": size, "moments": size * len(self.moments)}
        if self.ema is not None:
            parts["moving average"] = size
        return parts
