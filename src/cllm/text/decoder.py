"""Streaming decoding: ids come one at a time, only complete characters go out."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cllm.text.tokenizer import Tokenizer


class Decoder:
    """Turns ids into text as they come.

    A character whose bytes are spread over several tokens is held back until it is complete. The
    concatenation of everything returned, `finish()` included, is `tokenizer.decode(ids)`.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._ids: list[int] = []  # only for tokenizers without bytes of their own
        self._done = ""

    def push(self, i: int) -> str:
        """The text that has become complete with the token `i` (often empty). DataError for an id outside
        V."""
        if self._tokenizer.pieces is not None:
            return self._utf8.decode(self._tokenizer.decode_bytes([i]))
        self._ids.append(int(i))
        text = self._tokenizer.decode(self._ids)
        # such decoders end in U+FFFD while a character is incomplete, and may still change what they printed
        # last
        if text.endswith("�") or not text.startswith(self._done):
            return ""
        new, self._done = text[len(self._done) :], text
        return new

    def finish(self) -> str:
        """What was held back: an incomplete character comes as U+FFFD. The decoder is then as new."""
        if self._tokenizer.pieces is not None:
            rest = self._utf8.decode(b"", final=True)
            self._utf8.reset()
            return rest
        text = self._tokenizer.decode(self._ids)
        rest = text[len(self._done) :] if text.startswith(self._done) else ""
        self._ids, self._done = [], ""
        return rest
