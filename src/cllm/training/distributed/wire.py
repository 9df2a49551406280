"""Tensors between the ranks while the computing goes on: sums, and one exchange that all else is made of.

`exchange` is an all-to-all with parts of any size: rank r's part for rank s arrives at s. Sending each bucket's parts
to their owners, who add them up, is a reduce-scatter whose order of additions is ours; sending the same part to all is
an all-gather of unequal parts. Both carry (N−1)/N of the bucket out of each rank and into it, like the ring algorithms
(docs/decisions/distributed.md says why not the library's own).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cllm.training.distributed.group import Group


@dataclass
class Pending:
    """An exchange under way; `wait` before its result is read or its operand written."""

    group: Group
    what: str
    work: Any
    held: tuple[Tensor, ...]

    def wait(self) -> None:
        with self.group.lost(self.what):
            self.work.wait()
        self.held = ()


@dataclass(frozen=True)
class Wire:
    """Exchanges that do not wait, among the ranks of a group of two or more. All ranks start them in the same order."""

    group: Group

    def sum(self, tensor: Tensor) -> Pending:
        """Replace `tensor` by its sum over all ranks: the library's all-reduce, the same bits on each rank."""
        import torch.distributed as dist

        with self.group.lost("a sum of gradients"):
            work = dist.all_reduce(tensor, async_op=True)
        return Pending(self.group, "a sum of gradients", work, (tensor,))

    def exchange(self, out: Tensor, out_sizes: Sequence[int], given: Tensor, sizes: Sequence[int]) -> Pending:
        """out ← what each rank has for this one, by rank, `out_sizes` entries of each.  given: what this one has for
        each, by rank, `sizes` entries.  Flat and contiguous; the bits travel as they are."""
        import torch.distributed as dist

        if given.dtype == torch.int16:  # no arithmetic is done on the way, and gloo knows no int16
            out, given = out.view(torch.bfloat16), given.view(torch.bfloat16)
        with self.group.lost("an exchange of parts"):
            work = dist.all_to_all_single(out, given, list(out_sizes), list(sizes), async_op=True)
        return Pending(self.group, "an exchange of parts", work, (out, given))
