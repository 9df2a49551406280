"""The screen Bench & research, server side: measurements and studies as jobs, and what they found.

Both are commands of `cllm` in processes of their own (cllm.studio.jobs): they outlive the page and the server. Results
are read from the files that the commands write; nothing is kept elsewhere.
"""

from __future__ import annotations

import asyncio
import shlex
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cllm.errors import RunError, UsageError
from cllm.studio import bench_machine, bench_studies
from cllm.studio.bench_options import choices, line
from cllm.studio.jobs import Job, Jobs
from cllm.studio.web import body, json, query, studio_of, while_connected
from cllm.studio.workspace import Missing

if TYPE_CHECKING:
    from cllm.studio.app import Studio

HISTORY = "benchmarks/history"  # a folder for each measurement that is made here
STUDIES = "studies"  # where `cllm ablate` writes
CORPORA = ("shakespeare",)  # texts by name, as in train
SHOWN = 12  # jobs of each kind that every tab is told about
EVERY_SECONDS = 0.5

Kind = Literal["bench", "ablate"]
Options = dict[str, Any]


class Start(msgspec.Struct, forbid_unknown_fields=True):
    """A measurement to make: the command's name and the options that differ from its own."""

    name: str
    options: Options = {}


class Ablate(msgspec.Struct, forbid_unknown_fields=True):
    """A study to train, or to go on with: its file."""

    file: str


class Act(msgspec.Struct, forbid_unknown_fields=True):
    """What to do with a job."""

    kind: Kind
    run: str
    what: Literal["stop", "pause", "continue"]


class OfJob(msgspec.Struct):
    kind: Kind
    run: str


class History(msgspec.Struct):
    name: str


class Study(msgspec.Struct):
    """A study by its folder, its file, or both."""

    folder: str | None = None
    file: str | None = None


class Bench:
    """What this screen keeps while the server runs: the two kinds of jobs, and the commands it offers."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.jobs: dict[Kind, Jobs] = {
            "bench": Jobs(studio.workspace, "bench"),
            "ablate": Jobs(studio.workspace, "ablate"),
        }
        self.commands: list[dict[str, Any]] | None = None
        studio.hub.every(EVERY_SECONDS, self.news)

    def news(self) -> tuple[str, dict[str, Any]]:
        """The topic `bench`: the newest jobs of both kinds, and how far each study under way is."""
        root = self.studio.workspace.root
        studies = [job_row(job) for job in self.jobs["ablate"].recent(SHOWN)]
        for row in studies:
            if row["state"] != "ended":
                row["progress"] = bench_studies.progress(root / row["run"])
        return "bench", {"benches": [job_row(job) for job in self.jobs["bench"].recent(SHOWN)], "studies": studies}

    def publish(self) -> None:
        """Tell every tab now."""
        self.studio.hub.publish(*self.news())


def job_row(job: Job) -> dict[str, Any]:
    """A job as the page shows it. what: the measurement's name or the study's file.  options: as they were given.
    A process that was stopped before it could say so counts as stopped, too (code 130)."""
    early = job.code == -signal.SIGINT
    words = shlex.split(job.command)[2:]
    options = [word for word in words[1:] if not word.startswith(("--save=", "--out="))]
    return {
        "id": job.id,
        "run": job.run,
        "what": words[0] if words else "",
        "options": options,
        "command": job.command,
        "state": job.state,
        "code": 130 if early else job.code,
        "error": None if early else job.error,
        "time": job.time,
        "pid": job.pid,
    }


def _bench(request: Request) -> Bench:
    """Made at the first request: jobs of an earlier server are found then."""
    state = request.app.state
    if not hasattr(state, "bench"):
        state.bench = Bench(studio_of(request))
    kept: Bench = state.bench
    return kept


async def _read(request: Request, function: str, **args: Any) -> Any:
    """A function of the reading process, with the workspace's root."""
    studio = studio_of(request)
    work = studio.reader.run(f"cllm.studio.{function}", {"root": str(studio.workspace.root), **args})
    return await while_connected(request, work)


async def _commands(request: Request) -> list[dict[str, Any]]:
    """`cllm bench`'s own list of commands, without the options that are the studio's business."""
    kept = _bench(request)
    if kept.commands is None:
        # in another process, by name: the command line stands above the studio and imports it
        work = studio_of(request).reader.run("cllm.cli.describe:commands", {"group": "bench"})
        found = await while_connected(request, work)
        for command in found:
            command["options"] = [
                option | {"choices": option["choices"] or choices(option)}
                for option in command["options"]
                if option["name"] not in ("save", "json")
            ]
        kept.commands = found
    return kept.commands


