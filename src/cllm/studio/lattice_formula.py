"""Expressions of n over whole arrays, in float64: own curves and own colourings.

The text is parsed by the grammar of `cllm.numbers.expression` (never `eval`) and its tree is walked with numpy. The
inspector gives the proven value of a single number; pictures need thousands at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cllm.errors import LimitError, closest
from cllm.numbers.constants import CONSTANTS
from cllm.numbers.expression import ExpressionError, parse
from cllm.numbers.expression.names import resolve
from cllm.numbers.expression.syntax import Assignment, Call, Name, Node, Number
from cllm.studio import lattice_values as values

MAX_TEXT = 500
MAX_NODES = 200
FloatArray = NDArray[np.float64]


def _integers(x: Any) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Which entries are integers in 0 … 10¹⁴, and those (0 elsewhere)."""
    good = np.isfinite(x) & (x == np.floor(x)) & (x >= 0) & (x <= 1e14)
    return np.where(good, x, 0).astype(np.int64), good


def _arithmetic(function: Callable[[NDArray[np.int64]], Any]) -> Callable[[Any], FloatArray]:
    """A function of integers, NaN where the argument is none."""

    def apply(x: Any) -> FloatArray:
        n, good = _integers(x)
        return np.where(good, np.asarray(function(n), dtype=np.float64), np.nan)

    return apply


def _gcd(x: Any, y: Any) -> FloatArray:
    (a, good), (b, also) = _integers(np.abs(x)), _integers(np.abs(y))
    return np.where(good & also, np.gcd(a, b).astype(np.float64), np.nan)


def _lcm(x: Any, y: Any) -> FloatArray:
    common = _gcd(x, y)
    return np.where(common > 0, np.abs(x) / common * np.abs(y), common)


def _log(x: Any, base: Any = None) -> FloatArray:
    return np.asarray(np.log(x) if base is None else np.log(x) / np.log(base))


def _root(x: Any, k: Any) -> FloatArray:
    return np.asarray(np.power(x, 1 / k))


def _factorial(x: Any) -> FloatArray:
    n, good = _integers(x)
    table = np.cumprod(np.concatenate(([1.0], np.arange(1.0, 171.0))))
    return np.where(good & (n <= 170), table[np.minimum(n, 170)], np.where(good, np.inf, np.nan))


FUNCTIONS: dict[str, tuple[Callable[..., Any], int, int]] = {
    "sqrt": (np.sqrt, 1, 1), "cbrt": (np.cbrt, 1, 1), "root": (_root, 2, 2), "exp": (np.exp, 1, 1),
    "log": (_log, 1, 2), "log2": (np.log2, 1, 1), "log10": (np.log10, 1, 1), "power": (np.power, 2, 2),
    "sin": (np.sin, 1, 1), "cos": (np.cos, 1, 1), "tan": (np.tan, 1, 1), "asin": (np.arcsin, 1, 1),
    "acos": (np.arccos, 1, 1), "atan": (np.arctan, 1, 1), "atan2": (np.arctan2, 2, 2), "sinh": (np.sinh, 1, 1),
    "cosh": (np.cosh, 1, 1), "tanh": (np.tanh, 1, 1), "abs": (np.abs, 1, 1), "sgn": (np.sign, 1, 1),
    "floor": (np.floor, 1, 1), "ceil": (np.ceil, 1, 1), "round": (np.rint, 1, 1),
    "frac": (lambda x: x - np.floor(x), 1, 1), "min": (np.minimum, 2, 2), "max": (np.maximum, 2, 2),
    "mod": (np.mod, 2, 2), "gcd": (_gcd, 2, 2), "lcm": (_lcm, 2, 2),
    "isqrt": (lambda x: np.floor(np.sqrt(x)), 1, 1), "factorial": (_factorial, 1, 1),
    "is_prime": (_arithmetic(values.are_prime), 1, 1),
    "moebius": (_arithmetic(lambda n: values.factors(n).mobius), 1, 1),
    "Omega": (_arithmetic(lambda n: values.factors(n).big_omega), 1, 1),
    "omega": (_arithmetic(lambda n: values.factors(n).omega), 1, 1),
    "least": (_arithmetic(lambda n: values.factors(n).least), 1, 1),
    "gap": (_arithmetic(lambda n: values.prime_gaps(n, values.are_prime(n))), 1, 1),
    "totient": (_arithmetic(values.totients), 1, 1),
    "sigma": (lambda x, k=1.0: _arithmetic(lambda n: values.divisor_sums(n, int(np.max(k))))(x), 1, 2),
}  # fmt: skip
_OPERATORS: dict[str, Callable[..., Any]] = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "%": np.mod, "^": np.power, "neg": np.negative,
    "//": lambda x, y: np.floor(np.divide(x, y)), "!": _factorial,
}  # fmt: skip
# functions of the calculator are known by these names there as well
_EXTRA = ("Omega", "omega", "least", "gap")


