"""What a tokenizer.json promises, read from its parts: does it lose anything, and where may a text be cut?

All answers are conservative: a part that is not recognised counts as one that may lose or may look further.
"""

from __future__ import annotations

from typing import Any, Final

from cllm.text import bytelevel

CHARACTER_PATTERN: Final = r"[\s\S]"
"""One character of any kind (character level)."""

WORD_PATTERN: Final = r" ?[\p{L}\p{M}]+(?:['’][\p{L}\p{M}]+)*| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}]|\s"
"""A word, a number or a single sign, each with the space before it; or one white-space character (word
level)."""


def kind(parts: dict[str, Any]) -> str:
    """ "bpe", "char" or "word" for a tokenizer built as cllm (or GPT-2) builds them, else "other"."""
    model, pre = parts.get("model") or {}, parts.get("pre_tokenizer") or {}
    if parts.get("normalizer") is not None:
        return "other"
    if model.get("type") == "WordLevel" and pre.get("type") == "Split":
        if pre.get("behavior") != "Isolated" or pre.get("invert") or parts.get("decoder") != {"type": "Fuse"}:
            return "other"
        pattern = (pre.get("pattern") or {}).get("Regex")
        return {CHARACTER_PATTERN: "char", WORD_PATTERN: "word"}.get(str(pattern), "other")
    if model.get("type") == "BPE" and pre.get("type") == "ByteLevel":
        return "bpe" if pre.get("use_regex", True) and not pre.get("add_prefix_space", True) else "other"
    return "other"


def is_byte_level(parts: dict[str, Any]) -> bool:
    """True if every token of the model is written in the byte alphabet and decoding only maps it back."""
    model = parts.get("model") or {}
    return (
        model.get("type") == "BPE"
        and (parts.get("decoder") or {}).get("type") == "ByteLevel"
        and not model.get("continuing_subword_prefix")
        and not model.get("end_of_word_suffix")
        and any(step.get("type") == "ByteLevel" for step in _steps(parts.get("pre_tokenizer")))
    )


def is_lossless(parts: dict[str, Any]) -> bool:
    """True if decode(encode(text)) = text follows from the structure for every text: byte-level, nothing
    normalised, no space added, all 256 bytes in the vocabulary, and no added token that swallows spaces."""
    if not is_byte_level(parts) or parts.get("normalizer") is not None:
        return False
    for step in _steps(parts.get("pre_tokenizer")):
        if step.get("type") == "ByteLevel":
            if step.get("add_prefix_space", True):
                return False
        elif step.get("type") != "Split" or step.get("behavior") != "Isolated":
            return False
    vocabulary = parts["model"].get("vocab") or {}
    if any(character not in vocabulary for character in bytelevel.byte_of_character()):
        return False
    return not any(t.get("lstrip") or t.get("rstrip") for t in _parsed_tokens(parts))


def cuts_before_space(parts: dict[str, Any]) -> bool:
    """True if a text may be cut before a space or line feed that follows a non-space, and encoded in parts
    with the same ids: no piece of its pre-tokenizer holds a non-space before a space, and none looks back."""
    return kind(parts) != "other" and not _parsed_tokens(parts)


def _steps(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if pre_tokenizer is None:
        return []
    if pre_tokenizer.get("type") == "Sequence":
        return list(pre_tokenizer.get("pretokenizers") or [])
    return [pre_tokenizer]


def _parsed_tokens(parts: dict[str, Any]) -> list[dict[str, Any]]:
    """The added tokens that are looked for in ordinary text (special ones are not, see
    `Tokenizer.encode`)."""
    return [t for t in parts.get("added_tokens") or [] if not t.get("special")]
