"""The server's parts: calculations in child processes, live events, the index of runs, pages."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cllm.errors import DataError, LimitError
from cllm.studio import process
from cllm.studio.events import CHUNK, Tail
from cllm.studio.store import Store
from cllm.studio.summary import Summary, summarise
from cllm.studio.work import Host, Internal, Pool, WorkerDied
from cllm.studio.workspace import OWN, Workspace
from cllm.training.events import EventLog, current, read_events

serving = sys.modules["serving"]
ECHO = "tests_studio_echo"  # a module that the workers can import


@pytest.fixture(scope="module", autouse=True)
def echo(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Functions for the workers, on their path."""
    folder = tmp_path_factory.mktemp("echo")
    (folder / f"{ECHO}.py").write_text(
        "import os, time, sys\n"
        "from cllm.errors import DataError\n"
        "def back(**args): return {**args, 'pid': os.getpid()}\n"
        "def sleep(seconds, path=''):\n"
        "    time.sleep(seconds)\n"
        "    if path: open(path, 'w').close()\n"
        "    return os.getpid()\n"
        "def hold(begun, until=''):\n"
        "    open(begun, 'w').close()\n"
        "    while not os.path.exists(until): time.sleep(0.01)\n"
        "def bad(): raise DataError('this text is bad')\n"
        "def broken(): return 1 / 0\n"
        "def die(): os._exit(3)\n"
        "def talk():\n    print('printed')\n    return 'said'\n"
        "def count(upto, path=''):\n"
        "    try:\n"
        "        for i in range(upto):\n            time.sleep(0.001)\n            yield i\n"
        "    finally:\n"
        "        if path: open(path, 'w').close()\n"
    )
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(folder) + (os.pathsep + before if before else "")
    yield
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


async def appears(path: Path) -> None:
    async with asyncio.timeout(60):
        while not path.exists():
            await asyncio.sleep(0.01)


# --------------------------------------------------------------------------------------------------- calculations


def test_pool_runs_elsewhere_and_brings_errors_back() -> None:
    async def main() -> None:
        pool = Pool(1)
        try:
            found = await pool.run(f"{ECHO}:back", {"x": 1.5, "b": b"\0\xff", "t": "ü", "l": [1, None]}, seconds=30)
            assert found["x"] == 1.5
            assert found["b"] == b"\0\xff"
            assert found["pid"] != os.getpid()
            with pytest.raises(DataError, match="this text is bad"):
                await pool.run(f"{ECHO}:bad", {}, seconds=30)
            with pytest.raises(Internal, match="ZeroDivisionError"):
                await pool.run(f"{ECHO}:broken", {}, seconds=30)
            assert await pool.run(f"{ECHO}:talk", {}, seconds=30) == "said"  # prints get between no frames
            again = await pool.run(f"{ECHO}:back", {}, seconds=30)
            assert again["pid"] == found["pid"]
        finally:
            await pool.close()

    asyncio.run(main())


def test_pool_outlives_its_workers() -> None:
    async def main() -> None:
        pool = Pool(1)
        try:
            with pytest.raises(WorkerDied):
                await pool.run(f"{ECHO}:die", {}, seconds=30)
            first = await pool.run(f"{ECHO}:sleep", {"seconds": 0}, seconds=30)
            with pytest.raises(LimitError, match="longer than"):
                await pool.run(f"{ECHO}:sleep", {"seconds": 60}, seconds=0.2)
            second = await pool.run(f"{ECHO}:sleep", {"seconds": 0}, seconds=30)
            assert first != second
            serving.until(lambda: not serving.alive(first))
        finally:
            await pool.close()

    asyncio.run(main())


