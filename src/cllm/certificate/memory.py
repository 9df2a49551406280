"""How much memory a full certificate takes: estimated, and refused, before any is taken."""

from __future__ import annotations

import os
from pathlib import Path

from cllm import spec
from cllm.certificate.subjects import Subject
from cllm.errors import LimitError
from cllm.spec.fast import FastBalls

KEPT_PER_WEIGHT = 40
"""Bytes a weight: the engine's copies, float64 and sliced copies for the products, errors for the quantiles."""
TENSOR, TENSOR_PURE = 80, 1100
"""Bytes an entry of the largest tensor while its gradient is judged; as balls, without the accelerated product."""
MARGIN = 0.95


def estimate(subject: Subject, bits: int | None = None, *, tokens: int | None = None, pure: bool = False) -> int:
    """Bytes that the proof will need at its peak (within about a quarter; tests hold it to that).

    tokens: as if the step had so many.  pure: without the accelerated product.
    """
    m = subject.config.model
    n = tokens if tokens is not None else subject.rows * subject.sequence
    ball = 120 + (bits or (256 if subject.trained else 384)) // 8
    values = n * (m.layers * (14 * m.width + 4 * m.ff) + 3 * m.vocab) + 10 * min(n, subject.sequence) ** 2
    weights = sum(w.size for w in subject.weights.values())
    largest = max(w.size for w in subject.weights.values())
    return 250_000_000 + weights * KEPT_PER_WEIGHT + values * ball + largest * (TENSOR_PURE if pure else TENSOR)


def available() -> int:
    """Bytes that can be had now: what the kernel calls available, or all physical memory where it does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def refuse_too_large(subject: Subject, bits: int | None = None, *, limit: int | None = None) -> None:
    """Raise LimitError when the estimate exceeds what is available (or `limit`), saying what fits."""
    pure = not isinstance(spec.fastest(), FastBalls)
    limit = int(available() * MARGIN) if limit is None else limit
    needed = estimate(subject, bits, pure=pure)
    if needed <= limit:
        return
    low, high = 0, subject.rows * subject.sequence
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if estimate(subject, bits, tokens=middle, pure=pure) <= limit else (low, middle)
    fits = f"--tokens {low} fits" if low else "no number of tokens fits: take a smaller model"
    raise LimitError(
        f"certify: {subject.rows} × {subject.sequence} tokens of this model need about {needed / 1e9:.1f} GB, "
        f"{limit / 1e9:.1f} GB can be had; {fits}, and --local needs far less"
    )
