"""Philox4x32-10 against Random123's published known-answer vectors, and the mask's addressing."""

from fractions import Fraction

import numpy as np
import pytest

from cllm.spec.philox import kept, philox

KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return [int(w, 16) for w in text.split()]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(counter, key, expected):
    c = tuple(np.array([w], np.uint64) for w in words(counter))
    assert philox(c, tuple(words(key)))[0].tolist() == words(expected)


def scalar_philox(c, k):
    """The same generator in Python integers, one block."""
    c, k = list(c), list(k)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [p1 >> 32 ^ c[1] ^ k[0], p1 & 0xFFFFFFFF, p0 >> 32 ^ c[3] ^ k[1], p0 & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


def test_mask_addresses_each_value_by_row_position_head_and_channel():
    p, seed, step, layer, site, row, head = Fraction(0.3), 2**32 - 5, 17, 3, 1, 41, 2
    mask = kept(p, (seed, step), layer=layer, site=site, row=row, head=head, positions=5, channels=7)
    threshold = int(p * 2**32)
    for t in range(5):
        for channel in range(7):
            word = scalar_philox((channel // 4, t | head << 20, row, layer << 8 | site), (seed, step))[channel % 4]
            assert mask[t, channel] == (word >= threshold)


def test_share_of_kept_values():
    mask = kept(Fraction(1, 4), (1, 2), layer=0, site=2, row=0, head=0, positions=100, channels=100)
    assert abs(mask.mean() - 0.75) < 5 * (0.75 * 0.25 / 10000) ** 0.5
