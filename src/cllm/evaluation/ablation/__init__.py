"""Ablations: a grid of settings × seeds, trained, compared in pairs, and reported in words that the numbers support.

`read_study` reads a study file, `Runner` trains what is not trained yet, `compare` does the statistics, `write_report`
writes results.json, the curves and the report page. `cllm ablate FILE` does all of it.
"""

from cllm.evaluation.ablation.report import write_report
from cllm.evaluation.ablation.runner import Result, Runner
from cllm.evaluation.ablation.statistics import Comparison, compare, student_quantile
from cllm.evaluation.ablation.study import Cell, Study, read_study

__all__ = [
    "Cell",
    "Comparison",
    "Result",
    "Runner",
    "Study",
    "compare",
    "read_study",
    "student_quantile",
    "write_report",
]
