"""The screen Inside, server side: a checkpoint's blocks, tensors, attention, logit lens, embedding and certificates.

What reads a model runs in the process that holds the models; certificates are files of the run.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cllm.errors import RunError, UsageError
from cllm.studio import inside_certificates as certificates
from cllm.studio.web import Lines, body, first_of, json, query, studio_of, while_connected


class Place(msgspec.Struct, forbid_unknown_fields=True):
    """A checkpoint: "latest", "best" or a name."""

    run: str
    checkpoint: str = "latest"


class Named(Place, forbid_unknown_fields=True):
    name: str = ""


class Read(Place, forbid_unknown_fields=True):
    text: str = ""


class Head(Read, forbid_unknown_fields=True):
    layer: int = 0
    head: int = 0


class Near(Place, forbid_unknown_fields=True):
    """token: its text, a part of it, or #number."""

    token: str = ""


class Certify(Place, forbid_unknown_fields=True):
    tokens: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)] = 64
    step: bool = False


class OfRun(msgspec.Struct, forbid_unknown_fields=True):
    run: str
    name: str = ""


def _args(request: Request, asked: Place) -> dict[str, Any]:
    """The arguments of the functions that read a checkpoint, its paths looked at."""
    workspace = studio_of(request).workspace
    if "/" in asked.checkpoint or asked.checkpoint in ("", ".", ".."):
        raise UsageError(f"checkpoint {asked.checkpoint!r}: expected latest, best or a name as in step-00000100")
    folder = workspace.run(asked.run)
    if asked.checkpoint not in ("latest", "best"):
        workspace.resolve(f"{asked.run}/checkpoints/{asked.checkpoint}")
    elif not (folder / "checkpoints").exists():
        raise RunError(f"{asked.run}: it has no checkpoint yet; the first is saved a few seconds after a run has begun")
    workspace.resolve(f"{asked.run}/checkpoints")
    rest: dict[str, Any] = msgspec.to_builtins(asked)
    rest.pop("run")
    return {"folder": str(folder), **rest}


async def _answer(request: Request, function: str, asked: Place) -> Any:
    """What a function returns in the models' process, given up when the browser has gone."""
    work = studio_of(request).models.run(f"cllm.studio.{function}", _args(request, asked))
    return await while_connected(request, work)


async def _lines(request: Request, function: str, asked: Place) -> Response:
    """What a generator yields there, one JSON object a line."""
    items = studio_of(request).models.stream(f"cllm.studio.{function}", _args(request, asked))
    return Lines(await while_connected(request, first_of(items)))


async def model(request: Request) -> Response:
    """POST /api/inside/model: sizes and tensors of the model."""
    return json(await _answer(request, "inside_tensors:structure", await body(request, Place)))


async def tensor(request: Request) -> Response:
    """POST /api/inside/tensor: statistics and histogram of one tensor."""
    return json(await _answer(request, "inside_tensors:tensor", await body(request, Named)))


async def tensors(request: Request) -> Response:
    """POST /api/inside/tensors: the same of all, one a line."""
    return await _lines(request, "inside_tensors:tensors", await body(request, Place))


async def trace(request: Request) -> Response:
    """POST /api/inside/trace: a text's tokens and the statistics of every op's result."""
    return json(await _answer(request, "inside_trace:trace", await body(request, Read)))


async def heads(request: Request) -> Response:
    """POST /api/inside/heads: every head of a layer, small; one layer a line."""
    return await _lines(request, "inside_trace:heads", await body(request, Read))


async def attention(request: Request) -> Response:
    """POST /api/inside/attention: one head's map, float32 little-endian, query by query."""
    found = await _answer(request, "inside_trace:attention", await body(request, Head))
    return Response(found, media_type="application/octet-stream")


async def lens(request: Request) -> Response:
    """POST /api/inside/lens: what each layer would say next; one layer a line, the last first."""
    return await _lines(request, "inside_trace:lens", await body(request, Read))


async def cloud(request: Request) -> Response:
    """POST /api/inside/cloud: the token embedding in its three widest directions."""
    return json(await _answer(request, "inside_cloud:cloud", await body(request, Place)))


async def near(request: Request) -> Response:
    """POST /api/inside/near: a token and its neighbours."""
    asked = await body(request, Near)
    args = _args(request, asked)
    args["asked"] = args.pop("token")
    work = studio_of(request).models.run("cllm.studio.inside_cloud:near", args)
    return json(await while_connected(request, work))


async def listed(request: Request) -> Response:
    """GET /api/inside/certificates?run=…: the run's certificates, newest first, and its newest certification."""
    studio, asked = studio_of(request), query(request, OfRun)

    def look() -> dict[str, Any]:
        found = certificates.listed(studio.workspace, asked.run)
        return {"certificates": found, "job": certificates.job(studio.certifications, asked.run)}

    return json(await asyncio.to_thread(look))


async def certificate(request: Request) -> Response:
    """GET /api/inside/certificate?run=…&name=…: one certificate with its table."""
    studio, asked = studio_of(request), query(request, OfRun)
    return json(await asyncio.to_thread(certificates.shown, studio.workspace, asked.run, asked.name))


async def certify(request: Request) -> Response:
    """POST /api/inside/certify: start `cllm certify` on a checkpoint."""
    studio, asked = studio_of(request), await body(request, Certify)
    _args(request, asked)
    given = certificates.arguments(asked.run, asked.checkpoint, asked.tokens, step=asked.step)
    await asyncio.to_thread(studio.certifications.start, asked.run, given)
    studio.hub.publish(*studio.certifications_now())
    return json(certificates.job(studio.certifications, asked.run))


async def stop(request: Request) -> Response:
    """POST /api/inside/stop: end a run's certification."""
    studio, asked = studio_of(request), await body(request, OfRun)
    studio.workspace.run(asked.run)
    await asyncio.to_thread(studio.certifications.stop, asked.run)
    studio.hub.publish(*studio.certifications_now())
    return json(certificates.job(studio.certifications, asked.run))


routes = [
    Route("/api/inside/model", model, methods=["POST"]),
    Route("/api/inside/tensor", tensor, methods=["POST"]),
    Route("/api/inside/tensors", tensors, methods=["POST"]),
    Route("/api/inside/trace", trace, methods=["POST"]),
    Route("/api/inside/heads", heads, methods=["POST"]),
    Route("/api/inside/attention", attention, methods=["POST"]),
    Route("/api/inside/lens", lens, methods=["POST"]),
    Route("/api/inside/cloud", cloud, methods=["POST"]),
    Route("/api/inside/near", near, methods=["POST"]),
    Route("/api/inside/certificates", listed),
    Route("/api/inside/certificate", certificate),
    Route("/api/inside/certify", certify, methods=["POST"]),
    Route("/api/inside/stop", stop, methods=["POST"]),
]
