"""Put measured figures into the README: everything between `<!-- name -->` and `<!-- /name -->` comes from here.

Tables from benchmarks/*.json (written by `make bench`), the demo's output from docs/demo.txt (written by `make demo`).
`python docs/figures.py` rewrites README.md; `--check` only says whether it would change.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def load(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / f"{name}.json").read_text(encoding="utf-8"))


def number(value: Any, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def where(result: dict[str, Any]) -> str:
    machine = result["machine"]
    return f"{machine['cores']} cores, torch {machine['versions']['torch']}, {result['date'][:10]}"


def train_step() -> str:
    """The training step beside its peers, two sizes."""
    lines = []
    for name, command in (
        ("train-step-small-b16-t128", "cllm bench train-step"),
        (
            "train-step-seed-b8-t256",
            "cllm bench train-step --preset seed --batch 8 --sequence 256 --rounds 5 --skip-memory",
        ),
    ):
        result = load(name)
        peak = "register-loop" if any(key.endswith("_peak_gflops") for key in result["facts"]) else "GEMM"
        lines += [
            f"`{command}` ({where(result)}):",
            "",
            f"| | ms a step | tokens/s | of {peak} peak | spread | time against ours in the same precision | in bf16 |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {row['name']} | {number(row['ms'], 1)} | {number(row['tokens_per_s'], 0)} | "
            f"{100 * row['peak_fraction']:.0f} % | {100 * row['spread']:.1f} % | {row['times_ours']:.2f}× | "
            f"{times(row.get('times_ours_bf16'))} |"
            for row in result["rows"]
        ]
        growth = result["facts"].get("RSS growth of our step, step 20 to 200 (MB)")
        lines += (
            ["", f"Memory growth of our step from step 20 to step 200: {growth:.1f} MB.", ""]
            if growth is not None
            else [""]
        )
    return "\n".join(lines).strip()


def times(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}×"


def numbers() -> str:
    """Exact numbers and primes beside their peers."""
    lines = []
    for name in ("numbers", "numbers-arrays", "primes"):
        result = load(name)
        columns = list(
            dict.fromkeys(key for row in result["rows"] for key in row if key not in ("name", "spread", "target_met"))
        )
        lines += [f"| {name} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
        lines += [
            f"| {row['name']} | " + " | ".join(cell(row.get(column)) for column in columns) + " |"
            for row in result["rows"]
        ]
        lines.append("")
    return (
        f"`cllm bench numbers` ({where(load('numbers'))}); ratios: the peer's time over ours.\n\n"
        + "\n".join(lines).strip()
    )


def cell(value: Any) -> str:
    """One figure for the table."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def certify() -> str:
    """Certificates: time, memory, errors."""
    result = load("certify")
    columns = list(dict.fromkeys(key for row in result["rows"] for key in row if key != "name"))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [
        f"| {row['name']} | " + " | ".join(cell(row.get(column)) for column in columns) + " |" for row in result["rows"]
    ]
    return f"`cllm bench certify` ({where(result)}):\n\n" + "\n".join(lines)


def demo() -> str:
    """What `make demo` printed."""
    return "```\n" + (ROOT / "docs" / "demo.txt").read_text(encoding="utf-8").strip() + "\n```"


PARTS = {"train-step": train_step, "demo": demo, "numbers": numbers, "certify": certify}


def filled(text: str) -> str:
    """The README with every marked part renewed."""
    for name, make in PARTS.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            sys.exit(f"README.md: expected the marks of {name} once")
        content = make()
        text = pattern.sub(lambda found, content=content: f"{found[1]}{content}\n{found[2]}", text)
    return text


def main() -> None:
    old = README.read_text(encoding="utf-8")
    new = filled(old)
    if "--check" in sys.argv:
        sys.exit(
            "README.md: its figures are not those of benchmarks/ and docs/demo.txt; run: make docs" if new != old else 0
        )
    README.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
