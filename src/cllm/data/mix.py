"""Mixing several sources by weight: which source each row of the training stream comes from.

Rows are dealt in blocks of `BLOCK`. After b blocks, n = b·BLOCK rows, the first g+1 of the sources together
have had ⌊n · (w₀ + … + w_g)⌋ rows, so that every source is within one row of its share, whatever n; within a
block the order is drawn from (seed, b). All is computed in whole numbers. So the source of a row, and which of
that source's rows it is, are functions of (weights, seed, row), and no state is kept.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np

from cllm.data.philox import permutation
from cllm.data.table import Ints
from cllm.errors import ConfigError

BLOCK = 1024
PURPOSE = 4
"""Sets these random numbers apart from those of the split (1) and the row order (2, 3)."""


class Mix:
    """The deal of rows to sources with the given weights (> 0, of any sum)."""

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        """Raises ConfigError for a weight that is not a positive number, or below 1/1024 of the sum."""
        for weight in weights:
            if not (math.isfinite(weight) and weight > 0):
                raise ConfigError(f"data.weights: got {weight}, expected a number above 0")
        exact = [Fraction(weight) for weight in weights]
        total = sum(exact)
        for weight, share in zip(weights, exact, strict=True):
            if share * BLOCK < total:
                raise ConfigError(
                    f"data.weights: got {weight}, which is less than 1/{BLOCK} of all weights together; "
                    "give that source more, or leave it out"
                )
        self._sums = [sum(exact[: g + 1]) / total for g in range(len(exact))]
        self._seed = seed
        self._block = lru_cache(maxsize=4)(self._deal)

    def taken(self, block: int) -> list[int]:
        """How many rows each source has had before block number `block`."""
        sums = [0, *(math.floor(share * block * BLOCK) for share in self._sums)]
        return [after - before for before, after in itertools.pairwise(sums)]

    def rows(self, position: int, count: int) -> Iterator[tuple[int, int, Ints]]:
        """For rows `position` … `position + count − 1`: (source, its first row, places among the `count`), the
        places' rows being consecutive rows of that source. A source may come several times."""
        at = 0
        while at < count:
            block, first = divmod(position + at, BLOCK)
            sources = self._block(block)
            here = sources[first : first + count - at]
            before = self.taken(block)
            for source in np.unique(here).tolist():
                rank = int(np.count_nonzero(sources[:first] == source))
                yield source, before[source] + rank, at + np.flatnonzero(here == source)
            at += len(here)

    def _deal(self, block: int) -> Ints:
        """The source of each row of a block, int64 [BLOCK]."""
        quota = np.subtract(self.taken(block + 1), self.taken(block))
        dealt = np.repeat(np.arange(len(quota), dtype=np.int64), quota)
        return dealt[permutation(BLOCK, self._seed, block, PURPOSE)]
