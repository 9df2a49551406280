"""Writes docs/profile.md from saved profiles: `cllm bench profile --save benchmarks`, then `python docs/profile.py`."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAD = """# Where the time of a step goes

Written by `docs/profile.py` from `benchmarks/profile-*.json`, which `cllm bench profile --save benchmarks` measures.
A kernel's *limit* is the longer of two times: its floating-point operations at the register-loop peak of the
precision, and its bytes, each read and written once, at the copying speed of the memory. Above 100 %: the data was
still in a cache.
"""


def section(path: Path) -> str:
    """One profile as a table."""
    found = json.loads(path.read_text(encoding="utf-8"))
    facts, machine = found["facts"], found["machine"]
    made = f"{machine['cores']} cores, torch {machine['versions']['torch']}, {found['date'][:10]}"
    lines = [
        f"\n## {found['title']}\n",
        f"{made}, commit `{found['commit']}`; {facts['the step']}; memory {facts['copy_gb_s']:.0f} GB/s copying.\n",
        "| kernel | calls | ms | of the step | GFLOP | MB | limit, ms | of the limit |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        cells = [row["name"], row.get("calls", "—"), f"{row['ms']:.2f}", f"{100 * row['step_fraction']:.1f} %"]
        if "limit_ms" in row:
            cells += [f"{row['gflop']:.1f}", f"{row['mb']:.1f}", f"{row['limit_ms']:.2f}"]
            cells.append(f"{100 * row['limit_fraction']:.0f} %")
        else:
            cells += ["—"] * 4
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    profiles = sorted((ROOT / "benchmarks").glob("profile-*.json"))
    (ROOT / "docs" / "profile.md").write_text(HEAD + "".join(map(section, profiles)), encoding="utf-8")
