"""Exact numbers beside mpmath, gmpy2 and sympy: the numbers half of `cllm bench numbers`.

Our balls carry a proven error bound and the peers' numbers do not; both work at the same precision. Every result is
compared with a peer's before anything is timed; a package that is not installed is named in the notes and left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from flint import ctx

from cllm.bench.measure import Table, interleave
from cllm.errors import CertificateError
from cllm.numbers import Ball, BallMatrix, BallVector, BigInt, cos, exp, log, pi, precision, sin

DIGITS = 100_000
ELEMENTS = 10**6
VECTOR = 10**4
VECTOR_BITS = 256
MATRIX = 512
BULK_TARGET_S = 0.2
Call = Callable[[], Any]


def tables(rounds: int = 5) -> list[Table]:
    """All tables of this file."""
    return [scalars_table(rounds), arrays_table(rounds)]


def scalars_table(rounds: int = 5) -> Table:
    """A 10⁵-digit product, π to 10⁵ digits, exp, ln and sin at 10³ and 10⁴ digits: ours beside the peers."""
    table = Table("numbers", "Numbers (medians; ratio: peer over ours, above 1 when ours is faster)")
    peers = {name: table.peer(name) for name in ("gmpy2", "mpmath", "sympy")}
    _product(table, peers, rounds)
    _pi(table, peers, rounds)
    for digits in (1_000, 10_000):
        for name in ("exp", "ln", "sin"):
            _function(table, name, digits, peers, rounds)
    table.notes.append("π: every candidate forgets the constant between calls; no peer proves its digits.")
    return table


def arrays_table(rounds: int = 5) -> Table:
    """10⁴-element vectors at 256 bits, 10⁶ floats to balls and back, ball matrices at 64 to 512 bits."""
    table = Table("numbers-arrays", "Arrays of balls (medians; ratio: peer over ours, above 1 when ours is faster)")
    peers = {name: table.peer(name) for name in ("gmpy2", "mpmath")}
    _vectors(table, peers, rounds)
    _bulk(table, peers, rounds)
    _matrices(table, peers, min(rounds, 3))
    table.facts["bulk_target_ms"] = 1e3 * BULK_TARGET_S
    table.notes.append("Matrices of peers are timed at 128 rows: at 512 they would take minutes.")
    return table


# scalars --------------------------------------------------------------------------------------------------------------
def _product(table: Table, peers: Mapping[str, Any], rounds: int) -> None:
    a, b = 7**118_330, 3**209_590  # 100,000 digits each
    x, y = BigInt(a), BigInt(b)
    others: dict[str, Call] = {"int": lambda: a * b}
    if peers["gmpy2"]:
        p, q = peers["gmpy2"].mpz(a), peers["gmpy2"].mpz(b)
        others["gmpy2"] = lambda: p * q
    if peers["sympy"]:
        s, t = peers["sympy"].Integer(a), peers["sympy"].Integer(b)
        others["sympy"] = lambda: s * t
    for name, call in others.items():
        _agree(f"product: {name}", int(x * y) == int(call()))
    table.add_beside("product of 10^5 digits", interleave({"cllm": lambda: x * y, **others}, rounds, least_s=0.05))


def _pi(table: Table, peers: Mapping[str, Any], rounds: int) -> None:
    bits = DIGITS * 33220 // 10000 + 8

    def ours() -> Ball:
        ctx.cleanup()
        return pi(bits=bits)

    others: dict[str, Call] = {}
    if gmpy2 := peers["gmpy2"]:

        def by_gmpy2() -> Any:
            gmpy2.free_cache()
            return gmpy2.const_pi(bits)

        others["gmpy2"] = by_gmpy2
        _agree("pi: gmpy2", _near(ours(), by_gmpy2(), bits))
    if mpmath := peers["mpmath"]:
        memo = mpmath.libmp.libelefun.pi_fixed.__closure__[0].cell_contents  # where mpmath keeps the digits

        def by_mpmath() -> Any:
            memo.memo_prec = -1
            return mpmath.libmp.mpf_pi(bits)

        others["mpmath"] = by_mpmath
        value = mpmath.mp.make_mpf(by_mpmath())
        _agree("pi: mpmath", _near(ours(), value, bits))
    table.add_beside("pi to 10^5 digits", interleave({"cllm": ours, **others}, rounds))


def _near(ball: Ball, value: Any, bits: int) -> bool:
    """Whether a peer's number is within a few units of its last place of the ball."""
    if hasattr(value, "_mpf_"):
        sign, m, e, _ = value._mpf_
        exact = Fraction(-int(m) if sign else int(m)) * Fraction(2) ** int(e)
    else:
        exact = Fraction(*map(int, value.as_integer_ratio()))
    return Ball(exact, abs(exact) * Fraction(8, 2**bits)).overlaps(ball)


