"""Writes the tables and the picture of docs/scale.md: everything between `<!-- name -->` and `<!-- /name -->`.

From benchmarks/pieces-*.json (pieces of a step; `--measure` measures them anew, in
minutes, on a machine that does nothing else), link-*.json and
scale-*.json (`cllm bench link --save benchmarks`, `cllm bench scale --save benchmarks`). What a table shows is what the
`cllm plan` command above it prints.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from cllm import config as settings
from cllm.bench.link import KEYS
from cllm.bench.machine import describe
from cllm.bench.measure import commit
from cllm.bench.scale import busy_core_s
from cllm.config import Config
from cllm.training.chart import Chart, Series
from cllm.training.distributed.cost import Link, Network
from cllm.training.distributed.measured import Measured
from cllm.training.distributed.outlook import Job, Line, outlook

ROOT = Path(__file__).resolve().parent.parent
PAGE, BENCHMARKS, PICTURE = ROOT / "docs" / "scale.md", ROOT / "benchmarks", ROOT / "docs" / "scale.svg"
COUNTS = tuple(1 << k for k in range(13))  # 1 … 4096
NETWORKS = {"1 Gbit/s": (0.125, 100), "10 Gbit/s": (1.25, 50), "100 Gbit/s": (12.5, 20), "400 Gbit/s": (50, 5)}
SAME = {"train.sequence": 256, "precision": "bf16"}
ROWS = {  # 4096 rows a step, 2²⁰ tokens
    "seed": {"train.batch": 8, "train.accumulate": 512} | SAME,
    "large": {"train.batch": 2, "train.accumulate": 2048} | SAME,
}
PRESETS = tuple(ROWS)
OTHERS, QUIET = "cores that other work kept busy", 0.1


def config(preset: str, **keys: object) -> Config:
    return settings.load(
        preset=preset, overrides=ROWS[preset] | {key.replace("__", "."): value for key, value in keys.items()}
    )


def pieces(preset: str) -> Measured:
    return Measured.load(BENCHMARKS / f"pieces-{preset}.json", config(preset))


@cache
def lines(
    preset: str,
    counts: tuple[int, ...],
    network: str,
    algorithm: str = "ring",
    *,
    weak: bool = False,
    memory: bool = False,
    **keys: object,
) -> list[Line]:
    job = Job(Network.uniform(Link.of(*NETWORKS[network]), algorithm), weak=weak)
    return outlook(config(preset, **keys), counts, job, measured=pieces(preset), memory=memory)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def plain() -> str:
    """seed over 10 Gbit/s: everything about each number of processes."""
    rows = []
    for line in lines("seed", COUNTS, "10 Gbit/s", memory=True):
        found = line.prediction
        assert found is not None
        rows.append([
            f"{line.processes:,}", f"{found.rows} × {found.micro_batches}", f"{1e3 * found.step_s:,.0f}",
            f"{1e3 * found.compute_s:,.0f}", f"{1e3 * found.communicate_s:,.0f}", f"{1e3 * found.exposed_s:,.0f}",
            f"{line.tokens_per_s:,.0f}", f"{100 * line.efficiency:.0f} %",
            f"{line.memory_bytes / 1e6:,.0f}", f"{found.sent_bytes / 1e6:,.0f}",
        ])  # fmt: skip
    head = [
        "processes",
        "rows of one",
        "step, ms",
        "compute",
        "communicate",
        "exposed",
        "tokens/s",
        "efficiency",
        "memory, MB",
        "sent, MB",
    ]
    return table(head, rows) + "\n\n![Efficiency against processes](scale.svg)"


def efficiencies() -> str:
    """Efficiency by network, model and algorithm."""
    counts = (8, 64, 256, 512, 1024, 2048, 4096)
    rows = []
    for preset in PRESETS:
        for network, (speed, delay) in NETWORKS.items():
            for algorithm in ("ring", "tree"):
                found = lines(preset, counts, network, algorithm)
                name = f"{preset}, {network} ({speed:g} GB/s, {delay} µs), {algorithm}"
                rows.append([name, *(f"{100 * line.efficiency:.0f} %" for line in found)])
    return table(["", *(f"{count:,}" for count in counts)], rows)


def weak() -> str:
    """8 rows a process, whatever their number: the global batch grows."""
    counts = (8, 64, 512, 4096)
    rows = []
    for preset in PRESETS:
        for network in ("10 Gbit/s", "100 Gbit/s"):
            for algorithm in ("ring", "tree"):
                found = lines(preset, counts, network, algorithm, weak=True, train__accumulate=1)
                rows.append(
                    [f"{preset}, {network}, {algorithm}", *(f"{100 * line.efficiency:.0f} %" for line in found)]
                )
    return table(["", *(f"{count:,}" for count in counts)], rows)


FIXED = {"distributed__reduction": "fixed"}
MODES: dict[str, dict[str, object]] = {
    "data parallel": {},
    "ZeRO 1": {"distributed__zero": 1},
    "ZeRO 2": {"distributed__zero": 2},
    "data parallel, fixed": FIXED,
    "ZeRO 1, fixed": {"distributed__zero": 1} | FIXED,
    "ZeRO 2, fixed": {"distributed__zero": 2} | FIXED,
}


def modes() -> str:
    """large over 100 Gbit/s: memory and step of each mode."""
    counts = (2, 8, 64, 512)
    rows = []
    for name, keys in MODES.items():
        found = lines("large", counts, "100 Gbit/s", memory=True, **keys)
        cells = []
        for line in found:
            assert line.prediction is not None
            memory, found_ = f"{line.memory_bytes / 1e6:,.0f} MB", line.prediction
            cells.append(f"{memory}, {found_.step_s:,.1f} s, {found_.sent_bytes / 1e9:,.1f} GB")
        rows.append([name, *cells])
    return table(["", *(f"{count:,} processes" for count in counts)], rows)


def limits() -> str:
    """The largest number of processes (a power of 2) that still has an efficiency."""
    rows = []
    for preset in PRESETS:
        for network in NETWORKS:
            cells = []
            for algorithm in ("ring", "tree"):
                found = lines(preset, COUNTS, network, algorithm)
                for least in (0.9, 0.5):
                    cells.append(f"{max(line.processes for line in found if line.efficiency >= least):,}")
            rows.append([f"{preset}, {network}", *cells])
    return table(["", "ring, 90 %", "ring, 50 %", "tree, 90 %", "tree, 50 %"], rows)


def links() -> str:
    """α and β of gloo here."""
    rows = []
    for file in sorted(BENCHMARKS.glob("link-gloo-n*.json")):
        said = json.loads(file.read_text())
        for what in ("all-reduce", "reduce-scatter", "all-gather", "all-to-all"):
            off = [abs(row["off_fraction"]) for row in said["rows"] if row["name"].startswith(what)]
            facts, middle = said["facts"], sorted(off)[len(off) // 2]
            of = {key: facts[f"{what} {key}"] for key in KEYS}
            rows.append([
                str(facts["processes"]), what, f"{of['alpha_us']:.0f}", f"{of['gb_s']:.2f}",
                f"{of['core_us_per_message']:.0f}", f"{of['core_s_per_gb']:.2f}",
                f"{100 * middle:.0f} %, {100 * max(off):.0f} %",
            ])  # fmt: skip
    return table(
        ["processes", "", "α, µs", "GB/s (1/β)", "core µs a message", "core s a GB", "off: median, most"], rows
    )


def measured() -> str:
    """Predicted beside measured."""
    rows = []
    for file in sorted(BENCHMARKS.glob("scale-*.json")):
        said = json.loads(file.read_text())
        title = said["title"].partition(": a step")[0]
        for row in said["rows"]:
            rows.append([
                title, row["name"], f"{row['ms']:.1f}", f"{100 * row['spread']:.0f} %", f"{row['predicted_ms']:.1f}",
                f"{100 * row['off_fraction']:+.0f} %",
            ])  # fmt: skip
    return table(["", "processes", "measured, ms", "spread", "predicted, ms", "off"], rows)


def picture() -> None:
    """Efficiency against the number of processes, as an SVG."""
    series = []
    for i, (preset, network) in enumerate((p, n) for p in PRESETS for n in ("10 Gbit/s", "100 Gbit/s")):
        for algorithm in ("ring", "tree"):
            found = lines(preset, COUNTS, network, algorithm)
            series.append(Series(
                f"{preset}, {network}, {algorithm}", COUNTS, [line.efficiency for line in found],
                colour=i + (8 if algorithm == "tree" else 0),
            ))  # fmt: skip
    title = "Efficiency of 4096 rows a step, predicted"
    PICTURE.write_text(
        Chart(series, title, "processes, one a machine", "efficiency", log_x=True).svg(), encoding="utf-8"
    )


def measure() -> None:
    """Minutes, on a machine that does nothing else; how much else it did is written down and shown."""
    for preset in PRESETS:
        found, file = Measured(config(preset)), BENCHMARKS / f"pieces-{preset}.json"
        busy, own, begin = busy_core_s(), sum(os.times()[:4]), time.perf_counter()
        outlook(config(preset), COUNTS, Job(Network.uniform(Link.of(1, 1))), measured=found, memory=False)
        others = (busy_core_s() - busy - sum(os.times()[:4]) + own) / (time.perf_counter() - begin)
        found.save(file)
        here = {"date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}", "commit": commit(), "machine": describe()}
        said = json.loads(file.read_text()) | here | {OTHERS: max(0.0, others)}
        file.write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n")


def conditions() -> str:
    """When and on what the pieces were measured."""
    found = []
    for preset in PRESETS:
        said = json.loads((BENCHMARKS / f"pieces-{preset}.json").read_text())
        found.append(
            f"{preset}: {said['date']}, {said['machine']['cpu']}, {said['cores']} cores; other work kept "
            f"{said[OTHERS]:.1f} of them busy"
        )
    return "; ".join(found) + "."


def main() -> None:
    if "--measure" in sys.argv:
        measure()
    for preset in PRESETS:
        others = json.loads((BENCHMARKS / f"pieces-{preset}.json").read_text())[OTHERS]
        if others > QUIET and "--anyway" not in sys.argv:
            sys.exit(f"pieces-{preset}: other work kept {others:.1f} cores busy; measure again, or say --anyway")
    page = PAGE.read_text(encoding="utf-8")
    for part in (conditions, plain, efficiencies, weak, modes, limits, links, measured):
        name = part.__name__
        marks = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        text = marks[0] + part() + "\n" + marks[1]
        page, count = re.subn(f"{marks[0]}.*?{marks[1]}", lambda _, text=text: text, page, flags=re.DOTALL)
        assert count == 1, name
    PAGE.write_text(page, encoding="utf-8")
    picture()


if __name__ == "__main__":
    main()
