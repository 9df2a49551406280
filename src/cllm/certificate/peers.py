"""`torch.autograd.gradcheck` on the same mutants, for comparison: each op's kernels wrapped as an autograd.Function.

gradcheck compares a backward with finite differences of *its own* forward, in float64, to about 1e-3 relative: a wrong
forward with a matching backward passes, and what is not an op with a gradient (the optimiser, the wiring of a step)
cannot be given to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

from cllm.certificate.mutants import Mutant
from cllm.engine.dispatch import Kernels, select
from cllm.engine.dropout import Key

DOES_NOT_APPLY = "does not apply"


def _function(forward: Callable[..., Any], backward: Callable[..., Any]) -> Callable[..., Any]:
    class Wrapped(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Tensor) -> Tensor:
            y, ctx.kept = forward(*(x.detach().clone() for x in inputs))
            ctx.inputs = inputs
            result: Tensor = y
            return result

        @staticmethod
        def backward(ctx: Any, dy: Tensor) -> Any:
            return backward(dy.clone(), ctx.kept, *(x.detach().clone() for x in ctx.inputs))

    return Wrapped.apply


def _draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape) + seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def _layernorm(k: Kernels) -> tuple[Any, tuple[Tensor, ...]]:
    def forward(x: Tensor, g: Tensor, b: Tensor) -> Any:
        y, stats = torch.empty_like(x), (x.new_empty(len(x), 1), x.new_empty(len(x), 1))
        k.layernorm_forward(x, g, b, y, *stats)
        return y, stats

    def backward(dy: Tensor, stats: Any, x: Tensor, g: Tensor, b: Tensor) -> Any:
        dx, dg, db = torch.zeros_like(x), torch.zeros_like(g), torch.zeros_like(b)
        k.layernorm_backward(dy, x, *stats, g, dx, None, dg, db)
        return dx, dg, db

    return _function(forward, backward), (_draw(3, 5), _draw(5), _draw(5, seed=1))


def _gelu(k: Kernels) -> tuple[Any, tuple[Tensor, ...]]:
    one, zero = torch.eye(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)  # a product that changes nothing

    def forward(x: Tensor) -> Any:
        pre, y = torch.empty_like(x), torch.empty_like(x)
        k.linear_gelu_forward(x, one, zero, pre, y)
        return y, None

    def backward(dy: Tensor, _: Any, x: Tensor) -> Any:
        dx = torch.empty_like(x)
        k.linear_gelu_backward_input(dy.contiguous(), one, x, dx)
        return dx

    return _function(forward, backward), (_draw(3, 5),)


def _attention(k: Kernels) -> tuple[Any, tuple[Tensor, ...]]:
    b, h, t, width = 1, 2, 5, 3
    documents = torch.tensor([[0, 0, 1, 1, 1]])
    scratch = k.attention_scratch(b, t, h, width, backward=True, dtype=torch.float64)

    def forward(qkv: Tensor) -> Any:
        o, lse = qkv.new_empty(b * t, h * width), qkv.new_empty(b, h, t)
        k.attention_forward(qkv, o, lse, scratch, documents_BT=documents)
        return o, (o.clone(), lse)

    def backward(do: Tensor, kept: Any, qkv: Tensor) -> Any:
        out = torch.empty_like(qkv)
        k.attention_backward(do.contiguous(), qkv, *kept, out, scratch, documents_BT=documents)
        return out

    return _function(forward, backward), (_draw(b * t, 3 * h * width),)


def _linear(k: Kernels) -> tuple[Any, tuple[Tensor, ...]]:
    def forward(x: Tensor, w: Tensor, b: Tensor) -> Any:
        y = x.new_empty(len(x), len(w))
        k.linear_forward(x, w, b, y, None)
        return y, None

    def backward(dy: Tensor, _: Any, x: Tensor, w: Tensor, b: Tensor) -> Any:
        dx, dw, db = torch.empty_like(x), torch.zeros_like(w), torch.zeros_like(b)
        k.linear_backward_weight(dy, x, dw, db)
        k.linear_backward_input(dy, w, dx)
        return dx, dw, db

    return _function(forward, backward), (_draw(5, 3), _draw(4, 3), _draw(4))


def _embedding(k: Kernels) -> tuple[Any, tuple[Tensor, ...]]:
    tokens = torch.tensor([[1, 3, 1, 0]])

    def forward(e: Tensor, p: Tensor) -> Any:
        x = e.new_empty(4, e.shape[1])
        k.embedding_forward(tokens, None, e, p, x)
        return x, None

    def backward(dx: Tensor, _: Any, e: Tensor, p: Tensor) -> Any:
        de, dp = torch.zeros_like(e), torch.zeros_like(p)
        k.embedding_backward(dx, tokens, None, de, dp)
        return de, dp

    return _function(forward, backward), (_draw(5, 3), _draw(6, 3))


def _cross_entropy(k: Kernels) -> tuple[Any, tuple[Tensor, ...]]:
    targets, smoothing = torch.tensor([2, -1, 0]), 0.1

    def forward(z: Tensor) -> Any:
        loss, lse, dz = z.new_empty(3), z.new_empty(3), z.clone()
        k.cross_entropy(z.clone(), targets, smoothing, loss, lse, None)
        k.cross_entropy(dz, targets, smoothing, z.new_empty(3), lse, dz)
        return loss.sum(), dz

    def backward(dy: Tensor, dz: Tensor, z: Tensor) -> Any:
        return dz * dy

    return _function(forward, backward), (_draw(3, 5),)


def _dropout(k: Kernels) -> tuple[Any, tuple[Tensor, ...]]:
    mask = torch.empty(1, 3, 5, dtype=torch.bool)
    k.dropout_mask(Key(1, 0), 0.25, 0, 2, mask)

    def forward(x: Tensor) -> Any:
        y = torch.empty_like(x)
        k.dropout_apply(x, mask[0], 0.25, y)
        return y, None

    def backward(dy: Tensor, _: Any, x: Tensor) -> Any:
        z, row = x.new_zeros(1, 2), x.new_zeros(1)
        k.cross_entropy(z, torch.tensor([0]), 0.0, row, row.clone(), z)  # the way back begins
        dx = torch.empty_like(x)
        k.dropout_apply(dy, mask[0], 0.25, dx)
        return dx

    return _function(forward, backward), (_draw(3, 5),)


WRAPPERS = {
    "layernorm": _layernorm, "gelu": _gelu, "attention": _attention, "linear": _linear, "embedding": _embedding,
    "cross_entropy": _cross_entropy, "dropout": _dropout,
}  # fmt: skip


def torch_gradcheck(mutant: Mutant | None, op: str = "") -> str:
    """ "found", "passes", or "does not apply"; None: the healthy kernels of `op`."""
    healthy = select(torch.float64)
    op = mutant.op if mutant else op
    changed = mutant is None or bool(mutant.change(healthy))
    if op not in WRAPPERS or not changed:
        return DOES_NOT_APPLY
    # a mutant that remembers where it is in the step is made afresh for each call of forward
    function, inputs = WRAPPERS[op](mutant.kernels(healthy) if mutant else healthy)
    try:
        torch.autograd.gradcheck(function, inputs, nondet_tol=1.0)
    except GradcheckError:
        return "found"
    return "passes"
