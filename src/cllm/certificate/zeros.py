"""Where the exact gradient is 0 whatever the weights are: found from the configuration and the batch alone.

- Key biases: bk adds q·bk to all scores of a query alike, and softmax ignores what is added to all (but not with
  rotary positions, which turn it differently at each key).
- Wv and Wo kept equal to their average over D12: entries between unlike channels of two planes.
- Rows of the position table (and, untied, of the token embedding) that no live input uses. An input is live when a
  valid target depends on it.
- Wq, Wk and bq, when every live query may attend to one key only (T = 1, say): its probability is 1 whatever they are.
"""

from __future__ import annotations

import numpy as np

from cllm import spec
from cllm.certificate.subjects import Subject
from cllm.spec.system import Bools


def live(batch: spec.Batch) -> Bools:
    """[B, T]: True where some valid target attends to this input (itself included)."""
    return np.stack([batch.allowed_TT(b).T @ batch.valid_BT[b] for b in range(batch.rows)])


def structural(subject: Subject) -> dict[str, tuple[str, Bools]]:
    """Tensor → (why, mask of the entries that are 0 by structure)."""
    batch, weights = subject.spec_batch, subject.weights
    used = live(batch)
    found: dict[str, tuple[str, Bools]] = {}

    def unused_rows(name: str, why: str, index: np.ndarray) -> None:
        rows = np.ones(weights[name].shape[0], bool)
        rows[index[used]] = False
        if rows.any():
            found[name] = why, np.broadcast_to(rows[:, None], weights[name].shape)

    if "pos" in weights:
        unused_rows("pos", "position rows not used", batch.positions_BT)
    if not subject.config.model.tied:
        unused_rows("tok", "tokens not used", batch.inputs_BT)
    single = all((batch.allowed_TT(b).sum(axis=1)[used[b]] == 1).all() for b in range(batch.rows))
    for i in range(subject.config.model.layers):
        for n in ("wq", "wk", "bq") if single else ():
            found[f"{i}.attn.{n}"] = (
                "queries and keys where each query has one key",
                np.ones(weights[f"{i}.attn.{n}"].shape, bool),
            )
        if subject.config.model.positions != "rope":
            found[f"{i}.attn.bk"] = "key bias", np.ones(weights[f"{i}.attn.bk"].shape, bool)
        for n in ("wv", "wo") if subject.config.model.equivariant else ():
            rows, columns = np.indices(weights[f"{i}.attn.{n}"].shape) % 2
            found[f"{i}.attn.{n}"] = "between unlike channels of averaged matrices", rows != columns
    if single and "symmetry.beta" in weights:
        found["symmetry.beta"] = "a bias where each query has one key", np.ones((1,), bool)
    return found
