"""From raw token rows to what the step needs: inputs, targets, positions and documents."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

IGNORED = -1  # as a target


@dataclass(frozen=True)
class Batch:
    """Raw rows of one micro-batch.

    tokens_BT1: int64 [B, T+1] token rows.  documents_BT1: int64 [B, T+1], number of the document within its row,
    −1 = padding.  first_row: global number, within the step, of row 0.
    """

    tokens_BT1: Tensor
    documents_BT1: Tensor
    first_row: int = 0

    @classmethod
    def of(cls, tokens_BT1: object, documents_BT1: object = None, first_row: int = 0) -> Batch:
        """From arrays or nested lists; without documents each row is one document."""
        tokens = torch.as_tensor(tokens_BT1, dtype=torch.int64)
        documents = (
            torch.zeros_like(tokens) if documents_BT1 is None else torch.as_tensor(documents_BT1, dtype=torch.int64)
        )
        return cls(tokens, documents, first_row)


@dataclass(frozen=True)
class Derived:
    """inputs_BT, targets_BT (−1 = ignored), positions_BT (None: the column), documents_BT (None: no mask)."""

    inputs_BT: Tensor
    targets_BT: Tensor
    positions_BT: Tensor | None
    documents_BT: Tensor | None
    valid: int


def derive(batch: Batch, document_mask: bool, device: torch.device | str = "cpu", *, count: bool = True) -> Derived:
    """Targets are the next tokens. Ignored: padding, a target in padding and, with a document mask, a target across
    a boundary; then positions restart at each document, too. count: False leaves `valid` 0 instead of waiting for the
    device to count."""
    tokens, documents = batch.tokens_BT1.to(device), batch.documents_BT1.to(device)
    ignored = (documents[:, :-1] < 0) | (documents[:, 1:] < 0)
    positions = of_query = None
    if document_mask:
        ignored |= documents[:, 1:] != documents[:, :-1]
        of_query = documents[:, :-1].contiguous()
        columns = torch.arange(of_query.shape[1], device=of_query.device).expand_as(of_query)
        starts = torch.zeros_like(of_query)
        starts[:, 1:] = columns[:, 1:] * (of_query[:, 1:] != of_query[:, :-1])
        positions = columns - starts.cummax(dim=1).values
    targets = tokens[:, 1:].masked_fill(ignored, IGNORED)
    return Derived(tokens[:, :-1].contiguous(), targets, positions, of_query, int((~ignored).sum()) if count else 0)


def pad_rows(batch: Batch, rows: int) -> Batch:
    """Add rows of padding, so that a short last batch fits buffers of `rows` rows."""
    short = rows - batch.tokens_BT1.shape[0]
    if short <= 0:
        return batch
    shape = (short, batch.tokens_BT1.shape[1])
    return Batch(
        torch.cat((batch.tokens_BT1, batch.tokens_BT1.new_zeros(shape))),
        torch.cat((batch.documents_BT1, batch.documents_BT1.new_full(shape, -1))),
        batch.first_row,
    )
