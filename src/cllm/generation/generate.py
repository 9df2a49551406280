"""Text generation: prompt → tokens → text, piece by piece, through the cached decoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import torch

from cllm.engine.quantise import KINDS
from cllm.errors import UsageError, closest
from cllm.generation.sampling import SamplingOptions, sample
from cllm.model.decode import Decoder
from cllm.model.model import Model
from cllm.text import Tokenizer

DEFAULT = SamplingOptions(temperature=0.8)


@dataclass(frozen=True)
class Request:
    """What to generate.

    max_tokens: at most so many new tokens.  sampling: how each is chosen (generation/sampling.py).
    stop: texts to stop before.  past_context: "stop" when the context is full, or "slide": read the last half of the
    context again and go on (positions move and older tokens are forgotten).
    weights: fp32, bf16 or int8 (model/narrow.py); None: those that the model itself computes with.
    """

    max_tokens: int = 200
    sampling: SamplingOptions = DEFAULT
    stop: Sequence[str] = ()
    past_context: str = "stop"
    weights: str | None = None

    def __post_init__(self) -> None:
        if self.max_tokens < 0:
            raise UsageError(f"max_tokens: expected a whole number ≥ 0, got {self.max_tokens}")
        if self.past_context not in ("stop", "slide"):
            raise UsageError(f'past_context: expected stop or slide, got "{self.past_context}"')
        if self.weights is not None and self.weights not in KINDS:
            raise UsageError(f'weights: expected {", ".join(KINDS)}, got "{self.weights}"')
        if not all(self.stop):
            raise UsageError("stop: an empty text would stop before the first token")

    @classmethod
    def of(cls, **options: Any) -> Request:
        """From one flat set of options: those of the request and those of `SamplingOptions` (temperature 0.8)."""
        own = {name: options.pop(name) for name in ("max_tokens", "stop", "past_context", "weights") if name in options}
        known = SamplingOptions.__struct_fields__
        for name in options.keys() - set(known):
            raise UsageError(f'generate: unknown option "{name}"{closest(name, (*cls.__dataclass_fields__, *known))}')
        return cls(sampling=msgspec.structs.replace(DEFAULT, **options), **own)


@dataclass(frozen=True)
class Piece:
    """New text behind one token (may be empty while a character is incomplete). surprise: −log₂ of its probability."""

    text: str
    token: int
    surprise: float


def generate(
    model: Model, tokenizer: Tokenizer, prompt: str, request: Request, decoder: Decoder | None = None
) -> Iterator[Piece]:
    """Yield the continuation of `prompt`; ends at EOS, a stop text, `max_tokens` or a full context.

    decoder: one of this model, to reuse its memory (it is reset); the request's weights are then the decoder's.
    Raises UsageError for a prompt that fills the context, unless past_context is "slide".
    """
    decoder = decoder or Decoder(model, weights=request.weights)
    decoder.reset()
    context = model.config.context
    ids = _prompt(tokenizer, prompt)
    if len(ids) >= context:
        if request.past_context == "stop":
            raise UsageError(
                f"prompt: {len(ids)} tokens leave no room in the context of {context}; shorten it, "
                'or use past_context "slide"'
            )
        ids = ids[-(context // 2) :]
    text, hold = tokenizer.decoder(), _Hold(request.stop)
    logits = decoder.read(torch.tensor([ids]))
    for drawn in range(request.max_tokens):
        choice = sample(logits[0], request.sampling, position=drawn, seen=ids)
        if choice.id == tokenizer.eos_id:
            break
        ids.append(choice.id)
        yield Piece(hold.push(text.push(choice.id)), choice.id, choice.surprise)
        if hold.stopped:
            return
        if decoder.room == 0:
            if request.past_context == "stop":
                break
            decoder.reset()
            logits = decoder.read(torch.tensor([ids[-(context // 2) :]]))
        else:
            logits = decoder.read(torch.tensor([[choice.id]]))
    rest = hold.push(text.finish()) + hold.flush()
    if rest:
        yield Piece(rest, -1, 0.0)


def _prompt(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The prompt's ids; an empty one begins a new document, behind the EOS of an imaginary one."""
    ids = list(tokenizer.encode(prompt))
    if ids:
        return ids
    start = tokenizer.eos_id if tokenizer.eos_id is not None else tokenizer.bos_id
    if start is None:
        raise UsageError("prompt: it is empty, and this tokenizer has no EOS or BOS to begin with; give a text")
    return [start]


class _Hold:
    """Text on its way out, held back while it may be the beginning of a stop text."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops, self._held, self.stopped = stops, "", False

    def push(self, text: str) -> str:
        """Add text; returns what may be shown. Behind a stop text nothing more is shown."""
        if self.stopped:
            return ""
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            out, self._held = self._held[: min(found)], ""
            return out
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        cut = len(self._held) - keep
        out, self._held = self._held[:cut], self._held[cut:]
        return out

    def flush(self) -> str:
        """What is still held, at the end."""
        out, self._held = self._held, ""
        return out


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
