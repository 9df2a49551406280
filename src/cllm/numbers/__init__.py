"""Exact and certified numbers: BigInt, BigFixed, Ball, constants, elementary functions.

>>> from cllm.numbers import Ball, precision, exp
>>> with precision(256):
...     print(exp(Ball("0.1")).bounds(30))
('1.10517091807564762481170782649', '1.10517091807564762481170782650')
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cllm.numbers.ball import Ball
from cllm.numbers.bigint import BigInt
from cllm.numbers.constants import (
    CONSTANTS,
    Constant,
    catalan,
    e,
    euler_gamma,
    ln2,
    ln3,
    ln10,
    phi,
    pi,
    sqrt2,
    sqrt3,
    sqrt5,
)
from cllm.numbers.context import current_bits, flint_precision, precision
from cllm.numbers.elementary import Elementary
from cllm.numbers.fixed import BigFixed
from cllm.numbers.functions import (
    FUNCTIONS,
    acos,
    acosh,
    agm,
    asin,
    asinh,
    atan,
    atan2,
    atanh,
    cbrt,
    cos,
    cosh,
    cospi,
    cot,
    coth,
    csc,
    digamma,
    erf,
    erfc,
    exp,
    expm1,
    gamma,
    hypot,
    lambertw,
    lgamma,
    ln,
    log,
    log1p,
    log2,
    log10,
    power,
    root,
    sec,
    sin,
    sinh,
    sinpi,
    sqrt,
    tan,
    tanh,
    tanpi,
    zeta,
)
from cllm.numbers.operators import DivisionByZeroError
from cllm.numbers.round_modes import rounding
from cllm.numbers.theory import (
    binomial,
    carmichael,
    crt,
    divisors,
    factor,
    factorial,
    fibonacci,
    gcd,
    is_prime,
    is_probable_prime,
    jacobi,
    lcm,
    modinv,
    modpow,
    moebius,
    next_prime,
    previous_prime,
    primorial,
    sigma,
    totient,
    xgcd,
)
from cllm.numbers.towers import damped_tower, infinite_tower, tower_lower, tower_mod, tower_upper

if TYPE_CHECKING:  # these need numpy, so they are imported when first asked for
    from cllm.numbers.matrices import BallMatrix
    from cllm.numbers.storage import load_balls, save_balls
    from cllm.numbers.vectors import BallVector

_LATE = {
    "BallMatrix": "cllm.numbers.matrices",
    "BallVector": "cllm.numbers.vectors",
    "load_balls": "cllm.numbers.storage",
    "save_balls": "cllm.numbers.storage",
}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(importlib.import_module(_LATE[name]), name)
    raise AttributeError(f"module 'cllm.numbers' has no attribute {name!r}")


__all__ = [
    "CONSTANTS",
    "FUNCTIONS",
    "Ball",
    "BallMatrix",
    "BallVector",
    "BigFixed",
    "BigInt",
    "Constant",
    "DivisionByZeroError",
    "Elementary",
    "acos",
    "acosh",
    "agm",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "binomial",
    "carmichael",
    "catalan",
    "cbrt",
    "cos",
    "cosh",
    "cospi",
    "cot",
    "coth",
    "crt",
    "csc",
    "current_bits",
    "damped_tower",
    "digamma",
    "divisors",
    "e",
    "erf",
    "erfc",
    "euler_gamma",
    "exp",
    "expm1",
    "factor",
    "factorial",
    "fibonacci",
    "flint_precision",
    "gamma",
    "gcd",
    "hypot",
    "infinite_tower",
    "is_prime",
    "is_probable_prime",
    "jacobi",
    "lambertw",
    "lcm",
    "lgamma",
    "ln",
    "ln2",
    "ln3",
    "ln10",
    "load_balls",
    "log",
    "log1p",
    "log2",
    "log10",
    "modinv",
    "modpow",
    "moebius",
    "next_prime",
    "phi",
    "pi",
    "power",
    "precision",
    "previous_prime",
    "primorial",
    "root",
    "rounding",
    "save_balls",
    "sec",
    "sigma",
    "sin",
    "sinh",
    "sinpi",
    "sqrt",
    "sqrt2",
    "sqrt3",
    "sqrt5",
    "tan",
    "tanh",
    "tanpi",
    "totient",
    "tower_lower",
    "tower_mod",
    "tower_upper",
    "xgcd",
    "zeta",
]
