"""All that exists between two steps, and its exact journey to a checkpoint and back."""

from __future__ import annotations

import copy
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from cllm import config as settings
from cllm.config import Config
from cllm.engine.buffers import Flat, Layout
from cllm.engine.compact import EightBit
from cllm.engine.moments import BLOCK, blocks
from cllm.engine.precision import accumulation
from cllm.errors import CorruptError
from cllm.model.layout import hidden_matrix
from cllm.model.model import Model, Weights
from cllm.training.distributed.buckets import Shard

Moment = Flat | EightBit
DTYPES = {"fp32": torch.float32, "fp64": torch.float64, "bf16": torch.bfloat16}


@dataclass
class State:
    """Parameters, moments, counters. The RNG needs no state of its own: every random word is a function of
    (seed, step, place), and the data stream of (seed, position).

    model: the parameters.  moments: buffers by name ("m", "v" for AdamW, "m" for SGD; Muon has no "v" of its matrices).
    ema: moving average of the parameters, or None.  step: optimiser steps done.  tokens: valid targets seen.
    position: rows taken from the data stream.  best: lowest validation loss so far (nats a token).  waited: evaluations
    since then.  statistics: running figures of the spike policy and the noise scale, by name (JSON-able).
    shard: what of each tensor this rank has the moments of (ZeRO); None: all. Everything else is whole on each rank.
    """

    config: Config
    model: Model
    moments: Mapping[str, Moment]
    ema: Weights | None = None
    step: int = 0
    tokens: int = 0
    position: int = 0
    best: float | None = None
    waited: int = 0
    statistics: dict[str, dict[str, float]] = field(default_factory=dict)
    shard: Shard | None = None

    @classmethod
    def fresh(cls, config: Config, device: torch.device | str = "cpu", shard: Shard | None = None) -> State:
        """Step 0: parameters drawn from the seed, moments zero."""
        model = _model(config, device)
        if model.device.type != "meta":
            model.initialise(config.seed)
        ema = None
        if config.optim.ema:
            ema = _model(config, device).params
            _copy(ema, model.params)
        return cls(config, model, zero_moments(config, model.layout, device, shard), ema, shard=shard)

    @property
    def evaluated(self) -> Model:
        """The model to evaluate and generate with: the moving average of the weights when it is on."""
        if self.ema is None:
            return self.model
        return self.model.with_params(self.ema)

    def tensors(self) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """(weights to use the model with, everything else), by name; views, not copies, but for a split master: its
        values are joined when they are asked for. So a checkpoint's weights are float32 in every memory mode.

        With a moving average the weights are the average, and the raw parameters go with the state. A shard has only
        pieces: training/distributed/gather.py makes them whole.
        """
        assert self.shard is None, "the pieces must be gathered"
        return self.weights(), self.raw() | {
            f"{name}.{key}": view for name, moment in self.moments.items() for key, view in moment.stored().items()
        }

    def weights(self) -> Mapping[str, Tensor]:
        """The first part of `tensors`."""
        weights = cast(Any, self.evaluated.params)  # read only, whatever ChainMap asks for
        return ChainMap(self.model.stored_tables, weights)

    def raw(self) -> dict[str, Tensor]:
        """The raw parameters, where the weights of a checkpoint are their moving average."""
        return {} if self.ema is None else {f"raw.{key}": view for key, view in self.model.params.items()}

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
        weights: Mapping[str, Tensor],
        rest: Mapping[str, Tensor],
        meta: dict[str, Any],
        device: torch.device | str = "cpu",
        shard: Shard | None = None,
    ) -> State:
        """The exact state that was saved, or what a shard has of it. Raises CorruptError when tensors do not fit the
        configuration."""
        model = _model(config, device)
        ema = _model(config, device).params if config.optim.ema else None
        state = cls(config, model, zero_moments(config, model.layout, device, shard), ema, shard=shard)
        state._fill(weights, rest)
        state.step, state.tokens, state.position = meta["step"], meta["tokens"], meta["position"]
        state.best, state.waited = meta["best"], meta["waited"]
        state.statistics = copy.deepcopy(meta.get("statistics", {}))
        return state

    def _fill(self, weights: Mapping[str, Tensor], rest: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave."""

        def fitting(name: str, source: Mapping[str, Tensor], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            tensor = source.get(name)
            if tensor is None or tensor.shape != shape or tensor.dtype != dtype:
                got = "nothing" if tensor is None else f"{tuple(tensor.shape)} {tensor.dtype}"
                raise CorruptError(
                    f"checkpoint: {name}: got {got}, expected {tuple(shape)} {dtype}; "
                    "it belongs to another configuration"
                )
            return tensor

        for name, table in self.model.stored_tables.items():
            if name in weights:  # exact floats: another machine's sine may differ in the last bit
                table.copy_(fitting(name, weights, tuple(table.shape), table.dtype))

        def load(into: Weights, source: Mapping[str, Tensor], prefix: str) -> None:
            for entry in into.layout.entries:
                into.put(entry.name, fitting(prefix + entry.name, source, entry.shape, into.dtype))

        if self.ema is not None:
            load(self.ema, weights, "")
            load(self.model.params, rest, "raw.")
        else:
            load(self.model.params, weights, "")
        for name, whole in zero_moments(self.config, self.model.layout, "meta").items():
            own = self.moments[name].stored()
            for key, kind in whole.stored().items():  # of all tensors: ranks with different shards ask alike
                found = fitting(f"{name}.{key}", rest, tuple(kind.shape), kind.dtype)
                if key in own:
                    own[key].copy_(found if self.shard is None else piece(found, self.shard, key))

    @property
    def bytes_by_part(self) -> dict[str, int]:
        """Bytes of the buffers, padding included."""
        parts = {
            "weights": self.model.params.nbytes + self.model.operand_bytes,
            "moments": sum(moment.nbytes for moment in self.moments.values()),
        }
        if self.ema is not None:
            parts["moving average"] = self.ema.nbytes + self.model.operand_bytes  # rounded, too, when it is evaluated
        return parts


def _model(config: Config, device: torch.device | str) -> Model:
    return Model(config.model, DTYPES[config.precision], device, split=config.memory != "standard")


def zero_moments(
    config: Config, layout: Layout, device: torch.device | str, shard: Shard | None = None
) -> dict[str, Moment]:
    """The moments of step 0, all or those of a shard: flat buffers, or 8-bit ones of everything but vectors in the
    smaller memory modes."""
    vectors = {entry.name for entry in layout.entries if len(entry.shape) == 1}
    if shard is not None:
        layout = shard.layout
    if config.memory != "standard":
        return {name: EightBit(layout, name, lambda entry: entry.name not in vectors, device) for name in ("m", "v")}
    dtype = accumulation(DTYPES[config.precision])
    moments: dict[str, Moment] = {"m": Flat(layout, dtype, device)}
    if config.optim.name == "adamw":
        moments["v"] = Flat(layout, dtype, device)
    elif config.optim.name == "muon":
        moments["v"] = Flat(layout.only(lambda entry: not hidden_matrix(entry.name)), dtype, device)
    return moments


def piece(whole: Tensor, shard: Shard, key: str) -> Tensor:
    """The shard's part of a stored moment, flat. key: as in `stored()`."""
    name = key.removesuffix(".scale")
    start, stop = shard.pieces[name]
    if key != name:  # one scale for each block
        start, stop = start // BLOCK, blocks(stop)
    return whole.reshape(-1)[start:stop]


def _copy(into: Weights, source: Weights) -> None:
    for name, value in source.items():
        into.put(name, value)
