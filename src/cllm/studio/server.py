"""Starting the studio: a socket, its address with the token, uvicorn."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
import webbrowser
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from cllm.errors import UsageError
from cllm.studio.app import create_app
from cllm.studio.security import Access
from cllm.studio.workspace import Workspace

PORT = 8470
LOOPBACK = ("127.0.0.1", "::1", "localhost")
HEAD_SECONDS = 15.0  # a request's head must arrive within


class Http(H11Protocol):
    """uvicorn's HTTP protocol, which also ends a connection whose request does not arrive: uvicorn itself waits for a
    slow head as long as it takes."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def data_received(self, data: bytes) -> None:
        if self._deadline is None and self._waiting():
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._too_slow)
        super().data_received(data)
        if self._deadline is not None and not self._waiting():
            self._deadline.cancel()
            self._deadline = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: Any) -> None:
        if self._deadline is not None:  # the connection has another protocol from here on
            self._deadline.cancel()
            self._deadline = None
        super().handle_websocket_upgrade(event)

    def _waiting(self) -> bool:
        """No request is being answered: the next one's head is still to come."""
        return self.cycle is None or self.cycle.response_complete

    def _too_slow(self) -> None:
        self._deadline = None
        if self._waiting():
            self.transport.close()


def listen(host: str, port: int | None) -> socket.socket:
    """A listening socket. port None: PORT, or any free one when it is taken. Raises UsageError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in (PORT, 0) if port is None else (port,):
        try:
            return socket.create_server((host, candidate), family=family, backlog=256)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and port is None and candidate:
                continue
            raise UsageError(
                f"--host {host} --port {candidate}: cannot listen there: {error.strerror}; choose another"
            ) from None
        except OverflowError:
            raise UsageError(f"--port: expected 0 … 65535, got {candidate}") from None
    raise AssertionError("the last candidate either listens or raises")


def make_server(workspace: Workspace, access: Access) -> uvicorn.Server:
    """uvicorn with the studio in it; run it with a listening socket."""
    return uvicorn.Server(
        uvicorn.Config(
            create_app(workspace, access),
            http=Http,
            ws="websockets-sansio",
            ws_max_size=1 << 16,
            ws_ping_interval=20.0,
            ws_ping_timeout=20.0,
            limit_concurrency=512,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=2,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="on",
        )
    )


def serve(
    root: Path, *, host: str = "127.0.0.1", port: int | None = None, expose: bool = False, browser: bool = True
) -> None:
    """Serve the workspace until interrupted; prints the address with its token.

    host: another one than the loopback needs `expose`.  Raises UsageError.
    """
    if host not in LOOPBACK and not expose:
        raise UsageError(
            f"--host {host}: other machines could then reach the studio, which starts programs and reads the "
            "workspace for anyone who has the token, over an unencrypted connection. If that is meant, add --expose"
        )
    workspace = Workspace(root)
    listener = listen(host, port)
    port = listener.getsockname()[1]
    every = host in ("0.0.0.0", "::")
    names = {"127.0.0.1", "localhost", "[::1]", f"[{host}]" if ":" in host else host}
    if host not in LOOPBACK:
        names.add(socket.gethostname().lower())
    access = Access(port, sorted(names), literals=every)
    shown = socket.gethostname() if every else f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{port}/?token={access.token}"
    server = make_server(workspace, access)
    print(f"Studio of {workspace.root}", file=sys.stderr)
    print(address, flush=True)
    print("Ctrl-C ends it; training goes on and is found again.", file=sys.stderr)
    if browser and _has_screen():
        webbrowser.open(address)
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:  # uvicorn raises it again once all is closed
        pass
    finally:
        listener.close()


def _has_screen() -> bool:
    """Whether a browser would have somewhere to open: on a bare terminal a text browser would take it over."""
    return not sys.platform.startswith("linux") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