def _function(table: Table, name: str, digits: int, peers: Mapping[str, Any], rounds: int) -> None:
    bits = digits * 33220 // 10000 + 8
    with precision(bits):
        x = (cos(1) + 2).middle  # an exact binary number of that length, about 2.54
    function = {"exp": exp, "ln": log, "sin": sin}[name]
    m, e, _, _ = x.mantissa_exponent()

    def ours() -> Ball:
        return function(x, bits=bits)

    _agree(f"{name}: proven accuracy", x.is_exact and ours().accuracy_bits >= bits - 4)
    others: dict[str, Call] = {}
    if mpmath := peers["mpmath"]:
        argument = mpmath.mp.make_mpf(mpmath.libmp.from_man_exp(m, e))
        theirs = getattr(mpmath, name)

        def by_mpmath() -> Any:
            with mpmath.workprec(bits):
                return theirs(argument)

        others["mpmath"] = by_mpmath
        _agree(f"{name}: mpmath", _near(ours(), by_mpmath(), bits))
    if gmpy2 := peers["gmpy2"]:
        context = gmpy2.context(precision=bits, emax=10**9, emin=-(10**9))
        with gmpy2.context(context):
            number = gmpy2.mul_2exp(gmpy2.mpfr(m), e) if e >= 0 else gmpy2.div_2exp(gmpy2.mpfr(m), -e)
        function_of_context = getattr(context, "log" if name == "ln" else name)

        def by_gmpy2() -> Any:
            return function_of_context(number)

        others["gmpy2"] = by_gmpy2
        _agree(f"{name}: gmpy2", _near(ours(), by_gmpy2(), bits))
    table.add_beside(f"{name} at {digits} digits", interleave({"cllm": ours, **others}, rounds, least_s=0.02))


# arrays ---------------------------------------------------------------------------------------------------------------
def _vectors(table: Table, peers: Mapping[str, Any], rounds: int) -> None:
    rng = np.random.default_rng(7)
    a, b = rng.standard_normal(VECTOR), rng.standard_normal(VECTOR)
    with precision(VECTOR_BITS):
        v, w = BallVector(a).apply(exp), BallVector(b).apply(exp)  # full-length mantissas
    lists = {name: _elements(name, module, v, w) for name, module in peers.items() if module}
    operations: dict[str, tuple[Call, Callable[[Any, Any], Any]]] = {
        "add": (lambda: v + w, lambda x, y: x + y),
        "multiply": (lambda: v * w, lambda x, y: x * y),
    }
    for operation, (ours, theirs) in operations.items():
        candidates = {"cllm": _within(ours, VECTOR_BITS)}
        for name, (xs, ys, context) in lists.items():
            candidates[name] = _elementwise(xs, ys, theirs, context)
        table.add_beside(f"vector of 10^4, {operation}, 256 bits", interleave(candidates, rounds, least_s=0.02))
    candidates = {"cllm": lambda: v.apply(exp, bits=VECTOR_BITS)}
    for name, (xs, _, context) in lists.items():
        candidates[name] = _mapped(xs, peers[name].exp, context)
    table.add_beside("vector of 10^4, exp, 256 bits", interleave(candidates, rounds))


def _within(call: Call, bits: int) -> Call:
    def timed() -> Any:
        with precision(bits):
            return call()

    return timed


