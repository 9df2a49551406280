"""The five special tokens, and how they are found in a tokenizer made elsewhere.

Every tokenizer that cllm trains gives them the ids 0 to 4. In a loaded `tokenizer.json` they are looked for
by name; one that is not there is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

PAD: Final = 0
"""Fills rows of unpacked documents; never a target."""
UNK: Final = 1
"""Stands for a character or word outside the vocabulary (byte-level BPE never needs it)."""
BOS: Final = 2
"""Reserved for a start of text; cllm's own rows do not use it."""
EOS: Final = 3
"""Ends each document and belongs to it."""
MASK: Final = 4
"""Reserved for masked objectives."""

NAMES: Final = ("<pad>", "<unk>", "<bos>", "<eos>", "<mask>")
"""The special tokens in the order of their ids."""

ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "pad": ("<pad>", "[PAD]", "<|pad|>", "<|padding|>"),
    "unk": ("<unk>", "[UNK]", "<|unk|>"),
    "bos": ("<bos>", "<s>", "[BOS]", "<|bos|>", "<|begin_of_text|>", "<|startoftext|>"),
    "eos": ("<eos>", "</s>", "[EOS]", "<|eos|>", "<|endoftext|>", "<|end_of_text|>"),
    "mask": ("<mask>", "[MASK]", "<|mask|>"),
}
"""The names under which each role is looked for in a tokenizer made elsewhere; the first that is there
counts."""


def find(role: str, ids: Mapping[str, int]) -> int | None:
    """The id of the special token `role` ("pad", "unk", "bos", "eos", "mask") among the tokens `ids`, or
    None."""
    return next((ids[name] for name in ALIASES[role] if name in ids), None)
