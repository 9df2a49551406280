"""docs/certificates.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from cllm.certificate.budget import BUDGETS
from cllm.certificate.ledger import C
from cllm.certificate.mutants import ZOO

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "certificates.md").read_text(encoding="utf-8")


def test_the_table_of_mutants_is_the_zoo() -> None:
    rows = re.findall(r"^\| (.+?) \| (yes|NO) \|", PAGE, re.MULTILINE)
    assert [name for name, _ in rows] == [m.name for m in ZOO]
    assert all(found == "yes" for _, found in rows)


def test_the_budgets_are_those_of_the_table() -> None:
    for precision, budget in BUDGETS.items():
        (line,) = re.findall(rf"^\| {precision} \| (.+) \|$", PAGE, re.MULTILINE)
        shown = [float(cell.removesuffix("·rms")) for cell in line.split(" | ")]
        assert shown == [budget.max, budget.p99, budget.normwise, budget.loss, budget.zeros]
    assert f"entry = {C:.0f} · (u/2⁻⁵³)" in PAGE


def test_the_code_shown_is_the_example() -> None:
    example = (ROOT / "examples" / "certify_your_kernel.py").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    statements = [line.strip() for line in code.splitlines() if line.strip().startswith(("return", "r ="))]
    assert len(statements) == 6 and all(line in example for line in statements)


def test_nothing_was_left_to_fill_in() -> None:
    assert "{{" not in PAGE and PAGE.count("CERTIFIED") >= 4
