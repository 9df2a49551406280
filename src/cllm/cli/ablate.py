"""`cllm ablate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cllm.evaluation.ablation import Runner


def ablate(file: Path, /, *, out: Path | None = None, report: bool = False, json: bool = False) -> int:
    """Train a grid of settings on several seeds, compare in pairs, and say what the numbers support.

    What is finished is kept: the same command goes on where it was stopped, also after Ctrl-C.

    Examples:

      cllm ablate docs/studies/positions.toml

      cllm ablate my-study.toml --out studies/mine --report

    Parameters
    ----------
    file: Path
        The study: title, seeds, [run], [grid] and [[cell]] (see docs/ablation.md).
    out: Path
        Folder of runs and report. Default: studies/ and the file's name.
    report: bool
        Train nothing; write the report of what is finished.
    json: bool
        Print results.json instead of the conclusion.
    """
    from cllm.evaluation.ablation import Runner, read_study, write_report

    study = read_study(file)
    folder = out if out is not None else Path("studies") / file.stem
    runner = Runner(study, folder)
    complete = True
    if not report:
        complete = _train(runner)
    path = write_report(study, runner.results, folder)
    if json:
        print((folder / "results.json").read_text(encoding="utf-8"))
    else:
        from cllm.evaluation.ablation.report import comparisons, conclusion

        for sentence in conclusion(study, comparisons(study, runner.results, 0.05), 0.05):
            print(sentence.replace("**", ""))
        print(f"report: {path}")
    if not complete:
        print(f"stopped with {len(runner.left)} runs to go; the same command goes on", file=sys.stderr)
        return 130
    return 0


def _train(runner: Runner) -> bool:
    """Train what is left, with a live table on a terminal and lines elsewhere."""
    from cllm.evaluation.ablation.live import watching

    with watching(runner) as watch:
        return runner.run(watch.started, watch.stepped, watch.finished)
