"""Every elementary function against mpmath: the enclosure contains its value, BigFixed is its correct rounding."""

from __future__ import annotations

import random
from fractions import Fraction

import mpmath
import pytest
from flint import arb
from tests.judges import mpmath_functions as judge

from cllm.errors import DomainError, LimitError, UndecidableError, UsageError
from cllm.numbers import FUNCTIONS, Ball, BigFixed, Elementary, infinite_tower, pi
from cllm.numbers import functions as f

ALL: dict[str, Elementary] = {**FUNCTIONS, "infinite_tower": infinite_tower}


def _rounded_by_judge(v: judge.Dyadic, scale: int, slack: int) -> int | None:
    """The judge's value rounded to n/2^scale, or None where its own error might change the rounding."""
    x, error = judge.to_fraction(v), abs(judge.to_fraction(v)) / 2**slack
    low, high = round((x - error) * 2**scale), round((x + error) * 2**scale)
    return low if low == high else None


def _check(name: str, args: tuple[judge.Dyadic, ...], bits: int, expected: object) -> bool:
    """Assert both statements; returns whether the rounding could be judged."""
    function = ALL[name]
    exact = tuple(judge.to_fraction(a) for a in args)
    v = judge.mpf_to_dyadic(expected)
    ball = function(*exact, bits=bits)
    mine = arb((v[0], v[1]))
    if ball.is_exact:
        assert abs(judge.to_fraction(v) - ball.as_fraction()) <= abs(ball.as_fraction()) / 2 ** (2 * bits), (
            exact,
            ball,
        )
    else:
        assert ball.flint.contains(mine), (name, exact, bits, ball)
        assert ball.accuracy_bits >= bits - 2, (name, exact, bits, ball)
    top = abs(v[0]).bit_length() + v[1]
    if top > 3000 or top < -3000:
        return False
    scale = max(0, bits - max(top, 0))
    n = _rounded_by_judge(v, scale, 2 * bits)
    if n is None:
        return False
    assert function.rounded(*exact, scale_bits=scale).n == n, (name, exact, scale)
    return True


def _compare(name: str, count: int, seed: int) -> None:
    rng = random.Random(f"{name} {seed}")
    judged = 0
    for bits in judge.precisions(rng, count, name in judge.SLOW):
        args = judge.SAMPLES[name](rng, bits)
        try:
            expected = judge.value(name, args, bits)
        except (ZeroDivisionError, ValueError):  # the sample is a pole itself
            with pytest.raises(DomainError):
                ALL[name](*map(judge.to_fraction, args))
            continue
        judged += _check(name, args, bits, expected)
    assert judged > 0.6 * count


def test_every_function_has_a_judge() -> None:
    assert set(judge.VALUES) == set(judge.SAMPLES) == set(ALL)


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_sample_against_mpmath(name: str) -> None:
    _compare(name, 60 if name in judge.SLOW else 150, seed=1)


@pytest.mark.prove
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", sorted(ALL))
def test_the_full_table_against_mpmath(name: str) -> None:
    _compare(name, 10_000, seed=2)


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_wide_ball_gives_the_values_at_all_its_points(name: str) -> None:
    """Inclusion: f(ball) holds f(x) for x at the ends and inside; a ball across a pole or boundary must raise."""
    rng, decided = random.Random(name), 0
    for _ in range(40):
        args = judge.SAMPLES[name](rng, 64)
        m, e = args[0]
        size = abs(m).bit_length() + e
        half = 2 ** rng.randint(0, 30)  # the radius is half · 2^step
        step = size - rng.randint(3, 60)
        middle = judge.to_fraction((m, e))
        ball = Ball(middle) + Ball(0, Fraction(half) * Fraction(2) ** (step - 30))
        try:
            result = ALL[name](ball, *map(judge.to_fraction, args[1:]), bits=64)
        except (UndecidableError, DomainError):
            continue
        decided += 1
        for numerator in (-half, half, rng.randint(-half, half)):
            point = middle + Fraction(numerator) * Fraction(2) ** (step - 30)
            power = point.denominator.bit_length() - 1
            v = judge.mpf_to_dyadic(judge.value(name, ((point.numerator, -power), *args[1:]), 64))
            assert result.flint.contains(arb((v[0], v[1]))), (name, point, ball, result)
    assert decided >= 10


