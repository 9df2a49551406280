"""The buffers of a forward pass for one (batch, sequence), allocated once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cllm.engine.buffers import Arena
from cllm.engine.dispatch import Kernels
from cllm.model.model import Model
from cllm.model.tables import CLASSES

RECOMPUTE = ("none", "gelu", "norms", "layer")
"""What the backward computes again instead of the forward keeping it: nothing; the activation from the pre-activation;
the norms' results as well; everything of a layer but its input."""


@dataclass
class LayerActivations:
    """What one layer keeps for its backward."""

    x_ND: Tensor  # the layer's input
    ln1_ND: Tensor
    ln1_stats: tuple[Tensor, Tensor]  # mean, 1/σ
    qkv_N3D: Tensor
    lse_BHT: Tensor
    heads_ND: Tensor  # attention output before Wo
    mid_ND: Tensor  # residual stream behind the attention
    ln2_ND: Tensor
    ln2_stats: tuple[Tensor, Tensor]
    pre_NF: Tensor
    post_NF: Tensor
    masks: tuple[Tensor, Tensor] | None  # dropout of attention and feed-forward output


@dataclass
class Activations:
    """All buffers of a forward pass.

    keep: a set per layer, for the backward, as far as `recompute` (one of RECOMPUTE) does not share it; otherwise all
    layers share one set.  keys: the longest key sequence (cached decoding).
    """

    model: Model
    kernels: Kernels
    batch: int
    sequence: int
    keep: bool
    keys: int | None = None
    recompute: str = "none"
    arena: Arena = field(init=False)

    def __post_init__(self) -> None:
        model, c = self.model, self.model.config
        self.arena = arena = Arena(model.dtype, model.device)
        b, t, d, f, h = self.batch, self.sequence, c.width, c.ff, c.heads
        n, operand, level = b * t, model.operand, RECOMPUTE.index(self.recompute)
        shared: dict[str, Any] = {}

        def of(own: bool, name: str, make: Any) -> Any:
            """A buffer of the layer's own, or one that all layers share."""
            if own:
                return make()
            if name not in shared:
                shared[name] = make()
            return shared[name]

        def statistics() -> tuple[Tensor, Tensor]:
            return arena.new("layer norm", n, 1), arena.new("layer norm", n, 1)

        def masks() -> tuple[Tensor, Tensor] | None:
            if not (self.keep and c.dropout):
                return None
            shape = b, t, d
            return (
                arena.new("dropout masks", *shape, dtype=torch.bool),
                arena.new("dropout masks", *shape, dtype=torch.bool),
            )

        def layer() -> LayerActivations:
            own, most = self.keep, self.keep and level < RECOMPUTE.index("layer")
            norms = self.keep and level < RECOMPUTE.index("norms")
            post = self.keep and level < RECOMPUTE.index("gelu")
            x = of(own, "x", lambda: arena.new("residual stream", n, d))
            return LayerActivations(
                x_ND=x,
                ln1_ND=of(norms, "ln1", lambda: arena.new("layer norm", n, d, dtype=operand)),
                ln1_stats=of(most, "ln1 statistics", statistics),
                qkv_N3D=of(most, "qkv", lambda: arena.new("attention", n, 3 * d, dtype=operand)),
                lse_BHT=of(most, "lse", lambda: arena.new("attention", b, h, t)),
                heads_ND=of(most, "heads", lambda: arena.new("attention", n, d, dtype=operand)),
                mid_ND=of(most, "mid", lambda: arena.new("residual stream", n, d)) if self.keep else x,
                ln2_ND=of(norms, "ln2", lambda: arena.new("layer norm", n, d, dtype=operand)),
                ln2_stats=of(most, "ln2 statistics", statistics),
                pre_NF=of(most, "pre", lambda: arena.wide("feed-forward", n, f, dtype=operand)),
                post_NF=of(post, "post", lambda: arena.wide("feed-forward", n, f, dtype=operand)),
                masks=of(most, "masks", masks),
            )

        self.layers = [layer() for _ in range(c.layers)]
        self.last_ND = arena.new("residual stream", n, d) if self.keep else self.layers[0].x_ND
        self.normed_ND = arena.new("layer norm", n, d, dtype=operand)
        self.normed_stats = statistics()
        self.embedded_ND = arena.new("scratch", n, d) if c.lattice_transform else None
        self.table_SD = arena.new("scratch", c.context, d) if "positions.parts" in model.tables else None
        self.branch_ND = arena.new("scratch", n, d) if self.keep and c.dropout else None
        self.attention_scratch = self.kernels.attention_scratch(
            b,
            t,
            h,
            c.head_width,
            keys=self.keys,
            backward=self.keep,
            dtype=operand,
            device=model.device,
            classes=0 if model.symmetry is None else CLASSES,
        )

    @property
    def bytes_by_part(self) -> dict[str, int]:
        parts = dict(self.arena.bytes_by_part)
        parts["scratch"] = parts.get("scratch", 0) + self.attention_scratch.bytes
        return parts
