"""Expressions as people type them: `evaluate("ln(2)^(1/3)", digits=1000)`; a small grammar of our own, never `eval`."""

from cllm.numbers.expression.names import known_names
from cllm.numbers.expression.result import DEFAULT_DIGITS, Result, Sheet, evaluate
from cllm.numbers.expression.syntax import ExpressionError, parse

__all__ = ["DEFAULT_DIGITS", "ExpressionError", "Result", "Sheet", "evaluate", "known_names", "parse"]
