"""A study as far as it is trained, read and checked by the code that trains it. Needs torch: runs in `studio.slow`."""

from __future__ import annotations

from typing import Any

import msgspec

from cllm.errors import CllmError
from cllm.evaluation.ablation import Runner, read_study
from cllm.evaluation.ablation.report import comparisons, conclusion, to_dict
from cllm.studio.bench_studies import Results, shown
from cllm.studio.workspace import Workspace

ALPHA = 0.05


def now(root: str, file: str, folder: str) -> dict[str, Any]:
    """What is finished of the study in `file`, in `folder`, compared in pairs. Raises what the training would raise.

    texts: what it is trained on; the caller looks whether that is in the workspace.
    Where the folder holds runs of other settings than the file now has, they are left out and `mixed` says so.
    """
    workspace = Workspace(root)
    study = read_study(workspace.resolve(file))
    place = workspace.resolve(folder, exists=False)
    mixed = None
    found: dict[tuple[str, int], Any] = {}
    try:
        found = Runner(study, place).results
    except CllmError as error:
        mixed = str(error).replace(f"{workspace.root}/", "")
    compared = comparisons(study, found, ALPHA)
    said = to_dict(study, found, compared)
    for told, cell in zip(said["cells"], study.cells, strict=True):
        told["folder"] = cell.folder
    results = msgspec.convert(_finite(said), Results)
    results.steps = study.cells[0].config.train.steps
    results.conclusion = conclusion(study, compared, ALPHA) if found else []
    texts = sorted({path for cell in study.cells for path in cell.config.data.path})
    return shown(results) | {
        "report": (place / "report.md").is_file(),
        "mixed": mixed,
        "texts": texts,
        "lengths": list(study.lengths),
        "sizes": {cell.name: cell.parameters for cell in study.cells},
    }


def _finite(value: Any) -> Any:
    """NaN and infinities as None, as JSON has them."""
    return msgspec.json.decode(msgspec.json.encode(value))
