"""The screen Train, server side: data, settings, plans, jobs, runs, curves."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from pathlib import Path
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cllm.errors import ConfigError, RunError, UsageError
from cllm.presets import PRESETS
from cllm.studio import settings_form
from cllm.studio.jobs import Job, train_arguments
from cllm.studio.train_rows import row, unwritten
from cllm.studio.web import body, json, query, studio_of, while_connected
from cllm.studio.workspace import Missing

NOTES = "notes.md"
NOTES_LIMIT = 256 << 10  # characters
TEXT_LIMIT = 8 << 20  # characters of a pasted text
CORPORA = ("shakespeare",)
# settings that name files, or that the studio asks for in another way
CLOSED = {"data.path": "choose the data in the list", "start": 'use "from"', "data.weights": "use a run file"}
_NAME = re.compile(r"[\w][\w .+()-]{0,79}")

Settings = dict[str, Any]


class Named(msgspec.Struct, forbid_unknown_fields=True):
    """A request about one run."""

    run: str


class Data(msgspec.Struct):
    """A request about one text. field: of its records."""

    name: str
    field: str = "text"


class Plan(msgspec.Struct, forbid_unknown_fields=True):
    """A form as it stands."""

    preset: str | None = None
    settings: Settings = {}


class Start(msgspec.Struct, forbid_unknown_fields=True):
    """A run to start: its name (below the workspace; `runs/` is put before a plain one), data, settings, and the run
    whose weights it starts from."""

    name: str
    data: list[str]
    preset: str | None = None
    settings: Settings = {}
    start: str | None = None


class Curves(msgspec.Struct, forbid_unknown_fields=True):
    """See train_curves.curves."""

    runs: Annotated[list[str], msgspec.Meta(min_length=1, max_length=32)]
    metrics: Annotated[list[str], msgspec.Meta(min_length=1, max_length=16)]
    x: str = "step"
    low: float | None = None
    high: float | None = None
    width: Annotated[int, msgspec.Meta(ge=16, le=4096)] = 800
    log_x: bool = False
    half_life: Annotated[float, msgspec.Meta(gt=0)] | None = None


class Notes(msgspec.Struct, forbid_unknown_fields=True):
    run: str
    text: Annotated[str, msgspec.Meta(max_length=NOTES_LIMIT)]


class Text(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_LIMIT)]


class Runs(msgspec.Struct, forbid_unknown_fields=True):
    runs: Annotated[list[str], msgspec.Meta(min_length=1, max_length=32)]


# ------------------------------------------------------------------------------------------------ before a training


async def data(request: Request) -> Response:
    """GET /api/train/data: texts of the workspace."""
    studio = studio_of(request)
    found = await while_connected(
        request, studio.reader.run("cllm.studio.train_data:texts", {"root": str(studio.workspace.root)})
    )
    return json(found | {"workspace": str(studio.workspace.root)})


async def preview(request: Request) -> Response:
    """GET /api/train/preview?name=…&field=…: the beginning of a text."""
    studio, asked = studio_of(request), query(request, Data)
    if asked.name in CORPORA and not (studio.workspace.root / asked.name).exists():
        work = studio.reader.run("cllm.studio.train_data:preview_corpus", {"name": asked.name})
    else:
        path = studio.workspace.resolve(asked.name)
        if path.is_dir():
            path, asked.name = _first_text(path, asked.name)
        args = {"path": str(path), "name": asked.name, "field": asked.field}
        work = studio.reader.run("cllm.studio.train_data:preview", args)
    return json(await while_connected(request, work))


def _first_text(folder: Path, name: str) -> tuple[Path, str]:
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_file(follow_symlinks=False) and not entry.name.startswith("."):
            return folder / entry.name, f"{name}/{entry.name}"
    raise Missing(f"{name}: no file in this folder")


async def inspect(request: Request) -> Response:
    """POST /api/train/inspect: everything `cllm data inspect` says about chosen texts."""
    studio = studio_of(request)
    asked = await body(request, Runs)
    paths = [_data_name(request, name) for name in asked.runs]
    args = {"paths": [name if name in CORPORA else str(studio.workspace.resolve(name)) for name in paths]}
    work = studio.slow.run("cllm.studio.train_data:looked_through", args, seconds=120)
    return json(await while_connected(request, work))


async def text(request: Request) -> Response:
    """POST /api/train/text: keep a pasted text in the workspace's folder `texts`; nothing is overwritten."""
    studio = studio_of(request)
    asked = await body(request, Text)
    if not _NAME.fullmatch(asked.name):
        raise UsageError(f"the name {asked.name[:90]!r}: expected letters, digits, spaces and . _ + ( ) -")
    name = asked.name if asked.name.endswith((".txt", ".md")) else f"{asked.name}.txt"
    path = studio.workspace.resolve(f"texts/{name}", exists=False)
    path.parent.mkdir(exist_ok=True)
    try:
        content = asked.text.encode()
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        raise UsageError(f"texts/{name}: there is a text of that name; choose another") from None
    except UnicodeEncodeError:
        raise UsageError("the text holds half a character (a lone surrogate); it cannot be saved as UTF-8") from None
    with open(file, "wb") as out:
        out.write(content)
    return json({"name": studio.workspace.name(path), "bytes": len(content)})


