"""Witten–Bell n-grams: against a slow plain implementation, and that probabilities are probabilities."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cllm.errors import DataError, UsageError
from cllm.evaluation import ngram
from cllm.evaluation.ngram import NgramModel, ngram_bits_per_byte


class Plain:
    """The formula, one byte at a time, with dictionaries."""

    def __init__(self, documents: list[bytes], order: int) -> None:
        self.order = order
        self.count: dict[bytes, Counter[int]] = defaultdict(Counter)
        for document in documents:
            for i, byte in enumerate(document):
                for n in range(order):
                    if i - n >= 0:
                        self.count[document[i - n : i]][byte] += 1

    def p(self, history: bytes, byte: int) -> float:
        history = history[max(0, len(history) - self.order + 1) :]
        if history not in self.count:
            return self.p(history[1:], byte) if history else 1 / 256
        lower = self.p(history[1:], byte) if history else 1 / 256
        seen = self.count[history]
        return (seen[byte] + len(seen) * lower) / (seen.total() + len(seen))

    def bits(self, documents: list[bytes]) -> float:
        return -sum(math.log2(self.p(d[:i], byte)) for d in documents for i, byte in enumerate(d))


SMALL = st.lists(st.binary(max_size=40) | st.text("ab", max_size=60).map(str.encode), min_size=1, max_size=4)


@given(SMALL, SMALL, st.integers(1, 8))
@settings(deadline=None, max_examples=150)
def test_the_plain_formula_gives_the_same_bits(train: list[bytes], val: list[bytes], order: int) -> None:
    if not any(train):
        return
    bits, size = NgramModel(train, order).bits(val, [order])
    assert size == sum(map(len, val))
    # n terms, each a few roundings of relative size 2^-53 in p and in log2, in two orders of summation
    assert math.isclose(bits[order], Plain(train, order).bits(val), rel_tol=1e-12, abs_tol=1e-12)


@given(SMALL, st.binary(max_size=12) | st.text("abc", max_size=12).map(str.encode), st.integers(1, 6))
@settings(deadline=None, max_examples=150)
def test_every_distribution_sums_to_one_and_is_what_scores(train: list[bytes], context: bytes, order: int) -> None:
    if not any(train):
        return
    model = NgramModel(train, order)
    p = model.distribution(context)
    assert p.shape == (256,)
    assert p.min() > 0
    assert math.isclose(p.sum(), 1, rel_tol=256 * 2**-52)
    plain = Plain(train, order)
    assert all(math.isclose(p[b], plain.p(context, b), rel_tol=1e-13) for b in range(256))
    for n in range(1, order + 1):
        assert np.array_equal(model.distribution(context, n), NgramModel(train, n).distribution(context))


@given(SMALL, st.integers(1, 5), st.integers(1, 9))
@settings(deadline=None, max_examples=100)
def test_blocks_change_nothing(train: list[bytes], order: int, chunk: int) -> None:
    if not any(train):
        return
    whole = NgramModel(train, order).bits(train, range(1, order + 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ngram, "CHUNK", chunk)
        parts = NgramModel(train, order).bits(train, range(1, order + 1))
    assert parts[1] == whole[1]
    for n in whole[0]:
        assert math.isclose(parts[0][n], whole[0][n], rel_tol=1e-12)


def test_a_case_by_hand() -> None:
    """Train on "aab": c(a)=2, c(b)=1, t=2; after a: a once, b once, t=2."""
    p = NgramModel([b"aab"], 2).distribution(b"a")
    a = (2 + 2 / 256) / 5
    b = (1 + 2 / 256) / 5
    other = (2 / 256) / 5
    assert math.isclose(p[ord("a")], (1 + 2 * a) / 4)
    assert math.isclose(p[ord("b")], (1 + 2 * b) / 4)
    assert math.isclose(p[ord("z")], 2 * other / 4)
    bits, _ = NgramModel([b"aab"], 2).bits([b"b"], [1, 2])
    assert math.isclose(bits[1], -math.log2(b))
    assert bits[2] == bits[1]  # the first byte of a document has no history


def test_a_context_shorter_than_the_order_is_not_filled_up() -> None:
    model = NgramModel([b"\0a\0a\0b"], 3)
    assert np.array_equal(model.distribution(b""), model.distribution(b"", 1))
    assert np.array_equal(model.distribution(b"a"), model.distribution(b"a", 2))


def test_a_longer_history_helps_where_it_tells_something() -> None:
    text = "".join(f"{i % 7} sheep, {i * i % 11} goats; " for i in range(3000)).encode()
    result = ngram_bits_per_byte([text[:40_000]], [text[40_000:]], (1, 2, 3, 5))
    assert list(result) == [1, 2, 3, 5]
    assert result[1] > result[2] > result[3] > result[5] > 0
    noise = np.random.default_rng(1).integers(0, 256, 30_000, dtype=np.uint8).tobytes()
    flat = ngram_bits_per_byte([noise[:20_000]], [noise[20_000:]], (1, 3))
    assert all(7.99 < v < 9 for v in flat.values())


def test_a_document_does_not_see_the_one_before() -> None:
    together = NgramModel([b"ab", b"cd"], 3)
    assert together.bits([b"ab", b"cd"])[0][3] == pytest.approx(Plain([b"ab", b"cd"], 3).bits([b"ab", b"cd"]))
    assert np.array_equal(together.distribution(b"b"), together.distribution(b""))  # nothing was seen after b
    joined = NgramModel([b"abcd"], 3)
    assert joined.distribution(b"b")[ord("c")] > 0.5


def test_it_is_quick_enough() -> None:
    draw = np.random.default_rng(0)
    words = [bytes(draw.integers(97, 123, draw.integers(2, 9)).astype(np.uint8)) for _ in range(3000)]
    text = b" ".join(words[int(i)] for i in 3000 * draw.random(300_000) ** 3)
    started = time.process_time()
    ngram_bits_per_byte([text[:-100_000]], [text[-100_000:]])
    assert time.process_time() - started < 20 * len(text) / 5e6 + 1


def test_faults() -> None:
    with pytest.raises(UsageError, match="expected 1 to 8"):
        NgramModel([b"x"], 9)
    with pytest.raises(UsageError, match="expected 1 to 2"):
        NgramModel([b"x"], 2).bits([b"x"], [3])
    with pytest.raises(DataError, match="no text to fit"):
        NgramModel([b"", b""], 2)
    with pytest.raises(DataError, match="no text to score"):
        ngram_bits_per_byte([b"x"], [b""])
