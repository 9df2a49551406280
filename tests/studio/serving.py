"""The studio's server for tests: as the command starts it, or in a thread of the test so that its limits can be set;
a client that sends any bytes and headers; a workspace with runs."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from waiting import until as until  # used by this name, too: serving.until

OLD_RUN = Path(__file__).resolve().parents[1] / "training" / "old" / "v1-run"
MACHINE = {"cpu": "A", "cores": 2, "memory_gb": 8.0, "gpus": [], "instructions": ["avx2"], "versions": {"cllm": "1"}}
TEXT = "The sea was calm, and the sails hung idle. A gull cried once; nobody answered it.\n" * 60


@dataclass
class Answer:
    """status, headers (names in lower case), body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """Talks to a server on the loopback. cookies: sent with every request unless `cookie` says otherwise."""

    port: int
    token: str
    cookie: str = field(init=False)

    def __post_init__(self) -> None:
        self.cookie = f"cllm-studio-{self.port}={self.token}"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str | None] | None = None,
        timeout: float = 60,
    ) -> Answer:
        """Exactly these headers, besides Host and Cookie; None leaves one out."""
        sent: dict[str, str | None] = {"Host": self.host, "Cookie": self.cookie, **(headers or {})}
        if body is not None and "Content-Length" not in sent:
            sent["Content-Length"] = str(len(body))
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                if value is not None:
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, headers: Mapping[str, str | None] | None = None, **query: Any) -> Answer:
        return self.request("GET", f"{path}?{urlencode(query)}" if query else path, headers=headers)

    def post(self, path: str, value: Any, headers: Mapping[str, str | None] | None = None) -> Answer:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return self.request("POST", path, body, {"Content-Type": "application/json", **(headers or {})})

    def ask(self, path: str, value: Any = None, **query: Any) -> Any:
        """The JSON of an answer that must be 200."""
        answer = self.get(path, **query) if value is None else self.post(path, value)
        assert answer.status == 200, f"{path}: {answer.status} {answer.body[:2000]!r}"
        return answer.json

    def lines(self, path: str, value: Any) -> list[dict[str, Any]]:
        """The lines of a streamed answer."""
        answer = self.post(path, value)
        assert answer.status == 200, f"{path}: {answer.status} {answer.body[:2000]!r}"
        return [json.loads(line) for line in answer.body.splitlines()]

    @contextlib.contextmanager
    def socket(self) -> Iterator[Any]:
        """A WebSocket on /api/events."""
        from websockets.sync.client import connect

        with connect(
            f"ws://{self.host}/api/events",
            origin=f"http://{self.host}",  # type: ignore[arg-type]
            additional_headers={"Cookie": self.cookie},
            compression=None,
            proxy=None,
        ) as opened:
            yield opened

    def raw(self, data: bytes, *, seconds: float = 10) -> bytes:
        """Send bytes; what comes back until the server closes or `seconds` have passed without a byte."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as line:
            with contextlib.suppress(ConnectionError):
                line.sendall(data)
            found = b""
            with contextlib.suppress(TimeoutError, ConnectionError):
                while more := line.recv(1 << 16):
                    found += more
            return found


@dataclass
class Running:
    """A server process."""

    workspace: Path
    client: Client
    process: subprocess.Popen[str]
    log: Path

    def kill(self) -> None:
        """As if the machine's power had gone, for it alone."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def started(workspace: Path) -> Iterator[Running]:
    """`cllm studio` on a free port, without a browser."""
    workspace.mkdir(parents=True, exist_ok=True)
    log = workspace.parent / f"{workspace.name}-server.log"
    command = [sys.executable, "-m", "cllm", "studio", str(workspace), "--port", "0", "--no-browser"]
    with log.open("a") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline().strip()
        assert "token=" in line, f"cllm studio did not start: {line}\n{log.read_text()}"
        parts = urlsplit(line)
        assert parts.port is not None
        yield Running(workspace, Client(parts.port, parse_qs(parts.query)["token"][0]), process, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError("cllm studio did not end within 20 seconds of Ctrl-C") from None
        finally:
            process.stdout.close()


@contextlib.contextmanager
def in_thread(workspace: Path) -> Iterator[tuple[Client, Any]]:
    """The same server in a thread of this process, and its studio: what a test patches holds in it."""
    from cllm.studio.security import Access
    from cllm.studio.server import listen, make_server
    from cllm.studio.workspace import Workspace

    workspace.mkdir(parents=True, exist_ok=True)
    listener = listen("127.0.0.1", 0)
    access = Access(listener.getsockname()[1])
    server = make_server(Workspace(workspace), access)
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield Client(access.port, access.token), server.config.app.state.studio  # type: ignore[union-attr]
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
        assert not thread.is_alive(), "the server did not end"


def figure(name: str, value: float, unit: str, limit: float | None = None) -> None:
    """Say a measured figure; with CLLM_SAVE_FIGURES=folder also keep it, in `studio.json` there.

    limit: the budget. `docs/studio_figures.py` puts what is kept into the docs.
    """
    print(f"{name}: {value:.4g} {unit}" + ("" if limit is None else f" (budget {limit:g})"))
    folder = os.environ.get("CLLM_SAVE_FIGURES")
    if not folder:
        return
    from cllm.bench.machine import describe
    from cllm.bench.measure import Table

    with (Path(tempfile.gettempdir()) / f"cllm-studio-figures-{os.getuid()}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes write
        path = Path(folder) / "studio.json"
        rows = json.loads(path.read_text())["rows"] if path.exists() else []
        kept = {row["name"]: {key: item for key, item in row.items() if key != "name"} for row in rows}
        kept[name] = {"value": float(f"{value:.4g}"), "unit": unit, "limit": limit}
        table = Table("studio", "The studio's budgets")
        for key in sorted(kept):
            table.add(key, **kept[key])
        table.save(folder, describe())


def end_jobs(workspace: Path) -> None:
    """End the trainings that a failed test has left behind, paused ones too."""
    from cllm.studio.jobs import Jobs
    from cllm.studio.workspace import Workspace

    for program in ("train", "bench", "ablate"):
        for job in Jobs(Workspace(workspace), program).active():
            with contextlib.suppress(ProcessLookupError):
                os.kill(job.pid, signal.SIGKILL)


def add_trained(workspace: Path, name: str = "runs/small", **more: Any) -> Path:
    """A run of this version: two steps of a small model with a context of 32, characters as tokens.

    more: other settings, such as precision="fp32" (the default depends on the processor).
    """
    import cllm

    folder = workspace / name
    sizes = {"layers": 2, "width": 32, "heads": 2, "ff": 32, "context": 32}
    cllm.train(
        add_text(workspace),
        preset="nano",
        out=folder,
        quiet=True,
        set={f"model.{key}": value for key, value in sizes.items()}
        | {"train.steps": 2, "train.batch": 2, "data.tokenizer": "char", "train.sample_every": 0, "optim.lr": 0.05}
        | more,
    )
    return folder


def add_run(workspace: Path, name: str = "runs/old") -> Path:
    """A run with a checkpoint: three steps of a very small model, as an earlier version wrote them."""
    folder = workspace / name
    shutil.copytree(OLD_RUN, folder)
    return folder


def add_log(
    workspace: Path, name: str, steps: int, *, metrics: int = 0, preset: str = "nano", end: str | None = "done"
) -> Path:
    """A run that has a run file and a log, and nothing else. metrics: numbers a step has besides the usual ones."""
    folder = workspace / name
    folder.mkdir(parents=True)
    (folder / "run.toml").write_text(
        f'preset = "{preset}"\nseed = {abs(hash(name)) % 1000}\n[train]\nsteps = {steps}\n'
    )
    more = {f"m{k}": k / 7 for k in range(metrics)}
    with (folder / "events.jsonl").open("w") as file:
        write = lambda **event: file.write(json.dumps(event) + "\n")  # noqa: E731
        write(event="start", step=0, time=1e9, steps=steps, parameters=1234)
        for step in range(1, steps + 1):
            loss = 6 / (1 + step / 50) + 0.1 * ((step * 7919) % 13) / 13
            write(
                event="step", step=step, time=1e9 + step / 10, loss=loss, lr=1e-3, grad_norm=1.0, tokens=step * 64,
                tokens_per_s=640.0, grad_norms={"embeddings": 0.1, "attention": 0.5, "feedforward": 0.7, "norms": 0.5},
                **more,
            )  # fmt: skip
            if step % 25 == 0:
                write(event="eval", step=step, time=1e9 + step / 10, loss=loss, whole=False, bits_per_byte=loss / 2)
        if end:
            write(event="stop", step=steps, time=1e9 + steps / 10, reason=end)
    return folder


def add_text(workspace: Path, name: str = "sea.txt", text: str = TEXT) -> Path:
    path = workspace / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def add_measurement(
    workspace: Path, folder: str, name: str = "numbers", *, date: str = "2026-01-01", **changed: Any
) -> Path:
    """A measurement, written as `cllm bench --save` writes it."""
    from cllm.bench.measure import Table, Timing

    table = Table(name, f"{name} (medians)")
    table.add_timing("exp", Timing.of([0.001, 0.002, 0.003]), gmpy2_ratio=2.0, limit_fraction=0.5, within_target=True)
    path = table.save(workspace / folder, MACHINE)
    said = json.loads(path.read_text()) | {"date": f"{date}T00:00:00+00:00"} | changed
    path.write_text(json.dumps(said, indent=1))
    return path
