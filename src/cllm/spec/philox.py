"""Philox4x32-10, and the dropout masks drawn from it.

Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). A mask is a pure function of
(seed, step, layer, site, global row, position, head, channel): the same for any batch split and on any machine.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from cllm.spec.system import Bools

Words = NDArray[np.uint64]
M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
W0, W1 = 0x9E3779B9, 0xBB67AE85
LOW, HALF_WORD = np.uint64(0xFFFFFFFF), np.uint64(32)

ATTENTION_PROBABILITIES, ATTENTION_OUTPUT, FEED_FORWARD_OUTPUT = 1, 2, 3
"""The sites of a layer at which dropout acts."""


def philox(counter: tuple[Words, Words, Words, Words], key: tuple[int, int]) -> Words:
    """Ten rounds: 32-bit counter words (arrays of one shape, held in uint64) and a key → [..., 4] output words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = M0 * c0, M1 * c2  # < 2^64, exact
        c0, c1, c2, c3 = (
            (p1 >> HALF_WORD) ^ c1 ^ np.uint64(k0), p1 & LOW,
            (p0 >> HALF_WORD) ^ c3 ^ np.uint64(k1), p0 & LOW,
        )  # fmt: skip
        k0, k1 = (k0 + W0) & 0xFFFFFFFF, (k1 + W1) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1)


def kept(
    p: Fraction, key: tuple[int, int], *, layer: int, site: int, row: int, head: int, positions: int, channels: int
) -> Bools:
    """The dropout mask [positions, channels] of one row of the batch: True where the value is kept.

    key = (seed, step); kept iff word ≥ floor(p·2³²).
    """
    t, c4 = np.meshgrid(np.arange(positions), np.arange(-(-channels // 4)), indexing="ij")
    shape = t.shape
    counter = (
        c4.astype(np.uint64),
        (t | head << 20).astype(np.uint64),
        np.full(shape, row, np.uint64),
        np.full(shape, layer << 8 | site, np.uint64),
    )
    words = philox(counter, key).reshape(positions, -1)[:, :channels]
    keep: Bools = words >= np.uint64(p * 2**32 // 1)
    return keep