def _elements(name: str, module: Any, v: BallVector, w: BallVector) -> tuple[list[Any], list[Any], Callable[[], Any]]:
    """The midpoints as the peer's numbers, and the peer's precision context."""
    pairs = [[x.mantissa_exponent()[:2] for x in side] for side in (v, w)]
    if name == "mpmath":
        make = [[module.mp.make_mpf(module.libmp.from_man_exp(m, e)) for m, e in side] for side in pairs]
        return make[0], make[1], lambda: module.workprec(VECTOR_BITS)

    def context() -> Any:
        return module.context(module.get_context(), precision=VECTOR_BITS)

    with context():
        made = [[module.mpfr(m) * module.mpfr(2) ** e for m, e in side] for side in pairs]
    return made[0], made[1], context


def _elementwise(xs: list[Any], ys: list[Any], operation: Callable[[Any, Any], Any], context: Call) -> Call:
    def timed() -> list[Any]:
        with context():
            return [operation(x, y) for x, y in zip(xs, ys, strict=True)]

    return timed


def _mapped(xs: list[Any], function: Callable[[Any], Any], context: Call) -> Call:
    def timed() -> list[Any]:
        with context():
            return [function(x) for x in xs]

    return timed


def _bulk(table: Table, peers: Mapping[str, Any], rounds: int) -> None:
    for dtype in (np.float64, np.float32):
        a = np.random.default_rng(8).standard_normal(ELEMENTS).astype(dtype)
        balls = BallVector(a)
        _agree(f"{dtype.__name__} round trip", bool((balls.to_array(dtype) == a).all()))
        inward: dict[str, Call] = {"cllm": _to_balls(a)}
        outward: dict[str, Call] = {"cllm": _to_floats(balls, dtype)}
        if dtype is np.float64:
            for name, kind in (("gmpy2", "mpfr"), ("mpmath", "mpf")):
                if peers[name]:
                    convert = getattr(peers[name], kind)
                    numbers = list(map(convert, a.tolist()))
                    inward[name] = _listed(convert, a)
                    outward[name] = _floats(numbers)
        table.add_beside(f"{dtype.__name__} to balls, 10^6", interleave(inward, rounds), BULK_TARGET_S)
        table.add_beside(f"balls to {dtype.__name__}, 10^6", interleave(outward, rounds), BULK_TARGET_S)


def _to_balls(a: Any) -> Call:
    return lambda: BallVector(a)


def _to_floats(balls: BallVector, dtype: Any) -> Call:
    return lambda: balls.to_array(dtype)


def _listed(convert: Callable[[float], Any], a: Any) -> Call:
    return lambda: list(map(convert, a.tolist()))


def _floats(numbers: list[Any]) -> Call:
    return lambda: np.fromiter(map(float, numbers), np.float64, len(numbers))


def _matrices(table: Table, peers: Mapping[str, Any], rounds: int) -> None:
    a = np.random.default_rng(9).standard_normal((MATRIX, MATRIX))
    m = BallMatrix(a)
    for bits in (64, 128, 256, 512):
        table.add_beside(f"ball matrix 512², {bits} bits", interleave({"cllm": _within(lambda: m @ m, bits)}, rounds))
    small = a[:128, :128]
    n, candidates = BallMatrix(small), {"cllm": _within(lambda: n @ n, VECTOR_BITS)}
    if gmpy2 := peers["gmpy2"]:
        objects = np.array([[gmpy2.mpfr(x) for x in row] for row in small.tolist()], dtype=object)

        def by_gmpy2() -> Any:
            with gmpy2.context(gmpy2.get_context(), precision=VECTOR_BITS):
                return objects @ objects

        candidates["gmpy2"] = by_gmpy2
        got = by_gmpy2()[3, 5]
        with precision(VECTOR_BITS):
            _agree("matrix: gmpy2", abs(float((n @ n)[3, 5]) - float(got)) <= 1e-12 * abs(float(got)))
    table.add_beside("ball matrix 128², 256 bits", interleave(candidates, rounds))


# tables ---------------------------------------------------------------------------------------------------------------
def _agree(what: str, same: bool) -> None:
    if not same:
        raise CertificateError(f"bench numbers: {what} gives another answer; nothing was timed")
