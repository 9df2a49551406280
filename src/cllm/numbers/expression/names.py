"""What an expression can call: the elementary functions, constants, and functions of integers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from flint import fmpq

from cllm.numbers import theory, towers
from cllm.numbers.bases import check_base, to_base
from cllm.numbers.bigint import BigInt
from cllm.numbers.constants import CONSTANTS, Constant
from cllm.numbers.elementary import Elementary
from cllm.numbers.functions import FUNCTIONS

ALIASES = {
    "ln": "log", "lg": "log10", "pow": "power", "arcsin": "asin", "arccos": "acos", "arctan": "atan",
    "arsinh": "asinh", "arcosh": "acosh", "artanh": "atanh", "W": "lambertw", "Γ": "gamma", "ψ": "digamma",
    "ζ": "zeta", "tg": "tan", "ctg": "cot", "fac": "factorial", "choose": "binomial", "fib": "fibonacci",
    "φ": "phi", "π": "pi", "γ": "euler_gamma", "isprime": "is_prime", "nextprime": "next_prime",
    "prevprime": "previous_prime", "prev_prime": "previous_prime", "sign": "sgn",
}  # fmt: skip

REALS: dict[str, Elementary] = {**FUNCTIONS, "infinite_tower": towers.infinite_tower}
NAMED_CONSTANTS: dict[str, Constant] = CONSTANTS


@dataclass(frozen=True)
class IntegerFunction:
    """A function of exact integers; `result`: "exact", "truth", "factors", "list" or "text"."""

    apply: Callable[..., Any]
    arity: tuple[int, int]
    help: str
    result: str = "exact"


def _isqrt(n: BigInt) -> BigInt:
    return n.isqrt()


def _tower_mod(modulus: BigInt, *levels: BigInt) -> BigInt:
    return towers.tower_mod(levels, modulus)


def _crt(*pairs: BigInt) -> BigInt:
    return theory.crt(pairs[::2], pairs[1::2])[0]


def _base(n: BigInt, base: BigInt) -> str:
    return to_base(n._z, check_base(int(base)))


_MANY = 1 << 16

INTEGERS: dict[str, IntegerFunction] = {
    "gcd": IntegerFunction(theory.gcd, (1, _MANY), "greatest common divisor"),
    "lcm": IntegerFunction(theory.lcm, (1, _MANY), "least common multiple"),
    "factorial": IntegerFunction(theory.factorial, (1, 1), "n! (also written n!)"),
    "binomial": IntegerFunction(theory.binomial, (2, 2), "n over k"),
    "fibonacci": IntegerFunction(theory.fibonacci, (1, 1), "the n-th Fibonacci number"),
    "primorial": IntegerFunction(theory.primorial, (1, 1), "product of the primes up to n"),
    "next_prime": IntegerFunction(theory.next_prime, (1, 1), "the least prime above n"),
    "previous_prime": IntegerFunction(theory.previous_prime, (1, 1), "the largest prime below n"),
    "is_prime": IntegerFunction(theory.is_prime, (1, 1), "whether n is prime, proven", "truth"),
    "factor": IntegerFunction(theory.factor, (1, 1), "the prime factors of n", "factors"),
    "divisors": IntegerFunction(theory.divisors, (1, 1), "all divisors of n", "list"),
    "totient": IntegerFunction(theory.totient, (1, 1), "Euler's φ(n)"),
    "carmichael": IntegerFunction(theory.carmichael, (1, 1), "Carmichael's λ(n)"),
    "moebius": IntegerFunction(theory.moebius, (1, 1), "Möbius' μ(n)"),
    "sigma": IntegerFunction(theory.sigma, (1, 2), "sum of the divisors of n, to the power k"),
    "jacobi": IntegerFunction(theory.jacobi, (2, 2), "the Jacobi symbol (a/n)"),
    "modpow": IntegerFunction(theory.modpow, (3, 3), "a^k mod m"),
    "modinv": IntegerFunction(theory.modinv, (2, 2), "the inverse of a modulo m"),
    "crt": IntegerFunction(_crt, (2, _MANY), "x with x ≡ r1 (mod m1), …: crt(r1, m1, r2, m2, …)"),
    "tower_mod": IntegerFunction(_tower_mod, (2, _MANY), "a^(b^…) mod m: tower_mod(m, a, b, …)"),
    "isqrt": IntegerFunction(_isqrt, (1, 1), "⌊√n⌋"),
    "base": IntegerFunction(_base, (2, 2), "n written in base 2..36 or 60", "text"),
}

# decided by the evaluator itself, which sees exact values and enclosures
SPECIAL = {
    "abs": (1, 1), "sgn": (1, 1), "floor": (1, 1), "ceil": (1, 1), "round": (1, 1), "frac": (1, 1), "min": (1, _MANY),
    "max": (1, _MANY), "mod": (2, 2), "damped_tower": (2, 2), "base60": (1, 2),
}  # fmt: skip


def resolve(name: str) -> str:
    """An alias by its proper name."""
    return ALIASES.get(name, name)


def known_names() -> list[str]:
    """Every name an expression can use, for hints and completion."""
    return sorted({*ALIASES, *REALS, *INTEGERS, *SPECIAL, *NAMED_CONSTANTS, "ans"})


def to_fraction(x: fmpq) -> Fraction:
    """An fmpq (in lowest terms already) as a Fraction."""
    return Fraction(int(x.p), int(x.q))