F = Fraction
EXACT = [
    (f.exp, (0,), 1),
    (f.expm1, (0,), 0),
    (f.log, (1,), 0),
    (f.log, (8, 2), 3),
    (f.log, (8, 4), F(3, 2)),
    (f.log, (F(1, 27), 9), F(-3, 2)),
    (f.log, (F(4, 9), F(27, 8)), F(-2, 3)),
    (f.log2, (F(1, 2**500),), -500),
    (f.log10, (10**40,), 40),
    (f.log1p, (0,), 0),
    (f.sqrt, (F(9, 4),), F(3, 2)),
    (f.cbrt, (F(-27, 8),), F(-3, 2)),
    (f.root, (F(1, 1024), 5), F(1, 4)),
    (f.root, (-32, 5), -2),
    (f.power, (F(9, 4), F(3, 2)), F(27, 8)),
    (f.power, (2, -3), F(1, 8)),
    (f.power, (0, 0), 1),
    (f.power, (0, F(1, 2)), 0),
    (f.power, (-2, 3), -8),
    (f.hypot, (3, 4), 5),
    (f.hypot, (F(3, 2), 2), F(5, 2)),
    (f.sin, (0,), 0),
    (f.cos, (0,), 1),
    (f.tan, (0,), 0),
    (f.sec, (0,), 1),
    (f.sinpi, (F(1, 6),), F(1, 2)),
    (f.sinpi, (F(7, 2),), -1),
    (f.cospi, (F(1, 3),), F(1, 2)),
    (f.cospi, (1,), -1),
    (f.tanpi, (F(1, 4),), 1),
    (f.tanpi, (F(3, 4),), -1),
    (f.asin, (0,), 0),
    (f.acos, (1,), 0),
    (f.atan, (0,), 0),
    (f.atan2, (0, 5), 0),
    (f.sinh, (0,), 0),
    (f.cosh, (0,), 1),
    (f.tanh, (0,), 0),
    (f.asinh, (0,), 0),
    (f.acosh, (1,), 0),
    (f.atanh, (0,), 0),
    (f.erf, (0,), 0),
    (f.erfc, (0,), 1),
    (f.gamma, (1,), 1),
    (f.gamma, (6,), 120),
    (f.lgamma, (1,), 0),
    (f.lgamma, (2,), 0),
    (f.zeta, (0,), F(-1, 2)),
    (f.zeta, (-1,), F(-1, 12)),
    (f.zeta, (-2,), 0),
    (f.zeta, (-3,), F(1, 120)),
    (f.lambertw, (0,), 0),
    (f.agm, (3, 3), 3),
    (f.agm, (0, 7), 0),
]


@pytest.mark.parametrize(("function", "args", "value"), EXACT, ids=lambda x: getattr(x, "name", None))
def test_exact_values_end_the_loop_and_round_exactly(
    function: Elementary, args: tuple[object, ...], value: object
) -> None:
    exact = F(value)  # type: ignore[arg-type]
    assert function(*args).contains(exact)  # type: ignore[arg-type]
    for scale in (0, 1, 2, 64):
        assert function.rounded(*args, scale_bits=scale).n == round(exact * 2**scale)  # ties to even
        assert function.rounded(*args, scale_bits=scale, rounding="floor").n == (exact * 2**scale).__floor__()
        assert function.rounded(*args, scale_bits=scale, rounding="ceiling").n == (exact * 2**scale).__ceil__()


