"""The enclosed loss and gradient of a step, tensor by tensor.

::

    with enclose(params, batch, model, bits=256) as exact:
        print(exact.loss.str(30))
        for g in exact.gradients():
            print(g.name, g.radius.max(), g.error(engine[g.name]).max())

Every float that leaves here as a bound is rounded up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from flint import arb
from numpy.typing import NDArray

from cllm.errors import CertificateError, DataError, NonFiniteError, UsageError
from cllm.spec.balls import BallArray, Balls, Expansion, working
from cllm.spec.batch import Batch
from cllm.spec.gpt import Model, loss
from cllm.spec.rounding import TINY, middles, radii, up
from cllm.spec.system import Floats, System
from cllm.spec.tape import Leaves, Tape, Var, recording


@dataclass
class Gradient:
    """The enclosed gradient of one tensor, as floats: see `middle`, `radius`, `error`; and as balls: `entry`."""

    name: str
    shape: tuple[int, ...]
    balls: BallArray

    @cached_property
    def _expansion(self) -> Expansion:
        high, low, rad = self.balls.expansion()
        return high.reshape(self.shape), None if low is None else low.reshape(self.shape), rad.reshape(self.shape)

    @property
    def middle(self) -> Floats:
        """The middle of the enclosure to float64 (within 2⁻⁵² of itself, relatively), in the parameter's shape."""
        return self._expansion[0]

    @property
    def radius(self) -> Floats:
        """The enclosure's radii, rounded up. (Around the middle itself, not its rounding to float64.)"""
        return self._expansion[2]

    def error(self, engine: NDArray[Any]) -> Floats:
        """Upper bounds of |engine − exact|, entry by entry; infinite where the engine's value is not finite."""
        if engine.shape != self.shape:
            raise UsageError(f"gradient of {self.name}: got shape {engine.shape}, expected {self.shape}")
        return distance(engine, *self._expansion)

    def magnitude(self) -> Floats:
        """Upper bounds of |exact|."""
        return distance(np.zeros(self.shape), *self._expansion)

    def entry(self, *index: int) -> arb:
        """The ball of one entry; `.str(30)` prints its proven digits."""
        return self.balls.entry(*divmod(int(np.ravel_multi_index(index, self.shape)), self.balls.shape[1]))


def distance(engine: NDArray[Any], high: Floats, low: Floats | None, rad: Floats) -> Floats:
    """Upper bounds of |engine − x| for every x in the enclosure (see `balls.Expansion`)."""
    with np.errstate(all="ignore"):
        gap = np.asarray(engine, np.float64) - high
        if low is None:
            bound = np.abs(gap) + np.abs(high) * 2.0**-52 + TINY + rad
        else:
            bound = np.abs(gap - low) + np.abs(gap) * 2.0**-52 + rad
        bound = up(bound, 5)
    return np.where(np.isfinite(bound), bound, np.inf)


@dataclass
class Enclosure:
    """f and ∂f/∂w at the given weights. Use `gradients` or `balls`, once, inside the `with` block that made this."""

    loss: arb
    _names: dict[int, str]
    _shapes: dict[str, tuple[int, ...]]
    _tape: Tape[BallArray]
    _root: Var[BallArray]

    def loss_error(self, engine: float) -> float:
        """An upper bound of |engine − f|."""
        return float(distance(np.array([engine]), middles([self.loss]), None, radii([self.loss]))[0])

    def balls(self) -> Iterator[tuple[str, BallArray]]:
        """As `gradients`, but of any size and width: nothing is said about floats, which end at 1.8e308."""
        one = self._tape.S.lift(np.ones((1, 1)))
        for node, g in self._tape.backward(self._root, one):
            yield self._names[node], g
            del g  # before the next one is made

    def gradients(self) -> Iterator[Gradient]:
        """Each tensor's gradient as soon as it is complete, last layer first. Let go of it before the next."""
        for name, g in self.balls():
            found = Gradient(name, self._shapes[name], g)
            del g
            if not np.isfinite(found.radius).all() or not np.isfinite(found.middle).all():
                raise CertificateError(f"gradient of {name}: the balls are infinite: raise the precision")
            yield found
            del found


@contextmanager
def enclose(
    params: Mapping[str, NDArray[Any]],
    batch: Batch,
    model: Model,
    *,
    bits: int = 256,
    system: System[BallArray] | None = None,
    recompute: bool | None = None,
) -> Iterator[Enclosure]:
    """Enclose the loss, and prepare its gradient, at exactly these float weights (float32 or float64 arrays).

    system: `Balls()` (the default) or a faster one of the same kind. recompute: whether activations within an
    operation are formed again on the way back instead of being kept; None: when the batch has more tokens than the
    system `keeps`.
    Sets FLINT's precision while it lasts.
    """
    _check(params, batch, model)
    with working(bits):
        if recompute is None:
            recompute = batch.rows * batch.columns > getattr(system, "keeps", Balls.keeps)
        tape, S = recording(system or Balls(), recompute=recompute)
        leaves = Leaves(tape, params)
        root = loss(S, leaves, batch, model)
        if unused := sorted(set(params) - set(leaves.made)):
            raise UsageError(f"parameters that the model does not have: {', '.join(unused)}")
        ball = root.value.flat[0]
        if not ball.is_finite():
            raise CertificateError(f"the loss at {bits} bits is {ball}: raise the precision")
        shapes = {name: tuple(value.shape) for name, value in params.items()}
        yield Enclosure(ball, leaves.name_of(), shapes, tape, root)


def _check(params: Mapping[str, NDArray[Any]], batch: Batch, model: Model) -> None:
    """Refuse what the specification has no value for."""
    for name, value in params.items():
        if not np.isfinite(value).all():
            raise NonFiniteError(f"{name} has {np.count_nonzero(~np.isfinite(value))} values that are not finite")
    table = params.get("pos") if model.positions is None else model.positions
    if model.rope is not None:
        table = model.rope[0]
    if "tok" not in params or table is None:
        raise UsageError("parameters: expected `tok`, and `pos`, a fixed table of positions, or rotary ones")
    tokens, V = batch.tokens_BT1, len(params["tok"])
    if tokens.min() < 0 or tokens.max() >= V:
        raise DataError(f"batch: tokens from {tokens.min()} to {tokens.max()}: expected 0 … {V - 1}")
    if batch.positions_BT.max() >= len(table):
        raise DataError(f"batch: {batch.columns} columns, but a table of {len(table)} positions: give shorter rows")
