"""How much memory a full certificate takes: estimated, and refused, before any is taken."""

from __future__ import annotations

import os
from bisect import bisect_right
from pathlib import Path

from cllm import spec
from cllm.config import Config
from cllm.errors import LimitError
from cllm.model.layout import layout
from cllm.spec.balls import Balls
from cllm.spec.fast import FastBalls

KEPT_PER_WEIGHT = 40
"""Bytes a weight: the engine's copies, float64 and sliced copies for the products, errors for the quantiles."""
TENSOR, TENSOR_PURE = 80, 350
"""Bytes an entry of the largest tensor while its gradient is judged; as balls, without the accelerated product."""
MARGIN = 0.95


def estimate(config: Config, tokens: int, sequence: int, *, bits: int | None = None, pure: bool = False) -> int:
    """Bytes that the proof will need at its peak, from above (docs/certificates.md compares it with what was measured).

    tokens: of the step, in rows of `sequence`.  bits: the working precision (default: that of random weights).
    pure: without the accelerated product.
    """
    m, limbs, keeps = config.model, -(-(bits or 384) // 64), (Balls if pure else FastBalls).keeps
    ball = 120 + 8 * limbs if pure else 16 + 8 * limbs
    kept, row = min(tokens, keeps), min(tokens, sequence)
    values = tokens * (m.layers * (14 * m.width + 4 * m.ff) + 3 * m.vocab)
    values += 10 * row**2 + 6 * m.layers * m.heads * kept * min(row, keeps)
    entries = layout(m).entries
    weights, largest = sum(e.size for e in entries), max(e.size for e in entries)
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


def refuse_too_large(
    config: Config, rows: int, sequence: int, *, bits: int | None = None, limit: int | None = None
) -> None:
    """Raise LimitError when the estimate exceeds what is available (or `limit`), saying what fits."""
    pure = not isinstance(spec.fastest(), FastBalls)
    limit = int(available() * MARGIN) if limit is None else limit

    def fits(tokens: int) -> bool:
        return estimate(config, tokens, sequence, bits=bits, pure=pure) <= limit

    tokens = rows * sequence
    if fits(tokens):
        return
    most = bisect_right(range(1, tokens + 1), False, key=lambda n: not fits(n))
    advice = f"--tokens {most} fits" if most else "no number of tokens fits: take a smaller model"
    needed = estimate(config, tokens, sequence, bits=bits, pure=pure)
    raise LimitError(
        f"certify: {rows} × {sequence} tokens of this model need about {needed / 1e9:.1f} GB, "
        f"{limit / 1e9:.1f} GB can be had; {advice}, and --local needs far less"
    )
