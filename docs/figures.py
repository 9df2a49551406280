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
    """The training step beside its peers: small, seed, a large vocabulary, GPT-2's size."""
    lines = []
    steps = "cllm bench train-step"
    seed = f"{steps} --preset seed --batch 8 --sequence 256 --rounds 5 --skip-memory"
    for name, command in (
        ("train-step-small-b16-t128", steps),
        ("train-step-seed-b8-t256", seed),
        ("train-step-seed-v50257-b8-t256", f"{seed} --vocab 50257"),
        ("train-step-gpt2-b2-t256", f"{steps} --preset gpt2 --batch 2 --sequence 256 --rounds 5 --skip-memory"),
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


def decode() -> str:
    """Tokens a second, one after the other."""
    lines = [
        "| model, batch | weights | ms a token | tokens/s | times eager bf16 | of the read bandwidth |",
        "|---|---|---|---|---|---|",
    ]
    for preset in ("seed", "gpt2"):
        for batch in (1, 4, 16):
            result = load(f"decode-{preset}-b{batch}")
            lines += [
                f"| {preset}, {batch} | {row['name'].removeprefix('cllm ')} | {number(row['ms'], 2)} | "
                f"{number(row['tokens_per_s'], 0)} | {times(row['ratio'])} | {percent(row['memory_fraction'])} |"
                for row in result["rows"]
                if row["name"].startswith("cllm")
            ]
    command = "cllm bench decode --preset seed|gpt2 --batch 1|4|16"
    return f"`{command}` ({where(load('decode-seed-b1'))}):\n\n" + "\n".join(lines)


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


def memory() -> str:
    """Megabytes of a training step in each memory mode."""
    result = load("memory")
    lines = [
        "| | state | `cllm plan` | allocated | resident | off by at most | peak of the process |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        figures = (row[f"{key}_mb"] for key in ("state", "planned", "allocated", "resident"))
        cells = [number(value, 0) for value in figures]
        cells += [f"{100 * row['off_fraction']:.1f} %", number(row["peak_rss_mb"], 0)]
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    return f"`cllm bench memory` ({where(result)}), MB; state: weights, gradients, moments:\n\n" + "\n".join(lines)


def small() -> str:
    """Start-up, and preparing text."""
    lines = [f"`cllm bench startup` ({where(load('startup'))}):", "", "| | ms | spread |", "|---|---|---|"]
    lines += [
        f"| {row['name']} | {number(row['ms'], 0)} | {percent(row['spread'])} |" for row in load("startup")["rows"]
    ]
    lines += ["", f"`cllm bench prepare --size 200 --size 2000` ({where(load('prepare'))}):", ""]
    lines += ["| text | MB/s | memory of all processes, MB |", "|---|---|---|"]
    lines += [
        f"| {row['name']} | {number(row['mb_per_s'], 1)} | {number(row['memory_mb'], 0)} |"
        for row in load("prepare")["rows"]
    ]
    return "\n".join(lines)


def demo() -> str:
    """What `make demo` printed."""
    return "```\n" + (ROOT / "docs" / "demo.txt").read_text(encoding="utf-8").strip() + "\n```"


PARTS = {
    "train-step": train_step, "decode": decode, "memory": memory, "small": small, "demo": demo, "numbers": numbers,
    "certify": certify,
}  # fmt: skip


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
