"""Put the measured budgets of the studio into docs/studio.md, between `<!-- budgets -->` and `<!-- /budgets -->`.

CLLM_SAVE_FIGURES=benchmarks .venv/bin/python -m pytest -m prove tests/studio    # on a quiet machine
python docs/studio_figures.py                                                    # --check only says what would change
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/studio.md"


def text(value: float, unit: str) -> str:
    """Three digits, with a narrow space before the unit."""
    shown = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{shown}\u202f{unit}"


def budgets() -> str:
    """The table of benchmarks/studio.json."""
    found: dict[str, Any] = json.loads((ROOT / "benchmarks/studio.json").read_text(encoding="utf-8"))
    machine = found["machine"]
    rows = sorted(found["rows"], key=lambda row: (row["limit"] is None, row["name"].strip("`")))
    lines = ["| | measured | budget |", "|---|---:|---:|"]
    for row in rows:
        limit = "" if row["limit"] is None else text(row["limit"], row["unit"])
        lines.append(f"| {row['name']} | {text(row['value'], row['unit'])} | {limit} |")
    where = f"{machine['cores']} cores, Chromium without a GPU, {found['date'][:10]}, commit `{found['commit']}`"
    return "\n".join([*lines, "", f"({where}.)"])


def main() -> int:
    page = PAGE.read_text(encoding="utf-8")
    made = re.sub(
        r"(<!-- budgets -->\n).*?(<!-- /budgets -->)", lambda m: f"{m[1]}{budgets()}\n{m[2]}", page, flags=re.DOTALL
    )
    if made == page:
        return 0
    if "--check" in sys.argv[1:]:
        print("docs/studio.md: the budgets are not those of benchmarks/studio.json")
        return 1
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
