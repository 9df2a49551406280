"""One row of the sheet: the rows it depends on are found in its tree and evaluated first, the others are left alone."""

from __future__ import annotations

import time
from typing import Any

from cllm.errors import CllmError, DomainError, LimitError
from cllm.numbers.expression import ExpressionError, Sheet, parse
from cllm.numbers.expression.evaluate import Special
from cllm.numbers.expression.names import ALIASES, INTEGERS, NAMED_CONSTANTS, REALS, SPECIAL
from cllm.numbers.expression.syntax import Assignment, Call, Name, Node

MAX_ROWS = 500
MAX_DIGITS = 20_000
MAX_TEXT = 20_000  # characters of a row
MAX_SHOWN = 40_000  # characters of a result


def used_names(node: Node) -> set[str]:
    """The names an expression reads (functions are not among them)."""
    found: set[str] = set()
    todo = [node]
    while todo:
        part = todo.pop()
        if isinstance(part, Assignment):
            todo.append(part.value)
        elif isinstance(part, Name):
            found.add(part.name)
        elif isinstance(part, Call):
            todo.extend(part.args)
    return found


class _Rows:
    """The rows above, parsed; a row that cannot be read defines nothing."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.trees: list[Node | None] = []
        for text in texts:
            try:
                self.trees.append(parse(text) if text.strip() else None)
            except CllmError:
                self.trees.append(None)

    def before(self, tree: Node, at: int) -> list[int]:
        """The rows above `at` that a tree reads directly: the last assignment of each name, and for `ans` the row
        above."""
        names, found = used_names(tree), []
        for i in range(at - 1, -1, -1):
            row = self.trees[i]
            if isinstance(row, Assignment) and row.name in names:
                names.discard(row.name)
                found.append(i)
            if row is not None and "ans" in names:
                if i not in found:
                    found.append(i)
                if not _is_word(row):
                    names.discard("ans")
        return found


def _is_word(node: Node) -> bool:
    """Whether the value is no number, so that `ans` looks further up."""
    value = node.value if isinstance(node, Assignment) else node
    if not isinstance(value, Call):
        return False
    function = INTEGERS.get(ALIASES.get(value.name, value.name))
    return value.name == "base60" or (function is not None and function.result != "exact")


def row(above: list[str], text: str, digits: int) -> dict[str, Any]:
    """Evaluate a row of the sheet.

    Returns the result as `Result.as_dict` has it, with `milliseconds`, `cut` when the text is longer than MAX_SHOWN;
    or error (in words), start and end (where in the text, if anywhere).
    """
    if not 1 <= digits <= MAX_DIGITS:
        raise LimitError(f"digits: expected 1 … {MAX_DIGITS}, got {digits}")
    if len(above) > MAX_ROWS or any(len(part) > MAX_TEXT for part in (*above, text)):
        raise LimitError(f"sheet: at most {MAX_ROWS} rows of {MAX_TEXT} characters")
    began = time.perf_counter()
    try:
        found = _evaluated(above, text, digits)
    except ExpressionError as error:
        found = {"error": error.message, "start": error.start, "end": error.end}
    except CllmError as error:
        words, _, _ = str(error).partition("\n  ")  # without the carets: the page marks the place itself
        found = {"error": words}
        where = (getattr(error, "start", None), getattr(error, "end", None))
        if None not in where:
            found.update(start=where[0], end=where[1])
    for key in ("text", "exact", "lower", "upper"):
        if len(found.get(key) or "") > MAX_SHOWN:
            found[key], found["cut"] = found[key][:MAX_SHOWN], True
    return {**found, "milliseconds": round(1000 * (time.perf_counter() - began), 3)}


def _evaluated(above: list[str], text: str, digits: int) -> dict[str, Any]:
    rows, tree = _Rows(above), parse(text)
    needed: set[int] = set()
    todo = rows.before(tree, len(above))
    while todo:
        i = todo.pop()
        if i not in needed:
            needed.add(i)
            part = rows.trees[i]
            assert part is not None
            todo += rows.before(part, i)
    sheet = Sheet()
    numeric: dict[int, Node] = {}
    for i in sorted(needed):
        _set_answer(sheet, numeric, i)
        try:
            result = sheet.evaluate(above[i], 10)
        except CllmError as error:
            raise DomainError(f"row {i + 1}, which this one uses: {str(error).partition(chr(10))[0]}") from None
        if not isinstance(result.raw, Special):
            numeric[i] = sheet.variables["ans"]
    _set_answer(sheet, numeric, len(above))
    result = sheet.evaluate(text, digits)
    found = result.as_dict()
    if result.fraction is not None and result.fraction.denominator == 1 and result.exact is not None:
        found["integer"] = result.exact
    return found


def _set_answer(sheet: Sheet, numeric: dict[int, Node], at: int) -> None:
    """`ans` as it stands for row `at`: the last number above."""
    last = max((i for i in numeric if i < at), default=None)
    if last is None:
        sheet.variables.pop("ans", None)
    else:
        sheet.variables["ans"] = numeric[last]


def names() -> list[dict[str, str]]:
    """Everything that can be typed: [{name, kind, help}], for completion and the list of functions."""
    found = [{"name": name, "kind": "constant", "help": "a constant"} for name in NAMED_CONSTANTS]
    found += [{"name": name, "kind": "function", "help": "real function"} for name in REALS]
    found += [{"name": name, "kind": "integers", "help": f.help} for name, f in INTEGERS.items()]
    found += [{"name": name, "kind": "function", "help": _SPECIAL_HELP.get(name, "")} for name in SPECIAL]
    found.append({"name": "ans", "kind": "constant", "help": "the last number above"})
    return sorted(found, key=lambda item: item["name"].lower())


_SPECIAL_HELP = {
    "abs": "absolute value, also |x|", "sgn": "the sign: −1, 0 or 1", "floor": "the largest integer ≤ x",
    "ceil": "the smallest integer ≥ x", "round": "to the nearest integer, ties to even", "frac": "x − floor(x)",
    "min": "the smallest", "max": "the largest", "mod": "x mod m, also x % m",
    "damped_tower": "T(h) = b^(T(h−1)·φ^(−h))", "base60": "sexagesimal, with the number of places",
}  # fmt: skip
