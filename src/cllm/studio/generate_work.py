"""Letting checkpoints write, in the process that holds the models (`studio.models`).

A model is loaded once and kept: at most two, and at most `SHARE` of the machine's memory. Each keeps a decoder with the
tokens it has read, so that going on, or branching off, reads only what is new.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from cllm.api import Run
from cllm.errors import LimitError, RunError, UsageError
from cllm.generation.generate import Request
from cllm.generation.sampling import SamplingOptions, distribution, sample
from cllm.model.decode import Decoder
from cllm.text import Tokenizer
from cllm.training.plan import memory_of

KEPT = 2
SHARE = 0.4  # of the machine's memory
SHOWN = 12  # alternatives of a token
LONGEST = 1 << 20  # characters of a prompt
MOST_TOKENS = 100_000


class Loaded:
    """A checkpoint in memory. bytes: of its weights."""

    def __init__(self, folder: str, name: str) -> None:
        self.run = Run(folder, name)
        self.model, self.tokenizer = self.run.model, self.run.tokenizer
        self.bytes = self.model.params.nbytes
        self._spare: list[_Reader] = []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def decoder(self, ids: list[int]) -> Iterator[_Reader]:
        """A reader for these tokens; the one kept that has read the most of them, or a new one."""
        with self._lock:
            self._spare.sort(key=lambda reader: _common(reader.ids, ids))
            reader = self._spare.pop() if self._spare else _Reader(Decoder(self.model))
        try:
            yield reader
        finally:
            with self._lock:
                self._spare = [reader, *self._spare][:KEPT]


class _Reader:
    """A decoder and what it has read: `head` tokens in one go, the others one by one. What is kept of it is what the
    same reading would give again, bit for bit, so the same seed writes the same text whatever was asked before."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder, self.ids, self.head = decoder, list[int](), 0

    def logits(self, ids: list[int], head: int) -> torch.Tensor:
        """The logits [V] behind `ids`, of which the first `head` are read in one go."""
        kept = min(_common(self.ids, ids), len(ids) - 1)  # the last is read again: its logits are wanted
        if head != self.head or kept < head:
            self.decoder.reset()
            found, kept = self.decoder.read(torch.tensor([ids[:head]])), head
        self.decoder.cache.length = kept
        self.ids, self.head = ids[:kept], head
        for token in ids[kept:]:
            found = self.decoder.read(torch.tensor([[token]]))
        self.ids = list(ids)
        return found[0]


def _common(a: list[int], b: list[int]) -> int:
    """Length of the common beginning."""
    count = min(len(a), len(b))
    return next((i for i in range(count) if a[i] != b[i]), count)


_models: OrderedDict[tuple[str, str], Loaded] = OrderedDict()
_loading = threading.Lock()


def loaded(folder: str, which: str) -> Loaded:
    """The checkpoint `which` (a name, "latest" or "best") of a run's folder. Raises RunError, LimitError."""
    name = which
    if which in ("latest", "best"):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            name = (Path(folder) / which).read_text().strip() or which
    with _loading:
        key = (folder, name)
        if key in _models:
            _models.move_to_end(key)
            return _models[key]
        weights = Path(folder) / "checkpoints" / name / "weights.safetensors"
        room = int(memory_of(torch.device("cpu")) * SHARE)
        needed = weights.stat().st_size if weights.exists() else 0
        if needed > room:
            raise LimitError(
                f"{name}: its weights have {needed / 1e9:.1f} GB; the studio takes models up to {room / 1e9:.1f} GB"
            )
        while _models and (len(_models) >= KEPT or sum(m.bytes for m in _models.values()) + needed > room):
            _models.popitem(last=False)
        _models[key] = Loaded(folder, name)
        return _models[key]


