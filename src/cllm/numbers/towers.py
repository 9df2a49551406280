"""Power towers: huge ones modulo m, a damped real one, and the infinite one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsIndex

from flint import arb

from cllm.errors import DomainError, LimitError
from cllm.numbers.ball import Ball
from cllm.numbers.bigint import BigInt
from cllm.numbers.constants import CONSTANTS, Constant, e
from cllm.numbers.context import at, resolve_bits
from cllm.numbers.convert import to_arb
from cllm.numbers.elementary import Decision, Elementary, decide
from cllm.numbers.limits import MAX_TOWER_HEIGHT, brief
from cllm.numbers.operators import Number, show, undecided
from cllm.numbers.theory import totient


def tower_mod(levels: Sequence[SupportsIndex], modulus: SupportsIndex) -> BigInt:
    """a^(b^(c^…)) mod m for `levels` = (a, b, c, …), all ≥ 0 (0⁰ = 1), m ≥ 1.

    By Euler's theorem for any base: a^E ≡ a^(E mod φ(m) + φ(m)) (mod m) once E ≥ log₂ m, because E is then no less
    than any exponent in the factorisation of m. (With Carmichael's λ(m) in place of φ(m) that fails: a = 2, m = 8.)

    Raises:
        DomainError: no level, a negative level, m < 1.
        LimitError: more than `limits.MAX_TOWER_HEIGHT` levels, or a modulus that cannot be factored.

    >>> from cllm.numbers import tower_mod
    >>> tower_mod((2, 3, 2), 11), tower_mod((2, 2, 2), 8), tower_mod((2, 2, 2, 2), 12)
    (BigInt(6), BigInt(0), BigInt(4))
    """
    a, m = [int(BigInt(x)) for x in levels], int(BigInt(modulus))
    if not a or min(a) < 0 or m < 1:
        shown = f"levels {brief(levels)}, modulus {brief(modulus)}"
        raise DomainError(f"tower_mod: {shown}; allowed: levels >= 0, modulus >= 1")
    if len(a) > MAX_TOWER_HEIGHT:
        raise LimitError(f"tower_mod: {len(a)} levels; the limit is {MAX_TOWER_HEIGHT}")
    bound = m.bit_length() + 1
    sizes = _clipped_sizes(a, bound)
    moduli = [m]
    while len(moduli) < len(a) and moduli[-1] > 1 and sizes[len(moduli)] >= bound:
        moduli.append(int(totient(moduli[-1])))
    last = len(moduli) - 1
    above = sizes[last + 1] if last + 1 < len(a) else 1
    value = pow(a[last], above, moduli[last]) if above < bound else 0  # above ≥ bound only where the modulus is 1
    for i in range(last - 1, -1, -1):
        value = pow(a[i], value + moduli[i + 1], moduli[i])
    return BigInt(value % m)


def _clipped_sizes(a: list[int], bound: int) -> list[int]:
    """min(tower from level i up, bound) for every i, without ever forming a large power."""
    sizes = [0] * len(a)
    exponent = 1
    for i in range(len(a) - 1, -1, -1):
        base = min(a[i], bound)
        if base <= 1:
            exponent = 1 if base == 1 or exponent == 0 else 0
        else:
            exponent = bound if exponent >= bound.bit_length() else min(base**exponent, bound)
        sizes[i] = exponent
    return sizes


def damped_tower(base: Number, height: int, *, bits: int | None = None) -> Ball:
    """T(height) of T(0) = 1, T(h) = base^(T(h−1)·φ^(−h)), φ the golden ratio: each level is damped, so it converges.

    Raises:
        DomainError: base ≤ 0, or a negative height.
        LimitError: more than `limits.MAX_TOWER_HEIGHT` levels, or a value beyond any ball.
    """
    work_bits = resolve_bits(bits)
    if height < 0:
        raise DomainError(f"damped_tower: got height {height}; expected a height >= 0")
    if height > MAX_TOWER_HEIGHT:
        raise LimitError(f"damped_tower: height {height}; the limit is {MAX_TOWER_HEIGHT}")
    work = work_bits + 32
    while True:
        b = to_arb(base, work)
        if b <= 0:
            raise DomainError(f"damped_tower: base {show(b)}; allowed: base > 0")
        if not b > 0:
            raise undecided("damped_tower: whether the base is positive", b)
        t = at(work, _damped, b, height)
        if t.is_finite() and (t.rel_accuracy_bits() >= work_bits or work > 4 * work_bits + 1024):
            return Ball._of(t)
        if not t.is_finite() and work > 4 * work_bits + 1024:
            raise LimitError(f"damped_tower: T({height}) to the base {show(b)} is beyond what a ball can hold")
        work *= 2


def _damped(b: arb, height: int) -> arb:
    t, log_b, damping = arb(1), b.log(), arb(1)
    inverse_phi = (arb(5).sqrt() - 1) / 2
    for _ in range(height):
        damping *= inverse_phi
        t = (log_b * t * damping).exp()
    return t


def _infinite_domain(b: arb) -> Decision:
    """e^−e and e^(1/e) are transcendental, so an exact b is always decided."""
    low, high = (-arb.const_e()).exp(), (1 / arb.const_e()).exp()
    return decide(yes=b > low and b < high, no=b < low or b > high)


tower_lower = Constant(
    "tower_lower", lambda: (-arb.const_e()).exp(), "e^−e, the least base of an infinite tower (value 1/e)."
)
tower_upper = Constant(
    "tower_upper", lambda: (1 / arb.const_e()).exp(), "e^(1/e), the largest base of an infinite tower (value e)."
)
CONSTANTS.update({c.name: c for c in (tower_lower, tower_upper)})


class _InfiniteTower(Elementary):
    """The elementary function, with the two ends of its interval, which no enclosure can decide, by name."""

    def enclose(self, args: tuple[object, ...], bits: int) -> arb:
        if len(args) == 1 and args[0] is tower_upper:
            return e._enclosure(bits)
        if len(args) == 1 and args[0] is tower_lower:
            return at(bits + 8, lambda: 1 / arb.const_e())
        return super().enclose(args, bits)


infinite_tower = _InfiniteTower(
    "infinite_tower",
    lambda b: (-((-b.log()).lambertw())).exp(),
    "b^(b^(b^…)) = −W(−ln b)/ln b = exp(−W(−ln b)); 1 at b = 1, e at `tower_upper`, 1/e at `tower_lower` (Euler 1783).",
    "e^-e <= b <= e^(1/e)",
    _infinite_domain,
)
infinite_tower.__module__ = __name__
