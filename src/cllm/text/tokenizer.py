"""A tokenizer: text ↔ token ids, with the facts that data, training and generation need to know about it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers

from cllm.errors import DataError
from cllm.text import bytelevel, ranks, specials, structure
from cllm.text.decoder import Decoder

REPLACEMENT = "�"
LARGEST = 1 << 24
"""Ids beyond this are refused: tables of the vocabulary's size are built."""


class Tokenizer:
    """A `tokenizer.json` of the `tokenizers` library, loaded or trained, used in one fixed way.

    - **Ordinary text never yields a special token.** The literal text `<eos>` is five characters like any
      other; special ids are put into rows by `data/`, never by `encode`.
    - Nothing is added, cut or padded, whatever the file's post-processor, truncation or padding says, and BPE
      dropout is off: `encode` is a function of the text alone.
    - `sha256` is the hash of the file's bytes, and `save` writes exactly those bytes.

    Attributes: `kind` ("bpe", "char", "word", or "other" for a file that cllm's trainer would not have
    built), `vocab_size` (largest id + 1), `pad_id`, `unk_id`, `bos_id`, `eos_id`, `mask_id` (int, or None
    where the file has none), `lossless` (decode(encode(t)) = t for *every* t, by the structure of the file;
    False for char and word, which may meet an unknown character or word), `notes` (what training had to say,
    one sentence each).
    """

    def __init__(self, content: bytes, *, name: str = "tokenizer.json", notes: Sequence[str] = ()) -> None:
        """`content`: the bytes of a tokenizer.json; `name` is used in errors. Raises DataError."""
        self.content = content
        """The bytes of its tokenizer.json."""
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.notes = tuple(notes)
        parts, self._core = _load(content, name)
        ids: dict[str, int] = self._core.get_vocab(with_added_tokens=True)
        if not ids or max(ids.values()) >= LARGEST:
            raise DataError(
                f"{name}: expected a vocabulary of 1 to {LARGEST} ids, got "
                + (f"the id {max(ids.values())}" if ids else "an empty one")
            )
        self._tokens = {i: token for token, i in ids.items()}
        self.vocab_size: int = max(self._tokens) + 1
        self.pad_id = specials.find("pad", ids)
        self.unk_id = specials.find("unk", ids)
        self.bos_id = specials.find("bos", ids)
        self.eos_id = specials.find("eos", ids)
        self.mask_id = specials.find("mask", ids)
        self.kind = structure.kind(parts)
        self.lossless = structure.is_lossless(parts)
        self.cuts_before_space = structure.cuts_before_space(parts)
        self._byte_level = structure.is_byte_level(parts)
        added = parts.get("added_tokens") or []
        self._added = {t["id"]: t["content"] for t in added}
        self.special_ids = frozenset(t["id"] for t in added if t.get("special"))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """The tokenizer in the file `path`: any tokenizer.json, or GPT-2's ranks (`gpt2.tiktoken`), which become
        one. Raises DataError naming the file."""
        try:
            content = Path(path).read_bytes()
        except OSError as e:
            raise DataError(f"{path}: cannot read the tokenizer: {e.strerror}") from None
        if Path(path).suffix == ranks.SUFFIX:
            content = ranks.to_json(content, str(path))
        return cls(content, name=str(path))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the tokenizer.json (the exact bytes that `sha256` is the hash of)."""
        Path(path).write_bytes(self.content)

    def __getstate__(self) -> dict[str, Any]:
        return {"content": self.content, "notes": self.notes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["content"], notes=state["notes"])  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"<Tokenizer {self.kind}, {self.vocab_size} tokens, sha256 {self.sha256[:12]}>"

    # ── text → ids ──────────────────────────────────────────────────────────────────────────────────────────

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without any special token. Raises DataError for a lone surrogate (not a
        character)."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """`encode` for each text, on all cores."""
        texts = list(texts)
        for text in texts:
            _refuse_surrogates(text)
        try:
            return [e.ids for e in self._core.encode_batch_fast(texts, add_special_tokens=False)]
        except Exception as e:  # a foreign file without an unknown token meets an unknown word
            raise DataError(f"{self!r} cannot encode this text: {e}") from None

    # ── ids → text ──────────────────────────────────────────────────────────────────────────────────────────

    def decode(self, ids: Iterable[int], *, show_special: bool = False) -> str:
        """The text of `ids`. Special tokens print nothing, or their names with `show_special`; UNK prints
        U+FFFD and so does a byte sequence that is not UTF-8. Raises DataError for an id outside the
        vocabulary."""
        ids = [int(i) for i in ids]
        pieces = self.pieces
        if pieces is None:
            self._check(ids)
            text: str = self._core.decode(ids, skip_special_tokens=not show_special)
            return text
        return self.decode_bytes(ids, show_special=show_special).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int], *, show_special: bool = False) -> bytes:
        """The bytes of `ids` (see `decode`). Raises DataError for a tokenizer whose tokens have no bytes of
        their own (`pieces` is None)."""
        ids = [int(i) for i in ids]
        self._check(ids)
        pieces = self.pieces
        if pieces is None:
            raise DataError(f"{self!r}: its tokens have no bytes of their own; use decode()")
        if show_special:
            return b"".join(self._tokens[i].encode() if i in self.special_ids else pieces[i] for i in ids)
        return b"".join([pieces[i] for i in ids])

    def decoder(self) -> Decoder:
        """A streaming decoder: `push(id)` gives the characters that have become complete, `finish()` the
        rest."""
        return Decoder(self)

    @cached_property
    def pieces(self) -> list[bytes] | None:
        """The bytes of each id, [vocab_size]: the text of ids is their concatenation. Special tokens have
        none (UNK has U+FFFD). None for a tokenizer whose decoder is more than a concatenation."""
        if self.kind not in ("char", "word") and not self._byte_level:
            return None
        pieces = [b""] * self.vocab_size
        for i, token in self._tokens.items():
            if i == self.unk_id:
                pieces[i] = REPLACEMENT.encode()
            elif i in self.special_ids:
                continue
            elif i in self._added or not self._byte_level:
                pieces[i] = token.encode()
            else:
                piece = bytelevel.to_bytes(token)
                if piece is None:
                    return None
                pieces[i] = piece
        return pieces

    @cached_property
    def byte_lengths(self) -> npt.NDArray[np.int64] | None:
        """How many bytes of text each id stands for, int64 [vocab_size]; 0 for special tokens and UNK.

        The sum over a document's ids is the document's length in UTF-8 bytes wherever encoding lost nothing.
        None where `pieces` is.
        """
        if self.pieces is None:
            return None
        lengths = np.array([len(p) for p in self.pieces], dtype=np.int64)
        if self.unk_id is not None:
            lengths[self.unk_id] = 0
        return lengths

    def token(self, i: int) -> str:
        """The token with id `i` as the file writes it (byte-level BPE: in the byte alphabet)."""
        self._check([i])
        return self._tokens.get(i, "")

    def id(self, token: str) -> int | None:
        """The id of the token that the file writes as `token`, or None."""
        i: int | None = self._core.token_to_id(token)
        return i

    def _check(self, ids: Sequence[int]) -> None:
        if ids and not (min(ids) >= 0 and max(ids) < self.vocab_size):
            bad = next(i for i in ids if not 0 <= i < self.vocab_size)
            raise DataError(f"token id {bad} is outside the vocabulary 0..{self.vocab_size - 1} of {self!r}")


def _load(content: bytes, name: str) -> tuple[dict[str, Any], tokenizers.Tokenizer]:
    """The file's parts and the library's tokenizer, set to the one way in which we use it."""
    try:
        parts: dict[str, Any] = json.loads(content)
        if not isinstance(parts, dict) or not isinstance(parts.get("model"), dict):
            raise ValueError("it has no model")
        added = parts.get("added_tokens") or []
        names = {n for group in specials.ALIASES.values() for n in group}
        for token in added:
            # a file may forget to mark its <eos> as special; ordinary text must not yield it all the same
            token["special"] = bool(token.get("special")) or token["content"] in names
        if "dropout" in parts["model"]:
            parts["model"]["dropout"] = None
        core = tokenizers.Tokenizer.from_str(json.dumps(parts, ensure_ascii=False))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as e:  # the library raises bare Exception for a fault of a file, and panics for some
        raise DataError(f"{name}: not a usable tokenizer.json: {e}") from None
    core.no_truncation()
    core.no_padding()
    core.encode_special_tokens = True  # in ordinary text, special tokens are ordinary text
    return parts, core


def _refuse_surrogates(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as e:
        raise DataError(
            f"character {e.start} of the text is the lone surrogate U+{ord(text[e.start]):04X}, "
            "which is not a character and has no UTF-8 form; expected Unicode text"
        ) from None