async def form(request: Request) -> Response:
    """GET /api/train/form: presets and every setting."""
    return json({"presets": settings_form.presets(), "settings": settings_form.all_settings()})


async def plan(request: Request) -> Response:
    """POST /api/train/plan: parameters and memory of a form; a wrong setting is the answer's error, in words."""
    return await _planned(request, "size", 30)


async def speed(request: Request) -> Response:
    """POST /api/train/speed: three real steps, timed."""
    return await _planned(request, "speed", 90)


async def _planned(request: Request, name: str, seconds: float) -> Response:
    asked = await body(request, Plan)
    values = _settings(request, asked.preset, asked.settings)
    args = {"preset": asked.preset, "settings": values}
    work = studio_of(request).slow.run(f"cllm.studio.train_plan:{name}", args, seconds=seconds)
    return json(await while_connected(request, work))


def _settings(request: Request, preset: str | None, values: Settings) -> Settings:
    """The form's settings, checked. Raises ConfigError in the words of the command line."""
    for key, why in CLOSED.items():
        if key in values:
            raise ConfigError(f"{key}: cannot be set here; {why}")
    values = {key: value for key, value in values.items() if value is not None}
    tokenizer = values.get("data.tokenizer")
    if isinstance(tokenizer, str) and tokenizer not in ("bpe", "char", "word"):
        studio_of(request).workspace.resolve(tokenizer)  # relative to the workspace, where the training runs
    settings_form.checked(preset, values)
    return values


# ------------------------------------------------------------------------------------------------------------- jobs


async def start(request: Request) -> Response:
    """POST /api/train/start: begin a run. Answers {"run", "job", "command"}."""
    studio = studio_of(request)
    asked = await body(request, Start)
    if asked.preset is not None and asked.preset not in PRESETS:
        raise ConfigError(f"preset: got {asked.preset!r}, expected one of {', '.join(PRESETS)}")
    names = [_data_name(request, name) for name in asked.data]
    if not names:
        raise UsageError("no text chosen: pick one in the list of data")
    name = asked.name.strip() or _fresh_name(studio.workspace.root, names[0])
    name = name if "/" in name else f"runs/{name}"
    if not all(_NAME.fullmatch(part) for part in name.split("/")):
        raise UsageError(f"the run's name {name!r}: expected letters, digits, spaces and . _ + ( ) - in each part")
    folder = studio.workspace.resolve(name, exists=False)
    if (folder / "run.toml").exists() or (folder / "checkpoints").exists():
        raise RunError(f"{name}: a run is already there; resume it, or choose another name")
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{name}: a file of that name is there; choose another")
    values = _settings(request, asked.preset, asked.settings)
    origin = studio.workspace.name(studio.workspace.run(asked.start)) if asked.start else None
    arguments = train_arguments(out=name, data=names, preset=asked.preset, settings=values, start=origin)
    job = await asyncio.to_thread(studio.jobs.start, name, arguments)
    return _job_answer(request, job)


