"""The report of a study: results.json (everything), curves.svg (mean and range over seeds) and report.md."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import msgspec

from cllm.evaluation.ablation.runner import Result
from cllm.evaluation.ablation.statistics import Comparison, compare, interval
from cllm.evaluation.ablation.study import Cell, Study
from cllm.training.chart import Chart, Series

RESULTS, CURVES, REPORT = "results.json", "curves.svg", "report.md"
Results = Mapping[tuple[str, int], Result]


def write_report(study: Study, results: Results, folder: Path, *, alpha: float = 0.05) -> Path:
    """Write the three files of a finished (or partly finished) study; returns the report's path."""
    compared = comparisons(study, results, alpha)
    _write(folder / RESULTS, msgspec.json.format(msgspec.json.encode(to_dict(study, results, compared)), indent=1))
    _write(folder / CURVES, curves(study, results).encode())
    _write(folder / REPORT, page(study, results, compared, alpha).encode())
    return folder / REPORT


def comparisons(study: Study, results: Results, alpha: float) -> list[Comparison]:
    """Every other cell against the baseline."""
    others = study.cells[1:]
    base = _losses(study.baseline, study, results)
    return [
        compare(cell.name, _losses(cell, study, results), base, alpha=alpha, comparisons=len(others)) for cell in others
    ]


def to_dict(study: Study, results: Results, compared: list[Comparison]) -> dict[str, Any]:
    """All of it, JSON-able: the study file itself, every run, every comparison."""
    return {
        "format": "cllm-ablation-1",
        "title": study.title,
        "study": study.text,
        "baseline": study.baseline.name,
        "seeds": list(study.seeds),
        "cells": [{"name": cell.name, "set": cell.changes} for cell in study.cells],
        "runs": [msgspec.to_builtins(results[key]) for key in sorted(results)],
        "comparisons": [comparison.to_dict() for comparison in compared],
    }


def curves(study: Study, results: Results) -> str:
    """Validation loss against steps: the mean over seeds of each cell, least and largest faintly beside it."""
    lines: list[Series] = []
    for colour, cell in enumerate(study.cells):
        runs = [dict(r.curve) for s in study.seeds if (r := results.get((cell.name, s))) is not None]
        steps = sorted(set.intersection(*(set(run) for run in runs))) if runs else []
        for which, faint in ((mean, False), (min, True), (max, True)):
            values = [float(which([run[step] for run in runs])) for step in steps]
            lines.append(Series(cell.name, [float(s) for s in steps], values, faint=faint, colour=colour))
    seeds = len({seed for _, seed in results})
    chart = Chart(
        lines,
        study.title,
        "step",
        "validation loss, nats a token",
        subtitle=f"mean of {seeds} seed{'s' * (seeds != 1)}; thin: least and largest",
    )
    return chart.svg()


def conclusion(study: Study, compared: list[Comparison], alpha: float) -> list[str]:
    """What the numbers support, in words."""
    base = study.baseline.name
    said = []
    for c in compared:
        if c.n < 2:
            said.append(f"**{c.name}**: {c.n} pair{'s' * (c.n != 1)} of runs: nothing can be said.")
            continue
        interval_text = f"{c.mean:+.4f} nats, interval {c.low:+.4f} to {c.high:+.4f}"
        if c.verdict == "no difference shown":
            reach = max(abs(c.low), abs(c.high))
            said.append(
                f"**{c.name}**: no difference from {base} shown ({interval_text}); if there is one, it is likely below "
                f"{reach:.4f}."
            )
        else:
            better = "better" if c.verdict == "lower" else "worse"
            said.append(f"**{c.name}** is {better} than {base} ({interval_text}).")
    if compared:
        said.append(
            f"All {len(compared)} statements hold together with a confidence of {1 - alpha:.0%}, for this text, size "
            "and number of steps, if the differences are near normal."
        )
    return said


