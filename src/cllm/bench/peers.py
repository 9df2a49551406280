"""The peer: the same model written plainly with torch.nn, autograd and torch's fused AdamW.

GPT-2's architecture with pre-norm blocks and a tied head, in the way a good textbook would write it: nothing
shared with the engine but the parameter names, so that it serves two ends. In float64 it is an independent
judge of the whole model; timed beside the explicit step it is what that has to beat, eager and compiled,
float32 and bf16 autocast, with the same global-norm clipping.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cllm.errors import UsageError, closest

IGNORED = -100
VARIANTS = ("eager fp32", "eager bf16", "compile fp32", "compile bf16")


class Block(nn.Module):
    """x += attention(LN x); x += feed-forward(LN x)."""

    def __init__(self, width: int, heads: int, ff: int, dtype: torch.dtype, activation: str) -> None:
        super().__init__()
        self.heads, self.activation = heads, activation
        self.ln1 = nn.LayerNorm(width, eps=1e-5, dtype=dtype)
        self.q = nn.Linear(width, width, dtype=dtype)
        self.k = nn.Linear(width, width, dtype=dtype)
        self.v = nn.Linear(width, width, dtype=dtype)
        self.o = nn.Linear(width, width, dtype=dtype)
        self.ln2 = nn.LayerNorm(width, eps=1e-5, dtype=dtype)
        self.up = nn.Linear(width, ff, dtype=dtype)
        self.down = nn.Linear(ff, width, dtype=dtype)

    def forward(self, x_BTD: Tensor, allowed: Tensor | None) -> Tensor:
        b, t, d = x_BTD.shape
        n = self.ln1(x_BTD)
        q, k, v = (f(n).view(b, t, self.heads, d // self.heads).transpose(1, 2) for f in (self.q, self.k, self.v))
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, is_causal=allowed is None)
        x_BTD = x_BTD + self.o(a.transpose(1, 2).reshape(b, t, d))
        h = F.gelu(self.up(self.ln2(x_BTD)), approximate="tanh" if self.activation == "gelu_tanh" else "none")
        return x_BTD + self.down(h)  # type: ignore[no-any-return]


class PlainGPT(nn.Module):
    """GPT-2's architecture in plain torch.nn; sizes as in a run's `[model]`. Dropout is not in it."""

    def __init__(
        self,
        *,
        layers: int,
        width: int,
        heads: int,
        ff: int,
        context: int,
        vocab: int,
        tied: bool = True,
        activation: str = "gelu_tanh",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.tok = nn.Embedding(vocab, width, dtype=dtype)
        self.pos = nn.Embedding(context, width, dtype=dtype)
        self.blocks = nn.ModuleList(Block(width, heads, ff, dtype, activation) for _ in range(layers))
        self.lnf = nn.LayerNorm(width, eps=1e-5, dtype=dtype)
        self.head = nn.Linear(width, vocab, bias=False, dtype=dtype)
        if tied:
            self.head.weight = self.tok.weight
        self.tied = tied
        for name, p in self.named().items():  # N(0, 0.02²), the residual's writers by 1/√(2L) smaller
            if p.ndim == 2:
                small = name.endswith(("attn.wo", "ffn.w2"))
                nn.init.normal_(p, std=0.02 / (2 * layers) ** 0.5 if small else 0.02)
            elif name.endswith(".g"):
                nn.init.ones_(p)
            else:
                nn.init.zeros_(p)

    def named(self) -> dict[str, Tensor]:
        """Its parameters by cllm's names: `tok`, `pos`, `{i}.attn.wq` …, `lnf.g`, `lnf.b` (`head.w` if untied)."""
        found: dict[str, Tensor] = {"tok": self.tok.weight, "pos": self.pos.weight}
        for i, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            found |= {f"{i}.ln1.g": block.ln1.weight, f"{i}.ln1.b": block.ln1.bias}
            for letter, part in (("q", block.q), ("k", block.k), ("v", block.v), ("o", block.o)):
                found |= {f"{i}.attn.w{letter}": part.weight, f"{i}.attn.b{letter}": part.bias}
            found |= {f"{i}.ln2.g": block.ln2.weight, f"{i}.ln2.b": block.ln2.bias}
            found |= {f"{i}.ffn.w1": block.up.weight, f"{i}.ffn.b1": block.up.bias}
            found |= {f"{i}.ffn.w2": block.down.weight, f"{i}.ffn.b2": block.down.bias}
        found |= {"lnf.g": self.lnf.weight, "lnf.b": self.lnf.bias}
        return found if self.tied else {**found, "head.w": self.head.weight}

    def load_named(self, params: Mapping[str, Tensor]) -> None:
        """Copies values in by cllm's names; UsageError unless names and shapes are exactly those of the model."""
        own = self.named()
        if params.keys() != own.keys():
            missing, extra = sorted(own.keys() - params.keys()), sorted(params.keys() - own.keys())
            raise UsageError(f"load_named: missing {missing or 'nothing'}, unknown {extra or 'nothing'}")
        with torch.no_grad():
            for name, p in own.items():
                if p.shape != params[name].shape:
                    raise UsageError(f"load_named: {name}: expected {list(p.shape)}, got {list(params[name].shape)}")
                p.copy_(params[name])

    def forward(self, tokens_BT: Tensor, documents_BT: Tensor | None = None) -> Tensor:
        """Logits [B, T, V]. With documents: attention within each only, positions from its start."""
        t = tokens_BT.shape[1]
        columns = torch.arange(t, device=tokens_BT.device)
        allowed, positions = None, columns
        if documents_BT is not None:
            same = documents_BT[:, :, None] == documents_BT[:, None, :]
            allowed = (same & (columns[:, None] >= columns[None, :]))[:, None]
            positions = columns - same.int().argmax(-1)  # the first column of one's own document
        x = self.tok(tokens_BT) + self.pos(positions)
        for block in self.blocks:
            x = block(x, allowed)
        return self.head(self.lnf(x))  # type: ignore[no-any-return]

    def loss_sum(
        self, inputs_BT: Tensor, targets_BT: Tensor, documents_BT: Tensor | None = None, smoothing: float = 0.0
    ) -> Tensor:
        """Sum of the token losses in nats; targets of −100 are ignored. (Label smoothing: q = (1−s)·1[t] + s/V.)"""
        logits = self(inputs_BT, documents_BT)
        return F.cross_entropy(
            logits.flatten(0, 1).to(torch.promote_types(logits.dtype, torch.float32)),
            targets_BT.flatten(),
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=smoothing,
        )