def _fresh_name(root: Path, text: str) -> str:
    stem = re.sub(r"[^\w.+-]+", "-", Path(text).name.split(".")[0]).strip("-") or "run"
    for number in range(1, 10_000):
        name = stem if number == 1 else f"{stem}-{number}"
        if not (root / "runs" / name).exists():
            return name
    return f"{stem}-{secrets.token_hex(4)}"


def _data_name(request: Request, name: str) -> str:
    """A text of the workspace, or a named corpus; nothing that the command line would read as something else."""
    workspace = studio_of(request).workspace
    if name in CORPORA and not (workspace.root / name).exists():
        return name
    path = workspace.resolve(name)
    if path == workspace.root:
        raise UsageError("the whole workspace is no text: choose a file or a folder in it")
    return workspace.name(path)


async def pause(request: Request) -> Response:
    """POST /api/train/pause: hold a run where it is, in memory."""
    return await _act(request, "pause")


async def go_on(request: Request) -> Response:
    """POST /api/train/continue: let a paused run go on."""
    return await _act(request, "go_on")


async def stop(request: Request) -> Response:
    """POST /api/train/stop: finish the step, save, end. Again: end at once."""
    return await _act(request, "stop")


async def _act(request: Request, what: str) -> Response:
    studio = studio_of(request)
    name = _run_name(request, (await body(request, Named)).run)
    job = await asyncio.to_thread(getattr(studio.jobs, what), name)
    return _job_answer(request, job)


async def resume(request: Request) -> Response:
    """POST /api/train/resume: `cllm train --resume`."""
    studio = studio_of(request)
    name = _run_name(request, (await body(request, Named)).run)
    job = await asyncio.to_thread(studio.jobs.start, name, train_arguments(out=name, resume=True))
    return _job_answer(request, job)


def _job_answer(request: Request, job: Job) -> Response:
    studio = studio_of(request)
    studio.publish_jobs()
    return json({"run": job.run, "job": job})


def _run_name(request: Request, name: str) -> str:
    """The name of a run that exists, or whose job does (it may not have written yet). Raises Missing, Outside."""
    studio = studio_of(request)
    clean = studio.workspace.name(studio.workspace.resolve(name, exists=False))
    try:
        studio.workspace.run(clean)
    except Missing:
        if clean == "." or studio.jobs.of(clean) is None:
            raise
    return clean


async def log(request: Request) -> Response:
    """GET /api/train/log?run=…: the end of what the run's newest job said."""
    name = _run_name(request, query(request, Named).run)
    return json({"log": await asyncio.to_thread(studio_of(request).jobs.log, name)})


# ------------------------------------------------------------------------------------------------------------- runs


async def runs(request: Request) -> Response:
    """GET /api/train/runs: every run of the workspace."""
    studio = studio_of(request)

    def look() -> list[dict[str, Any]]:
        found = {run.name: row(run, studio.jobs.of(run.name)) for run in studio.store.runs()}
        for name, job in studio.jobs.newest().items():  # started a moment ago, or failed before it wrote anything
            if name not in found and (job.state != "ended" or job.error):
                found[name] = row(unwritten(name), job)
        return sorted(found.values(), key=lambda row: -row["changed"])

    return json({"runs": await asyncio.to_thread(look)})


