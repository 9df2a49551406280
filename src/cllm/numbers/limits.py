"""Sizes that are refused before memory or time is spent on them, each named in its error.

An exact integer costs an eighth of a byte a bit and products cost a little more than linear time, so these limits
stand where a result still fits comfortably in memory (32 MiB an integer) and is computed in about a minute.
"""

from __future__ import annotations

from cllm.errors import LimitError

MAX_PRECISION_BITS = 1 << 26  # 67 million bits, 20 million decimal digits
MAX_INTEGER_BITS = 1 << 28  # 268 million bits, 80 million decimal digits
MAX_PROOF_BITS = 4096  # a proof of primality takes about the fifth power of the length
MAX_FACTOR_BITS = 300  # of the cofactor left after the small factors are out; about 90 digits
MAX_TOWER_HEIGHT = 100_000  # a modular tower needs no more levels than the chain of totients, but the list is finite


def brief(x: object) -> str:
    """An argument for an error message: at most 80 characters, and no failure on integers of very many digits."""
    try:
        text = repr(x)
    except ValueError:  # Python writes no int of more than 4300 digits
        return f"{type(x).__name__} of very many digits"
    return text if len(text) <= 80 else text[:79] + "…"


def check_integer_bits(bits: int | float, what: str) -> None:
    """Refuse an exact integer of about `bits` bits.

    Raises:
        LimitError: more than MAX_INTEGER_BITS.
    """
    if bits > MAX_INTEGER_BITS:
        shown = f"{bits:.3g}" if bits < 1e300 else "more than 1e300"
        raise LimitError(
            f"{what}: the exact result has about {shown} bits, more than the limit of {MAX_INTEGER_BITS} bits "
            f"(cllm.numbers.limits.MAX_INTEGER_BITS); a Ball holds its size: Ball(10) ** (10**9)"
        )


def check_precision(bits: int, what: str = "precision") -> int:
    """Return `bits` when it can be worked with.

    Raises:
        LimitError: more than MAX_PRECISION_BITS, or less than 4.
    """
    if bits > MAX_PRECISION_BITS:
        raise LimitError(
            f"{what}: {bits} bits is more than the limit of {MAX_PRECISION_BITS} bits, "
            f"about {MAX_PRECISION_BITS * 3 // 10} digits (cllm.numbers.limits.MAX_PRECISION_BITS)"
        )
    if bits < 4:
        raise LimitError(f"{what}: got {bits} bits; the least is 4")
    return bits
