"""The elementary functions, each with its domain.

The enclosures are Arb's (Johansson 2017); domains are decided before anything is computed, so that no result is ever
nan or infinite. Where mathematicians differ: `log` is the natural logarithm, `root` of a negative number is real for
odd n, `lgamma` is ln|Γ|, `lambertw` takes the branch 0 or −1.
"""

from __future__ import annotations

import flint
from flint import arb

from cllm.numbers.elementary import Decision, Elementary, decide
from cllm.numbers.powers import power_arb


def _positive(x: arb) -> Decision:
    return decide(yes=x > 0, no=x <= 0)


def _nonnegative(x: arb) -> Decision:
    return decide(yes=x >= 0, no=x < 0)


def _unit(x: arb) -> Decision:
    return decide(yes=x >= -1 and x <= 1, no=x < -1 or x > 1)


def _open_unit(x: arb) -> Decision:
    return decide(yes=x > -1 and x < 1, no=x <= -1 or x >= 1)


def _no_pole(x: arb) -> Decision:
    """Not one of 0, −1, −2, …"""
    if x > 0 or not x.contains_integer():
        return True
    return False if x.is_exact() else None


def _not_zero(x: arb) -> Decision:
    return decide(yes=not x.contains(0), no=x.is_zero())


def _not_one(x: arb) -> Decision:
    return decide(yes=not x.contains(1), no=x.is_exact() and x == 1)


def _not_half_integer(x: arb) -> Decision:
    """Not k + 1/2; the mantissa of an exact ball is odd, so that its exponent tells."""
    if x.is_exact():
        return bool(x.man_exp()[1] != -1)
    return None if (x + arb(0.5)).contains_integer() else True


def _both(*decisions: Decision) -> Decision:
    return False if False in decisions else None if None in decisions else True


# exponentials and logarithms ----------------------------------------------------------------------------------------
def _log(x: arb, base: arb | None = None) -> arb:
    return x.log() if base is None else x.log() / base.log()


def _log_domain(x: arb, base: arb | None = None) -> Decision:
    return _positive(x) if base is None else _both(_positive(x), _positive(base), _not_one(base))


exp = Elementary("exp", arb.exp, "eˣ.")
expm1 = Elementary("expm1", arb.expm1, "eˣ − 1, accurate near 0.")
log = Elementary(
    "log", _log, "ln x, or log x to any base: log(8, 2) = 3.", "x > 0 (and base > 0, base ≠ 1)", _log_domain, (1, 2)
)
log1p = Elementary(
    "log1p", arb.log1p, "ln(1 + x), accurate near 0.", "x > -1", lambda x: decide(yes=x > -1, no=x <= -1)
)
log2 = Elementary("log2", lambda x: x.log_base(2), "The logarithm to base 2.", "x > 0", _positive)
log10 = Elementary("log10", lambda x: x.log_base(10), "The logarithm to base 10.", "x > 0", _positive)
ln = log


# roots and powers ---------------------------------------------------------------------------------------------------
def _root(x: arb, n: arb) -> arb:
    k = int(n.fmpz())
    return -((-x).root(k)) if x <= 0 and k % 2 else x.root(k)


def _root_domain(x: arb, n: arb) -> Decision:
    if not (n.is_exact() and n.is_integer() and 0 < n < 2**63):
        return False
    return decide(yes=x >= 0 or (x <= 0 and int(n.fmpz()) % 2 == 1), no=x < 0 and int(n.fmpz()) % 2 == 0)


sqrt = Elementary("sqrt", arb.sqrt, "√x.", "x >= 0", _nonnegative)
cbrt = Elementary(
    "cbrt", lambda x: _root(x, arb(3)), "The real cube root.", "all real numbers", lambda x: _root_domain(x, arb(3))
)
root = Elementary(
    "root",
    _root,
    "The real n-th root: root(x, n).",
    "integer n >= 1 below 2^63; x >= 0, or x < 0 with n odd",
    _root_domain,
    (2, 2),
)
power = Elementary(
    "power",
    lambda x, y: power_arb(x, y, flint.ctx.prec),
    "x to the power y.",
    "x > 0 with any y, x = 0 with y >= 0, x < 0 with an integer y",
    None,
    (2, 2),
)
hypot = Elementary("hypot", lambda x, y: (x * x + y * y).sqrt(), "√(x² + y²).", arity=(2, 2))

