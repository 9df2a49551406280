"""`cllm generate`."""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path
from typing import Any, Literal

from cllm.cli.arguments import Text

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and newline


def generate(
    run: Path,
    /,
    *,
    prompt: Text | None = None,
    max_tokens: int = 200,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    seed: int | None = None,
    stop: list[str] | None = None,
    past_context: Literal["stop", "slide"] = "stop",
    weights: Literal["fp32", "bf16", "int8"] | None = None,
    checkpoint: str = "latest",
    json: bool = False,
) -> int:
    """Let a trained model write, token by token.

    Without --prompt on a terminal it is interactive: type the beginning of a text, press Enter, and it goes on;
    an empty line or Ctrl-D ends.

    Examples:

      cllm generate runs/book --prompt "It was" --max-tokens 100 --seed 1

      echo -n "ROMEO:" | cllm generate runs/shakespeare --prompt - --temperature 0.7 --top-p 0.95

    Parameters
    ----------
    run: Path
        The run directory.
    prompt: str
        The text to continue; - reads it from standard input.
    max_tokens: int
        At most this many new tokens.
    temperature: float
        0 takes the likeliest token each time; higher is wilder.
    top_k: int
        Keep only the k likeliest tokens; 0 is off.
    top_p: float
        Keep the likeliest tokens until their probabilities reach p; 1 is off.
    min_p: float
        Keep tokens at least this many times as likely as the likeliest; 0 is off.
    repetition_penalty: float
        Above 1, tokens already seen become less likely.
    seed: int
        The same seed writes the same text. Default: a new one each time.
    stop: list[str]
        Stop before this text; may be repeated.
    past_context: str
        When the context is full: stop, or slide (read its last half again and go on).
    weights: str
        Compute with these weights: bf16 and int8 are smaller and faster; cllm eval --weights tells what int8 costs.
        Default: as the run computes.
    checkpoint: str
        latest, best, or a checkpoint's name.
    json: bool
        Print one JSON object: prompt, text, tokens, surprise in bits, seed.
    """
    import secrets

    from cllm.api import Run
    from cllm.errors import UsageError

    model = Run(run, checkpoint)
    options: dict[str, Any] = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "stop": stop or (),
        "past_context": past_context,
        "weights": weights,
    }
    if prompt is None and not json and sys.stdin.isatty():
        return _interactive(model, options, seed)
    if prompt == "-" or (prompt is None and not sys.stdin.isatty()):
        try:
            prompt = sys.stdin.buffer.read().decode("utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(f"--prompt -: standard input is not UTF-8 at byte {error.start}") from None
    options["seed"] = seed if seed is not None else secrets.randbelow(2**32)
    if json:
        import msgspec

        pieces = list(model.stream(prompt or "", **options))
        _say_if_full(model, prompt or "", options, sum(piece.token >= 0 for piece in pieces))
        result = {
            "prompt": prompt or "",
            "text": "".join(piece.text for piece in pieces),
            "tokens": [piece.token for piece in pieces if piece.token >= 0],
            "surprise": [piece.surprise for piece in pieces if piece.token >= 0],
            "seed": options["seed"],
            "checkpoint": model.checkpoint.name,
        }
        print(msgspec.json.encode(result).decode())
        return 0
    _write(model, prompt or "", options)
    return 0


def _write(model: Any, prompt: str, options: dict[str, Any]) -> None:
    """The prompt and its continuation on stdout, nothing of it when the options or the run turn out to be wrong."""
    pieces = model.stream(prompt, **options)
    first = next(pieces, None)  # options and weights are checked on the way to it
    drawn = 0
    _say(prompt)
    for piece in () if first is None else itertools.chain([first], pieces):
        _say(piece.text)
        drawn += piece.token >= 0
    print(flush=True)
    _say_if_full(model, prompt, options, drawn)


def _say_if_full(model: Any, prompt: str, options: dict[str, Any], drawn: int) -> None:
    """On stderr, when the text ended because no further token fits: neither the model nor --max-tokens ended it."""
    if options.get("past_context") != "stop" or drawn >= options["max_tokens"]:
        return
    context = model.model.config.context
    if max(1, len(model.tokenizer.encode(prompt))) + drawn > context:
        print(f"the context of {context:,} tokens is full; --past-context slide goes on", file=sys.stderr)


def _say(text: str) -> None:
    """As it is into a file or a pipe; without control characters onto a terminal, which would obey them."""
    print(_CONTROL.sub("\ufffd", text) if sys.stdout.isatty() else text, end="", flush=True)


def _interactive(model: Any, options: dict[str, Any], seed: int | None) -> int:
    import secrets

    from cllm.errors import CllmError

    print(f"{model.path} at {model.checkpoint.name}. Type a beginning; an empty line or Ctrl-D ends.", file=sys.stderr)
    while True:
        try:
            prompt = input("> ")
        except (EOFError, KeyboardInterrupt):
            print(file=sys.stderr)
            return 0
        if not prompt:
            return 0
        options["seed"] = seed if seed is not None else secrets.randbelow(2**32)
        try:
            _write(model, prompt, options)
        except CllmError as error:
            print(f"cllm: {error}", file=sys.stderr)
        except KeyboardInterrupt:  # ends this text, not the conversation
            print()
