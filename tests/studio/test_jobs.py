"""Real trainings as the studio starts, pauses, stops and finds them."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cllm.errors import LimitError, RunError
from cllm.studio import jobs as jobs_module
from cllm.studio import process
from cllm.studio.jobs import Jobs, setting_text, train_arguments
from cllm.studio.workspace import Workspace
from cllm.training.events import current, read_events

serving = sys.modules["serving"]
TINY = {
    "model.layers": 1,
    "model.width": 16,
    "model.heads": 2,
    "model.ff": 16,
    "model.context": 16,
    "train.batch": 2,
    "train.sample_every": 0,
    "train.eval_every": 0,
    "data.tokenizer": "char",
}


def tiny(**more: Any) -> dict[str, Any]:
    return TINY | more


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    serving.add_text(tmp_path)
    yield Workspace(tmp_path)
    serving.end_jobs(tmp_path)


def start(jobs: Jobs, name: str, steps: int, **more: Any) -> Any:
    settings = tiny(**{"train.steps": steps, **more})
    return jobs.start(name, train_arguments(out=name, data=["sea.txt"], preset="nano", settings=settings))


def steps_of(workspace: Workspace, name: str) -> int:
    path = workspace.root / name / "events.jsonl"
    if not path.exists():
        return -1
    return max((event["step"] for event in read_events(path) if event["event"] == "step"), default=0)


def test_a_run_from_beginning_to_end(workspace: Workspace) -> None:
    jobs = Jobs(workspace)
    job = start(jobs, "runs/a", 20)
    assert job.ours
    assert job.state == "running"
    assert jobs.of("runs/a") is not None
    ended = serving.until(lambda: (now := jobs.of("runs/a")) and now.state == "ended" and now)
    assert ended.code == 0
    assert ended.error is None
    assert steps_of(workspace, "runs/a") == 20
    assert "step 20" in jobs.log("runs/a")
    # what is shown as its command does the same
    assert shlex.split(job.command)[:4] == ["cllm", "train", "sea.txt", "--out"]
    with pytest.raises(RunError, match="no process"):
        jobs.pause("runs/a")


def test_pause_continue_stop_resume(workspace: Workspace) -> None:
    jobs = Jobs(workspace)
    start(jobs, "runs/a", 100_000)
    with pytest.raises(RunError, match="already"):
        start(jobs, "runs/a", 5)
    serving.until(lambda: steps_of(workspace, "runs/a") > 5)
    assert jobs.pause("runs/a").state == "paused"
    time.sleep(0.2)
    held = steps_of(workspace, "runs/a")
    time.sleep(0.4)
    assert steps_of(workspace, "runs/a") == held
    assert jobs.go_on("runs/a").state == "running"
    serving.until(lambda: steps_of(workspace, "runs/a") > held + 5)
    jobs.pause("runs/a")
    stopping = jobs.stop("runs/a")  # also wakes it, so that it can save
    assert stopping.state in ("stopping", "ended")
    ended = serving.until(lambda: (now := jobs.of("runs/a")) and now.state == "ended" and now)
    assert ended.code == 130
    assert ended.error is None
    events = read_events(workspace.root / "runs/a" / "events.jsonl")
    assert events[-1] | {"time": 0} == {"event": "stop", "step": events[-1]["step"], "time": 0, "reason": "SIGINT"}
    saved = (workspace.root / "runs/a" / "latest").read_text().strip()
    assert int(saved.removeprefix("step-")) == events[-1]["step"] > held
    jobs.start("runs/a", train_arguments(out="runs/a", resume=True))
    serving.until(lambda: steps_of(workspace, "runs/a") > events[-1]["step"])
    resumed = [e for e in read_events(workspace.root / "runs/a" / "events.jsonl") if e["event"] == "resume"]
    assert resumed[0]["step"] == events[-1]["step"]
    jobs.stop("runs/a")
    jobs.stop("runs/a")  # twice: at once
    serving.until(lambda: (now := jobs.of("runs/a")) and now.state == "ended")


def test_pausing_changes_no_bit(workspace: Workspace) -> None:
    jobs = Jobs(workspace)
    for name in ("runs/whole", "runs/held"):
        start(jobs, name, 600)  # so many that it is not over when it is paused
        if name == "runs/held":
            serving.until(lambda: steps_of(workspace, "runs/held") > 20)
            assert jobs.pause(name).state == "paused"
            time.sleep(0.2)
            assert steps_of(workspace, name) < 600
            jobs.go_on(name)
        serving.until(lambda name=name: (now := jobs.of(name)) and now.state == "ended")
    losses = [
        [e["loss"] for e in current(read_events(workspace.root / name / "events.jsonl")) if e["event"] == "step"]
        for name in ("runs/whole", "runs/held")
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 600


def test_a_server_that_died_finds_its_jobs(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    workspace = tmp_path / "w"
    serving.add_text(workspace)
    request.addfinalizer(lambda: serving.end_jobs(workspace))
    with serving.started(workspace) as first:
        asked = {"name": "a", "data": ["sea.txt"], "preset": "nano", "settings": tiny(**{"train.steps": 100_000})}
        job = first.client.ask("/api/train/start", asked)["job"]
        space = Workspace(workspace)
        serving.until(lambda: steps_of(space, "runs/a") > 5)
        first.kill()
        before = steps_of(space, "runs/a")
        serving.until(lambda: steps_of(space, "runs/a") > before + 5)  # the training does not notice
    with serving.started(workspace) as second:
        row = second.client.ask("/api/train/runs")["runs"][0]
        assert (row["name"], row["state"]) == ("runs/a", "running")
        found = second.client.ask("/api/train/run", run="runs/a")["job"]
        assert found["pid"] == job["pid"]
        assert second.client.ask("/api/train/pause", {"run": "runs/a"})["job"]["state"] == "paused"
    with serving.started(workspace) as third:  # Ctrl-C ended the second one
        assert third.client.ask("/api/train/runs")["runs"][0]["state"] == "paused"
        third.client.ask("/api/train/stop", {"run": "runs/a"})
        row = serving.until(lambda: (r := third.client.ask("/api/train/runs")["runs"][0])["state"] == "stopped" and r)
        assert "resume" in row["words"]
        assert third.client.ask("/api/train/run", run="runs/a")["stop"] == "SIGINT"
    serving.until(lambda: process.birth(job["pid"]) is None)


def test_a_training_from_a_terminal_is_found_by_its_lock(workspace: Workspace) -> None:
    arguments = train_arguments(
        out="runs/t", data=["sea.txt"], preset="nano", settings=tiny(**{"train.steps": 100_000})
    )
    command = [sys.executable, "-m", "cllm", "train", *arguments, "--quiet"]
    with subprocess.Popen(command, cwd=workspace.root, stderr=subprocess.DEVNULL) as terminal:
        try:
            jobs = Jobs(workspace)
            serving.until(lambda: steps_of(workspace, "runs/t") > 3)
            job = jobs.of("runs/t")
            assert job is not None
            assert (job.pid, job.ours, job.state) == (terminal.pid, False, "running")
            assert jobs.pause("runs/t").state == "paused"
            assert jobs.go_on("runs/t").state == "running"
            with pytest.raises(RunError, match="already"):
                jobs.start("runs/t", train_arguments(out="runs/t", resume=True))
            jobs.stop("runs/t")
            assert terminal.wait(30) == 130
            assert jobs.of("runs/t") is None
        finally:
            terminal.kill()


def test_failures_are_told_in_words(workspace: Workspace) -> None:
    jobs = Jobs(workspace)
    (workspace.root / "empty.txt").write_text("")
    (workspace.root / "latin.txt").write_bytes("Übung macht den Meister\n".encode("latin-1") * 50)
    jobs.start("runs/e", train_arguments(out="runs/e", data=["empty.txt"], preset="nano"))
    jobs.start("runs/l", train_arguments(out="runs/l", data=["latin.txt"], preset="nano"))
    for name, words in (("runs/e", "empty"), ("runs/l", "UTF-8")):
        ended = serving.until(lambda name=name: (now := jobs.of(name)) and now.state == "ended" and now)
        assert ended.code == 2
        assert words in ended.error
        assert "Traceback" not in ended.error
    start(jobs, "runs/k", 100_000)
    serving.until(lambda: steps_of(workspace, "runs/k") > 3)
    os.kill(jobs.of("runs/k").pid, signal.SIGKILL)  # type: ignore[union-attr]
    ended = serving.until(lambda: (now := jobs.of("runs/k")) and now.state == "ended" and now)
    assert "SIGKILL" in ended.error


def test_no_other_process_is_ever_signalled(workspace: Workspace) -> None:
    """A process id that now belongs to somebody else is not the job's."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        jobs = Jobs(workspace)
        record = jobs_module.Record(
            "1-x", "runs/a", ["python", "-m", "cllm", "train"], other.pid, "an older birth", 1.0
        )
        folder = workspace.own / "jobs"
        (folder / "1-x.json").write_text(json.dumps({f: getattr(record, f) for f in record.__struct_fields__}))
        jobs = Jobs(workspace)
        job = jobs.of("runs/a")
        assert job is not None
        assert job.state == "ended"
        for act in (jobs.pause, jobs.stop, jobs.go_on):
            with pytest.raises(RunError):
                act("runs/a")
        assert other.poll() is None
        other.kill()


def test_not_too_many_at_once(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "MOST", 1)
    jobs = Jobs(workspace)
    start(jobs, "runs/a", 100_000)
    with pytest.raises(LimitError, match="active"):
        start(jobs, "runs/b", 5)
    jobs.stop("runs/a")
    with contextlib.suppress(RunError):  # it may be gone by then
        jobs.stop("runs/a")
    serving.until(lambda: not jobs.active())


def test_damaged_records_are_passed_over(workspace: Workspace) -> None:
    Jobs(workspace)
    (workspace.own / "jobs" / "0-x.json").write_text("{")
    assert Jobs(workspace).all() == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(3e-4, "0.0003"), ("cosine", "cosine"), ("true", '"true"'), (True, "true"), ([0.9, 0.95], "[0.9,0.95]"),
     ("a/b c", '"a/b c"'), (10, "10"), ("nan", '"nan"'), ('q"\\', '"q\\"\\\\"')],
)  # fmt: skip
def test_settings_survive_the_command_line(value: Any, text: str) -> None:
    from cllm.config import split_setting

    assert setting_text(value) == text
    assert split_setting(f"a.b={text}") == ("a.b", value)
