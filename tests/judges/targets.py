"""What a model is asked and what it should have said, from raw rows, for the plain peer."""

from __future__ import annotations

import torch
from torch import Tensor

from cllm.bench.peers import IGNORED


def inputs_and_targets(
    tokens_BT1: Tensor, documents_BT1: Tensor, document_mask: bool = False
) -> tuple[Tensor, Tensor, Tensor | None]:
    """From raw rows: inputs [B, T], targets [B, T] (−100: padding and, with the mask, across documents), documents.

    documents_BT1: number of the document within its row, −1 for padding. The last result is what `loss_sum`
    takes: the documents of the inputs, or None without the mask.
    """
    here, there = documents_BT1[:, :-1], documents_BT1[:, 1:]
    ignored = (here == -1) | (there == -1)
    if document_mask:
        ignored |= here != there
    targets = torch.where(ignored, IGNORED, tokens_BT1[:, 1:])
    return tokens_BT1[:, :-1], targets, here if document_mask else None
