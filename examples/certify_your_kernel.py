"""Certify a kernel of your own: the formula once, over cllm's number systems; the kernel in torch, by hand.

    cllm gradcheck examples/certify_your_kernel.py:softsign
    cllm gradcheck examples/certify_your_kernel.py:broken
    python examples/certify_your_kernel.py

The op is y = g · x / (1 + x²)½, a smooth softsign with a gain per channel. `broken` has a backward that somebody might
write: it forgets that the root depends on x.
"""

from __future__ import annotations

import torch
from torch import Tensor

import cllm.certificate as certificate


def forward(S, x, g):
    """The formula, and all of it: cllm takes the derivative from here."""
    return S.mul(S.mul(x, S.rsqrt(S.plus(S.sq(x), 1))), g)


def kernel(x: Tensor, g: Tensor) -> Tensor:
    return g * x * torch.rsqrt(1 + x * x)


def kernel_backward(dy: Tensor, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    r = torch.rsqrt(1 + x * x)
    return dy * g * r * r * r, (dy * x * r).sum(0)


def broken_backward(dy: Tensor, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    r = torch.rsqrt(1 + x * x)
    return dy * g * r, (dy * x * r).sum(0)


def inputs() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(64, 48, generator=generator), 1 + 0.1 * torch.randn(48, generator=generator)]


def softsign() -> certificate.OpCheck:
    return certificate.OpCheck(forward, kernel, kernel_backward, inputs())


def broken() -> certificate.OpCheck:
    return certificate.OpCheck(forward, kernel, broken_backward, inputs())


if __name__ == "__main__":
    print(certificate.gradcheck(forward, kernel, kernel_backward, inputs(), name="softsign"))
    print(certificate.gradcheck(forward, kernel, broken_backward, inputs(), name="broken"))
