"""An op-local certificate for anyone's op: a formula over the primitives, and a kernel that claims to compute it.

    def forward(S, x, w):                     # the formula, over a number system's primitives, on 2-D arrays
        return S.tanh(S.mm(x, S.t(w)))

    def kernel(x, w): ...                     # torch, numpy, or any callable on arrays
    def kernel_backward(g, x, w): ...         # the cotangents of x and w, for the cotangent g of the result

    print(cllm.gradcheck(forward, kernel, kernel_backward, [x, w]))

The derivative is never written: the tape takes it from `forward`. Unlike finite differences, nothing has to be chosen
(no step, no tolerance), float32 kernels are checked in float32, and a wrong forward is found too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cllm.certificate.ledger import Ledger
from cllm.certificate.record import OUTSIDE, PROVEN, WITHIN, Bad, OpRow
from cllm.certificate.statement import failure
from cllm.errors import UsageError
from cllm.spec.intervals import Interval, Intervals
from cllm.spec.tape import pullback

UNITS = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


@dataclass(frozen=True)
class OpCheck:
    """What `gradcheck` is given, as one object: for `cllm gradcheck FILE.py:NAME`.

    inputs: float arrays (torch or numpy, 1-D or 2-D), all of one precision.  settings: keyword arguments of `forward`
    only.  kernel_backward: None takes the kernel's own gradient by torch.autograd.
    """

    forward: Callable[..., Any]
    kernel: Callable[..., Any]
    kernel_backward: Callable[..., Any] | None
    inputs: Sequence[Any]
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OpCertificate:
    """The result: one row per array compared. `str()` is the statement; false in `if` when something is outside."""

    name: str
    precision: str
    rows: list[OpRow]
    largest: dict[str, tuple[float, float]]  # array → bounds of |kernel − exact| and of the enclosure's radius
    bad: Bad | None

    @property
    def ok(self) -> bool:
        return self.bad is None

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        lines = [f"{'CERTIFIED' if self.ok else 'NOT CERTIFIED'}  op {self.name}  {self.precision}"]
        for row in self.rows:
            error, radius = self.largest[row.op]
            lines.append(
                f"  {row.op:<16} {row.entries:>9,} entries: enclosure {PROVEN} (radius ≤ {radius:.1e}), "
                f"|kernel−exact| ≤ {error:.1e}, {100 * row.used:.3g} % of the a-priori budget: "
                f"{WITHIN if row.bad is None else OUTSIDE}"
            )
        return "\n".join(lines + (failure(self.bad) if self.bad else []))


def gradcheck(
    forward: Callable[..., Any],
    kernel: Callable[..., Any],
    kernel_backward: Callable[..., Any] | None,
    inputs: Sequence[Any],
    *,
    settings: Mapping[str, Any] | None = None,
    grad: Any = None,
    name: str | None = None,
    seed: int = 0,
) -> OpCertificate:
    """Certify a kernel and its backward at these inputs.

    forward(S, *arrays, **settings): over the primitives of `cllm.spec.System`.  kernel(*inputs): an array of as many
    entries.  kernel_backward(grad, *inputs): the cotangents, one per input (None: not checked); None instead of a
    function: torch.autograd of the kernel.  grad: the cotangent of the result (default: N(0, 1) from `seed`).
    Raises UsageError for shapes or precisions that do not fit.
    """
    precision = _precision(inputs)
    S, ledger = Intervals(), Ledger(UNITS[precision])
    settings = dict(settings or {})
    arrays = [S.lift(_floats(x)) for x in inputs]
    y = forward(S, *arrays, **settings)
    if not isinstance(y, Interval):
        raise UsageError(f"gradcheck: forward returned {type(y).__name__}, expected one array of the number system")
    got = kernel(*inputs)
    largest: dict[str, tuple[float, float]] = {}

    def compare(what: str, value: Any, exact: Interval) -> None:
        flat = _floats(value)
        if flat.size != exact.mid.size:
            raise UsageError(f"gradcheck: {what}: the kernel gives {flat.shape}, the formula {exact.mid.shape}")
        flat = flat.reshape(exact.mid.shape)
        rad = exact.radius()
        with np.errstate(all="ignore"):
            error = np.nan_to_num((np.abs(flat - exact.mid) + rad) * (1 + 2.0**-50), nan=np.inf)
        largest[what] = float(error.max(initial=0.0)), float(rad.max(initial=0.0))
        ledger.value(what, what, flat, exact)

    compare("result", got, y)
    g = _cotangent(got, grad, seed)
    _, pulled = pullback(S, lambda T, *a: forward(T, *a, **settings), arrays, S.lift(_floats(g).reshape(y.mid.shape)))
    given = kernel_backward(g, *inputs) if kernel_backward is not None else _autograd(kernel, inputs, g)
    given = given if isinstance(given, (tuple, list)) else (given,)
    if len(given) != len(inputs):
        raise UsageError(f"gradcheck: kernel_backward returned {len(given)} arrays for {len(inputs)} inputs")
    for i, (value, exact) in enumerate(zip(given, pulled, strict=True)):
        if value is not None and exact is not None:
            compare(f"grad of input {i}", value, exact)
    label = name or str(getattr(kernel, "__name__", "kernel"))
    return OpCertificate(label, precision, list(ledger.rows.values()), largest, ledger.first)


def _precision(inputs: Sequence[Any]) -> str:
    kinds = {str(x.dtype).removeprefix("torch.") for x in inputs if hasattr(x, "dtype")}
    if len(kinds) != 1 or not kinds <= UNITS.keys() or not all(hasattr(x, "dtype") for x in inputs):
        found = ", ".join(sorted(kinds)) or "no arrays"
        raise UsageError(f"gradcheck: inputs: got {found}; expected arrays of one precision of {', '.join(UNITS)}")
    return kinds.pop()


def _floats(x: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A float64 copy."""
    if isinstance(x, Tensor):
        x = x.detach().double().cpu().numpy()
    return np.array(x, np.float64)


def _cotangent(like: Any, grad: Any, seed: int) -> Any:
    """An array of the result's kind, shape and precision."""
    if grad is not None:
        return grad
    drawn = np.random.default_rng(seed).normal(size=tuple(like.shape))
    if isinstance(like, Tensor):
        return torch.from_numpy(np.asarray(drawn)).to(like.dtype).to(like.device)
    return np.asarray(drawn, like.dtype)


def _autograd(kernel: Callable[..., Any], inputs: Sequence[Any], g: Any) -> Sequence[Any]:
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    return torch.autograd.grad(kernel(*leaves), leaves, g, allow_unused=True)
