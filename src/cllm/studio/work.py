"""Work that takes the processor, in child processes: bounded, timed, and given up when nobody waits for it.

A pool has a few workers (cllm.studio.worker), started when they are first needed. A call waits for a free place; when
its caller is cancelled it leaves the queue at once, and a call that already runs is given a moment and then its process
is ended. So a browser that pans over a thousand tiles costs the tiles it stays on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from cllm import errors
from cllm.errors import CllmError, LimitError
from cllm.studio.worker import frame

GRACE = 1.0  # seconds that a call may still take when its caller has gone


class WorkerDied(CllmError):
    """A child process ended in the middle of a call (killed for memory, most likely)."""


class Internal(CllmError):
    """A fault of ours in a child process; its traceback is on the server's standard error."""


_Answers = dict[int, "asyncio.Queue[dict[str, Any]]"]


class _Child:
    """One process and the calls it is answering."""

    def __init__(self, nice: int) -> None:
        self._nice = nice
        self._process: asyncio.subprocess.Process | None = None
        self._answers: _Answers = {}
        self._reader: asyncio.Task[None] | None = None
        self._numbers = 0
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        async with self._starting:
            if self._process is not None and self._process.returncode is None:
                return
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "cllm.studio.worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "OMP_WAIT_POLICY": "passive"},
            )
            if self._nice:
                with contextlib.suppress(OSError, AttributeError):
                    os.setpriority(os.PRIO_PROCESS, self._process.pid, self._nice)
            self._answers = {}
            self._reader = asyncio.create_task(self._read(self._process, self._answers))

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @staticmethod
    async def _read(process: asyncio.subprocess.Process, answers: _Answers) -> None:
        assert process.stdout is not None
        try:
            while True:
                head = await process.stdout.readexactly(4)
                body = await process.stdout.readexactly(int.from_bytes(head, "big"))
                message = msgspec.msgpack.decode(body, type=dict[str, Any])
                if queue := answers.get(message["id"]):
                    await queue.put(message)  # bounded: a slow reader stops this child, not the server's memory
        except (asyncio.IncompleteReadError, ConnectionError):
            await process.wait()
            for number, queue in answers.items():
                with contextlib.suppress(asyncio.QueueFull):
                    queue.put_nowait({"id": number, "died": process.returncode})

    async def call(self, function: str, args: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Messages of one call, until its result."""
        await self.start()
        process, answers = self._process, self._answers
        assert process is not None
        assert process.stdin is not None
        self._numbers += 1
        number = self._numbers
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(256)
        answers[number] = queue
        try:
            process.stdin.write(frame({"id": number, "call": function, "args": args}))
            await process.stdin.drain()
            ended = False
            while not ended:
                message = await queue.get()
                ended = "item" not in message
                if ended:
                    answers.pop(number)
                yield message
        finally:
            if answers.pop(number, None) is not None and process.returncode is None:
                with contextlib.suppress(ConnectionError, RuntimeError):
                    process.stdin.write(frame({"id": number, "cancel": True}))

    def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process = None

    async def close(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if self._reader is not None:
            await self._reader


def _outcome(message: dict[str, Any]) -> Any:
    """The result of a call's last message, or its error raised."""
    if "died" in message:
        raise WorkerDied(f"the process that calculated this ended (code {message['died']}): out of memory, most likely")
    if "error" in message:
        kind = getattr(errors, message["kind"], None)
        if isinstance(kind, type) and issubclass(kind, CllmError) and kind is not errors.MissingExtraError:
            raise kind(message["error"])
        raise (Internal if message["kind"] == "Internal" else CllmError)(message["error"])
    return message["result"]


class Pool:
    """size: processes, each with one call at a time.  nice: their priority (0 … 19, higher gives way).
    waiting: calls that may wait for a place; more are refused with LimitError."""

    def __init__(self, size: int, *, nice: int = 5, waiting: int = 256) -> None:
        self._children = [_Child(nice) for _ in range(size)]
        self._free: asyncio.Queue[_Child] = asyncio.Queue()
        for child in self._children:
            self._free.put_nowait(child)
        self._waiting, self._most = 0, waiting

    async def run(self, function: str, args: dict[str, Any], *, seconds: float) -> Any:
        """The result of `function` ("module:name") called with keyword arguments, all msgpack-able.

        Raises what it raises, LimitError after `seconds` of its running or when too many calls wait.
        """
        if self._waiting >= self._most:
            raise LimitError(f"{self._waiting} calculations are waiting already; try again when some are done")
        self._waiting += 1
        try:
            child = await self._free.get()
        finally:
            self._waiting -= 1
        last = asyncio.create_task(self._last(child, function, args))
        last.add_done_callback(lambda _: self._free.put_nowait(child))
        try:
            async with asyncio.timeout(seconds):
                return _outcome(await asyncio.shield(last))
        except TimeoutError:
            child.kill()
            raise LimitError(f"this took longer than {seconds:g} seconds and was stopped; ask for less") from None
        except asyncio.CancelledError:
            asyncio.get_running_loop().call_later(GRACE, lambda: None if last.done() else child.kill())
            raise

    @staticmethod
    async def _last(child: _Child, function: str, args: dict[str, Any]) -> dict[str, Any]:
        try:
            async for message in child.call(function, args):
                if "item" not in message:
                    return message
        except (ConnectionError, OSError) as error:
            return {"error": f"the calculating process could not be reached: {error}", "kind": "Internal"}
        return {"died": None}

    async def close(self) -> None:
        """End all processes."""
        for child in self._children:
            await child.close()


class Host:
    """One process that answers several calls at a time and keeps what it has loaded: the models' home.

    most: calls at a time; others wait.
    """

    def __init__(self, *, most: int = 2) -> None:
        self._child, self._places = _Child(0), asyncio.Semaphore(most)

    @property
    def pid(self) -> int | None:
        """The process, once it has been needed."""
        return self._child.pid

    async def run(self, function: str, args: dict[str, Any], *, seconds: float = 120) -> Any:
        """The result of a call. A call that takes too long is refused, and goes on in the background."""
        async with self._places:
            try:
                async with asyncio.timeout(seconds):
                    async for message in self._child.call(function, args):
                        if "item" not in message:
                            return _outcome(message)
            except TimeoutError:
                raise LimitError(f"this took longer than {seconds:g} seconds") from None
        raise WorkerDied("the process that holds the models ended")

    async def stream(self, function: str, args: dict[str, Any]) -> AsyncGenerator[Any, None]:
        """The items of a generator, as they come. Leaving the loop ends it."""
        async with self._places:
            messages = self._child.call(function, args)
            try:
                async for message in messages:
                    if "item" not in message:
                        _outcome(message)
                        return
                    yield message["item"]
            finally:
                await messages.aclose()

    async def close(self) -> None:
        """End the process."""
        await self._child.close()