# -------------------------------------------------------------------------------------------------------- measurements


async def commands(request: Request) -> Response:
    """GET /api/bench/commands: what can be measured, with options, and how long it took and usually takes."""
    kept = _bench(request)
    found = await _commands(request)
    times = await asyncio.to_thread(_times, kept)
    return json(
        {
            "commands": [
                command | bench_machine.usual(command["name"]) | {"times": times.get(command["name"], [])}
                for command in found
            ],
            "waited": bench_machine.WAITED,
        }
    )


def _times(kept: Bench) -> dict[str, list[dict[str, Any]]]:
    """By name, the measurements made here: options and seconds, newest first. The files are written at the end."""
    root = kept.studio.workspace.root
    found: dict[str, list[dict[str, Any]]] = {}
    for job in reversed(kept.jobs["bench"].all()):
        row = job_row(job)
        ends = [path.stat().st_mtime for path in (root / row["run"]).glob("*.json")] if row["state"] == "ended" else []
        if ends:
            took = {"options": row["options"], "seconds": max(ends) - row["time"], "time": row["time"]}
            found.setdefault(row["what"], []).append(took)
    return found


async def around(request: Request) -> Response:
    """GET /api/bench/around: what else the machine does now: cores and how busy they are, trainings, jobs of here."""
    kept, studio = _bench(request), studio_of(request)

    def look() -> dict[str, Any]:
        # a run that somebody trains from a terminal is found through its lock, among the newest runs
        names = {job.run for job in studio.jobs.active()}
        newest = sorted(studio.store.runs(), key=lambda run: -run.changed)[:50]
        for run in newest:
            if run.name not in names and (job := studio.jobs.of(run.name)) is not None and job.state != "ended":
                names.add(run.name)
        others = [{"kind": kind, "name": job.run} for kind, jobs in kept.jobs.items() for job in jobs.active()]
        within = tuple(f"{one['name']}/" for one in others)  # a study's runs are the study
        trained = [{"kind": "train", "name": name} for name in sorted(names) if not name.startswith(within)]
        return bench_machine.busy() | {"jobs": trained + others}

    return json(await asyncio.to_thread(look))


async def start(request: Request) -> Response:
    """POST /api/bench/start: make a measurement. One at a time: two would measure each other."""
    kept, studio = _bench(request), studio_of(request)
    asked = await body(request, Start)
    command = next((one for one in await _commands(request) if one["name"] == asked.name), None)
    if command is None:
        raise UsageError(f"{asked.name[:80]!r}: there is no such measurement")
    if active := kept.jobs["bench"].active():
        raise RunError(f"{job_row(active[0])['what']} is being measured; two measurements would disturb each other")
    words = line(command, asked.options, studio.workspace)
    stamp = time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime())
    folder = f"{HISTORY}/{stamp}-{asked.name}"
    studio.workspace.resolve(folder, exists=False)  # no link leads out of here
    job = await asyncio.to_thread(kept.jobs["bench"].start, folder, [asked.name, *words, f"--save={folder}"])
    kept.publish()
    return json(job_row(job))


async def act(request: Request) -> Response:
    """POST /api/bench/act: stop, pause or continue a job."""
    kept = _bench(request)
    asked = await body(request, Act)
    name = _known(kept, asked.kind, asked.run)
    method = {"stop": "stop", "pause": "pause", "continue": "go_on"}[asked.what]
    job = await asyncio.to_thread(getattr(kept.jobs[asked.kind], method), name)
    kept.publish()
    return json(job_row(job))


async def jobs(request: Request) -> Response:
    """GET /api/bench/jobs: the newest jobs of both kinds, as the topic `bench` has them."""
    return json((await asyncio.to_thread(_bench(request).news))[1])


async def job(request: Request) -> Response:
    """GET /api/bench/job?kind=…&run=…: a job, the end of what it said, and the tables it wrote."""
    kept = _bench(request)
    asked = query(request, OfJob)
    name = _known(kept, asked.kind, asked.run)
    of = kept.jobs[asked.kind]
    found, log = await asyncio.to_thread(of.of, name), await asyncio.to_thread(of.log, name)
    tables = await _read(request, "bench_results:within", folder=name) if asked.kind == "bench" else []
    return json({"job": found and job_row(found), "log": log, "tables": tables})


