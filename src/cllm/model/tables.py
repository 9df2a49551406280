"""The fixed numbers of a model beside its parameters: position codes, rotations, classes; and where they enter.

Formulas are in `lattice/`, in float64; here they are rounded once to the precision of sums. They are stored in
checkpoints as exact floats (names `table.…`), and a loaded table is used as it was stored.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cllm.config import ModelConfig, has_learned_positions, has_symmetry_bias
from cllm.errors import DomainError
from cllm.lattice import lattice_embedding, position_table, rope_tables, symmetry_bias, symmetry_classes
from cllm.lattice.orthogonal import lattice_transform
from cllm.lattice.positions import learned_start, mix_parts

PREFIX = "table."
CLASSES = 12


def fixed_tables(c: ModelConfig, dtype: torch.dtype, device: torch.device | str) -> dict[str, Tensor]:
    """By name: `positions` [T, D] (a fixed code, or a mix without anything trained), `positions.parts` [3, T, D]
    (spiral, clock, prime of any other mix), `rope.cos` and `rope.sin` [T, h/2], `transform` [D, D]."""
    found: dict[str, NDArray[np.float64]] = {}
    if c.positions == "mix":
        parts = mix_parts(c.context, c.width, normalize=c.positions_normalize)[:3]
        if has_learned_positions(c):
            found["positions.parts"] = parts
        else:
            found["positions"] = np.einsum("k,ktd->td", np.array(c.positions_mix[:3]), parts)
    elif c.positions == "rope":
        found["rope.cos"], found["rope.sin"] = rope_tables(c.context, c.head_width, c.rope_base)
    elif c.positions != "learned":
        found["positions"] = position_table(c.positions, c.context, c.width, normalize=c.positions_normalize)
    if c.lattice_transform:
        found["transform"] = lattice_transform(c.width)
    return {name: torch.from_numpy(value).to(dtype).to(device) for name, value in found.items()}


def check_beyond(c: ModelConfig, length: int) -> None:
    """Raises DomainError, with the reason, where the positions of `c` are not defined for a longer table."""
    if length > c.context and has_learned_positions(c):
        raise DomainError(
            f"positions = {c.positions}: a learned table has no trained row from {c.context} on; a length of {length} "
            "is not applicable"
        )


def symmetry_table(c: ModelConfig, device: torch.device | str) -> tuple[Tensor, Tensor] | None:
    """(class of each token uint8 [V], ln M float64 [12, 12]) where attention has a symmetry bias, else None."""
    if not has_symmetry_bias(c):
        return None
    classes = symmetry_classes(np.arange(c.vocab), c.symmetry_classes).astype(np.uint8)
    log_m = symmetry_bias(np.arange(CLASSES), 1.0)
    return torch.from_numpy(classes).to(device), torch.from_numpy(log_m).to(device)


def lattice_rows(c: ModelConfig, noise_VD: Tensor) -> Tensor:
    """The token embedding of `init = "lattice"`, float64 [V, D]; noise: N(0, 0.02²), blended in by `init_mix`."""
    noise = noise_VD.double().numpy() if c.init_mix else None
    return torch.from_numpy(
        lattice_embedding(c.vocab, c.width, classes=c.symmetry_classes, mix=c.init_mix, noise=noise)
    )


def start_positions(c: ModelConfig) -> Tensor:
    """What a learned table begins as with `positions_start = "sinusoid"`: float64 [T, D]."""
    return torch.from_numpy(learned_start(c.context, c.width))


def averaged(w_OI: Tensor) -> Tensor:
    """The average (1/24) Σ ρᵀWρ over the symmetries of the clock, D12: each 2×2 block becomes half its trace on its
    diagonal (lattice/dihedral.py says why). A projection, so it is its own derivative's transpose: dW is averaged too.
    """
    out, into = w_OI.shape
    blocks = w_OI.view(out // 2, 2, into // 2, 2)
    half = (blocks[:, 0, :, 0] + blocks[:, 1, :, 1]) * 0.5
    result = torch.zeros_like(blocks)
    result[:, 0, :, 0] = half
    result[:, 1, :, 1] = half
    return result.view(out, into)
