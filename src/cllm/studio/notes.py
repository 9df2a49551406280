"""Notes of the workspace, server side: Markdown (and study files) listed, read, saved; pictures that they show."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cllm.studio import notes_files
from cllm.studio.notes_files import Conflict
from cllm.studio.web import body, json, query, studio_of, while_connected


class Named(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(max_length=1000)]


class Save(msgspec.Struct, forbid_unknown_fields=True):
    """A text to save. version: of the text that was edited (as `read` gave it); None for a new file."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
    text: Annotated[str, msgspec.Meta(max_length=notes_files.LIMIT)]
    version: str | None = None


async def listing(request: Request) -> Response:
    """GET /api/notes: every Markdown file of the workspace."""
    studio = studio_of(request)
    work = studio.reader.run("cllm.studio.notes_files:listing", {"root": str(studio.workspace.root)})
    return json(await while_connected(request, work) | {"workspace": str(studio.workspace.root)})


async def read(request: Request) -> Response:
    """GET /api/notes/read?name=…: a text and its version."""
    name = query(request, Named).name
    return json(await asyncio.to_thread(notes_files.read, studio_of(request).workspace, name))


async def save(request: Request) -> Response:
    """POST /api/notes/save: replace a text, or make one. 409 with what is there now where it is another by then."""
    asked = await body(request, Save)
    workspace = studio_of(request).workspace
    try:
        saved: dict[str, Any] = await asyncio.to_thread(
            notes_files.save, workspace, asked.name, asked.text, asked.version
        )
    except Conflict as conflict:
        return json({"error": str(conflict), "kind": "Conflict", "found": conflict.found}, 409)
    return json(saved)


async def picture(request: Request) -> Response:
    """GET /api/notes/picture?name=…: a picture of the workspace, as a picture only: opened by itself it is saved."""
    name = query(request, Named).name
    data, kind = await asyncio.to_thread(notes_files.picture, studio_of(request).workspace, name)
    return Response(data, media_type=kind, headers={"content-disposition": "attachment"})


routes = [
    Route("/api/notes", listing),
    Route("/api/notes/read", read),
    Route("/api/notes/save", save, methods=["POST"]),
    Route("/api/notes/picture", picture),
]
