"""One optimiser step, written once over any number system. Floats stand for exactly their binary value.

AdamW: Loshchilov & Hutter, "Decoupled weight decay regularization" (ICLR 2019), with the exact bias correction of
Kingma & Ba (2015). Decay acts on matrices only: not on biases, gains or position tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

from cllm.spec.system import System

A = TypeVar("A")


def decays(name: str) -> bool:
    """Whether weight decay acts on the parameter of this name."""
    return name == "tok" or name.rpartition(".")[2].startswith("w")


@dataclass(frozen=True)
class AdamW:
    """Settings of one step: t counts from 1; `weight_decay` is 0 for tensors that do not decay."""

    t: int
    lr: float
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.0


def adamw(S: System[A], w: A, g: A, m: A, v: A, *, settings: AdamW) -> tuple[A, A, A]:
    """(w, m, v) after the step: w − lr·(m̂/(√v̂ + ε) + λw), m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ). v must be ≥ 0."""
    b1, b2 = map(Fraction, settings.betas)
    m = S.add(S.scale(m, b1), S.scale(g, 1 - b1))
    v = S.add(S.scale(v, b2), S.scale(S.sq(g), 1 - b2))
    corrected_m = S.scale(m, 1 / (1 - b1**settings.t))
    corrected_v = S.scale(v, 1 / (1 - b2**settings.t))
    direction = S.mul(corrected_m, S.recip(S.plus(S.sqrt(corrected_v), Fraction(settings.eps))))
    return _descend(S, w, direction, settings.lr, settings.weight_decay), m, v


def sgd(
    S: System[A],
    w: A,
    g: A,
    v: A,
    *,
    lr: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> tuple[A, A]:
    """(w, v) after the step: v ← μv + g; w ← w − lr·(d + λw), with d = v, or g + μv with Nesterov's look-ahead."""
    mu = Fraction(momentum)
    v = S.add(S.scale(v, mu), g)
    direction = S.add(g, S.scale(v, mu)) if nesterov else v
    return _descend(S, w, direction, lr, weight_decay), v


def _descend(S: System[A], w: A, direction: A, lr: float, weight_decay: float) -> A:
    rate = Fraction(lr)
    return S.sub(S.scale(w, 1 - rate * Fraction(weight_decay)), S.scale(direction, rate))


def global_norm(S: System[A], gradients: Sequence[A]) -> A:
    """1×1: √Σg² over all entries of all tensors."""
    squares = [S.colsum(S.rowsum(S.sq(g))) for g in gradients]
    total = squares[0]
    for s in squares[1:]:
        total = S.add(total, s)
    return S.sqrt(total)


def clip_scale(S: System[A], norm: A, limit: float) -> A:
    """1×1: min(1, limit/norm), as limit/max(norm, limit): 1 where the norm is 0."""
    c = Fraction(limit)
    return S.scale(S.recip(S.at_least(norm, c)), c)