def known() -> list[str]:
    """The names a formula can use."""
    return sorted({"n", *FUNCTIONS, *CONSTANTS})


def _tree(text: str) -> Node:
    if len(text) > MAX_TEXT:
        raise LimitError(f"formula: at most {MAX_TEXT} characters, got {len(text)}")
    tree = parse(text)
    if isinstance(tree, Assignment):
        raise ExpressionError("a formula has no '='; write what stands behind it", text, tree.start, tree.end)
    _check(tree, text, [0])
    return tree


def _check(node: Node, text: str, count: list[int]) -> None:
    """Unknown names and wrong counts are said before anything is drawn."""
    count[0] += 1
    if count[0] > MAX_NODES:
        raise LimitError(f"formula: at most {MAX_NODES} operations")
    if isinstance(node, Name):
        if node.name != "n" and resolve(node.name) not in CONSTANTS:
            what = f"{node.name} is a function; write {node.name}(…)" if _function(node.name) else None
            message = what or f"unknown name {node.name!r}{closest(node.name, known())}; the number is called n"
            raise ExpressionError(message, text, node.start, node.end)
    elif isinstance(node, Call):
        if node.name not in _OPERATORS:
            function = _function(node.name)
            if function is None:
                message = f"unknown function {node.name!r}{closest(node.name, known())}"
                raise ExpressionError(message, text, node.start, node.start + len(node.name))
            if not function[1] <= len(node.args) <= function[2]:
                raise ExpressionError(
                    f"{node.name}: got {len(node.args)} arguments; expected {function[1]}"
                    + (f" to {function[2]}" if function[2] > function[1] else ""), text, node.start, node.end,
                )  # fmt: skip
        for part in node.args:
            _check(part, text, count)


def _function(name: str) -> tuple[Callable[..., Any], int, int] | None:
    return FUNCTIONS.get(name if name in _EXTRA else resolve(name))


@lru_cache(maxsize=16)
def constant(name: str) -> float:
    """A named constant, rounded to nearest."""
    return float(CONSTANTS[name]._enclosure(80))


def _value(node: Node, n: FloatArray) -> Any:
    if isinstance(node, Number):
        return float(int(node.value.p) / int(node.value.q))
    if isinstance(node, Name):
        return n if node.name == "n" else constant(resolve(node.name))
    assert isinstance(node, Call)
    args = [_value(part, n) for part in node.args]
    if node.name in _OPERATORS:
        if node.name == "^":
            args[0] = np.asarray(args[0], dtype=np.float64)
        return _OPERATORS[node.name](*args)
    function = _function(node.name)
    assert function is not None
    return function[0](*(np.asarray(a, dtype=np.float64) for a in args))


class Formula:
    """A formula of n. Raises ExpressionError (with the place), LimitError."""

    def __init__(self, text: str) -> None:
        self.text, self._node = text, _tree(text)

    def __call__(self, n: NDArray[np.int64]) -> FloatArray:
        """The values in float64; NaN or infinite where it is not defined."""
        x = n.astype(np.float64)
        with np.errstate(all="ignore"):
            return np.array(np.broadcast_to(np.asarray(_value(self._node, x), dtype=np.float64), n.shape))


@lru_cache(maxsize=64)
def formula(text: str) -> Formula:
    """The same, kept."""
    return Formula(text)