def _known(kept: Bench, kind: Kind, run: str) -> str:
    """The name of a run that has or had a job. Raises Missing, Outside."""
    workspace = kept.studio.workspace
    name = workspace.name(workspace.resolve(run, exists=False))
    if kept.jobs[kind].of(name) is None:
        raise Missing(f"{name}: nothing of that name was started here")
    return name


async def results(request: Request) -> Response:
    """GET /api/bench/results: every saved table of the workspace, newest first."""
    return json(await _read(request, "bench_results:found"))


async def history(request: Request) -> Response:
    """GET /api/bench/history?name=…: every measurement of one table, oldest first."""
    name = query(request, History).name
    found = await _read(request, "bench_results:history", name=name)
    if not found:
        raise Missing(f"{name[:80]!r}: no measurement of that name in this workspace")
    return json({"name": name, "measurements": found})


# ------------------------------------------------------------------------------------------------------------- studies


async def studies(request: Request) -> Response:
    """GET /api/bench/studies: every study of the workspace."""
    return json({"studies": await _read(request, "bench_studies:listing")})


async def study(request: Request) -> Response:
    """GET /api/bench/study?folder=…&file=…: results, and where there is a file, what is trained of it so far."""
    kept, studio = _bench(request), studio_of(request)
    asked = query(request, Study)
    folder = asked.folder and studio.workspace.name(studio.workspace.resolve(asked.folder, exists=False))
    if folder is None and asked.file is None:
        raise UsageError("which study? expected folder, file or both")
    if folder is not None:
        found = await _read(request, "bench_studies:stored", folder=folder) if _there(request, folder) else None
        done = await asyncio.to_thread(lambda: len(bench_studies.finished(studio.workspace.root / folder)))
        job = kept.jobs["ablate"].of(folder)
        if found is not None and found["done"] >= done and (job is None or job.state == "ended"):
            return json(found | {"folder": folder, "file": asked.file})
        if asked.file is None:
            if found is None:
                raise Missing(f"{folder}: no results of a study there")
            return json(found | {"folder": folder, "file": None})
    assert asked.file is not None
    return json(await _now(request, asked.file, folder) | {"folder": folder, "file": asked.file})


async def _now(request: Request, file: str, folder: str | None = None) -> dict[str, Any]:
    """A study as far as it is trained. Raises Outside when it or a text of it is not in the workspace."""
    studio = studio_of(request)
    file = studio.workspace.name(studio.workspace.resolve(file))
    args = {"root": str(studio.workspace.root), "file": file, "folder": folder or _place(file)}
    work = studio.slow.run("cllm.studio.bench_study_now:now", args, seconds=60)
    found: dict[str, Any] = await while_connected(request, work)
    for text in found["texts"]:
        if text.partition("/")[0] not in CORPORA:
            studio.workspace.resolve(text)
    return found


def _there(request: Request, folder: str) -> bool:
    return (studio_of(request).workspace.root / folder).is_dir()


def _place(file: str) -> str:
    """Where `cllm ablate FILE` writes."""
    return f"{STUDIES}/{Path(file).stem}"


async def ablate(request: Request) -> Response:
    """POST /api/bench/ablate: train a study, or go on with it. The file is checked first, in the command's words."""
    kept, studio = _bench(request), studio_of(request)
    asked = await body(request, Ablate)
    file = studio.workspace.name(studio.workspace.resolve(asked.file))
    found = await _now(request, file)
    if found["mixed"]:
        raise RunError(found["mixed"])
    folder = _place(file)
    studio.workspace.resolve(folder, exists=False)
    words = [f"./{file}" if file.startswith("-") else file, f"--out={folder}"]
    job = await asyncio.to_thread(kept.jobs["ablate"].start, folder, words)
    kept.publish()
    return json(job_row(job))


routes = [
    Route("/api/bench/commands", commands),
    Route("/api/bench/around", around),
    Route("/api/bench/start", start, methods=["POST"]),
    Route("/api/bench/act", act, methods=["POST"]),
    Route("/api/bench/jobs", jobs),
    Route("/api/bench/job", job),
    Route("/api/bench/results", results),
    Route("/api/bench/history", history),
    Route("/api/bench/studies", studies),
    Route("/api/bench/study", study),
    Route("/api/bench/ablate", ablate, methods=["POST"]),
]
