"""Random orders that are the same on every machine and NumPy: raw words of a counter-based generator.

Only the words of the bit generator (Philox4x64-10, Salmon et al. 2011) are used: NumPy keeps them the same
for ever, which it does not promise of `Generator.permutation`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cllm.errors import ConfigError


def words(count: int, seed: int, epoch: int, purpose: int) -> npt.NDArray[np.uint64]:
    """`count` 64-bit words: a function of (seed, epoch, purpose) alone."""
    if not 0 <= seed < 1 << 64:
        raise ConfigError(f"seed: got {seed}, expected 0 ≤ seed < 2^64")
    key = np.array([seed, epoch], dtype=np.uint64)
    counter = np.array([0, 0, 0, purpose], dtype=np.uint64)
    return np.random.Philox(counter=counter, key=key).random_raw(count)


def permutation(n: int, seed: int, epoch: int, purpose: int) -> npt.NDArray[np.int64]:
    """A random order of 0…n−1 (the ranks of n random words), int64 [n]."""
    return np.argsort(words(n, seed, epoch, purpose), kind="stable").astype(np.int64)
