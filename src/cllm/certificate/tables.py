"""Fixed tables of a model (position codes, rotations, the transform) against their formulas.

The proof takes a table as it is given, exact floats; that the floats are the formula's is checked here, apart from it:
each entry may be LAST units of the last place from the formula in float64, rounded to the table's precision, since
another machine's sine may round differently.
"""

from __future__ import annotations

import numpy as np
import torch

from cllm.certificate.record import Bad
from cllm.certificate.subjects import Array, Subject
from cllm.model.tables import PREFIX, fixed_tables

LAST = 4


def check_tables(subject: Subject) -> tuple[str, Bad | None]:
    """A sentence for the certificate ("" without tables), and the first entry that is not the formula's."""
    model = subject.config.model
    dtype = torch.float32 if subject.sums == "float32" else torch.float64
    worst = 0.0
    for name, table in fixed_tables(model, dtype, "cpu").items():
        given, wanted = subject.tables.get(name), table.numpy()
        if given is None or given.shape != wanted.shape:
            got = "nothing" if given is None else f"{given.shape}"
            return "", Bad(PREFIX + name, [], f"a table of shape {wanted.shape}", got, "the table is not the formula's")
        units = _units(given, wanted)
        at = np.unravel_index(int(np.argmax(units)), units.shape)
        if not units[at] <= LAST:
            why = "the stored table is not the formula's"
            return "", Bad(PREFIX + name, list(map(int, at)), repr(float(wanted[at])), repr(float(given[at])), why)
        worst = max(worst, float(units[at]))
    if not subject.tables:
        return "", None
    same = "equal to their formulas, rounded" if worst == 0 else f"within {worst:.0f} ulp of their formulas"
    return f"fixed tables ({', '.join(sorted(subject.tables))}): taken as stored; {same}", None


def _units(a: Array, b: Array) -> Array:
    """|a − b| in units of the last place of the table's largest entry of the row: sums near 0 cancel."""
    unit = np.spacing(np.abs(b).max(axis=-1, keepdims=True))
    found: Array = np.abs(a.astype(np.float64) - b.astype(np.float64)) / unit
    return np.where(np.isfinite(found), found, np.inf)