async def run(request: Request) -> Response:
    """GET /api/train/run?run=…: one run in full."""
    studio = studio_of(request)
    name = _run_name(request, query(request, Named).run)
    job = await asyncio.to_thread(studio.jobs.of, name)
    folder = studio.workspace.resolve(name, exists=False)
    try:
        found = await asyncio.to_thread(studio.store.one, name)
    except Missing:
        found = unwritten(name)
    story = await while_connected(request, studio.reader.run("cllm.studio.train_story:story", {"folder": str(folder)}))
    return json(row(found, job) | story | {"settings": found.settings, "job": job, "notes": _notes(folder)})


def _notes(folder: Path) -> str:
    try:
        with (folder / NOTES).open("rb") as file:
            return file.read(4 * NOTES_LIMIT).decode("utf-8", "replace")[:NOTES_LIMIT]
    except OSError:
        return ""


async def notes(request: Request) -> Response:
    """POST /api/train/notes: the run's notes.md, replaced whole; an empty text removes it."""
    asked = await body(request, Notes)
    studio = studio_of(request)
    path = studio.workspace.resolve(f"{asked.run}/{NOTES}", exists=False)
    folder = studio.workspace.run(asked.run)
    if path.parent != folder:
        raise UsageError(f"{asked.run}/{NOTES}: it is a link; the notes are a file of the run")
    try:
        if not asked.text.strip():
            path.unlink(missing_ok=True)
        else:
            temporary = folder / f".{NOTES}.{secrets.token_hex(4)}"
            temporary.write_text(asked.text, encoding="utf-8")
            os.replace(temporary, path)
    except UnicodeEncodeError:
        raise UsageError("the notes hold half a character (a lone surrogate); they cannot be saved as UTF-8") from None
    except OSError as error:
        raise RunError(f"{asked.run}/{NOTES}: cannot be written: {error.strerror}") from None
    return json({"run": asked.run, "characters": len(asked.text)})


async def curves(request: Request) -> Response:
    """POST /api/train/curves: points or envelopes of metrics of runs."""
    asked = await body(request, Curves)
    studio = studio_of(request)
    args: dict[str, Any] = msgspec.to_builtins(asked)
    names = args.pop("runs")
    args["folders"] = {name: str(studio.workspace.root / _run_name(request, name)) for name in names}
    found = await while_connected(request, studio.reader.run("cllm.studio.train_curves:curves", args, seconds=60))
    return json({"runs": found})


async def diff(request: Request) -> Response:
    """POST /api/train/diff: settings in which runs differ, `{"rows": [{"key", "values"}]}`."""
    asked = await body(request, Runs)
    studio = studio_of(request)
    found = [(await asyncio.to_thread(studio.store.one, name)).settings for name in asked.runs]
    keys = sorted({key for values in found for key in values})
    rows = [{"key": key, "values": [values.get(key) for values in found]} for key in keys]
    return json(
        {"runs": asked.runs, "rows": [row for row in rows if any(v != row["values"][0] for v in row["values"])]}
    )


routes = [
    Route("/api/train/data", data),
    Route("/api/train/preview", preview),
    Route("/api/train/inspect", inspect, methods=["POST"]),
    Route("/api/train/text", text, methods=["POST"]),
    Route("/api/train/form", form),
    Route("/api/train/plan", plan, methods=["POST"]),
    Route("/api/train/speed", speed, methods=["POST"]),
    Route("/api/train/start", start, methods=["POST"]),
    Route("/api/train/pause", pause, methods=["POST"]),
    Route("/api/train/continue", go_on, methods=["POST"]),
    Route("/api/train/stop", stop, methods=["POST"]),
    Route("/api/train/resume", resume, methods=["POST"]),
    Route("/api/train/log", log),
    Route("/api/train/runs", runs),
    Route("/api/train/run", run),
    Route("/api/train/notes", notes, methods=["POST"]),
    Route("/api/train/curves", curves, methods=["POST"]),
    Route("/api/train/diff", diff, methods=["POST"]),
]
