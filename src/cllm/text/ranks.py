"""GPT-2's ranks (a `.tiktoken` file) as an exact tokenizer.json.

A ranks file has a token (base64) and its rank on each line. Its encoder joins, again and again, the two
neighbours whose joined bytes have the lowest rank; a tokenizer.json lists the pairs instead. The pair of a token
is what its bytes come to when only tokens of lower rank may be made: two parts, for ranks that byte pair encoding
has found. A file in which some token comes to more is refused, so what is converted is exact.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Final

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from cllm.errors import DataError
from cllm.text import bytelevel

SUFFIX: Final = ".tiktoken"
END: Final = "<|endoftext|>"
"""GPT-2's only special token; it has the lowest id that is free (50256 in GPT-2)."""

OTHERS: Final[Mapping[int, str]] = {100_256: "cl100k_base", 199_998: "o200k_base"}
"""Ranks whose text is split by another pattern than GPT-2's, told by their number of tokens."""


def parse(content: bytes, name: str) -> dict[bytes, int]:
    """token → rank. Raises DataError with the line for what is not a ranks file."""
    ranks: dict[bytes, int] = {}
    used: set[int] = set()
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        parts = line.split()
        try:
            if len(parts) != 2 or not parts[1].isdigit():
                raise ValueError
            token, rank = base64.b64decode(parts[0], validate=True), int(parts[1])
        except (ValueError, binascii.Error):
            raise DataError(f"{where}: expected a token in base64 and its rank, got {line[:60]!r}") from None
        if not token or token in ranks or rank in used:
            what = "an empty token" if not token else f"{token!r} again" if token in ranks else f"rank {rank} again"
            raise DataError(f"{where}: got {what}; expected each token and each rank once")
        ranks[token] = rank
        used.add(rank)
    missing = [b for b in range(256) if bytes([b]) not in ranks]
    if missing:
        raise DataError(
            f"{name}: {len(missing)} of the 256 bytes have no rank, the first is 0x{missing[0]:02x}; "
            "expected the ranks of a byte-level BPE such as gpt2.tiktoken"
        )
    if max(used) >= 1 << 24:
        raise DataError(f"{name}: got the rank {max(used)}, expected less than {1 << 24}")
    return ranks


def pair(token: bytes, ranks: Mapping[bytes, int], name: str) -> tuple[bytes, bytes]:
    """The two parts that `token` is joined from: its bytes after all joins of lower rank. Raises DataError."""
    limit = ranks[token]
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        joined = [ranks.get(parts[i] + parts[i + 1], limit) for i in range(len(parts) - 1)]
        lowest = min(joined)
        if lowest >= limit:
            break
        i = joined.index(lowest)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    if len(parts) != 2 or any(ranks[part] >= limit for part in parts):
        raise DataError(
            f"{name}: the token {token!r} (rank {limit}) is not joined from two tokens of lower rank; "
            "expected ranks that byte pair encoding has found"
        )
    return parts[0], parts[1]


def to_json(content: bytes, name: str) -> bytes:
    """The tokenizer.json of a ranks file: ids are the ranks, text is split by GPT-2's pattern, and
    `<|endoftext|>` has the lowest free id. Raises DataError for ranks that are not GPT-2's kind."""
    ranks = parse(content, name)
    if other := OTHERS.get(len(ranks)):
        raise DataError(
            f"{name}: these are the {len(ranks)} ranks of {other}, which splits text by another pattern than "
            "GPT-2; expected gpt2.tiktoken (or r50k_base, p50k_base); use a tokenizer.json of that encoding"
        )
    character = {b: c for c, b in bytelevel.byte_of_character().items()}
    written = {token: "".join(character[b] for b in token) for token in ranks}
    ordered = sorted((t for t in ranks if len(t) > 1), key=ranks.__getitem__)
    pairs = (pair(token, ranks, name) for token in ordered)
    merges = [(written[left], written[right]) for left, right in pairs]
    vocabulary = {written[token]: rank for token, rank in sorted(ranks.items(), key=lambda item: item[1])}
    used = set(ranks.values())
    vocabulary[END] = next(i for i in range(len(used) + 1) if i not in used)
    core = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(END, special=True, normalized=False)])
    text: str = core.to_str(pretty=False)
    return text.encode()