# circular functions -------------------------------------------------------------------------------------------------
_COS_ZERO = "all real numbers but odd multiples of π/2"
sin = Elementary("sin", arb.sin, "The sine of x radians.")
cos = Elementary("cos", arb.cos, "The cosine of x radians.")
tan = Elementary("tan", arb.tan, "The tangent of x radians.", _COS_ZERO)
cot = Elementary("cot", arb.cot, "The cotangent of x radians.", "all real numbers but multiples of π", _not_zero)
sec = Elementary("sec", arb.sec, "1/cos x.", _COS_ZERO)
csc = Elementary("csc", arb.csc, "1/sin x.", "all real numbers but multiples of π", _not_zero)
sinpi = Elementary("sinpi", arb.sin_pi, "sin πx.")
cospi = Elementary("cospi", arb.cos_pi, "cos πx.")
tanpi = Elementary(
    "tanpi",
    arb.tan_pi,
    "tan πx.",
    "all real numbers but the half-integers (odd multiples of 1/2)",
    _not_half_integer,
)
asin = Elementary("asin", arb.asin, "The arc sine, in [−π/2, π/2].", "-1 <= x <= 1", _unit)
acos = Elementary("acos", arb.acos, "The arc cosine, in [0, π].", "-1 <= x <= 1", _unit)
atan = Elementary("atan", arb.atan, "The arc tangent, in (−π/2, π/2).")
atan2 = Elementary(
    "atan2",
    arb.atan2,
    "The angle of the point (x, y), in (−π, π]: atan2(y, x).",
    "every (y, x) but (0, 0)",
    lambda y, x: decide(yes=not (y.contains(0) and x.contains(0)), no=y.is_zero() and x.is_zero()),
    (2, 2),
)

# hyperbolic functions -----------------------------------------------------------------------------------------------
sinh = Elementary("sinh", arb.sinh, "The hyperbolic sine.")
cosh = Elementary("cosh", arb.cosh, "The hyperbolic cosine.")
tanh = Elementary("tanh", arb.tanh, "The hyperbolic tangent.")
coth = Elementary("coth", arb.coth, "The hyperbolic cotangent.", "x ≠ 0", _not_zero)
asinh = Elementary("asinh", arb.asinh, "The inverse hyperbolic sine.")
acosh = Elementary(
    "acosh", arb.acosh, "The inverse hyperbolic cosine.", "x >= 1", lambda x: decide(yes=x >= 1, no=x < 1)
)
atanh = Elementary("atanh", arb.atanh, "The inverse hyperbolic tangent.", "-1 < x < 1", _open_unit)

# special functions --------------------------------------------------------------------------------------------------
_POLES = "all real numbers but 0, -1, -2, …"


def _lgamma(x: arb) -> arb:
    """ln|Γ(x)|; for x < 0 by the reflection formula Γ(x)Γ(1−x) = π/sin πx."""
    if x > 0:
        return x.lgamma()
    return (arb.pi() / abs(x.sin_pi())).log() - (1 - x).lgamma()


def _lambertw(x: arb, branch: arb | None = None) -> arb:
    return x.lambertw(0 if branch is None else int(branch.fmpz()))


def _lambertw_domain(x: arb, branch: arb | None = None) -> Decision:
    edge = arb.const_e() * x + 1  # of a rational x never exactly 0: 1/e is irrational
    above = decide(yes=edge >= 0, no=edge < 0)
    if branch is None or branch == 0:
        return above
    return _both(above, decide(yes=x < 0, no=x >= 0)) if branch == -1 else False


erf = Elementary("erf", arb.erf, "The error function 2/√π ∫₀ˣ exp(−t²) dt.")
erfc = Elementary("erfc", arb.erfc, "1 − erf x, accurate for large x.")
gamma = Elementary("gamma", arb.gamma, "Γ(x); Γ(n) = (n−1)! for a positive integer.", _POLES, _no_pole)
lgamma = Elementary("lgamma", _lgamma, "ln|Γ(x)|.", _POLES, _no_pole)
digamma = Elementary("digamma", arb.digamma, "ψ(x) = Γ′(x)/Γ(x).", _POLES, _no_pole)
zeta = Elementary("zeta", arb.zeta, "Riemann's ζ(s) for real s.", "s ≠ 1", _not_one)
lambertw = Elementary(
    "lambertw",
    _lambertw,
    "The w with w·eʷ = x: lambertw(x) ≥ −1, lambertw(x, −1) ≤ −1.",
    "x >= -1/e; for the branch -1 also x < 0",
    _lambertw_domain,
    (1, 2),
)
agm = Elementary(
    "agm",
    arb.agm,
    "The arithmetic-geometric mean of x and y.",
    "x >= 0 and y >= 0",
    lambda x, y: _both(_nonnegative(x), _nonnegative(y)),
    (2, 2),
)

FUNCTIONS: dict[str, Elementary] = {
    f.name: f
    for f in (
        exp, expm1, log, log1p, log2, log10, sqrt, cbrt, root, power, hypot,
        sin, cos, tan, cot, sec, csc, sinpi, cospi, tanpi, asin, acos, atan, atan2,
        sinh, cosh, tanh, coth, asinh, acosh, atanh,
        erf, erfc, gamma, lgamma, digamma, zeta, lambertw, agm,
    )
}  # fmt: skip