def test_halfway_cases_go_by_the_mode() -> None:
    half = F(9, 4)  # √ = 3/2, half-way at scale 0
    got = {
        mode: f.sqrt.rounded(half, scale_bits=0, rounding=mode).n
        for mode in ("nearest-even", "nearest-away", "floor", "ceiling", "toward-zero", "away-from-zero")
    }
    assert got == {
        "nearest-even": 2,
        "nearest-away": 2,
        "floor": 1,
        "ceiling": 2,
        "toward-zero": 1,
        "away-from-zero": 2,
    }
    assert f.log.rounded(32, 4, scale_bits=0).n == 2 and f.log.rounded(8, 4, scale_bits=0).n == 2  # 2.5 and 1.5
    assert f.zeta.rounded(0, scale_bits=0).n == 0 and f.zeta.rounded(0, scale_bits=0, rounding="nearest-away").n == -1
    assert f.cbrt.rounded(F(-27, 8), scale_bits=0, rounding="toward-zero").n == -1
    assert f.power.rounded(F(3, 2), 7, scale_bits=6).n == round(F(3, 2) ** 7 * 64)  # half-way at 6 bits


def test_nearly_exact_values_are_decided() -> None:
    tiny = F(1, 2**5000)
    assert f.exp.rounded(tiny, scale_bits=10).n == 1024
    assert f.exp.rounded(tiny, scale_bits=10, rounding="ceiling").n == 1025
    assert f.cos.rounded(tiny, scale_bits=10, rounding="floor").n == 1023
    assert f.exp.rounded(-(10**9), scale_bits=10, rounding="ceiling").n == 1
    assert f.exp.rounded(-(10**9), scale_bits=10, rounding="floor").n == 0
    assert f.power.rounded(F(999, 1000), 10**12, scale_bits=10, rounding="ceiling").n == 1
    assert f.sqrt.rounded(4 + tiny, scale_bits=3, rounding="ceiling").n == 17
    assert f.tanh.rounded(5000, scale_bits=10, rounding="floor").n == 1023
    for x, scale in ((5, 3), (10**9, 100), (10**6, 64)):  # settled by |tanh x| < 1, not by a billion bits
        for function, sign in ((f.tanh, 1), (f.tanh, -1), (f.erf, 1), (f.erf, -1)):
            got = {m: function.rounded(sign * x, scale_bits=scale, rounding=m).n for m in ("floor", "ceiling")}
            assert got["floor"] == (2**scale - 1 if sign > 0 else -(2**scale))
            assert got["ceiling"] == (2**scale if sign > 0 else 1 - 2**scale)
            assert function.rounded(sign * x, scale_bits=scale).n == sign * 2**scale
    assert f.zeta.rounded(10**9, scale_bits=5, rounding="ceiling").n == 33
    assert f.zeta.rounded(10**9, scale_bits=5, rounding="floor").n == 32
    assert f.exp.rounded(F(1, 2 ** (10**7)), scale_bits=5, rounding="ceiling").n == 33
    assert f.exp.rounded(F(-1, 2 ** (10**7)), scale_bits=5, rounding="floor").n == 31
    assert f.cos.rounded(F(1, 2 ** (10**6)), scale_bits=5, rounding="floor").n == 31
    assert f.coth.rounded(-(10**9), scale_bits=5, rounding="floor").n == -33
    assert f.erfc.rounded(10**6, scale_bits=5, rounding="ceiling").n == 1
    assert f.expm1.rounded(-(10**9), scale_bits=5, rounding="floor").n == -32
    assert f.expm1.rounded(-(10**9), scale_bits=5, rounding="ceiling").n == -31
    assert f.cosh.rounded(F(1, 2**100000), scale_bits=5, rounding="ceiling").n == 33
    square = F(2**200 + 1) ** 2
    assert f.sqrt.rounded(square - 1, scale_bits=0, rounding="ceiling").n == 2**200 + 1
    assert f.sqrt.rounded(square + 1, scale_bits=0, rounding="floor").n == 2**200 + 1


