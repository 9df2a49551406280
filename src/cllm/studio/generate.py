"""The screen Generate, server side: checkpoints, token streams, distributions, the same as a command and as Python."""

from __future__ import annotations

import asyncio
import json as stdlib_json
import shlex
from typing import Annotated, Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cllm.errors import UsageError
from cllm.studio.web import Lines, body, first_of, json, studio_of, while_connected

DEFAULTS: dict[str, Any] = {
    "max_tokens": 200,
    "temperature": 0.8,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "past_context": "stop",
}


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """Those of `cllm generate`."""

    max_tokens: Annotated[int, msgspec.Meta(ge=0)] = DEFAULTS["max_tokens"]
    temperature: float = DEFAULTS["temperature"]
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    stop: list[str] = []
    past_context: Literal["stop", "slide"] = "stop"


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """What to write. checkpoint: "latest", "best" or a name.  path: tokens already behind the prompt."""

    run: str
    checkpoint: str = "latest"
    prompt: str = ""
    path: list[int] = []
    options: Options = msgspec.field(default_factory=Options)


def _args(request: Request, asked: Asked) -> dict[str, Any]:
    """The arguments of the functions in generate_work."""
    workspace = studio_of(request).workspace
    if "/" in asked.checkpoint or asked.checkpoint in ("", ".", ".."):
        raise UsageError(f"checkpoint {asked.checkpoint!r}: expected latest, best or a name as in step-00000100")
    if asked.checkpoint not in ("latest", "best"):
        workspace.resolve(f"{asked.run}/checkpoints/{asked.checkpoint}")
    workspace.resolve(f"{asked.run}/checkpoints")
    return {
        "folder": str(workspace.run(asked.run)),
        "checkpoint": asked.checkpoint,
        "prompt": asked.prompt,
        "path": asked.path,
        "options": msgspec.to_builtins(asked.options),
    }


async def checkpoints(request: Request) -> Response:
    """GET /api/generate/checkpoints: runs with checkpoints, newest first, and their checkpoints by step."""
    studio = studio_of(request)

    def look() -> list[dict[str, Any]]:
        found = []
        for run in studio.store.runs():
            folder = studio.workspace.root / run.name
            names = sorted(done.parent.name for done in folder.glob("checkpoints/step-*/DONE"))
            if names:
                marked = {pointer: _pointer(folder / pointer) for pointer in ("latest", "best")}
                loss = run.summary.metrics.get("eval.loss")
                found.append(
                    {
                        "run": run.name,
                        "preset": run.preset,
                        "changed": run.changed,
                        "broken": run.summary.stopped == "non-finite",
                        "parameters": run.summary.parameters,
                        "best_loss": loss.low if loss else None,
                        "checkpoints": names,
                        **{pointer: name for pointer, name in marked.items() if name in names},
                    }
                )
        return sorted(found, key=lambda one: (one["broken"], -one["changed"]))

    return json({"runs": await asyncio.to_thread(look)})


def _pointer(path: Any) -> str:
    try:
        return str(path.read_text().strip())
    except (OSError, UnicodeDecodeError):
        return ""


async def stream(request: Request) -> Response:
    """POST /api/generate/stream: tokens as they are drawn, one JSON object a line; ends when the fetch is aborted."""
    asked = await body(request, Asked)
    items = studio_of(request).models.stream("cllm.studio.generate_work:write", _args(request, asked))
    return Lines(await while_connected(request, first_of(items)))


async def following(request: Request) -> Response:
    """POST /api/generate/next: the next token's distribution, and what the sampling options leave of it."""
    asked = await body(request, Asked)
    work = studio_of(request).models.run("cllm.studio.generate_work:following", _args(request, asked))
    return json(await while_connected(request, work))


async def text(request: Request) -> Response:
    """POST /api/generate/text: the same as a command line and as Python."""
    asked = await body(request, Asked)
    studio_of(request).workspace.run(asked.run)
    return json({"command": command(asked), "python": python(asked)})


def _said(asked: Asked) -> dict[str, Any]:
    """The options that differ from the defaults; always the seed."""
    values: dict[str, Any] = msgspec.to_builtins(asked.options)
    said = {key: value for key, value in values.items() if key in DEFAULTS and value != DEFAULTS[key]}
    return said | {"seed": values["seed"]} | ({"stop": values["stop"]} if values["stop"] else {})


def command(asked: Asked) -> str:
    """`cllm generate …`, to be run in the workspace."""
    words = ["cllm", "generate", f"./{asked.run}" if asked.run.startswith("-") else asked.run]
    words.append(f"--prompt={asked.prompt}")
    if asked.checkpoint != "latest":
        words += ["--checkpoint", asked.checkpoint]
    for key, value in _said(asked).items():
        for one in value if isinstance(value, list) else [value]:
            words.append(f"--{key.replace('_', '-')}={one}")
    return shlex.join(words)


def python(asked: Asked) -> str:
    """A script, to be run in the workspace."""
    which = "" if asked.checkpoint == "latest" else f", {_quoted(asked.checkpoint)}"
    options = "".join(f", {key}={_literal(value)}" for key, value in _said(asked).items())
    return (
        "import cllm\n\n"
        f"run = cllm.load({_quoted(asked.run)}{which})\n"
        f"print(run.generate({_quoted(asked.prompt)}{options}))\n"
    )


def _quoted(text: str) -> str:
    return stdlib_json.dumps(text, ensure_ascii=False) if text.isprintable() else repr(text)


def _literal(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_quoted(one) for one in value)}]"
    return _quoted(value) if isinstance(value, str) else repr(value)


routes = [
    Route("/api/generate/checkpoints", checkpoints),
    Route("/api/generate/stream", stream, methods=["POST"]),
    Route("/api/generate/next", following, methods=["POST"]),
    Route("/api/generate/text", text, methods=["POST"]),
]