def test_what_nobody_waits_for_is_not_calculated(tmp_path: Path) -> None:
    async def main() -> None:
        pool = Pool(1)
        try:
            begun, enough = tmp_path / "begun", tmp_path / "enough"
            args = {"begun": str(begun), "until": str(enough)}
            busy = asyncio.create_task(pool.run(f"{ECHO}:hold", args, seconds=30))
            await appears(begun)
            done = tmp_path / "done"
            done.mkdir()
            queued = [
                asyncio.create_task(pool.run(f"{ECHO}:sleep", {"seconds": 0, "path": str(done / str(n))}, seconds=30))
                for n in range(5)
            ]
            await asyncio.sleep(0.05)  # they stand in the queue
            for task in queued[:4]:
                task.cancel()
            await asyncio.gather(*queued[:4], return_exceptions=True)
            enough.touch()
            await busy
            await queued[4]
            assert [path.name for path in done.iterdir()] == ["4"]
            begun.unlink()
            long = asyncio.create_task(pool.run(f"{ECHO}:hold", {"begun": str(begun)}, seconds=90))
            await appears(begun)
            long.cancel()
            with pytest.raises(asyncio.CancelledError):
                await long
            async with asyncio.timeout(60):  # the place is free again although that would never have ended
                await pool.run(f"{ECHO}:sleep", {"seconds": 0}, seconds=30)
        finally:
            await pool.close()

    asyncio.run(main())


def test_pool_refuses_a_queue_without_end() -> None:
    async def main() -> None:
        pool = Pool(1, waiting=2)
        try:
            tasks = [asyncio.create_task(pool.run(f"{ECHO}:sleep", {"seconds": 0.2}, seconds=30)) for _ in range(6)]
            found = await asyncio.gather(*tasks, return_exceptions=True)
            assert sum(isinstance(one, LimitError) for one in found) == 3
            assert sum(isinstance(one, int) for one in found) == 3
        finally:
            await pool.close()

    asyncio.run(main())


def test_host_streams_and_ends_streams_that_nobody_reads(tmp_path: Path) -> None:
    async def main() -> None:
        host = Host(most=2)
        try:
            assert [item async for item in host.stream(f"{ECHO}:count", {"upto": 500})] == list(range(500))
            closed = tmp_path / "closed"
            items = host.stream(f"{ECHO}:count", {"upto": 10**9, "path": str(closed)})
            assert await anext(items) == 0
            await items.aclose()
            await appears(closed)
            with contextlib.suppress(WorkerDied):
                await host.run(f"{ECHO}:die", {})
            assert (await host.run(f"{ECHO}:back", {"x": 1}))["x"] == 1
        finally:
            await host.close()

    asyncio.run(main())