OUTSIDE = [
    (f.log, (0,)),
    (f.log, (-1,)),
    (f.log, (2, 1)),
    (f.log1p, (-1,)),
    (f.sqrt, (F(-1, 10**30),)),
    (f.root, (-4, 2)),
    (f.root, (4, 0)),
    (f.root, (4, F(1, 2))),
    (f.power, (-2, F(1, 2))),
    (f.power, (0, -1)),
    (f.cot, (0,)),
    (f.csc, (0,)),
    (f.tanpi, (F(1, 2),)),
    (f.asin, (F(3, 2),)),
    (f.acos, (-2,)),
    (f.atan2, (0, 0)),
    (f.coth, (0,)),
    (f.acosh, (F(1, 2),)),
    (f.atanh, (1,)),
    (f.gamma, (0,)),
    (f.gamma, (-7,)),
    (f.lgamma, (-1,)),
    (f.digamma, (0,)),
    (f.zeta, (1,)),
    (f.lambertw, (-1,)),
    (f.lambertw, (1, -1)),
    (f.lambertw, (1, 5)),
    (f.agm, (-1, 2)),
    (infinite_tower, (F(3, 2),)),
    (infinite_tower, (0,)),
    (infinite_tower, (F(1, 16),)),
]


@pytest.mark.parametrize(("function", "args"), OUTSIDE, ids=lambda x: getattr(x, "name", None))
def test_outside_the_domain_the_function_and_the_domain_are_named(
    function: Elementary, args: tuple[object, ...]
) -> None:
    for call in (lambda: function(*args), lambda: function.rounded(*args, scale_bits=10)):  # type: ignore[arg-type]
        with pytest.raises(DomainError, match=function.name) as caught:
            call()
        assert "allowed" in str(caught.value)


def test_balls_across_a_boundary_are_undecidable_and_shown() -> None:
    across = Ball(0, "0.125")
    for function in (f.log, f.sqrt, f.gamma, f.cot, f.coth):
        with pytest.raises(UndecidableError, match=r"0\.125|1\.25e-1|1\.26e-1"):
            function(across)
    with pytest.raises(UndecidableError, match="pole"):
        f.tan(Ball("1.57", "0.1"))
    with pytest.raises(UndecidableError):
        f.asin(Ball(1, "1e-30"))


def test_unproven_functions_are_capped_not_guessed() -> None:
    """ψ at rationals may be rational for all that is known; the loop ends, here by deciding."""
    x = f.digamma.rounded(F(3, 4), scale_bits=200)
    with mpmath.workprec(600):
        assert x.n == int(mpmath.nint(mpmath.digamma(mpmath.mpf(3) / 4) * 2**200))


def test_the_capped_loop_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function whose exact value no theorem tells us would loop for ever: the cap raises with the interval."""
    secret = Elementary("secret", lambda x: (x * x).sqrt() + arb(0, arb(2) ** -100000), "|x| in disguise.")
    monkeypatch.setattr(secret, "_compute", lambda x: arb((5, -4)) + (arb(2).sqrt() ** 2 - 2))
    with pytest.raises(UndecidableError, match="secret"):
        secret.rounded(F(1, 3), scale_bits=4, rounding="floor")
    with pytest.raises(UndecidableError, match="secret"):
        secret.rounded(F(1, 3), scale_bits=3)


def test_sizes_are_refused_by_name() -> None:
    with pytest.raises(LimitError, match="exp"):
        f.exp.rounded(10**9, scale_bits=10)
    with pytest.raises(LimitError, match="MAX_INTEGER_BITS"):
        BigFixed(10, 0) ** (10**9)
    assert f.exp(10**12).digits(5) == "1.7858e+434294481903"  # a ball holds it
    with pytest.raises(LimitError):
        f.exp(1, bits=10**10)


def test_usage() -> None:
    with pytest.raises(UsageError, match="2 arguments; expected 1"):
        f.exp(1, 2)
    with pytest.raises(UsageError, match="bits="):
        f.exp(BigFixed(1, 4), bits=100)  # type: ignore[call-overload]
    with pytest.raises(DomainError, match="exact arguments"):
        f.exp.rounded(pi, scale_bits=10)
    with pytest.raises(UsageError, match="nearest-even"):
        f.exp.rounded(1, scale_bits=10, rounding="nearest")
    with pytest.raises(TypeError):
        f.exp([1])  # type: ignore[arg-type]
