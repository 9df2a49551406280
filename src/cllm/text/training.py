"""Training a tokenizer on the user's text: byte-level BPE, characters, or words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from cllm.errors import ConfigError, DataError, closest
from cllm.text import bytelevel, specials, structure
from cllm.text.tokenizer import Tokenizer

KINDS: Final = ("bpe", "char", "word")
SMALLEST: Final = {
    "bpe": len(specials.NAMES) + 256,
    "char": len(specials.NAMES) + 1,
    "word": len(specials.NAMES) + 1,
}
"""The smallest vocabulary of each kind: the special tokens and the 256 bytes, or one character or word."""


def train_tokenizer(
    kind: str,
    texts: Iterable[str],
    vocab_size: int,
    *,
    min_frequency: int = 2,
    progress: Callable[[int], None] | None = None,
) -> Tokenizer:
    """A tokenizer of `kind` "bpe", "char" or "word" with at most `vocab_size` tokens, trained on `texts`.

    The ids 0–4 are PAD, UNK, BOS, EOS, MASK. The same texts give the same bytes of tokenizer.json, whatever
    the number of threads. A text that does not support `vocab_size` tokens gives as many as it can, and
    `notes` of the result says so; nothing is invented to fill the table.

    - bpe: byte-level byte pair encoding (Sennrich et al. 2016; bytes and the splitting pattern of GPT-2),
      lossless on every text. Pairs seen fewer than `min_frequency` times are not merged.
    - char: the most frequent characters; others become UNK.
    - word: the most frequent words, numbers and signs, each with the space before it; others become UNK.

    `texts` is read once, piece by piece; pieces should end where a word ends. `progress(characters)` is
    called with the number of characters read so far. Raises ConfigError for a kind or size that cannot be,
    DataError for no text.
    """
    if kind not in KINDS:
        raise ConfigError(
            f'tokenizer: expected bpe, char, word or a tokenizer.json, got "{kind}"{closest(kind, KINDS)}'
        )
    if vocab_size < SMALLEST[kind]:
        least = "the 256 bytes" if kind == "bpe" else f"one {kind}"
        raise ConfigError(
            f"vocab_size: got {vocab_size}, but a {kind} tokenizer needs at least {SMALLEST[kind]} "
            f"({len(specials.NAMES)} special tokens and {least}); "
            f"ask for {SMALLEST[kind]} or more (data.vocab_size, --vocab-size)"
        )
    counted = _Counted(texts, progress)
    build = {"bpe": _bpe, "char": _characters, "word": _words}[kind]
    core, notes = build(counted, vocab_size, min_frequency)
    if counted.characters == 0:
        raise DataError("no text to train a tokenizer on: every document is empty")
    size = core.get_vocab_size(with_added_tokens=True)
    if size < vocab_size:
        notes.append(
            f"the text supports {size} tokens, fewer than the {vocab_size} asked for; the tokenizer has {size}"
        )
    return Tokenizer(core.to_str(pretty=False).encode(), notes=notes)


class _Counted:
    """Passes texts on and counts their characters."""

    def __init__(self, texts: Iterable[str], progress: Callable[[int], None] | None) -> None:
        self._texts, self._progress, self.characters = texts, progress, 0

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            yield text
            self.characters += len(text)
            if self._progress is not None:
                self._progress(self.characters)


def _bpe(texts: Iterable[str], vocab_size: int, min_frequency: int) -> tuple[tokenizers.Tokenizer, list[str]]:
    core = tokenizers.Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=list(specials.NAMES),
        initial_alphabet=sorted(bytelevel.byte_of_character()),  # all 256: any text can be written
        show_progress=False,
    )
    core.train_from_iterator(iter(texts), trainer)
    return core, []


def _characters(texts: Iterable[str], vocab_size: int, _: int) -> tuple[tokenizers.Tokenizer, list[str]]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    return _word_level(counts, vocab_size, structure.CHARACTER_PATTERN, "characters")


def _words(texts: Iterable[str], vocab_size: int, _: int) -> tuple[tokenizers.Tokenizer, list[str]]:
    split = pre_tokenizers.Split(Regex(structure.WORD_PATTERN), "isolated")
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(piece for piece, _ in split.pre_tokenize_str(text))
    return _word_level(counts, vocab_size, structure.WORD_PATTERN, "words")


def _word_level(
    counts: Counter[str], vocab_size: int, pattern: str, noun: str
) -> tuple[tokenizers.Tokenizer, list[str]]:
    """A word-level model of the most frequent pieces; ties in the order of the pieces, so that it is a
    function of the text."""
    ranked = sorted(counts, key=lambda piece: (-counts[piece], piece))
    kept = ranked[: vocab_size - len(specials.NAMES)]
    vocabulary = {name: i for i, name in enumerate(specials.NAMES)}
    vocabulary |= {piece: len(specials.NAMES) + i for i, piece in enumerate(kept)}
    core = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=specials.NAMES[specials.UNK]))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    core.decoder = decoders.Fuse()
    core.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in specials.NAMES])
    notes = []
    if len(ranked) > len(kept):
        share = sum(counts[piece] for piece in ranked[len(kept) :]) / counts.total()
        notes.append(
            f"{len(ranked) - len(kept)} rarer {noun} ({share:.2%} of the text) are outside the vocabulary "
            "and become <unk>"
        )
    return core, notes