def adamw(
    model: PlainGPT, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.95), weight_decay: float = 0.1
) -> torch.optim.AdamW:
    """torch's fused AdamW with the groups of a run: decay on matrices, none on biases, norms and positions."""
    named = model.named()
    decayed = [p for name, p in named.items() if p.ndim == 2 and name != "pos"]
    others = [p for name, p in named.items() if p.ndim != 2 or name == "pos"]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=1e-8, fused=True)


def known_variant(name: str) -> None:
    """Raises UsageError, with the closest name, unless `name` is one of `VARIANTS`."""
    if name not in VARIANTS:
        raise UsageError(f"peer: expected one of {', '.join(VARIANTS)}, got {name!r}{closest(name, VARIANTS)}")


def peer_step(
    model: PlainGPT, tokens_BT1: Tensor, variant: str, *, lr: float = 1e-3, clip: float = 1.0
) -> Callable[[], float]:
    """One whole training step on the given token rows, as a callable that returns the mean loss in nats.

    tokens_BT1: int64 [B, T+1], on the model's device. variant: one of `VARIANTS`; bf16 is autocast over
    float32 weights; compile is torch.compile of forward and loss (compiled at the first call: warm up).
    Each step: forward, backward, clip_grad_norm_, fused AdamW, gradients set to None.
    """
    known_variant(variant)
    compiled, low = variant.startswith("compile"), variant.endswith("bf16")
    device = tokens_BT1.device.type

    def mean_loss(x_BT: Tensor, y_BT: Tensor) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=low):
            return model.loss_sum(x_BT, y_BT) / y_BT.numel()

    forward = torch.compile(mean_loss) if compiled else mean_loss
    return whole_step(forward, adamw(model, lr), tokens_BT1, clip)


def whole_step(
    forward: Callable[[Tensor, Tensor], Tensor], optimiser: torch.optim.Optimizer, tokens_BT1: Tensor, clip: float
) -> Callable[[], float]:
    """Forward, backward, clipping of the global norm, optimiser, gradients set to None.

    forward: (inputs, targets) → the mean loss.
    """
    inputs, targets = tokens_BT1[:, :-1].contiguous(), tokens_BT1[:, 1:].contiguous()
    parameters = [p for group in optimiser.param_groups for p in group["params"]]

    def step() -> float:
        loss = forward(inputs, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def peer_steps(
    sizes: Mapping[str, Any],
    tokens_BT1: Tensor,
    variants: tuple[str, ...] = VARIANTS,
    *,
    weights: Mapping[str, Tensor] | None = None,
    lr: float = 1e-3,
    clip: float = 1.0,
) -> dict[str, Callable[[], float]]:
    """A `peer_step` for each variant, each with a model of its own; sizes: PlainGPT's arguments.

    weights: by cllm's names, so that all start from the same values; without them, from PlainGPT's seed 0.
    """
    steps = {}
    for variant in variants:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = PlainGPT(**sizes).to(tokens_BT1.device)
        if weights is not None:
            model.load_named(weights)
        steps[variant] = peer_step(model, tokens_BT1, variant, lr=lr, clip=clip)
    return steps
