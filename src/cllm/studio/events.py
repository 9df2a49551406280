"""Live events: one WebSocket a tab, the logs of many runs on it, each with a cursor to resume from.

The browser says what it watches, `{"watch": {"runs/book": 1234}}`: names of runs and the byte of each run's
events.jsonl up to which it has everything (each such message replaces the one before). The server answers with

    {"run": "runs/book", "cursor": 5678, "events": [{…}, …]}     what the log got since; `cursor` is the new place
    {"run": "runs/book", "cursor": 0, "reset": true}             the log is shorter or another one: begin again
    {"topic": "jobs", "value": …}                                the newest of something that is not a log

Logs are pulled: each connection reads on from its own cursor when the one before has been taken by the network, so a
slow browser costs one message of memory, and after `SLOW_SECONDS` its connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from cllm.errors import CllmError, LimitError, UsageError
from cllm.studio.workspace import Workspace

EVENTS_FILE = "events.jsonl"
POLL_SECONDS = 0.02
SLOW_SECONDS = 10.0
CHUNK = 256 << 10  # bytes of a log in one message
MOST_WATCHED = 256  # runs of one tab
MOST_TABS = 64


class Watch(msgspec.Struct, forbid_unknown_fields=True):
    """What a tab says: the runs it watches and its cursors in bytes."""

    watch: dict[str, int]


class Tail:
    """One log, read on from a cursor."""

    def __init__(self, name: str, path: Path, cursor: int) -> None:
        self.name, self.path, self.cursor = name, path, max(0, cursor)
        self._inode: int | None = None

    def more(self) -> bytes | None:
        """The next message as JSON, or None when there is nothing new. Torn and foreign lines are left out."""
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                other = self._inode is not None and status.st_ino != self._inode
                self._inode = status.st_ino
                if other or status.st_size < self.cursor:
                    self.cursor = 0
                    return msgspec.json.encode({"run": self.name, "cursor": 0, "reset": True})
                if status.st_size == self.cursor:
                    return None
                file.seek(self.cursor)
                data = file.read(CHUNK)
        except OSError:
            return None
        end = data.rfind(b"\n") + 1
        if not end:
            if len(data) < CHUNK:
                return None  # still being written
            end = len(data)  # no event is that long: step over it
        self.cursor += end
        events = [line for line in data[:end].split(b"\n") if is_event_line(line)]
        head = msgspec.json.encode({"run": self.name, "cursor": self.cursor})
        return head[:-1] + b',"events":[' + b",".join(events) + b"]}"


_decoder = msgspec.json.Decoder()


def is_event_line(line: bytes) -> bool:
    """Whether a line of a log is one event."""
    if not line:
        return False
    try:
        event = _decoder.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return False
    return isinstance(event, dict) and isinstance(event.get("event"), str) and isinstance(event.get("step"), int)


class Connection:
    """One tab."""

    def __init__(self) -> None:
        self.tails: dict[str, Tail] = {}
        self.topics: dict[str, bytes] = {}  # the newest of each, not yet sent
        self.wake = asyncio.Event()

    async def send(self, socket: WebSocket) -> None:
        """Sends what there is, for ever. Raises TimeoutError when the browser takes nothing."""
        while True:
            await self.wake.wait()
            self.wake.clear()
            busy = True
            while busy:
                busy = False
                topics, self.topics = self.topics, {}
                for message in topics.values():
                    await self._one(socket, message)
                for tail in list(self.tails.values()):
                    if self.tails.get(tail.name) is tail and (more := tail.more()) is not None:
                        await self._one(socket, more)
                        busy = True

    @staticmethod
    async def _one(socket: WebSocket, message: bytes) -> None:
        async with asyncio.timeout(SLOW_SECONDS):
            await socket.send_text(message.decode())


class Hub:
    """All tabs. Looks at the size of each watched log every POLL_SECONDS and wakes the tabs that watch it."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._connections: set[Connection] = set()
        self._sizes: dict[Path, tuple[int, int]] = {}
        self._latest: dict[str, bytes] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to look (inside a running event loop)."""
        self._tasks.append(asyncio.create_task(self._look()))

    async def close(self) -> None:
        """Stop looking."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def tabs(self) -> int:
        """Open connections."""
        return len(self._connections)

    def publish(self, topic: str, value: Any) -> None:
        """Send the newest `value` of a topic to every tab, and to each that comes later. Of several published while a
        tab is busy it gets the last."""
        message = msgspec.json.encode({"topic": topic, "value": value})
        if self._latest.get(topic) == message:
            return
        self._latest[topic] = message
        for connection in self._connections:
            connection.topics[topic] = message
            connection.wake.set()

    def every(self, seconds: float, look: Callable[[], Any]) -> None:
        """Publish under a name what `look` returns, `(topic, value)`, every so many seconds while a tab is open; `look`
        runs in a thread."""

        async def loop() -> None:
            while True:
                await asyncio.sleep(seconds)
                if self._connections:
                    with contextlib.suppress(CllmError, OSError):
                        self.publish(*await asyncio.to_thread(look))

        self._tasks.append(asyncio.create_task(loop()))

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            watched: dict[Path, list[Connection]] = {}
            for connection in self._connections:
                for tail in connection.tails.values():
                    watched.setdefault(tail.path, []).append(connection)
            self._sizes = {path: size for path, size in self._sizes.items() if path in watched}
            for path, connections in watched.items():
                try:
                    status = path.stat()
                    now = (status.st_ino, status.st_size)
                except OSError:
                    now = (0, 0)
                if self._sizes.get(path) != now:
                    self._sizes[path] = now
                    for connection in connections:
                        connection.wake.set()

    def _watch(self, connection: Connection, wanted: dict[str, int]) -> None:
        if len(wanted) > MOST_WATCHED:
            raise LimitError(f"{len(wanted)} runs watched by one tab; at most {MOST_WATCHED}")
        tails = {}
        for name, cursor in wanted.items():
            folder = self._workspace.resolve(name, exists=False)
            events = self._workspace.resolve(f"{name}/{EVENTS_FILE}", exists=False)  # the file itself may be a link
            if events.parent != folder:
                raise UsageError(f"{name}: its log is a link")
            tails[name] = Tail(name, events, cursor)
        connection.tails = tails
        connection.wake.set()

    async def serve(self, socket: WebSocket) -> None:
        """One tab's connection, until it closes."""
        if self.tabs >= MOST_TABS:
            await socket.close(1013, "too many tabs")
            return
        await socket.accept()
        connection = Connection()
        connection.topics = dict(self._latest)
        connection.wake.set()
        self._connections.add(connection)
        sender = asyncio.create_task(connection.send(socket))
        receiver = asyncio.create_task(self._receive(connection, socket))
        try:
            await asyncio.wait({sender, receiver}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._connections.discard(connection)
            for task in (sender, receiver):
                task.cancel()
            ended = await asyncio.gather(sender, receiver, return_exceptions=True)
            reason = next((str(end) for end in ended if isinstance(end, CllmError)), "too slow")
            with contextlib.suppress(Exception):  # gone already, or it takes nothing
                async with asyncio.timeout(1):
                    await socket.close(1008, reason[:100])

    async def _receive(self, connection: Connection, socket: WebSocket) -> None:
        while True:
            try:
                text = await socket.receive_text()
                wanted = msgspec.json.decode(text, type=Watch).watch
            except WebSocketDisconnect:
                return
            except (msgspec.DecodeError, KeyError, RecursionError):
                raise UsageError('expected {"watch": {run: cursor}}') from None
            self._watch(connection, wanted)


async def events_socket(socket: WebSocket) -> None:
    """WebSocket /api/events."""
    await socket.app.state.studio.hub.serve(socket)
