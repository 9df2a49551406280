"""Measurements and studies from the studio: real jobs, files found as they are, and nothing outside the workspace."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cllm.cli import bench as commands_of_bench
from cllm.cli.describe import commands
from cllm.errors import UsageError
from cllm.studio import bench_options, bench_results, bench_studies, process
from cllm.studio.workspace import Outside, Workspace
from cllm.training.lock import RunLock

serving = sys.modules["serving"]
ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "docs" / "studies" / "symmetry-bias"
STUDY = """\
title = "Dropout on the sea"
seeds = [1, 2]

[run]
preset = "nano"
model.layers = 1
model.width = 16
model.heads = 2
model.ff = 16
model.context = 16
train.steps = {steps}
train.batch = 2
train.sequence = 16
train.eval_every = 30
train.sample_every = 0
data.tokenizer = "char"
data.path = ["sea.txt"]

[grid]
"model.dropout" = [0.0, 0.1]
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server whose workspace has a text, a study and two measurements."""
    workspace = tmp_path_factory.mktemp("bench") / "workspace"
    workspace.mkdir()
    serving.add_text(workspace)
    (workspace / "dropout.toml").write_text(STUDY.format(steps=2))
    serving.add_measurement(workspace, "benchmarks", date="2026-01-02")
    serving.add_measurement(workspace, "benchmarks/history/first", date="2026-01-01", commit="aaaa")
    with serving.started(workspace) as server:
        yield server
    serving.end_jobs(workspace)


def ended(client: Any, kind: str, run: str) -> Any:
    """The job's answer once it has ended."""

    def look() -> Any:
        now = client.ask("/api/bench/job", kind=kind, run=run)
        return now if now["job"]["state"] == "ended" else None

    return serving.until(look, seconds=180, every=0.1)


# ------------------------------------------------------------------------------------------------------- the commands


def test_the_commands_are_those_of_the_command_line(running: Any) -> None:
    found = {one["name"]: one for one in running.client.ask("/api/bench/commands")["commands"]}
    assert set(found) == {name for name in commands_of_bench.app if not name.startswith("-")}
    options = {option["name"]: option for option in found["train-step"]["options"]}
    assert options["preset"]["default"] == "small"
    assert "nano" in options["preset"]["choices"]
    assert options["peers"]["many"]
    assert options["skip_memory"]["type"] == "bool"
    assert not {"save", "json"} & {option["name"] for one in found.values() for option in one["options"]}
    for one in found.values():
        assert one["about"]
        assert "Examples" not in one["more"]


def test_every_option_survives_the_way_back(tmp_path: Path) -> None:
    """What the studio writes for each option's own kind of value is what the command line reads."""
    workspace = Workspace(tmp_path)
    for command in commands("bench"):
        given: dict[str, Any] = {}
        for option in command["options"]:
            choices = option["choices"] or bench_options.choices(option)
            value: Any = {"int": 3, "float": 0.5, "bool": option["default"] is False, "str": "x", "path": "x"}[
                option["type"]
            ]
            if choices:
                value = choices[-1]
            given[option["name"]] = [value] if option["many"] else value
            option["choices"] = choices
        words = bench_options.line(command, given, workspace)
        _, bound, _ = commands_of_bench.app.parse_args(
            [command["name"], *words], print_error=False, exit_on_error=False
        )
        for option in command["options"]:
            assert option["name"] in bound.arguments or given[option["name"]] == option["default"], option


NUMBERS = {
    "name": "numbers",
    "options": [
        {"name": "rounds", "flag": "--rounds", "type": "int", "many": False, "choices": None, "default": 5},
        {"name": "seeds", "flag": "--seeds", "type": "int", "many": True, "choices": None, "default": [1, 2]},
        {"name": "fast", "flag": "--fast", "type": "bool", "many": False, "choices": None, "default": True},
        {"name": "preset", "flag": "--preset", "type": "str", "many": False, "choices": ["a", "b"], "default": "a"},
        {"name": "folder", "flag": "--folder", "type": "path", "many": False, "choices": None, "default": None},
        {"name": "lr", "flag": "--lr", "type": "float", "many": False, "choices": None, "default": 0.1},
    ],
}