def page(study: Study, results: Results, compared: list[Comparison], alpha: float) -> str:
    """The report as Markdown."""
    total, done = len(study.cells) * len(study.seeds), len(results)
    lines = [f"# {study.title}", ""]
    if done < total:
        lines += [f"*Unfinished: {done} of {total} runs.*", ""]
    lines += [f"![validation loss against steps]({CURVES})", "", "## Conclusion", ""]
    lines += [f"- {sentence}" for sentence in conclusion(study, compared, alpha)]
    lines += ["", "## Final validation loss (nats a token)", ""]
    lines += _table(study, results, compared, alpha)
    if study.lengths:
        lines += ["", "## Loss at other lengths", "", *_lengths(study, results)]
    lines += ["", "## Fairness", "", *(f"- {text}" for text in _fairness(study, results))]
    lines += ["", "## The study", "", "```toml", study.text.rstrip(), "```", ""]
    lines += [f"Every run, every curve and every pair is in [{RESULTS}]({RESULTS}).", ""]
    return "\n".join(lines)


def _table(study: Study, results: Results, compared: list[Comparison], alpha: float) -> list[str]:
    level = f"{1 - alpha:.0%}"
    lines = [
        f"| cell | parameters | seeds | mean | ± ({level}) | bits per byte | against the baseline (paired) | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    by_name = {c.name: c for c in compared}
    for cell in study.cells:
        runs = [r for s in study.seeds if (r := results.get((cell.name, s))) is not None]
        if not runs:
            lines.append(f"| {cell.name} | | 0 | | | | | not trained |")
            continue
        middle, half = interval([r.loss for r in runs], alpha)
        bits = [r.bits_per_byte for r in runs if r.bits_per_byte is not None]
        c = by_name.get(cell.name)
        paired = "baseline" if c is None else f"{c.mean:+.4f} [{c.low:+.4f}, {c.high:+.4f}]"
        lines.append(
            f"| {cell.name} | {runs[0].parameters:,} | {len(runs)} | {middle:.4f} | {half:.4f} | "
            f"{f'{mean(bits):.4f}' if bits else '–'} | {paired} | {c.verdict if c else ''} |"
        )
    return lines


def _lengths(study: Study, results: Results) -> list[str]:
    lines = [
        "| cell | " + " | ".join(f"T = {length}" for length in study.lengths) + " |",
        "|---|" + "---|" * len(study.lengths),
    ]
    for cell in study.cells:
        shown = []
        for length in study.lengths:
            values = [
                value
                for s in study.seeds
                if (r := results.get((cell.name, s))) is not None and (value := r.lengths.get(str(length))) is not None
            ]
            middle, half = interval(values)
            shown.append(f"{middle:.4f} ± {half:.4f}" if values else "not applicable")
        lines.append(f"| {cell.name} | " + " | ".join(shown) + " |")
    return lines


def _fairness(study: Study, results: Results) -> list[str]:
    """Equal tokens, equal parameters: said where it is so, stated where it is not."""
    said = []
    tokens = sorted({r.tokens for r in results.values()})
    if len(tokens) == 1:
        said.append(
            f"Every run saw the same number of tokens: {tokens[0]:,}; runs of a seed saw the same text in the "
            "same order."
        )
    elif tokens:
        said.append(f"The runs saw different numbers of tokens: {', '.join(f'{n:,}' for n in tokens)}.")
    sizes = {
        cell.name: r.parameters
        for cell in study.cells
        for s in study.seeds[:1]
        if (r := results.get((cell.name, s))) is not None
    }
    if len(set(sizes.values())) == 1:
        said.append(f"Every model has the same number of parameters: {next(iter(sizes.values())):,}.")
    elif sizes:
        base = sizes.get(study.baseline.name)
        for name, count in sizes.items():
            if base is not None and count != base:
                said.append(
                    f"{name} has {count - base:+,} parameters ({(count - base) / base:+.1%}) against the baseline."
                )
    return said


def _losses(cell: Cell, study: Study, results: Results) -> dict[int, float]:
    return {
        seed: found.loss
        for seed in study.seeds
        if (found := results.get((cell.name, seed))) is not None and math.isfinite(found.loss)
    }


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)
