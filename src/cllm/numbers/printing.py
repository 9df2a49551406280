"""Decimal digits of balls; nothing is printed that the enclosure does not prove."""

from __future__ import annotations

from flint import arb

from cllm.errors import DomainError, LimitError
from cllm.numbers.convert import dyadic, endpoints
from cllm.numbers.decimals import (
    LOG10_2,
    PLAIN_EXPONENT,
    Decimal10,
    dyadic_ratio,
    exact_decimal,
    format_between,
    parse_spec,
    ratio_decimal,
    reduced,
)
from cllm.numbers.limits import check_precision
from cllm.numbers.operators import undecided


def _check_digits(n: int) -> int:
    if n < 1:
        raise DomainError(f"digits: got {n}; expected at least 1 significant digit")
    check_precision(max(4, n * 10 // 3), f"{n} decimal digits")
    return n


def ball_digits(x: arb, n: int | None) -> str:
    """See `Ball.digits`."""
    return ball_decimal(x, n).text()


def ball_decimal(x: arb, n: int | None) -> Decimal10:
    """The longest decimal of at most `n` significant digits to which every point of the ball rounds."""
    if n is not None:
        _check_digits(n)
    if x.is_exact():
        return _exact_decimal(x, n)
    known = max(1, int(x.rel_accuracy_bits() * LOG10_2) + 2)
    most = known if n is None else min(n, known)
    y, shift = reduced(x, most)
    low, high = endpoints(y)
    if (low > 0) or (high < 0):
        (p, q), (r, s) = dyadic_ratio(low), dyadic_ratio(high)
        for digits in range(most, max(0, most - 40), -1):
            found = ratio_decimal(p, q, digits, "nearest", shift)
            if found == ratio_decimal(r, s, digits, "nearest", shift):
                return found
    raise undecided("digits: the first significant digit", x)


def _exact_decimal(x: arb, n: int | None) -> Decimal10:
    if n is not None:
        y, shift = reduced(x, n)
        if shift == 0:
            return ratio_decimal(*dyadic_ratio(y), n, "nearest")
        found = {ratio_decimal(*dyadic_ratio(end), n, "nearest", shift).scientific(): end for end in endpoints(y)}
        if len(found) > 1:
            raise undecided(f"digits: the last of {n} digits (a different n decides)", x)
        return ratio_decimal(*dyadic_ratio(endpoints(y)[0]), n, "nearest", shift)
    m, e = dyadic(x)
    if abs(e) > PLAIN_EXPONENT:
        raise LimitError(f"digits: all decimals of an exact number of the size 2^{e}; say how many: digits(n)")
    return exact_decimal(m, e)


def ball_bounds(x: arb, n: int) -> tuple[str, str]:
    """See `Ball.bounds`."""
    _check_digits(n)
    y, shift = reduced(x, n + 10)
    low, high = endpoints(y)
    lower, upper = (
        ratio_decimal(*dyadic_ratio(low), n, "floor", shift),
        ratio_decimal(*dyadic_ratio(high), n, "ceiling", shift),
    )
    return lower.text(), upper.text()


def ball_fixed(x: arb, spec: str) -> str:
    """See `Ball.__format__`."""
    parsed = parse_spec(spec, "Ball")
    y, shift = reduced(x, parsed.precision)
    if shift:
        if parsed.kind == "f":
            raise LimitError(f"format {spec!r}: {x.str(5)} is beyond 2^±{PLAIN_EXPONENT}; use .{parsed.precision}e")
        decimal = ball_decimal(x, parsed.precision + (parsed.kind == "e"))
        return parsed.finish(decimal.scientific())
    low, high = endpoints(y)
    text = format_between(dyadic_ratio(low), dyadic_ratio(high), spec, "Ball")
    if text is None:
        raise undecided(f"format {spec!r}: the last digit", x)
    return text