def test_the_browser_going_away_ends_the_calculation(tmp_path: Path) -> None:
    import socket

    with serving.in_thread(tmp_path / "w") as (client, studio):
        serving.add_text(tmp_path / "w")
        body = json.dumps({"preset": "seed", "settings": {"train.batch": 8}}).encode()
        request = (
            f"POST /api/train/speed HTTP/1.1\r\nHost: {client.host}\r\nCookie: {client.cookie}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        line = socket.create_connection(("127.0.0.1", client.port))
        line.sendall(request.encode() + body)
        child = studio.slow._children[0]
        serving.until(lambda: child.pid)
        pid = child.pid
        line.close()
        serving.until(lambda: not serving.alive(pid), seconds=20)
        assert client.get("/api/studio").status == 200


# --------------------------------------------------------------------------------------------------- live events


def test_a_browser_that_goes_while_it_asks_is_no_error(tmp_path: Path) -> None:
    """Half a body, and the line is cut; a question, and the line is cut."""
    with serving.started(tmp_path / "w") as running:
        client = running.client
        head = f"Host: {client.host}\r\nCookie: {client.cookie}\r\n"
        half = (
            f"POST /api/calculate/row HTTP/1.1\r\n{head}Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{{"
        )
        for text in [half, f"GET /api/train/runs HTTP/1.1\r\n{head}\r\n"] * 20:
            with socket.create_connection(("127.0.0.1", client.port), timeout=30) as line:
                line.sendall(text.encode())
        assert client.get("/api/studio").status == 200
        assert "Traceback" not in running.log.read_text()
    assert "Traceback" not in running.log.read_text()


def test_events_arrive_once_and_resume_at_a_cursor(tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    (workspace / "runs" / "a").mkdir(parents=True)
    path = workspace / "runs" / "a" / "events.jsonl"
    with serving.in_thread(workspace) as (client, _):
        with client.socket() as tab:
            tab.send(json.dumps({"watch": {"runs/a": 0}}))
            log = EventLog(path)
            log.emit("start", 0, steps=9)
            for step in range(1, 6):
                log.emit("step", step, loss=float("nan"))
            seen, cursor = _read(tab, 6)
            assert [e["step"] for e in seen] == [0, 1, 2, 3, 4, 5]
            assert seen[1]["loss"] == "NaN"
            assert cursor == path.stat().st_size
        log.emit("step", 6, loss=1.0)  # while nobody is connected
        with client.socket() as tab:
            tab.send(json.dumps({"watch": {"runs/a": cursor}}))
            seen, cursor = _read(tab, 1)
            assert [e["step"] for e in seen] == [6]
            with path.open("ab") as file:  # a torn line and foreign ones are left out, what follows is not
                file.write(b'not json\n[1]\n{"event": "step", "ste')
                file.flush()
                time.sleep(0.1)
                file.write(b'p": 7}\n')
            seen, _ = _read(tab, 1)
            assert [e["step"] for e in seen] == [7]
            path.write_text('{"event": "start", "step": 0}\n')  # begun anew
            message = _message(tab)
            assert message["reset"] is True
            seen, _ = _read(tab, 1)
            assert seen[0]["event"] == "start"
        log.close()


def _message(tab: Any) -> dict[str, Any]:
    while "run" not in (message := json.loads(tab.recv(timeout=20))):
        pass
    return message  # type: ignore[no-any-return]


def _read(tab: Any, count: int) -> tuple[list[dict[str, Any]], int]:
    seen: list[dict[str, Any]] = []
    cursor = 0
    while len(seen) < count:
        message = _message(tab)
        seen += message.get("events", [])
        cursor = message["cursor"]
    return seen, cursor


def test_many_runs_on_one_socket(tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    logs = []
    for name in range(20):
        folder = workspace / f"r{name}"
        folder.mkdir(parents=True)
        logs.append(EventLog(folder / "events.jsonl"))
    with serving.in_thread(workspace) as (client, _), client.socket() as tab:
        tab.send(json.dumps({"watch": {f"r{name}": 0 for name in range(20)}}))
        for step in range(30):
            for log in logs:
                log.emit("step", step, loss=1.0)
        got: dict[str, list[int]] = {}
        while sum(map(len, got.values())) < 600:
            message = _message(tab)
            got.setdefault(message["run"], []).extend(e["step"] for e in message["events"])
        assert all(steps == list(range(30)) for steps in got.values())
    for log in logs:
        log.close()


@given(st.lists(st.sampled_from([1, 7, 300, CHUNK // 3, CHUNK + 5]), max_size=8), st.integers(1, 5000))
@settings(max_examples=30)
def test_a_tail_misses_nothing(tmp_path_factory: pytest.TempPathFactory, sizes: list[int], cut: int) -> None:
    """Lines of any length, appended in pieces; each that fits a message comes exactly once."""
    path = tmp_path_factory.mktemp("tail") / "events.jsonl"
    lines = [json.dumps({"event": "x", "step": n, "text": "y" * size}) for n, size in enumerate(sizes)]
    data = "".join(line + "\n" for line in lines).encode()
    tail, seen = Tail("r", path, 0), []
    path.write_bytes(b"")
    for start in range(0, len(data), max(cut, len(data) // 20)):
        with path.open("ab") as file:
            file.write(data[start : start + max(cut, len(data) // 20)])
        while (more := tail.more()) is not None:
            seen += [event["step"] for event in json.loads(more)["events"]]
    assert seen == [n for n, line in enumerate(lines) if len(line) < CHUNK]


@pytest.mark.prove
def test_budget_event_lag(tmp_path: Path) -> None:
    """p95 below 50 ms from the write of the training to the tab, with seven tabs on ten runs."""
    workspace = tmp_path / "w"
    for name in range(10):
        (workspace / f"r{name}").mkdir(parents=True)
    with serving.started(workspace) as running, contextlib.ExitStack() as stack:
        tabs = [stack.enter_context(running.client.socket()) for _ in range(7)]
        for tab in tabs:
            tab.send(json.dumps({"watch": {f"r{name}": 0 for name in range(10)}}))
        lags: list[float] = []

        def listen(tab: Any) -> None:
            seen = 0
            while seen < 1000:
                message = _message(tab)
                now = time.time()
                lags.extend(now - event["sent"] for event in message["events"])
                seen += len(message["events"])

        threads = [threading.Thread(target=listen, args=(tab,)) for tab in tabs]
        for thread in threads:
            thread.start()
        logs = [EventLog(workspace / f"r{name}" / "events.jsonl") for name in range(10)]
        for step in range(100):
            for log in logs:
                log.emit("step", step, sent=time.time())
            time.sleep(0.03)
        for thread in threads:
            thread.join(60)
        p95 = statistics.quantiles(lags, n=20)[-1]
        assert len(lags) == 7000
        serving.figure("event lag, seven tabs on ten runs: median", statistics.median(lags) * 1e3, "ms")
        serving.figure("event lag, seven tabs on ten runs: p95", p95 * 1e3, "ms", 50)
        assert p95 < 0.05


# ------------------------------------------------------------------------------------------------------ the index

KINDS = ["step", "step", "step", "eval", "checkpoint", "sample", "alert", "stop", "resume", "start"]
_events = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 12), st.sampled_from([1.0, 2.5, "NaN", None])), max_size=40
)


@example([("step", 0, 1.0), ("step", 0, 1.0)], [0])  # a step that is logged twice
@given(_events, st.lists(st.integers(0, 40), max_size=4))
@settings(max_examples=25)
def test_the_index_grows_as_the_log_does(
    tmp_path_factory: pytest.TempPathFactory, made: list[tuple[str, int, Any]], cuts: list[int]
) -> None:
    """Read in pieces, the summary is that of the whole log, whatever a resume makes void."""
    root = tmp_path_factory.mktemp("index")
    folder = root / "runs" / "a"
    folder.mkdir(parents=True)
    (folder / "run.toml").write_text('preset = "nano"\n')
    path = folder / "events.jsonl"
    path.write_bytes(b"")
    store = Store(Workspace(root))
    last = 0
    for cut in [*sorted(cuts), len(made)]:
        with path.open("a") as file:
            for time_, (kind, step, loss) in list(enumerate(made))[last:cut]:
                file.write(json.dumps({"event": kind, "step": step, "time": 1e9 + time_, "loss": loss}) + "\n")
        last = max(last, cut)
        found = store.runs()[0].summary
        assert found == summarise(current(read_events(path)))
    store.close()


def test_the_index_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(5):
        serving.add_log(tmp_path, f"runs/r{n}", 50)
    store = Store(Workspace(tmp_path))
    assert [run.name for run in store.runs()] == [f"runs/r{n}" for n in range(5)]
    opened: list[str] = []
    real = Path.open

    def watch(self: Path, *args: Any, **kwargs: Any) -> Any:
        opened.append(self.name)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", watch)
    monkeypatch.setattr(Path, "read_bytes", lambda self: opened.append(self.name))
    assert len(store.runs()) == 5
    assert opened == []
    with real(tmp_path / "runs" / "r3" / "events.jsonl", "a") as file:
        file.write('{"event": "step", "step": 51, "time": 1, "loss": 0.5}\n')
    assert {run.name: run.summary.step for run in store.runs()}["runs/r3"] == 51
    assert opened == ["events.jsonl"]
    store.close()


def test_a_damaged_index_is_made_again(tmp_path: Path) -> None:
    serving.add_log(tmp_path, "runs/a", 10)
    store = Store(Workspace(tmp_path))
    assert store.runs()[0].summary.step == 10
    store.close()
    (tmp_path / OWN / "index.sqlite").write_bytes(b"SQLite format 3\0" + b"garbage" * 900)
    store = Store(Workspace(tmp_path))
    assert store.runs()[0].summary.step == 10
    store.close()
    with sqlite3.connect(tmp_path / OWN / "index.sqlite") as base:
        base.execute("pragma user_version = 99")
    base.close()
    store = Store(Workspace(tmp_path))
    assert store.runs()[0].summary.step == 10
    store.close()


def test_runs_that_go_are_gone_and_broken_ones_are_listed(tmp_path: Path) -> None:
    import shutil

    serving.add_log(tmp_path, "runs/a", 10)
    serving.add_log(tmp_path, "b", 10)
    (tmp_path / "b" / "run.toml").write_text("preset = [")
    store = Store(Workspace(tmp_path))
    found = {run.name: run for run in store.runs()}
    assert found["runs/a"].problem is None
    assert "not valid TOML" in str(found["b"].problem)
    shutil.rmtree(tmp_path / "runs" / "a")
    assert [run.name for run in store.runs()] == ["b"]
    store.close()


def test_the_speed_is_smoothed() -> None:
    found = Summary()
    found.take({"event": "step", "step": n, "tokens_per_s": 1000.0} for n in range(5))
    assert found.rate == pytest.approx(1000)
    found.take({"event": "step", "step": n, "tokens_per_s": 0.0} for n in range(20))
    assert found.rate == pytest.approx(500)  # after one half-life


def test_summary_keeps_a_small_curve() -> None:
    steps = [{"event": "step", "step": n, "time": float(n), "loss": 1 / (n + 1)} for n in range(10_000)]
    found = Summary()
    found.take(steps)
    assert 48 <= len(found.curve) < 96
    assert found.curve == [1 / (n + 1) for n in range(0, 10_000, found.stride)][: len(found.curve)]
    assert found.metrics["step.loss"].low_step == 9999


@pytest.mark.prove
def test_budget_two_hundred_runs(tmp_path: Path) -> None:
    """200 runs with 50 metrics are listed in less than half a second, once the index has seen them."""
    workspace = tmp_path / "w"
    for n in range(200):
        serving.add_log(workspace, f"runs/run-{n:03}", 200, metrics=50)
    with serving.started(workspace) as running:
        begin = time.perf_counter()
        assert len(running.client.ask("/api/train/runs")["runs"]) == 200
        cold = time.perf_counter() - begin
        times = []
        for _ in range(7):
            begin = time.perf_counter()
            running.client.ask("/api/train/runs")
            times.append(time.perf_counter() - begin)
        serving.figure("list of 200 runs × 50 metrics, first time", cold * 1e3, "ms")
        serving.figure("list of 200 runs × 50 metrics", min(times) * 1e3, "ms", 500)
        assert min(times) < 0.5


# --------------------------------------------------------------------------------------------------- the rest of it


def test_a_process_is_named_by_its_birth() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        born = process.birth(child.pid)
        assert born is not None
        assert process.state(child.pid, born) == "running"
        assert process.state(child.pid, born + "1") == "gone"  # the same number, another process
        child.kill()
        serving.until(lambda: process.state(child.pid, born) == "gone")  # also while it waits to be reaped
    assert process.birth(child.pid) is None


def test_pages_without_a_bundle_say_what_to_do(tmp_path: Path) -> None:
    from starlette.testclient import TestClient

    from cllm.studio.app import create_app
    from cllm.studio.security import Access

    access = Access(80, ["testserver"])
    with TestClient(create_app(Workspace(tmp_path), access, static=tmp_path / "none")) as client:
        client.cookies.set(access.cookie, access.token)
        answer = client.get("/")
        assert answer.status_code == 503
        assert "make studio" in answer.text
        assert client.get("/api/studio").json()["workspace"] == str(tmp_path.resolve())


def test_starting_needs_no_torch() -> None:
    """The server itself stays small; what needs torch is in its child processes."""
    code = "import sys, cllm.studio.server; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_ctrl_c_ends_it_with_zero(tmp_path: Path) -> None:
    with serving.started(tmp_path / "w") as running, running.client.socket():
        pass
    assert running.process.returncode == 0
    assert "Traceback" not in running.log.read_text()


def test_a_taken_port(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "cllm", "studio", str(tmp_path), "--no-browser", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "choose another" in done.stderr


def test_no_such_workspace(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cllm", "studio", str(tmp_path / "none"), "--no-browser", "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "no such workspace" in done.stderr
