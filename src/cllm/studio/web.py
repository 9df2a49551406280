"""What the screens' routes share: the studio behind a request, typed JSON bodies, answers, errors, and calculations
that end when the browser has gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cllm.errors import CllmError, LimitError, MissingExtraError, RunError, UsageError
from cllm.studio.security import Refused
from cllm.studio.work import Internal, WorkerDied
from cllm.studio.workspace import Missing, Outside

if TYPE_CHECKING:
    from cllm.studio.app import Studio

T = TypeVar("T")
_STATUS: list[tuple[type[CllmError], int]] = [
    (Outside, 403),
    (Missing, 404),
    (LimitError, 422),
    (MissingExtraError, 501),
    (RunError, 409),
    (Internal, 500),
    (WorkerDied, 500),
]


class Gone(Exception):
    """The browser closed the request before its answer was there."""


def studio_of(request: Request) -> Studio:
    """The studio that serves a request."""
    studio: Studio = request.app.state.studio
    return studio


def json(value: Any, status: int = 200) -> Response:
    """An answer as JSON: builtins and msgspec structs. Non-finite floats become null."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def body(request: Request, kind: type[T]) -> T:
    """The request's JSON body as a msgspec struct (or any type msgspec reads). Raises UsageError."""
    try:
        data = await request.body()
    except ClientDisconnect:
        raise Gone from None
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"the request's body is wrong: {error}") from None


def query(request: Request, kind: type[T]) -> T:
    """The query string as a struct whose fields are numbers, booleans, texts or None. Raises UsageError."""
    try:
        return msgspec.convert(dict(request.query_params), kind, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"the request's address is wrong: {error}") from None


def failure(error: CllmError) -> Response:
    """An error of ours as `{"error": …, "kind": …}` with a fitting status (400 unless another fits)."""
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 400)
    return json({"error": str(error), "kind": type(error).__name__}, status)


async def on_error(request: Request, error: Exception) -> Response:
    """The handler of every error that a route may raise on purpose."""
    if isinstance(error, Refused):
        return Response(
            msgspec.json.encode({"error": error.why.strip(), "kind": "Refused"}),
            error.status,
            media_type="application/json",
            headers={"connection": "close"},
        )
    if isinstance(error, Gone):
        return Response(status_code=499)  # nobody reads it
    assert isinstance(error, CllmError)
    return failure(error)


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, but cancel it and raise Gone as soon as the browser closes the connection."""
    try:
        await request.body()  # what follows on the line is the disconnection
    except ClientDisconnect:
        work.close()
        raise Gone from None
    task = asyncio.create_task(work)
    watch = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Gone
    finally:
        for either in (task, watch):
            if not either.done():
                either.cancel()
                await asyncio.gather(either, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def compute(request: Request, function: str, *, seconds: float = 20.0, **args: Any) -> Any:
    """Run `function` ("module:name") with keyword arguments in the studio's pool; see `Pool.run`. Raises Gone."""
    return await while_connected(request, studio_of(request).pool.run(function, args, seconds=seconds))


class Lines(Response):
    """A stream of JSON values, one a line, as they come; an error on the way is the last line. The generator is closed
    as soon as the browser has gone."""

    media_type = "application/x-ndjson"

    def __init__(self, items: AsyncGenerator[Any, None]) -> None:
        super().__init__()
        self._items = items
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        sender = asyncio.create_task(self._send(send))
        watch = asyncio.create_task(self._gone(receive))
        try:
            await asyncio.wait({sender, watch}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sender, watch):
                task.cancel()
            await asyncio.gather(sender, watch, return_exceptions=True)
            with contextlib.suppress(RuntimeError):
                await self._items.aclose()
        if sender.done() and not sender.cancelled() and (fault := sender.exception()):
            raise fault

    async def _send(self, send: Send) -> None:
        try:
            async for item in self._items:
                await send({"type": "http.response.body", "body": msgspec.json.encode(item) + b"\n", "more_body": True})
        except CllmError as error:
            last = msgspec.json.encode({"error": str(error), "kind": type(error).__name__}) + b"\n"
            await send({"type": "http.response.body", "body": last, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    @staticmethod
    async def _gone(receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass


async def first_of(items: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    """The same items, once the first is there: an error before it is raised here and answered with its status."""
    first = await anext(items, None)

    async def all_of() -> AsyncGenerator[Any, None]:
        try:
            if first is not None:
                yield first
            async for item in items:
                yield item
        finally:
            await items.aclose()

    return all_of()
