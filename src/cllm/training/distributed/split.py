"""Which rows of a step are whose. The step itself does not depend on the number of ranks N: it has A micro-batches of B
rows (train.accumulate, train.batch), the rows [0, A·B) behind its position in the stream.

"fast": rank r has the rows [⌊r·A·B/N⌋, ⌊(r+1)·A·B/N⌋), in micro-batches of at most B rows.
"fixed": rank r has the whole micro-batches [⌊r·A/N⌋, ⌊(r+1)·A/N⌋), or in turn r, r + N, …; their gradients are added
in one tree over their numbers, so that the bits of the sum are the same for every N.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from cllm.config import TrainConfig
from cllm.errors import ConfigError
from cllm.training.distributed.tree import leaves

FAST, FIXED = "fast", "fixed"


@dataclass(frozen=True)
class Share:
    """A rank's part of every step.

    parts: (first row, rows) of each of its micro-batches; rows are numbered within the step.  leaf: in "fixed", the
    number of its first micro-batch among all of the step.
    """

    parts: tuple[tuple[int, int], ...]
    leaf: int = 0

    @property
    def rows(self) -> int:
        """Rows of this rank in a step."""
        return sum(count for _, count in self.parts)

    @property
    def most(self) -> int:
        """Rows of its largest micro-batch: what its buffers must hold."""
        return max(count for _, count in self.parts)


def share(train: TrainConfig, rank: int, size: int, reduction: str = FAST, *, in_turn: bool = False) -> Share:
    """What rank `rank` of `size` computes of every step. in_turn: "fixed" deals the micro-batches out one by one, as
    ZeRO-2 wants them. Raises ConfigError when there is not something for each."""
    a, b = train.accumulate, train.batch
    if reduction == FIXED:
        if size > a:
            raise ConfigError(
                f'distributed.reduction: "fixed" gives each process whole micro-batches, and {size} processes share '
                f"train.accumulate = {a}; use at most {a} process{'es' * (a > 1)}, or cut the same rows into more "
                f"micro-batches{_finer(a * b, size)}"
            )
        own = leaves(rank, size, a, in_turn=in_turn)
        return Share(tuple((leaf * b, b) for leaf in own), own[0])
    if size > a * b:
        raise ConfigError(
            f"{size} processes share the {a * b} rows of a step (train.batch = {b} × train.accumulate = {a}): more "
            f"processes than rows. Use at most {a * b}, or a larger train.batch"
        )
    first, last = _range(a * b, rank, size)
    count = -(-(last - first) // b)  # micro-batches of nearly the same size: none is mostly padding
    cuts = [first + _range(last - first, i, count)[0] for i in range(count + 1)]
    return Share(tuple((at, stop - at) for at, stop in pairwise(cuts)))


def _range(things: int, rank: int, size: int) -> tuple[int, int]:
    return rank * things // size, (rank + 1) * things // size


def _finer(rows: int, size: int) -> str:
    """The fewest micro-batches that are enough for `size` ranks and divide the rows."""
    for accumulate in range(size, rows + 1):
        if rows % accumulate == 0:
            return f": train.accumulate = {accumulate}, train.batch = {rows // accumulate}"
    return ""
