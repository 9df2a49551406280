"""Text ↔ token ids: tokenizers trained on the user's text, or loaded from any tokenizer.json."""

from __future__ import annotations

from cllm.text.decoder import Decoder
from cllm.text.tokenizer import Tokenizer
from cllm.text.training import train_tokenizer

__all__ = ["Decoder", "Tokenizer", "train_tokenizer"]
