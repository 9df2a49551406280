"""What the model is asked: raw token rows and their documents, and all that follows from them.

Targets, ignored targets, positions and attention masks are derived here from the raw rows, independently of the
engine, so that a label shift or a padding fault upstream shows in the certificate.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cllm.errors import DataError
from cllm.spec.system import Bools, Indices


@dataclass(frozen=True)
class Batch:
    """All rows of one step.

    tokens_BT1: token rows [B, T+1]; documents_BT1: the number of the document within its row (0, 1, …; −1 padding);
    first_row: the step's number of row 0; (seed, step): the dropout key; document_mask: attend, count positions
    and predict within a document only.
    """

    tokens_BT1: NDArray[Any]
    documents_BT1: NDArray[Any]
    first_row: int = 0
    seed: int = 0
    step: int = 0
    document_mask: bool = False

    def __post_init__(self) -> None:
        tokens, documents = self.tokens_BT1, self.documents_BT1
        if tokens.ndim != 2 or tokens.shape != documents.shape or tokens.shape[1] < 2:
            raise DataError(
                f"batch: tokens {tokens.shape} and documents {documents.shape}: expected two arrays of one shape "
                "[B, T+1] with T ≥ 1"
            )
        if not self.valid_BT.any():
            raise DataError("batch: no valid target: the mean loss of nothing is undefined; give unpadded rows")

    @property
    def rows(self) -> int:
        return int(self.tokens_BT1.shape[0])

    @property
    def columns(self) -> int:
        """T: tokens of a row that are read."""
        return int(self.tokens_BT1.shape[1]) - 1

    @property
    def inputs_BT(self) -> Indices:
        return self.tokens_BT1[:, :-1].astype(np.int64)

    @property
    def targets_BT(self) -> Indices:
        return self.tokens_BT1[:, 1:].astype(np.int64)

    @cached_property
    def valid_BT(self) -> Bools:
        """True where the target counts."""
        here, there = self.documents_BT1[:, :-1], self.documents_BT1[:, 1:]
        valid: Bools = (here != -1) & (there != -1)
        if self.document_mask:
            valid &= here == there
        return valid

    @cached_property
    def positions_BT(self) -> Indices:
        """The column; with document_mask, counted from the first column of the document."""
        columns = np.arange(self.columns, dtype=np.int64)
        positions = np.tile(columns, (self.rows, 1))
        if self.document_mask:
            for b, documents in enumerate(self.documents_BT1[:, :-1]):
                for document in np.unique(documents):
                    inside = documents == document
                    positions[b, inside] -= columns[inside][0]
        return positions

    def allowed_TT(self, b: int) -> Bools:
        """[query i, key j] of row b: True where i may attend to j."""
        column = np.arange(self.columns)
        allowed: Bools = column[None, :] <= column[:, None]
        if self.document_mask:
            documents = self.documents_BT1[b, :-1]
            allowed = allowed & (documents[:, None] == documents[None, :])
        return allowed
