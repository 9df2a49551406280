"""Training jobs: `cllm train` as processes of their own, which outlive the page and the server.

Each has a record, `.cllm-studio/jobs/ID.json`, with its process (id and start time), its command and its run, and a log
of what it says. A server that starts reads the records and finds the jobs again; a run that somebody trains from a
terminal is found through its lock.

Pause is SIGSTOP: at once, everything stays in memory, not a bit of the result changes. Stop is SIGINT, as Ctrl-C in a
terminal: the step is finished and saved; the memory is free and the run can be resumed, even after a restart of the
machine. A second stop ends without saving.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cllm.errors import LimitError, RunError, UsageError
from cllm.studio import process
from cllm.studio.workspace import Workspace
from cllm.training import lock

MOST = 8  # jobs at a time
LOG_TAIL = 64 << 10  # bytes of a log that are shown
KEEP = 500  # records of jobs that have ended
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


class Record(msgspec.Struct):
    """One job as it is stored. born: see process.birth.  stops: how often it was asked to stop."""

    id: str
    run: str
    command: list[str]
    pid: int
    born: str
    time: float
    stops: int = 0
    code: int | None = None


class Job(msgspec.Struct):
    """One job as it is shown. state: running, paused, stopping or ended.  code: its exit code, where it is known.
    error: what it said last, when it failed.  ours: started by the studio."""

    id: str
    run: str
    state: str
    pid: int
    time: float
    command: str
    ours: bool
    code: int | None = None
    error: str | None = None


class Jobs:
    """The jobs of a workspace. Safe to call from several threads.

    program: which command of `cllm` they are; each has records of its own.
    """

    def __init__(self, workspace: Workspace, program: str = "train") -> None:
        self._workspace, self._program = workspace, program
        self._folder = workspace.own / ("jobs" if program == "train" else f"jobs-{program}")
        self._folder.mkdir(exist_ok=True)
        self._lock = threading.RLock()
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._records: dict[str, Record] = {}
        for path in sorted(self._folder.glob("*.json")):
            with contextlib.suppress(OSError, msgspec.DecodeError):
                record = msgspec.json.decode(path.read_bytes(), type=Record)
                self._records[record.id] = record
        self._forget()

    # ------------------------------------------------------------------------------------------------ to look

    def all(self) -> list[Job]:
        """Every job known, oldest first."""
        with self._lock:
            return [self._job(record) for record in self._records.values()]

    def recent(self, count: int) -> list[Job]:
        """The newest ones."""
        with self._lock:
            return [self._job(record) for record in list(self._records.values())[-count:]]

    def active(self) -> list[Job]:
        """Those whose process lives."""
        return [job for job in self.all() if job.state != "ended"]

    def newest(self) -> dict[str, Job]:
        """The newest job of each run that the studio ever started."""
        with self._lock:
            return {record.run: self._job(record) for record in {r.run: r for r in self._records.values()}.values()}

    def of(self, run: str) -> Job | None:
        """The newest job of a run; a living one started elsewhere if there is one. None when it never had any."""
        with self._lock:
            records = [record for record in self._records.values() if record.run == run]
        newest = self._job(records[-1]) if records else None
        if newest is not None and newest.state != "ended":
            return newest
        return self._foreign(run) or newest

    def log(self, run: str) -> str:
        """The end of what the newest job of a run said, without control characters."""
        with self._lock:
            records = [record for record in self._records.values() if record.run == run]
        return self._tail(records[-1]) if records else ""

    # ------------------------------------------------------------------------------------------------ to act

    def start(self, run: str, arguments: Sequence[str]) -> Job:
        """Start the program with `arguments`, from the workspace's root. Raises LimitError and RunError."""
        with self._lock:
            now = self.of(run)
            if now is not None and now.state != "ended":
                raise RunError(f"{run}: it is {now.state} already (process {now.pid})")
            if len(self.active()) >= MOST:
                raise LimitError(f"{MOST} jobs are active; wait for one of them, or stop it")
            name = f"{int(time.time() * 1000):013d}-{secrets.token_hex(3)}"
            command = [sys.executable, "-m", "cllm", self._program, *arguments]
            with (self._folder / f"{name}.log").open("wb") as log:
                child = subprocess.Popen(
                    command,
                    cwd=self._workspace.root,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C in the server's terminal is not meant for it
                    env={**os.environ, "PYTHONUNBUFFERED": "1", "CLLM_PROGRESS": "lines"},
                )
            born = process.birth(child.pid) or "gone"
            record = Record(name, run, command, child.pid, born, time.time())
            self._children[name], self._records[name] = child, record
            self._write(record)
            return self._job(record)

    def pause(self, run: str) -> Job:
        """Hold the process where it is."""
        return self._signal(run, signal.SIGSTOP)

    def go_on(self, run: str) -> Job:
        """Let a paused process go on."""
        return self._signal(run, signal.SIGCONT)

    def stop(self, run: str) -> Job:
        """Ask it to finish the step, save and end; asked again, it ends without saving."""
        job = self._signal(run, signal.SIGINT)
        if job.state == "paused":
            self._signal(run, signal.SIGCONT)
        with self._lock:
            if job.id in self._records:
                self._records[job.id].stops += 1
                self._write(self._records[job.id])
        return self.of(run) or job

    # ----------------------------------------------------------------------------------------------- inwards

    def _signal(self, run: str, number: signal.Signals) -> Job:
        with self._lock:
            job = self.of(run)
            if job is None or job.state == "ended":
                raise RunError(f"{run}: no process of cllm {self._program} works on it now")
            if job.ours:
                record = self._records[job.id]
                if process.state(record.pid, record.born) == "gone":  # once more, just before
                    raise RunError(f"{run}: its process has just ended")
            elif not process.holds(job.pid, self._workspace.run(run) / lock.FILE):
                raise RunError(f"{run}: process {job.pid} trains it, but not on this machine; stop it where it runs")
            with contextlib.suppress(ProcessLookupError):
                if job.ours and number != signal.SIGINT:
                    os.killpg(job.pid, number)  # with whatever it started
                else:
                    os.kill(job.pid, number)
            deadline = time.monotonic() + 0.5  # the system needs a moment to show it
            wanted = {signal.SIGSTOP: "paused", signal.SIGCONT: "running"}.get(number)
            while wanted and (now := self.of(run)) and now.state not in (wanted, "ended", "stopping"):
                if time.monotonic() > deadline:
                    break
                time.sleep(0.01)
            return self.of(run) or job if wanted else job

    def _job(self, record: Record) -> Job:
        now = process.state(record.pid, record.born) if record.code is None else "gone"
        ended = now == "gone"
        if ended and (child := self._children.pop(record.id, None)) is not None:
            record.code = child.wait()  # it has ended: this only fetches its code
            self._write(record)
        return Job(
            id=record.id,
            run=record.run,
            state="ended" if ended else "stopping" if record.stops and now == "running" else now,
            pid=record.pid,
            time=record.time,
            command=shlex.join(["cllm", *record.command[3:]]),
            ours=True,
            code=record.code,
            error=self._error(record) if ended else None,
        )

    def _foreign(self, run: str) -> Job | None:
        if self._program != "train":
            return None  # only a training locks its run
        try:
            folder = self._workspace.resolve(run)
        except UsageError:
            return None
        found = lock.holder(folder)
        if found is None:
            return None
        born = process.birth(found.pid) if process.holds(found.pid, folder / lock.FILE) else None
        now = process.state(found.pid, born) if born else "running"
        return Job(f"process-{found.pid}", run, now, found.pid, found.since, "", ours=False)

    def _error(self, record: Record) -> str | None:
        """The last words of a job that failed: the line `cllm: …` and what belongs to it."""
        if record.code in (0, 130):
            return None
        text = self._tail(record)
        place = max(text.rfind("\ncllm: "), 0 if text.startswith("cllm: ") else -1)
        if place >= 0:
            said = text[place:].strip().removeprefix("cllm: ").strip()
            return None if said == "interrupted" else said
        if record.code is None:
            return None  # ended while no server looked: the run's own log says how
        if record.code < 0:
            name = signal.Signals(-record.code).name if -record.code in list(signal.Signals) else str(-record.code)
            hint = "; the system may have run out of memory" if name == "SIGKILL" else ""
            return f"its process was ended by {name}{hint}"
        return text.strip().splitlines()[-1] if text.strip() else f"its process ended with code {record.code}"

    def _tail(self, record: Record) -> str:
        try:
            with (self._folder / f"{record.id}.log").open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - LOG_TAIL))
                return _CONTROL.sub("", file.read().decode("utf-8", "replace"))
        except OSError:
            return ""

    def _write(self, record: Record) -> None:
        path = self._folder / f"{record.id}.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(msgspec.json.encode(record))
        os.replace(temporary, path)

    def _forget(self) -> None:
        """Only the newest records of jobs that have ended are kept."""
        ended = [record for record in self._records.values() if self._job(record).state == "ended"]
        for record in ended[:-KEEP]:
            del self._records[record.id]
            for suffix in (".json", ".log"):
                (self._folder / f"{record.id}{suffix}").unlink(missing_ok=True)


def train_arguments(
    *,
    out: str,
    data: Sequence[str] = (),
    preset: str | None = None,
    settings: Mapping[str, Any] | None = None,
    start: str | None = None,
    resume: bool = False,
) -> list[str]:
    """The arguments of `cllm train`; paths relative to the workspace."""
    arguments = [plain(name) for name in data]
    if resume:
        arguments.append("--resume")
    arguments += ["--out", plain(out)]
    if start is not None:
        arguments += ["--from", plain(start)]
    if preset is not None:
        arguments += ["--preset", preset]
    for key, value in (settings or {}).items():
        arguments += ["--set", f"{key}={setting_text(value)}"]
    return arguments


def setting_text(value: Any) -> str:
    """A setting's value as `--set` reads it: JSON, which for numbers, texts, booleans and lists is TOML."""
    bare = isinstance(value, str) and value.isidentifier() and value not in ("true", "false", "inf", "nan")
    return str(value) if bare else msgspec.json.encode(value).decode()


def plain(path: str) -> str:
    return f"./{path}" if path.startswith("-") else path
