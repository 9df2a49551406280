"""Integers in any base 2..36 as text, and in base 60 as the Babylonians grouped it: "1,24,51,10"."""

from __future__ import annotations

from flint import fmpz

from cllm.errors import DomainError
from cllm.numbers.limits import check_integer_bits

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def check_base(base: int) -> int:
    """`base` when it is 2..36 or 60."""
    if not (2 <= base <= 36 or base == 60):
        raise DomainError(f"base: got {base}; expected 2..36 or 60")
    return int(base)


def to_digits(n: fmpz, base: int) -> list[int]:
    """The digits of |n| in any base ≥ 2, most significant first; [0] for 0. Halves the number, so subquadratic."""
    if base < 2:
        raise DomainError(f"base: got {base}; expected at least 2")
    n = abs(n)
    if n == 0:
        return [0]
    powers = [fmpz(base)]
    while powers[-1] <= n:
        powers.append(powers[-1] ** 2)

    def split(value: fmpz, level: int) -> list[int]:
        if level < 0:
            return [int(value)]
        high, low = divmod(value, powers[level])
        return split(high, level - 1) + split(low, level - 1)

    digits = split(n, len(powers) - 1)
    first = next(i for i, d in enumerate(digits) if d)
    return digits[first:]


def from_digits(digits: list[int], base: int) -> fmpz:
    """The inverse of `to_digits`: Σ dᵢ·base^(…), most significant first."""
    if base < 2:
        raise DomainError(f"base: got {base}; expected at least 2")
    for d in digits:
        if not 0 <= d < base:
            raise DomainError(f"digit {d} is outside 0..{base - 1}, the digits of base {base}")
    parts = [fmpz(d) for d in reversed(digits)] or [fmpz(0)]
    power = fmpz(base)
    while len(parts) > 1:
        if len(parts) % 2:
            parts.append(fmpz(0))
        parts = [low + high * power for low, high in zip(parts[::2], parts[1::2], strict=True)]
        power = power * power
    return parts[0]


def to_base(n: fmpz, base: int) -> str:
    """Text of n: letters after 9 for bases up to 36; comma-separated decimal digits for base 60."""
    if check_base(base) == 60:
        return ("-" if n < 0 else "") + ",".join(map(str, to_digits(n, 60)))
    return str(n.str(base=base))


def parse_integer(text: str, base: int = 10) -> fmpz:
    """An integer from text: signs, `_` between digits, prefixes 0b 0o 0x (with base 0 or the fitting base).

    Raises:
        DomainError: anything else.
        LimitError: more bits than `limits.MAX_INTEGER_BITS`.
    """
    body = text.strip().lower()
    negative = body.startswith("-")
    body = body.removeprefix("-") if negative else body.removeprefix("+")
    prefixes = {"0b": 2, "0o": 8, "0x": 16}
    if body[:2] in prefixes and base in (0, prefixes[body[:2]]):
        base, body = prefixes[body[:2]], body[2:]
    base = check_base(base or 10)
    check_integer_bits(len(body) * (base - 1).bit_length(), "integer text")
    if base == 60:
        pieces = body.split(",")
        if not all(p.strip().isdecimal() for p in pieces):
            raise DomainError(f"{text!r:.80} is not base-60 text; expected digits 0..59 between commas: 1,24,51,10")
        value = from_digits([int(p) for p in pieces], 60)
    else:
        plain = body.replace("_", "")
        allowed = set(_DIGITS[:base])
        wrong = not plain or body.startswith("_") or body.endswith("_") or "__" in body
        if wrong or not set(plain) <= allowed:
            raise DomainError(f"{text!r:.80} is not an integer in base {base}; digits: {_DIGITS[:base]}")
        value = fmpz(plain) if base == 10 else _from_base(plain, base)
    return -value if negative else value


def _from_base(plain: str, base: int) -> fmpz:
    if base & (base - 1) == 0:
        return fmpz(int(plain, base))  # linear in Python for powers of two
    return from_digits([_DIGITS.index(c) for c in plain], base)
