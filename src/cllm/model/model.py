"""The model: a configuration and its parameters in one flat buffer.

In bf16 the parameters themselves (the master weights) are float32, and the matrices have a copy rounded to bfloat16,
which is what the kernels multiply by: the function that a bf16 model computes is the one at the rounded matrices.
"""

from __future__ import annotations

import copy
import math

import msgspec
import torch
from torch import Tensor

from cllm.config import ModelConfig
from cllm.engine.buffers import Flat
from cllm.engine.compact import Mixed, Split
from cllm.engine.philox import normal
from cllm.engine.precision import accumulation
from cllm.model.layout import MATRIX, POSITIONS_MIX, SYMMETRY_BIAS, layout
from cllm.model.tables import (
    PREFIX,
    averaged,
    check_beyond,
    fixed_tables,
    lattice_rows,
    start_positions,
    symmetry_table,
)

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
        self.tables = fixed_tables(config, accumulation(dtype), device)
        self.symmetry = symmetry_table(config, device)

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

    def written(self) -> None:
        """Say that the parameters were written by something that torch does not count: their rounded copy is old."""
        self._rounded_at = -1

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

        A pure function of (seed, tensor, index): the same in every precision up to its rounding. The lattice options
        change the token embedding, the learned positions, Wv and Wo (model/tables.py).
        """
        c, shrink = self.config, 1.0 / math.sqrt(2 * self.config.layers)
        for stream, entry in enumerate(self.layout.entries):
            name, value = entry.name, torch.zeros(entry.shape, dtype=self.dtype)
            if name.endswith(".g"):
                value.fill_(1.0)
            elif name == POSITIONS_MIX:
                value.copy_(torch.tensor(c.positions_mix, dtype=torch.float64))
            elif name == SYMMETRY_BIAS:
                value.fill_(c.symmetry_bias)
            elif name == "pos" and c.positions_start == "sinusoid":
                value.copy_(start_positions(c))
            elif value.dim() > 1:
                std = INIT_STD * (shrink if name.endswith((".wo", ".w2")) else 1.0)
                drawn = (normal((seed, 0), stream, value.numel()) * std).view_as(value)
                value.copy_(lattice_rows(c, drawn) if name == "tok" and c.init == "lattice" else drawn)
            self.params.put(name, averaged(value) if self.is_averaged(name) else value)
        return self

    def is_averaged(self, name: str) -> bool:
        """Whether this matrix, and so its gradient, is kept equal to its average over D12 (`equivariant`)."""
        return self.config.equivariant and name.endswith((".wv", ".wo"))

    def longer(self, context: int) -> Model:
        """The same weights with positions for `context` tokens: fixed codes by the same formula with the longer table,
        the length's place in the formula included. Raises DomainError where there is none (a learned table)."""
        check_beyond(self.config, context)
        other = copy.copy(self)
        other.config = msgspec.structs.replace(self.config, context=context)
        other.tables = fixed_tables(other.config, self.dtype, self.device)
        return other

    def load(self, weights: dict[str, Tensor]) -> Model:
        """Copy named tensors in; fixed tables (`table.…`) may be left out, and are taken as they are if not. Raises
        ValueError for a missing, unknown or misshapen tensor."""
        tables = {name.removeprefix(PREFIX): value for name, value in weights.items() if name.startswith(PREFIX)}
        weights = {name: value for name, value in weights.items() if not name.startswith(PREFIX)}
        missing, unknown = self.params.keys() - weights.keys(), weights.keys() - self.params.keys()
        unknown |= {PREFIX + name for name in tables.keys() - self.tables.keys()}
        if missing or unknown:
            raise ValueError(f"tensors missing: {sorted(missing)[:5]}, unknown: {sorted(unknown)[:5]}")
        for entry in self.layout.entries:
            if weights[entry.name].shape != entry.shape:
                raise ValueError(f"{entry.name}: got {tuple(weights[entry.name].shape)}, expected {entry.shape}")
            self.params.put(entry.name, weights[entry.name])
        for name, value in tables.items():
            if value.shape != self.tables[name].shape:
                expected = tuple(self.tables[name].shape)
                raise ValueError(f"{PREFIX}{name}: got {tuple(value.shape)}, expected {expected}")
            self.tables[name] = value.to(self.dtype).to(self.device)
        return self

    @property
    def stored_tables(self) -> dict[str, Tensor]:
        """The fixed tables under the names they have in a checkpoint."""
        return {PREFIX + name: table for name, table in self.tables.items()}

    def with_params(self, params: Weights) -> Model:
        """The same network over another flat buffer of the same layout (a moving average, say); shares its memory."""
        other = copy.copy(self)
        other.params, other._rounded, other._rounded_at = params, None, -1
        return other

    @property
    def head(self) -> str:
        """The name of the output matrix: the token embedding itself when tied."""
        return "tok" if self.config.tied else "head.w"
