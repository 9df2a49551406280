"""The studio as an ASGI application: the screens' routes, the pages, and what they share."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from cllm import __version__
from cllm.errors import CllmError
from cllm.studio.events import Hub, events_socket
from cllm.studio.inside_certificates import job as certificate_job
from cllm.studio.jobs import Jobs
from cllm.studio.security import Access, Guard, Refused
from cllm.studio.store import Store
from cllm.studio.web import Gone, json, on_error, studio_of
from cllm.studio.work import Host, Pool
from cllm.studio.worker import prepare_types
from cllm.studio.workspace import Workspace

STATIC = Path(__file__).parent / "static"
# a screen's server side: a module with `routes`, all under /api/<screen>/
SCREENS: tuple[str, ...] = (
    "cllm.studio.lattice",
    "cllm.studio.calculate",
    "cllm.studio.train",
    "cllm.studio.generate",
    "cllm.studio.inside",
    "cllm.studio.bench",
    "cllm.studio.notes",
)
JOBS_SECONDS = 0.5
RECENT = 32  # jobs that every tab is told about
PAGES = ("lattice", "calculate", "train", "generate", "inside", "bench")

_MISSING = """\
The studio's pages are not built.

From a checkout:   make studio
(it needs Node; it runs `npm ci` and `npm run build` in web/ and starts the server)

The server itself runs: its programming interface answers under /api/.
"""


class Studio:
    """What the routes share.

    workspace: the folder.  access: who may talk to it.  store: the runs' index.  jobs: training processes.
    certifications: processes of `cllm certify`.  hub: live events.  pool: short calculations (tiles, sieves).  slow:
    one that may take seconds and needs torch (plans).  reader: the process that reads logs and texts.  models: the one
    that holds checkpoints.
    """

    def __init__(self, workspace: Workspace, access: Access) -> None:
        self.workspace, self.access = workspace, access
        self.pool, self.slow = Pool(2), Pool(1)
        self.models, self.reader = Host(), Host(most=8)
        self.store, self.jobs = Store(workspace), Jobs(workspace)
        self.certifications = Jobs(workspace, "certify")
        self.hub = Hub(workspace)

    async def close(self) -> None:
        """End the studio's own processes; training goes on."""
        await self.hub.close()
        for part in (self.pool, self.slow, self.models, self.reader):
            await part.close()
        self.store.close()

    def start(self) -> None:
        """Begin to look for news, inside a running event loop."""
        self.hub.start()
        self.hub.every(JOBS_SECONDS, self.jobs_now)
        self.hub.every(JOBS_SECONDS, self.certifications_now)

    def jobs_now(self) -> tuple[str, list[dict[str, Any]]]:
        """The topic of the jobs: the state of each that lives, and of those that ended lately."""
        jobs = self.jobs.recent(RECENT)
        return "jobs", [{"id": job.id, "run": job.run, "state": job.state, "error": job.error} for job in jobs]

    def certifications_now(self) -> tuple[str, list[dict[str, Any]]]:
        """The topic of the certifications: how far each is."""
        runs = {job.run for job in self.certifications.recent(RECENT)}
        return "certify", [{"run": run, "job": certificate_job(self.certifications, run)} for run in sorted(runs)]

    def publish_jobs(self) -> None:
        """Tell every tab now that a job has changed."""
        self.hub.publish(*self.jobs_now())


def create_app(workspace: Workspace, access: Access, *, static: Path = STATIC) -> Starlette:
    """The application. static: the built pages."""
    studio = Studio(workspace, access)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        studio.start()
        try:
            yield
        finally:
            await studio.close()

    routes: list[BaseRoute] = [Route("/api/studio", about), WebSocketRoute("/api/events", events_socket)]
    for screen in SCREENS:
        routes += importlib.import_module(screen).routes
    prepare_types()  # routes may answer in threads
    routes += [
        Route("/api/{rest:path}", unknown, methods=["GET", "POST"]),
        Route("/{path:path}", page),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, access=access)],
        exception_handlers={
            CllmError: on_error,
            Refused: on_error,
            Gone: on_error,
            HTTPException: _http_error,
            Exception: _fault,
        },
        lifespan=lifespan,
    )
    app.state.studio, app.state.static = studio, static.resolve()
    return app


async def about(request: Request) -> Response:
    """GET /api/studio: version, workspace, screens."""
    studio = studio_of(request)
    return json(
        {
            "version": __version__,
            "workspace": str(studio.workspace.root),
            "screens": [screen.rpartition(".")[2] for screen in SCREENS],
        }
    )


async def unknown(request: Request) -> Response:
    """Any other address under /api/."""
    return json({"error": f"no such address: {request.url.path}", "kind": "Missing"}, 404)


async def page(request: Request) -> Response:
    """A built file; the application's page for the screens' own addresses."""
    static: Path = request.app.state.static
    name = request.path_params["path"].strip("/")
    if not (static / "index.html").is_file():
        return PlainTextResponse(_MISSING, 503)
    if not name or name.partition("/")[0] in PAGES:
        return FileResponse(static / "index.html", headers={"cache-control": "no-cache"})
    try:
        path = (static / name).resolve()
        found = path.is_relative_to(static) and path.is_file()
    except (OSError, ValueError):
        found = False
    if not found:
        return PlainTextResponse("There is no such page.\n", 404)
    hashed = name.startswith("assets/")  # their names change with their content
    return FileResponse(path, headers={"cache-control": "max-age=31536000, immutable" if hashed else "no-cache"})


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return json({"error": error.detail, "kind": "Refused"}, error.status_code)


async def _fault(request: Request, error: Exception) -> Response:
    return json({"error": f"a fault in the studio: {type(error).__name__}: {error}", "kind": "Internal"}, 500)


def route_table(app: Starlette) -> list[dict[str, Any]]:
    """Every route: path, methods (none for a WebSocket)."""
    return [
        {"path": route.path, "methods": sorted(getattr(route, "methods", None) or ())}
        for route in app.routes
        if isinstance(route, Route | WebSocketRoute)
    ]
