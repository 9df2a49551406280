"""Arithmetic of the kernels, to within the roundings that the tests' bounds allow (tests/judges/bounds.py).

Triton's own exp multiplies by log₂e before it takes 2ˣ, an error that grows with |x|; its / and √ of float32 are not
rounded to nearest. bfloat16 is rounded here on the bits, to nearest even: what the compiler's conversion does too,
but its interpreter cuts off instead, and what is tested shall be what runs.

Branches on a type end in one `return`: behind an earlier one the compiler would type the rest as well.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2_HIGH = tl.constexpr(355.0 / 512.0)  # ten bits: its product with a whole number below 2¹⁴ is exact
LN2_LOW = tl.constexpr(-2.1219444005469057e-4)


@triton.jit
def exponential(x):
    """eˣ: 2ᵏ·2^(r·log₂e), x = k·ln 2 + r, |r| ≤ ½ ln 2. x is cut to where eˣ is a number; NaN stays NaN."""
    if x.dtype == tl.float64:
        found = tl.exp(tl.where(x > 709.0, 709.0, x))
    else:
        x = tl.where(x < -104.0, -104.0, x)
        x = tl.where(x > 88.0, 88.0, x)
        k = tl.floor(x * LOG2E + 0.5)
        r = (x - k * LN2_HIGH) - k * LN2_LOW
        found = tl.exp2(r * LOG2E) * tl.exp2(k)
    return found


@triton.jit
def divided(a, b):
    """a/b, rounded to nearest."""
    if a.dtype == tl.float64:
        found = a / b
    else:
        found = tl.div_rn(a, b)
    return found


@triton.jit
def inverse(x):
    """1/x, rounded to nearest."""
    if x.dtype == tl.float64:
        found = 1.0 / x
    else:
        found = tl.div_rn(1.0, x)
    return found


@triton.jit
def square_root(x):
    """√x, rounded to nearest."""
    if x.dtype == tl.float64:
        found = tl.sqrt(x)
    else:
        found = tl.sqrt_rn(x)
    return found


@triton.jit
def logistic(x):
    """σ(x) = 1/(1 + e⁻ˣ)."""
    return inverse(exponential(-x) + 1.0)


@triton.jit
def narrowed(x, kind: tl.constexpr):
    """float32 `x` as `kind`: itself, or the nearest bfloat16 (ties to even)."""
    if kind == tl.bfloat16:
        bits = x.to(tl.uint32, bitcast=True)
        bits = bits + 0x7FFF + ((bits >> 16) & 1)
        bits = tl.where(x != x, 0x7FC00000, bits)
        found = (bits >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        found = x
    return found


@triton.jit
def widened(x):
    """bfloat16 as float32; other types as they are."""
    if x.dtype == tl.bfloat16:
        found = x.to(tl.float32)
    else:
        found = x
    return found
