"""A replayed step in balls: proven sizes of its true values, without the limits of any format.

The forward pass is that of the specification, so this shares nothing with the engine that gave out. A proxy around the
number system names each value by the parameter that was used last, and by the primitive that made it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from flint import arb

from cllm import config as settings
from cllm import spec
from cllm.certificate.subjects import Subject
from cllm.errors import CertificateError
from cllm.spec.balls import BallArray, Balls, working
from cllm.spec.system import Bools, System
from cllm.training.replay import Replayed

AFFORDABLE = 40_000_000
"""Multiply-adds of one row that are done in balls without being asked: some ten seconds."""
BITS, MOST_BITS = 256, 4096


@dataclass(frozen=True)
class Part:
    """What one part of the model computes: its largest true |value| and the primitive that has it.

    largest: decimal digits, proven to a thousandth of itself ("3.1e+52").  log10: its decimal logarithm, for comparing.
    """

    name: str
    largest: str
    log10: float
    primitive: str


@dataclass(frozen=True)
class InBalls:
    """The true values of one row of the step.

    loss: the row's mean loss in nats a token, decimal digits.  parts: in order of the forward pass.  gradient: the
    largest true |entry| of the row's gradient, its log10, and its tensor.
    """

    row: int
    bits: int
    loss: str
    parts: tuple[Part, ...]
    gradient: str
    gradient_log10: float
    tensor: str


def affordable(replayed: Replayed) -> bool:
    """Whether a row of the step is small enough to be done in balls unasked."""
    m, n = replayed.config.model, replayed.tokens_RT1.shape[1] - 1
    weights = m.layers * (4 * m.width**2 + 2 * m.width * m.ff) + m.vocab * m.width
    return 3 * n * weights + 8 * m.layers * n * n * m.width <= AFFORDABLE


def in_balls(replayed: Replayed, *, bits: int = BITS) -> InBalls:
    """The row where the format gave out first (else row 0), in balls of `bits`, doubled until all is bounded.

    Raises CertificateError when MOST_BITS do not suffice, else as `Subject` and `spec.enclose` do.
    """
    while True:
        try:
            return _at(replayed, bits)
        except CertificateError:
            if 2 * bits > MOST_BITS:
                raise
        bits *= 2


def _at(replayed: Replayed, bits: int) -> InBalls:
    row = replayed.native.bad_row or 0
    part = slice(row, row + 1)
    master = settings.replace(replayed.config, {"precision": "fp32", "memory": "standard"})
    subject = Subject(
        master,
        {name: view.numpy() for name, view in replayed.weights.items()},
        replayed.tokens_RT1[part].numpy(),
        replayed.documents_RT1[part].numpy(),
        first_row=row,
        step=replayed.step,
        tables={name: table.numpy() for name, table in replayed.tables.items()},
    )
    with working(bits):
        watching = _Watching(_Wide())
        weights = _Named({name: watching.inner.lift(value) for name, value in subject.weights.items()}, watching)
        spec.loss(cast("System[BallArray]", watching), weights, subject.spec_batch, subject.spec_model)
    top = _Top(arb(0), arb(0), "")
    with spec.enclose(subject.weights, subject.spec_batch, subject.spec_model, bits=bits, system=_Wide()) as exact:
        loss = _told(exact.loss, exact.loss, "the loss", exact.loss.str(12, radius=False))
        for name, g in exact.balls():  # not `exact.gradients`: its floats end at 1e308
            low, high = _largest(g)
            if not top.primitive or high > top.high or not high.is_finite():
                top = _Top(low, high, name)
        gradient = _told(top.low, top.high, "the gradient", _digits(top.high))
    parts = tuple(watching.parts())
    return InBalls(row, bits, loss, parts, gradient, _log10(top.high), top.primitive)


def _told(low: arb, high: arb, what: str, text: str) -> str:
    """The text, where the enclosure behind it is narrow. Raises CertificateError where it is not."""
    if not high.is_finite() or (high.abs_upper() > 0 and high.abs_upper() > low.abs_lower() * arb("1.001")):
        raise CertificateError(f"{what} is only known to be at most {_digits(high.abs_upper())}")
    return text


class _Wide(Balls):
    """Balls without the one place where they look at floats: the constant that keeps softmax in range is a ball's
    middle, which is exact, too, but has no limits."""

    def peak(self, a: BallArray, keep: Bools | None = None) -> BallArray:
        rows = []
        for i in range(a.shape[0]):
            row = [x.mid() for x in a.row(i)]
            kept = row if keep is None else [x for x, k in zip(row, keep[i], strict=True) if k]
            top = kept[0]
            for x in kept[1:]:
                if x > top:
                    top = x
            rows.append(top)
        return BallArray((a.shape[0], 1), rows)


@dataclass
class _Top:
    """Bounds of the largest |value| from below and above, and what has it."""

    low: arb
    high: arb
    primitive: str


@dataclass
class _Watching:
    """A number system that notes the largest result of each primitive."""

    inner: _Wide
    now: str = "start"
    tops: dict[str, _Top] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if name in ("shape", "lift", "t", "peak"):
            return method

        def primitive(*args: Any) -> BallArray:
            return self._note(method(*args), name)

        return primitive

    def call(self, f: Callable[..., BallArray], *args: BallArray) -> BallArray:
        name = getattr(f, "func", f).__name__
        before = self.now
        layer = before.split(".")[0]
        # the parts that use no parameter of their own
        own = {"cross_entropy": "loss", "head": f"{layer}.attn"}
        self.now = f"{layer}.ffn.gelu" if name.startswith("gelu") else own.get(name, before)
        y = f(self, *args)
        self.now = before
        return y

    def _note(self, y: BallArray, primitive: str) -> BallArray:
        low, high = _largest(y)
        top = self.tops.get(self.now)
        if top is None or high > top.high or not high.is_finite():
            self.tops[self.now] = _Top(low, high, primitive)
        return y

    def parts(self) -> Iterator[Part]:
        for name, top in self.tops.items():
            text = _told(top.low, top.high, name, _digits(top.high))
            yield Part(name, text, _log10(top.high), top.primitive)


class _Named(Mapping[str, BallArray]):
    """Parameters that say which part of the model is at work when they are used."""

    def __init__(self, weights: dict[str, BallArray], watching: _Watching) -> None:
        self._weights, self._watching = weights, watching

    def __getitem__(self, name: str) -> BallArray:
        self._watching.now = self._part(name)
        return self._weights[name]

    def _part(self, name: str) -> str:
        """The op that uses a parameter, as the step's probe names it."""
        module, _, last = name.rpartition(".")
        if name in ("tok", "head.w"):
            return "logits" if "lnf" in self._watching.tops else "embedding"
        if module.endswith("attn"):
            return f"{module}.out" if last.endswith("o") else f"{module}.qkv"
        if module.endswith("ffn"):
            return f"{module}.w{last[1:]}"
        return module or "embedding"

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


def _largest(a: BallArray) -> tuple[arb, arb]:
    """Bounds from below and above of the largest |entry|."""
    if a.exact is not None:
        top = arb(float(np.abs(a.exact).max()))
        return top, top
    low, high = arb(0), arb(0)
    for x in a.flat:
        least, most = x.abs_lower(), x.abs_upper()
        low = least if least > low else low
        if most > high or not most.is_finite():
            high = most
            if not most.is_finite():
                break
    return low, high


def _digits(x: arb) -> str:
    return str(x.str(3, radius=False)) if x.is_finite() else "unbounded"


def _log10(x: arb) -> float:
    if not x.is_finite():
        return math.inf
    return float(x.log() / arb(10).log()) if x > 0 else -math.inf
