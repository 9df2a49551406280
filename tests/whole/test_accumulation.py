"""The accumulation study: the mean of means is another objective; sums with one division are not."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def study(precision: str) -> list[dict[str, Any]]:
    spec = importlib.util.spec_from_file_location("accumulation", ROOT / "examples" / "accumulation.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: list[dict[str, Any]] = module.study(precision)
    return found


def test_ours_differs_by_rounding_only_and_the_mean_of_means_does_not():
    """In float64 what is rounding shrinks by the ratio of the formats' units, 2²⁹ (at least a thousandth of it);
    what is another objective stays."""
    single, double = study("fp32"), study("fp64")
    assert len(single) == 8
    for a, b in zip(single, double, strict=True):
        assert b["cllm"] * 2**19 < a["cllm"] or b["cllm"] == 0, "cllm's difference is rounding"
        assert b["sums"] * 2**19 < a["sums"] or b["sums"] == 0
        assert abs(a["mean_of_means"] - b["mean_of_means"]) < 1e-3 * b["mean_of_means"]
        assert a["mean_of_means"] > 1e4 * a["cllm"]


def test_the_page_shows_what_was_measured():
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    rows = json.loads((ROOT / "benchmarks" / "accumulation.json").read_text())["rows"]
    shown = re.findall(r"^\| (by length|shuffled) \| (\d+) × (\d+) \| (\d+) % \|", page, re.MULTILINE)
    assert shown == [
        (r["rows"], str(r["micro_batches"]), str(r["of_rows"]), f"{100 * r['mean_of_means']:.0f}") for r in rows
    ]
    again = study("fp32")
    for measured, now in zip(rows, again, strict=True):
        assert abs(measured["mean_of_means"] - now["mean_of_means"]) < 1e-3
