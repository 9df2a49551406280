"""The examples of docs/numbers.md and of the docstrings are run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import cllm.numbers
from cllm.numbers import FUNCTIONS

PAGE = Path(__file__).parents[2] / "docs" / "numbers.md"
MODULES = sorted(m.name for m in pkgutil.walk_packages(cllm.numbers.__path__, "cllm.numbers."))


def test_the_page() -> None:
    text = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))
    test = doctest.DocTestParser().get_doctest(text, {}, "numbers.md", str(PAGE), 0)
    assert len(test.examples) > 40
    flags = doctest.NORMALIZE_WHITESPACE
    assert doctest.DocTestRunner(optionflags=flags).run(test).failed == 0


@pytest.mark.parametrize("name", ["cllm.numbers", *MODULES])
def test_docstrings(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


def test_every_public_name_is_there_and_documented() -> None:
    for name in cllm.numbers.__all__:
        assert getattr(cllm.numbers, name).__doc__ or name in ("CONSTANTS", "FUNCTIONS")
    text = PAGE.read_text(encoding="utf-8")
    missing = [n for n in cllm.numbers.__all__ if not re.search(rf"\b{n}\b", text)]
    assert set(missing) <= NOT_ON_THE_PAGE
    assert all(re.search(rf"\b{name}\b", text) for name in FUNCTIONS)


NOT_ON_THE_PAGE = {
    "CONSTANTS", "Constant", "DivisionByZeroError", "Elementary", "FUNCTIONS", "current_bits", "flint_precision", "ln",
    "load_balls",
}  # fmt: skip
