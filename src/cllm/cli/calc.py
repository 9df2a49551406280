"""`cllm calc`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from cllm.cli.arguments import Text
from cllm.errors import CllmError, UsageError, closest

if TYPE_CHECKING:
    from cllm.numbers.expression import Result, Sheet

HISTORY = "calc-history"


def calc(*expression: Text, digits: int = 30, error: bool = False, json: bool = False) -> int:
    """Calculate with proven digits: every digit printed is certain, the last one rounded to nearest.

    Integers and fractions stay exact. Without an expression a sheet opens on a terminal (or reads one expression a
    line from standard input): `x = sqrt(2)` keeps a variable, `ans` is the last number, Ctrl-D ends.

    Examples:

      cllm calc "ln(2)^(1/3)" --digits 1000

      cllm calc "zeta(3) + gamma(1/3)" --digits 50 --error

      cllm calc "factor(2^101 - 1)"

      cllm calc "base60(sqrt(2), 8)"

    Parameters
    ----------
    expression: str
        Numbers, + - * / // ^ % !, parentheses, functions (sin, ln, gamma, zeta, gcd, factor …) and constants
        (pi, e, phi …). Quote it, so that the shell leaves it alone.
    digits: int
        Significant digits.
    error: bool
        Also show the enclosure: two decimals with the number between them.
    json: bool
        Print one JSON object; numbers in it are text.
    """
    from cllm.numbers.expression import Sheet

    sheet = Sheet()
    if expression:
        _no_options(expression)
        return _show(sheet.evaluate(" ".join(expression), digits), digits, error, json)
    if sys.stdin.isatty() and not json:
        return _interactive(sheet, digits, error)
    lines = [line.strip() for line in sys.stdin]
    return max([_show(sheet.evaluate(line, digits), digits, error, json) for line in lines if line] or [0])


def _no_options(words: tuple[str, ...]) -> None:
    """A mistyped option must not be read as a difference: --digit is no expression."""
    for word in words:
        if re.fullmatch(r"--[a-z][a-z-]*(=.*)?", word):
            hint = closest(word, ["--digits", "--error", "--json", "--help"])
            raise UsageError(f"unknown option {word}{hint}")


def _show(result: Result, digits: int, error: bool, json: bool) -> int:
    """Print a result; 1 when fewer digits than asked are proven."""
    unproven = result.proven is not None and result.proven < digits
    if json:
        import json as json_module

        print(json_module.dumps({"digits": digits, **result.as_dict()}, ensure_ascii=False))
        return int(unproven)
    print(result.text)
    if result.exact is not None and result.exact != result.text:
        print(f"= {result.exact}")
    if error and result.lower is not None:
        if result.lower == result.upper:
            print("exact")
        else:
            print(f"≥ {result.lower}\n≤ {result.upper}")
    if unproven:
        got = "no digit" if result.proven == 0 else f"{result.proven} of {digits} digits"
        print(
            f"cllm: {got} proven with {result.bits} bits: the value may be 0, exact or half-way between two decimals",
            file=sys.stderr,
        )
    return int(unproven)


def _interactive(sheet: Sheet, digits: int, error: bool) -> int:
    """A sheet on the terminal, with line editing, completion and a history kept between sessions."""
    save = _line_editing(sheet)
    print("Proven digits only. `x = …` keeps a variable, `ans` is the last number; `digits 50`; Ctrl-D ends.")
    try:
        while True:
            try:
                line = input("› ").strip()
            except EOFError:
                print()
                return 0
            except KeyboardInterrupt:
                print()
                continue
            word, _, count = line.partition(" ")
            if word == "digits" and count.strip().isdecimal():
                digits = max(1, int(count))
            elif line in ("quit", "exit"):
                return 0
            elif line:
                try:
                    _show(sheet.evaluate(line, digits), digits, error, False)
                except CllmError as problem:
                    print(f"cllm: {problem}", file=sys.stderr)
                except KeyboardInterrupt:
                    print("interrupted", file=sys.stderr)
    finally:
        save()


def _line_editing(sheet: Sheet) -> Callable[[], None]:
    """Switch on editing and completion; returns what saves the history."""
    import os
    from pathlib import Path

    try:
        import readline
    except ImportError:  # a Python built without it: plain input
        return lambda: None
    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "cllm"
    path = folder / HISTORY
    if path.exists():
        readline.read_history_file(path)
    readline.set_history_length(2000)
    readline.set_completer_delims(" \t+-*/^%!(),=|√·×÷")
    readline.set_completer(lambda text, i: next(iter([n for n in sheet.names() if n.startswith(text)][i:]), None))
    readline.parse_and_bind("tab: complete")

    def save() -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(path)
        except OSError as problem:
            print(f"cllm: the history was not kept: {problem}", file=sys.stderr)

    return save
