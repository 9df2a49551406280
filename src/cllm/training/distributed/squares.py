"""Σ g² over pieces of gradients that lie on several ranks: the same number however the pieces are cut.

Blocks of 256 entries, counted from the beginning of each tensor, are summed in float64; pieces are cut between blocks.
The sum of the blocks is exact (Shewchuk 1997: a sum of floats is a short list of floats), and rounded once at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from cllm.engine.buffers import GROUP_ALIGN as BLOCK
from cllm.training.distributed.group import Group

ROWS = {"cpu": 256, "cuda": 1 << 18}  # blocks that are worked on at a time: in the caches, or by one launch
TERMS = 40  # floats without overlap that any sum of float64 numbers is: 2098 bits of range, 53 bits each


def block_squares(piece: Tensor) -> list[float]:
    """Σ g² of each block of a flat piece (the last one may be shorter)."""
    found: list[float] = []
    whole = piece.numel() // BLOCK * BLOCK
    rows, step = piece[:whole].view(-1, BLOCK), ROWS[piece.device.type]
    for at in range(0, rows.shape[0], step):
        found += rows[at : at + step].to(torch.float64, copy=True).square_().sum(1).tolist()
    if whole < piece.numel():
        rest = torch.zeros(1, BLOCK, dtype=torch.float64, device=piece.device)
        rest[0, : piece.numel() - whole] = piece[whole:]
        found += rest.square_().sum(1).tolist()
    return found


def exact(values: Sequence[float]) -> list[float]:
    """A few floats whose exact sum is that of `values`; [inf] or [nan] when that is no number."""
    plain = fsum(values)
    if not math.isfinite(plain):
        return [plain]
    terms: list[float] = []
    while (rest := math.fsum([*values, *(-term for term in terms)])) != 0.0:
        terms.append(rest)
    return terms


def total(pieces: Iterable[Tensor], group: Group | None = None) -> float:
    """Σ g² over the pieces of this rank and, with a group, over those of all ranks: correctly rounded, so on each rank
    the same, whoever has which piece."""
    return totals([pieces], group)[0]


def totals(several: Sequence[Iterable[Tensor]], group: Group | None = None) -> list[float]:
    """`total` of each of several sets of pieces, in one exchange."""
    found = [[square for piece in pieces for square in block_squares(piece)] for pieces in several]
    if group is None or group.size == 1:
        return [fsum(squares) for squares in found]
    mine = [exact(squares) for squares in found]
    everyone = group.gather([term for terms in mine for term in terms + [0.0] * (TERMS - len(terms))])
    cuts = range(0, TERMS * len(found), TERMS)
    return [fsum([term for terms in everyone for term in terms[at : at + TERMS]]) for at in cuts]


def fsum(values: Iterable[float]) -> float:
    """`math.fsum`, but an overflow or infinities of both signs are an answer."""
    values = list(values)
    try:
        return math.fsum(values)
    except OverflowError:
        return math.inf
    except ValueError:
        return math.nan
