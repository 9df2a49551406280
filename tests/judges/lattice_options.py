"""The lattice options that tests go through: each by itself, and many at once."""

from __future__ import annotations

from typing import Any

OPTIONS: dict[str, dict[str, Any]] = {
    "sinusoidal": {"positions": "sinusoidal"},
    "spiral": {"positions": "spiral"},
    "clock": {"positions": "clock", "positions_normalize": False},
    "prime": {"positions": "prime"},
    "rope": {"positions": "rope"},
    "rope interleaved": {"positions": "rope", "rope_interleaved": True, "rope_base": 100.0},
    "mix": {"positions": "mix"},
    "mix older": {"positions": "mix", "positions_mix": (0.4, 0.3, 0.3, 0.0)},
    "mix trained": {"positions": "mix", "positions_mix_trainable": True},
    "bias": {"symmetry_bias": 0.5},
    "bias by primes, trained": {"symmetry_bias_trainable": True, "symmetry_classes": "prime"},
    "transform": {"lattice_transform": True},
    "equivariant": {"equivariant": True},
    "many": {
        "positions": "rope", "symmetry_bias": 1.0, "symmetry_bias_trainable": True, "lattice_transform": True,
        "equivariant": True, "init": "lattice",
    },
}  # fmt: skip