def write(
    folder: str, checkpoint: str, prompt: str, path: list[int], options: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Let a checkpoint go on behind `prompt` and the tokens `path`.

    options: those of `cllm generate` (max_tokens counts new tokens).  Yields first {"prompt": tokens, "context": …,
    "checkpoint": name}, then for each token {"id", "text", "nats", "p", "q", "kept", "top",
    "seconds"}: its surprise in nats,
    probability before and behind the filters, how many tokens those left, and the likeliest alternatives
    [id, text, p, q]. Last {"end": why}: tokens, eos, stop (with "cut": characters of the stop text to take off) or
    context.
    """
    request = Request.of(**options)
    if request.max_tokens > MOST_TOKENS:
        raise LimitError(f"max_tokens: at most {MOST_TOKENS:,} at a time")
    model = loaded(folder, checkpoint)
    tokenizer, context = model.tokenizer, model.model.config.context
    ids = begin(tokenizer, prompt)
    asked = len(ids)
    _check(tokenizer, path)
    ids += path
    if request.past_context == "stop" and (asked >= context or len(ids) > context):
        raise UsageError(
            f"{len(ids)} tokens leave no room in the model's context of {context}; shorten the text, or let it slide"
        )
    yield {"prompt": asked, "context": context, "checkpoint": model.run.checkpoint.name, "eos": tokenizer.eos_id}
    decoder, written = tokenizer.decoder(), ""
    for token in path:
        written += decoder.push(token)
    window, head = seen_by(ids, asked, context)
    begun = time.perf_counter()
    with model.decoder(window) as reader:
        for drawn in range(request.max_tokens):
            logits = reader.logits(window, head)
            choice = sample(logits, request.sampling, position=len(path) + drawn, seen=ids)
            text = "" if choice.id == tokenizer.eos_id else decoder.push(choice.id)
            passed = time.perf_counter() - begun
            about = told(tokenizer, logits, choice.ids, choice.probabilities, choice.id)
            yield about | {"text": text, "seconds": passed}
            if choice.id == tokenizer.eos_id:
                yield {"end": "eos"}
                return
            ids.append(choice.id)
            written += text
            if found := [at for stop in request.stop if (at := written.find(stop)) >= 0]:
                yield {"end": "stop", "cut": len(written) - min(found)}
                return
            if len(window) < context:
                window = [*window, choice.id]
            elif request.past_context == "stop":
                yield {"end": "context"}
                return
            else:
                window = ids[-(context // 2) :]
                head = len(window)
    yield {"end": "tokens", "rest": decoder.finish()}


def seen_by(ids: list[int], prompt: int, context: int) -> tuple[list[int], int]:
    """What the model has before it behind `ids`, of which the first `prompt` were given and the others drawn one by
    one, sliding where the context was full; and how many of that were read in one go."""
    window = ids[:prompt] if prompt < context else ids[max(0, prompt - context // 2) : prompt]
    head = len(window)
    for place in range(prompt, len(ids)):
        if len(window) < context:
            window.append(ids[place])
        else:
            window = ids[place + 1 - context // 2 : place + 1]
            head = len(window)
    return window, head


def told(
    tokenizer: Tokenizer, logits: torch.Tensor, kept: torch.Tensor, left: torch.Tensor, chosen: int, most: int = SHOWN
) -> dict[str, Any]:
    """What is said about one place: probabilities before the filters (p) and behind them (q), of the chosen token and
    of the likeliest."""
    p = torch.softmax(logits.detach().to("cpu", torch.float64), 0)
    behind = dict(zip(kept.tolist(), left.tolist(), strict=True)) if len(kept) <= 4 * most else None

    def q(token: int) -> float:
        if behind is not None:
            return float(behind.get(token, 0.0))
        at = int(torch.searchsorted(kept, token))
        return float(left[at]) if at < len(kept) and int(kept[at]) == token else 0.0

    likeliest = torch.topk(p, min(most, len(p))).indices.tolist()
    return {
        "id": chosen,
        "nats": max(0.0, -float(torch.log(p[chosen]))) if chosen >= 0 else 0.0,
        "p": float(p[chosen]) if chosen >= 0 else 0.0,
        "q": q(chosen) if chosen >= 0 else 0.0,
        "kept": len(kept),
        "top": [[token, name(tokenizer, token), float(p[token]), q(token)] for token in likeliest],
    }


def following(folder: str, checkpoint: str, prompt: str, path: list[int], options: dict[str, Any]) -> dict[str, Any]:
    """The distribution of the next token behind a text: what sampling options leave of it. "top": [id, text, p, q];
    "mass": the probability that the kept tokens had before; "nats": the entropies before and behind."""
    options = {key: value for key, value in options.items() if key in SamplingOptions.__struct_fields__}
    sampling = Request.of(**options).sampling
    model = loaded(folder, checkpoint)
    ids = begin(model.tokenizer, prompt)
    asked = len(ids)
    _check(model.tokenizer, path)
    ids += path
    context = model.model.config.context
    window, head = seen_by(ids, asked, context)
    with model.decoder(window) as reader:
        logits = reader.logits(window, head).clone()
    kept, left = distribution(logits, sampling, seen=ids)
    p = torch.softmax(logits.to("cpu", torch.float64), 0)
    return told(model.tokenizer, logits, kept, left, -1, 40) | {
        "prompt": asked,
        "context": context,
        "vocab": len(p),
        "mass": float(p[kept].sum()),
        "entropy": [_entropy(p), _entropy(left)],
    }


def _entropy(p: torch.Tensor) -> float:
    return -float(torch.xlogy(p, p).sum()) + 0.0


def begin(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The prompt's tokens; an empty one begins a new document, as in `cllm generate`."""
    if len(prompt) > LONGEST:
        raise LimitError(f"the prompt has {len(prompt):,} characters; at most {LONGEST:,}")
    ids = list(tokenizer.encode(prompt))
    start = tokenizer.eos_id if tokenizer.eos_id is not None else tokenizer.bos_id
    if not ids and start is None:
        raise UsageError("the prompt is empty, and this tokenizer has no token that begins a text; give one")
    return ids or [start if start is not None else 0]


def _check(tokenizer: Tokenizer, path: list[int]) -> None:
    if bad := [token for token in path if not 0 <= token < tokenizer.vocab_size]:
        raise UsageError(f"token {bad[0]}: expected 0 … {tokenizer.vocab_size - 1}; is this another run's text?")


def name(tokenizer: Tokenizer, token: int) -> str:
    """A token on its own, as text; special ones by their names."""
    pieces = tokenizer.pieces
    if pieces is not None and pieces[token]:
        return pieces[token].decode("utf-8", "replace")
    return tokenizer.token(token)


def tokens(folder: str, checkpoint: str, text: str) -> dict[str, Any]:
    """A text as the checkpoint's tokenizer cuts it."""
    run = Run(folder, checkpoint)
    try:
        tokenizer = run.tokenizer
    except OSError as error:
        raise RunError(f"{folder}: its tokenizer cannot be read: {error.strerror}") from None
    ids = list(tokenizer.encode(text[:LONGEST]))
    return {"ids": ids, "texts": [name(tokenizer, token) for token in ids]}