def test_options_become_words(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    given = {"rounds": 3, "seeds": [4, 5], "fast": False, "preset": "b", "folder": "-odd name", "lr": 1e-3}
    assert bench_options.line(NUMBERS, given, workspace) == [
        "--rounds=3", "--seeds=4", "--seeds=5", "--no-fast", "--preset=b", "--folder=-odd name", "--lr=0.001",
    ]  # fmt: skip
    assert bench_options.line(NUMBERS, {"rounds": 5, "seeds": [1, 2], "folder": None}, workspace) == []


@pytest.mark.parametrize(
    "given",
    [
        {"rounds": "3"}, {"rounds": 3.5}, {"rounds": True}, {"rounds": 2**31}, {"rounds": [3]}, {"seeds": 3},
        {"seeds": []}, {"seeds": ["x"]}, {"seeds": list(range(100))}, {"fast": 1}, {"preset": "c"}, {"preset": ""},
        {"folder": "x" * 201}, {"lr": "0.1"}, {"lr": float("nan")}, {"save": "x"}, {"other": 1},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_options_are_refused(given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        bench_options.line(NUMBERS, given, Workspace(tmp_path))


@pytest.mark.parametrize("path", ["/etc", "../x", "a/../../x", "link/x", "~/x", "a\\b", "a\0b"])
def test_options_stay_in_the_workspace(path: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/")
    with pytest.raises(Outside):
        bench_options.line(NUMBERS, {"folder": path}, Workspace(tmp_path))


# --------------------------------------------------------------------------------------------------------------- jobs


def test_a_measurement_is_made_and_found(running: Any) -> None:
    client = running.client
    with client.socket() as socket:
        job = client.ask("/api/bench/start", {"name": "prepare", "options": {"size": [1], "vocab_size": 300}})
        assert job["command"].startswith("cllm bench prepare --size=1 --vocab-size=300 --save=benchmarks/history/")
        second = client.post("/api/bench/start", {"name": "machine"})
        assert (second.status, second.json["kind"]) == (409, "RunError")
        done = ended(client, "bench", job["run"])
        states = set()
        while "ended" not in states:
            message = json.loads(socket.recv(20))
            if message.get("topic") == "bench":
                states |= {one["state"] for one in message["value"]["benches"] if one["id"] == job["id"]}
    assert done["job"]["code"] == 0, done["log"]
    assert "1 MB" in done["log"]
    assert [table["name"] for table in done["tables"]] == ["prepare"]
    measured = client.ask("/api/bench/history", name="prepare")["measurements"]
    assert [one["file"] for one in measured] == [done["tables"][0]["file"]]
    on_disk = json.loads((running.workspace / measured[0]["file"]).read_text())
    assert measured[0]["rows"] == on_disk["rows"]  # what the command wrote, nothing else
    assert measured[0]["commit"] == on_disk["commit"]
    prepare = next(one for one in client.ask("/api/bench/commands")["commands"] if one["name"] == "prepare")
    assert prepare["times"][0]["options"] == ["--size=1", "--vocab-size=300"]
    assert 0 < prepare["times"][0]["seconds"] < 600


def test_a_measurement_outlives_the_server_and_is_stopped(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    try:
        with serving.started(workspace) as first:
            job = first.client.ask("/api/bench/start", {"name": "prepare", "options": {"size": [400]}})
            first.kill()
            assert serving.alive(job["pid"])
        with serving.started(workspace) as second:
            found = second.client.ask("/api/bench/jobs")["benches"]
            assert [(one["id"], one["state"]) for one in found] == [(job["id"], "running")]
            second.client.ask("/api/bench/act", {"kind": "bench", "run": job["run"], "what": "stop"})
            now = ended(second.client, "bench", job["run"])
            assert now["tables"] == []
            assert process.birth(job["pid"]) is None  # gone, or waiting to be reaped
            again = second.client.post("/api/bench/act", {"kind": "bench", "run": job["run"], "what": "stop"})
            assert again.status == 409
    finally:
        serving.end_jobs(workspace)


def test_what_else_runs(running: Any) -> None:
    around = running.client.ask("/api/bench/around")
    assert around["cores"] >= 1
    assert around["busy"] is None or 0 <= around["busy"] <= 1
    folder = serving.add_log(running.workspace, "runs/elsewhere", 2, end=None)
    with RunLock(folder):  # as a training from a terminal holds it
        jobs = running.client.ask("/api/bench/around")["jobs"]
    assert {"kind": "train", "name": "runs/elsewhere"} in jobs
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("start", {"name": "nothing"}, 400),
        ("start", {"name": "numbers", "options": {"rounds": "x"}}, 400),
        ("start", {"name": "moments", "options": {"text": ["/etc/passwd"]}}, 403),
        ("start", {"name": "moments", "options": {"text": ["../x"]}}, 403),
        ("start", {"name": "--help"}, 400),
        ("start", {"nome": "numbers"}, 400),
        ("act", {"kind": "bench", "run": "runs/none", "what": "stop"}, 404),
        ("act", {"kind": "bench", "run": "../x", "what": "stop"}, 403),
        ("act", {"kind": "train", "run": "x", "what": "stop"}, 400),
        ("act", {"kind": "bench", "run": "x", "what": "kill"}, 400),
        ("ablate", {"file": "sea.txt"}, 400),
        ("ablate", {"file": "none.toml"}, 404),
        ("ablate", {"file": "../x.toml"}, 403),
    ],
)
def test_wrong_requests(running: Any, path: str, body: Any, status: int) -> None:
    answer = running.client.post(f"/api/bench/{path}", body)
    assert answer.status == status, answer.body
    assert answer.json["error"]


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("history", {"name": "none"}, 404),
        ("history", {}, 400),
        ("job", {"kind": "bench", "run": "x"}, 404),
        ("study", {}, 400),
        ("study", {"folder": "../x"}, 403),
        ("study", {"folder": "/etc"}, 403),
        ("study", {"folder": "benchmarks"}, 404),
        ("study", {"file": "../x.toml"}, 403),
        ("study", {"file": "sea.txt"}, 400),
    ],
)
def test_wrong_questions(running: Any, path: str, query: dict[str, str], status: int) -> None:
    answer = running.client.get(f"/api/bench/{path}", **query)
    assert answer.status == status, answer.body


# ------------------------------------------------------------------------------------------------------------ results


def test_measurements_are_found_as_they_are(tmp_path: Path) -> None:
    serving.add_measurement(tmp_path, "a", date="2026-01-02", commit="bbbb")
    serving.add_measurement(tmp_path, "b/c", date="2026-01-01", commit="aaaa", machine=serving.MACHINE | {"cores": 4})
    serving.add_measurement(tmp_path, "d", "other", date="2026-01-03", machine=None, commit=None)
    (tmp_path / "plain.json").write_text('{"format": "another", "rows": []}')
    (tmp_path / "broken.json").write_text('{"format": "cllm-bench-1", "name": "x"')
    (tmp_path / "nameless.json").write_text(
        '{"format": "cllm-bench-1", "name": "x", "title": "", "date": "", "rows": [{"ms": 1}]}'
    )
    (tmp_path / "link.json").symlink_to(tmp_path / "a" / "numbers.json")
    found = bench_results.found(str(tmp_path))
    assert [(one["file"], one["name"], one["commit"]) for one in found["tables"]] == [
        ("d/other.json", "other", None),
        ("a/numbers.json", "numbers", "bbbb"),
        ("b/c/numbers.json", "numbers", "aaaa"),
    ]
    assert sorted(one["file"] for one in found["broken"]) == ["broken.json", "nameless.json"]
    history = bench_results.history(str(tmp_path), "numbers")
    assert [one["commit"] for one in history] == ["aaaa", "bbbb"]  # oldest first
    assert history[0]["machine"]["key"] != history[1]["machine"]["key"]
    assert history[0]["machine"]["name"] == "A, 4 cores, 8 GB"
    assert history[0]["rows"][0] == {
        "name": "exp", "ms": 2.0, "spread": 0.5, "gmpy2_ratio": 2.0, "limit_fraction": 0.5, "within_target": True,
    }  # fmt: skip
    assert history[0]["versions"] == {"cllm": "1"}


def test_a_changed_measurement_is_read_again(tmp_path: Path) -> None:
    path = serving.add_measurement(tmp_path, "a", commit="aaaa")
    assert bench_results.found(str(tmp_path))["tables"][0]["commit"] == "aaaa"
    serving.add_measurement(tmp_path, "a", commit="bbbb-longer")
    assert bench_results.found(str(tmp_path))["tables"][0]["commit"] == "bbbb-longer"
    path.unlink()
    assert bench_results.found(str(tmp_path))["tables"] == []


def test_a_file_too_large_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serving.add_measurement(tmp_path, "a")
    monkeypatch.setattr(bench_results, "LARGEST", 100)
    found = bench_results.found(str(tmp_path))
    assert found["tables"] == []
    assert "at most 100" in found["broken"][0]["why"]


# ------------------------------------------------------------------------------------------------------------ studies


def test_committed_results_are_shown_as_they_are(tmp_path: Path) -> None:
    shutil.copytree(COMMITTED, tmp_path / "studies" / "bias")
    (tmp_path / "studies" / "bias.toml").write_text(COMMITTED.with_suffix(".toml").read_text())
    listed = bench_studies.listing(str(tmp_path))
    assert [(one["folder"], one["file"], one["done"]) for one in listed] == [("studies/bias", "studies/bias.toml", 20)]
    stored = bench_studies.stored(str(tmp_path), "studies/bias")
    assert stored is not None
    raw = json.loads((COMMITTED / "results.json").read_text())
    assert stored["baseline"] == raw["baseline"]
    assert len(stored["conclusion"]) == 4
    assert stored["conclusion"][0].startswith("**symmetry_bias=0.5**: no difference")
    by_name = {cell["name"]: cell for cell in stored["cells"]}
    for told in raw["comparisons"]:
        shown = by_name[told["name"]]["comparison"]
        assert (shown.low, shown.high, shown.differences) == (told["low"], told["high"], told["differences"])
    runs = [run for run in raw["runs"] if run["cell"] == raw["baseline"]]
    curve = by_name[raw["baseline"]]["curve"]
    for place, step in enumerate(curve["step"]):
        values = [dict(map(tuple, run["curve"]))[step] for run in runs]
        assert curve["low"][place] == min(values)
        assert curve["high"][place] == max(values)
        assert min(values) <= curve["mean"][place] <= max(values)
    assert by_name[raw["baseline"]]["losses"] == {str(run["seed"]): run["loss"] for run in runs}


def test_broken_results_are_told(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "results.json").write_text('{"format": "cllm-ablation-1", "title": 3}')
    assert "not the results of a study" in bench_studies.listing(str(tmp_path))[0]["broken"]
    (tmp_path / "s" / "results.json").write_text('{"format": "another"}')
    assert bench_studies.listing(str(tmp_path)) == []


def test_other_toml_is_no_study(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('preset = "nano"\n')
    (tmp_path / "bad.toml").write_text("[grid]\n= 1\n")
    (tmp_path / "study.toml").write_text('[grid]\n"a" = [1, 2]\n"b" = [1, 2, 3]\n[[cell]]\nname = "x"\n')
    assert [
        (one["file"], one["cells"], one["seeds"], one["title"]) for one in bench_studies.listing(str(tmp_path))
    ] == [("study.toml", 7, 5, "study")]


def test_a_study_is_trained_stopped_and_goes_on(running: Any) -> None:
    client, workspace = running.client, running.workspace
    (workspace / "long.toml").write_text(STUDY.format(steps=60))
    before = client.ask("/api/bench/study", file="long.toml")
    assert (len(before["cells"]), before["seeds"], before["done"], before["steps"]) == (2, [1, 2], 0, 60)
    assert before["texts"] == ["sea.txt"]
    job = client.ask("/api/bench/ablate", {"file": "long.toml"})
    assert job["run"] == "studies/long"
    assert client.post("/api/bench/ablate", {"file": "long.toml"}).status == 409

    def under_way() -> Any:
        row = next(one for one in client.ask("/api/bench/jobs")["studies"] if one["run"] == "studies/long")
        now = row["progress"]["now"]
        return row if now and now["step"] > 2 else None

    row = serving.until(under_way)
    assert row["progress"]["now"]["cell"] == before["cells"][0]["folder"]
    assert row["progress"]["now"]["loss"] > 0
    act = {"kind": "ablate", "run": "studies/long"}
    assert client.ask("/api/bench/act", act | {"what": "pause"})["state"] == "paused"
    assert client.ask("/api/bench/act", act | {"what": "continue"})["state"] == "running"
    client.ask("/api/bench/act", act | {"what": "stop"})
    assert ended(client, "ablate", "studies/long")["job"]["code"] == 130
    stopped = client.ask("/api/bench/study", folder="studies/long", file="long.toml")
    assert stopped["done"] < 4
    client.ask("/api/bench/ablate", {"file": "long.toml"})
    done = ended(client, "ablate", "studies/long")
    assert done["job"]["code"] == 0, done["log"]
    whole = client.ask("/api/bench/study", folder="studies/long", file="long.toml")
    assert whole["done"] == 4
    assert whole["report"]
    on_disk = json.loads((workspace / "studies/long/results.json").read_text())
    losses = {(run["cell"], str(run["seed"])): run["loss"] for run in on_disk["runs"]}
    assert {(cell["name"], seed): loss for cell in whole["cells"] for seed, loss in cell["losses"].items()} == losses
    compared = whole["cells"][1]["comparison"]
    assert compared["pairs"] == 2
    assert compared["differences"] == on_disk["comparisons"][0]["differences"]
    assert any("dropout=0.1" in sentence for sentence in whole["conclusion"])
    # the same file with other settings is told, and nothing is overwritten
    (workspace / "long.toml").write_text(STUDY.format(steps=61))
    mixed = client.ask("/api/bench/study", file="long.toml")
    assert "other settings" in mixed["mixed"]
    assert client.post("/api/bench/ablate", {"file": "long.toml"}).status == 409
    assert json.loads((workspace / "studies/long/results.json").read_text()) == on_disk


@pytest.mark.parametrize("text", ["/etc/passwd", "../secret.txt", "link.txt"])
def test_a_study_reads_only_the_workspace(running: Any, text: str) -> None:
    outside = running.workspace.parent / "secret.txt"
    outside.write_text(serving.TEXT)
    link = running.workspace / "link.txt"
    if not link.is_symlink():
        link.symlink_to(outside)
    (running.workspace / "thief.toml").write_text(STUDY.format(steps=1).replace("sea.txt", text))
    assert running.client.post("/api/bench/ablate", {"file": "thief.toml"}).status == 403
    assert running.client.get("/api/bench/study", file="thief.toml").status == 403


def test_a_study_with_an_error_says_it_in_the_commands_words(running: Any) -> None:
    (running.workspace / "wrong.toml").write_text(STUDY.format(steps=1).replace("model.dropout", "model.dropuot"))
    answer = running.client.get("/api/bench/study", file="wrong.toml")
    assert answer.status == 400
    assert "dropuot" in answer.json["error"]
    assert answer.json["kind"] == "ConfigError"


def test_progress_reads_half_written_logs(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "a" / "seed-3"
    folder.mkdir(parents=True)
    with (folder / "events.jsonl").open("w") as log:
        log.write('{"event": "start", "step": 0}\n{"event": "step", "step": 7, "loss": 2.5}\nnot json\n{"event": "st')
    assert bench_studies.progress(tmp_path) == {
        "done": 0,
        "now": {"cell": "a", "seed": 3, "step": 7, "loss": 2.5},
    }
    (folder / "result.json").write_text("{}")
    assert bench_studies.progress(tmp_path) == {"done": 1, "now": None}
    assert bench_studies.progress(tmp_path / "none") == {"done": 0, "now": None}
