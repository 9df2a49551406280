"""Philox4x32-10 on Python integers, straight from Salmon et al. (2011), and the dropout masks defined over it."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

# Random123's kat_vectors for philox4x32, 10 rounds: counter, key, output
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def philox(key: tuple[int, int], counter: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c0, 2**32)
        high1, low1 = divmod(0xCD9E8D57 * c2, 2**32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


def word(seed: int, step: int, channel: int, column: int, head: int, row: int, layer: int, site: int) -> int:
    counter = (channel // 4, column | head << 20, row, layer << 8 | site)
    return philox((seed, step), counter)[channel % 4]


def keep(p: float, *where: int) -> bool:
    return word(*where) >= math.floor(p * 2**32)


@lru_cache
def hidden_keep(
    p: float, seed: int, step: int, first_row: int, layer: int, site: int, shape: tuple[int, ...]
) -> Tensor:
    """[B, T, D]."""
    b, t, d = shape
    return torch.tensor(
        [
            [[keep(p, seed, step, c, j, 0, first_row + i, layer, site) for c in range(d)] for j in range(t)]
            for i in range(b)
        ]
    )


@lru_cache
def attention_keep(p: float, seed: int, step: int, first_row: int, layer: int, shape: tuple[int, ...]) -> Tensor:
    """[B, H, T, T]: query, key."""
    b, h, t, _ = shape
    return torch.tensor(
        [
            [
                [[keep(p, seed, step, j, i, head, first_row + row, layer, 1) for j in range(t)] for i in range(t)]
                for head in range(h)
            ]
            for row in range(b)
        ]
    )
