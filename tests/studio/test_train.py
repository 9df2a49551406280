"""The screen Train, server side: data, plans, runs, curves, notes."""

from __future__ import annotations

import json
import math
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cllm import config
from cllm.studio import settings_form
from cllm.studio.train_curves import Log, curves, half_life_for
from cllm.studio.train_story import seen_in, story
from cllm.training.curve import smooth
from cllm.training.events import EventLog, current, read_events, series

serving = sys.modules["serving"]


# ---------------------------------------------------------------------------------------------------------- data


def test_texts_of_the_workspace(tmp_path: Path) -> None:
    from cllm.studio.train_data import texts

    serving.add_text(tmp_path, "sea.txt")
    serving.add_text(tmp_path, "poems/a.txt")
    serving.add_text(tmp_path, "poems/b.md")
    serving.add_text(tmp_path, "poems/.hidden.txt")
    serving.add_text(tmp_path, "picture.png")
    serving.add_text(tmp_path, "rows.jsonl", '{"text": "one"}\n{"text": 2}\n')
    serving.add_run(tmp_path)  # its own files are no texts
    found = texts(str(tmp_path))
    assert [f["name"] for f in found["files"]] == ["rows.jsonl", "sea.txt", "poems/a.txt", "poems/b.md"]
    assert found["files"][1]["bytes"] == len(serving.TEXT)
    assert [(f["name"], f["files"]) for f in found["folders"]] == [("poems", 2)]
    assert not found["more"]


def test_previews(tmp_path: Path) -> None:
    import gzip

    from cllm.studio.train_data import HEAD, preview

    def of(name: str, data: bytes) -> dict[str, Any]:
        (tmp_path / name).write_bytes(data)
        return preview(str(tmp_path / name), name)

    assert of("a.txt", b"\xef\xbb\xbfshort")["text"] == "short"
    long = "ä" * 3 * HEAD
    assert of("b.txt", long.encode())["text"] == long[:HEAD]
    assert of("c.txt", ("x" + long).encode())["problem"] is None  # cut between the two bytes of a character
    bad = of("d.txt", b"fine so far \xff and on")
    assert bad["text"] == "fine so far "
    assert "byte 12" in bad["problem"]
    assert of("e.txt.gz", gzip.compress(b"packed"))["text"] == "packed"
    assert of("f.txt.gz", b"not packed")["problem"]
    rows = of("g.jsonl", b'{"text": "one"}\n{"text": 2}\n{"other": "x"}\n')["records"]
    assert rows[0]["text"] == "one"
    assert all(row["wrong"] for row in rows[1:])


def test_data_over_the_wire(server: Any) -> None:
    client = server.client
    assert "sea.txt" in [f["name"] for f in client.ask("/api/train/data")["files"]]
    assert client.ask("/api/train/preview", name="sea.txt")["text"].startswith("The sea was calm")
    found = client.ask("/api/train/inspect", {"runs": ["sea.txt"]})
    assert found["documents"] == 1
    assert found["characters"] == len(serving.TEXT)
    saved = client.ask("/api/train/text", {"name": "pasted one", "text": "Hello.\n"})
    assert saved == {"name": "texts/pasted one.txt", "bytes": 7}
    again = client.post("/api/train/text", {"name": "pasted one", "text": "Other."})
    assert again.status == 400
    assert "there is a text of that name" in again.json["error"]
    assert (server.workspace / saved["name"]).read_text() == "Hello.\n"
    (server.workspace / saved["name"]).unlink()


# --------------------------------------------------------------------------------------------------- form and plan


def test_every_setting_is_in_the_form() -> None:
    """A key that config gains is in the form, or told to be asked for in another way."""
    keys = {setting.key for setting in settings_form.all_settings()}
    sections = {key.rpartition(".")[0] for key in config.known_keys()}
    unknown = {key for key in config.known_keys() if key not in keys | settings_form.HIDDEN and key not in sections}
    # tables and lists of tables have no single value
    default = config.to_dict(config.Config())
    for key in unknown:
        section, _, name = key.rpartition(".")
        value = default.get(section, {}).get(name) if section else default.get(name)
        assert value is None or isinstance(value, list | dict), key


@pytest.mark.parametrize("setting", settings_form.all_settings(), ids=lambda s: s.key)
def test_what_the_form_allows_the_check_allows(setting: settings_form.Setting) -> None:
    """Defaults and the ends of every range pass for their own key; beyond them the check names the key."""

    def complaint(value: Any) -> str:
        try:
            settings_form.checked("nano", {setting.key: value})
        except config.ConfigError as error:
            return str(error)
        return ""

    if setting.default is not None:
        assert setting.key not in complaint(setting.default)
    for choice in setting.choices:
        assert f": {setting.key}: expected one of" not in complaint(choice)
    if setting.choices:
        assert setting.key in complaint("no such choice")
    if setting.kind in ("whole", "number"):
        step = 1 if setting.kind == "whole" else 1e-3
        if setting.low is not None:
            assert setting.key in complaint(setting.low - step)
            if setting.open_low:
                assert setting.key in complaint(type(step)(setting.low))
        if setting.high is not None:
            assert setting.key in complaint(setting.high + step)


def test_plan_agrees_with_the_command(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from cllm.cli import run as command

    found = server.client.ask("/api/train/plan", {"preset": "nano", "settings": {"train.batch": 2, "train.steps": 7}})
    assert command(["info", "--preset", "nano", "--set", "train.batch=2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    for key in ("parameters", "bytes", "bytes_total", "flops_per_token"):
        assert found[key] == told[key]
    assert found["steps"] == 7
    assert found["fits"]
    speed = server.client.ask("/api/train/speed", {"preset": "nano", "settings": {"train.batch": 2}})
    assert speed["tokens_per_s"] * speed["seconds_a_step"] == pytest.approx(2 * 64)


@pytest.mark.parametrize(
    ("values", "words"),
    [({"optim.lr": "fast"}, "optim.lr: expected float"), ({"model.heads": 3}, "model.heads: 3 does not divide"),
     ({"optim.lrr": 1}, "optim.lr"), ({"data.path": ["/etc"]}, "choose the data"), ({"train.batch": 0}, "train.batch")],
)  # fmt: skip
def test_wrong_settings_are_explained(server: Any, values: dict[str, Any], words: str) -> None:
    for path, more in (("plan", {}), ("speed", {}), ("start", {"name": "never", "data": ["sea.txt"]})):
        answer = server.client.post(f"/api/train/{path}", {"preset": "nano", "settings": values, **more})
        assert answer.status == 400
        assert words in answer.json["error"]
    assert not (server.workspace / "runs" / "never").exists()


REFUSED: list[tuple[dict[str, Any], int | None, str]] = [
    ({"name": "old", "data": ["sea.txt"]}, 409, "already there"),
    ({"name": "x", "data": []}, 400, "no text"),
    ({"name": "x", "data": ["none.txt"]}, 404, "not in the workspace"),
    ({"name": "a:b", "data": ["sea.txt"]}, 400, "name"),
    ({"name": "x", "data": ["."]}, 400, "whole workspace"),
    ({"name": "x", "data": ["sea.txt"], "preset": "tall"}, 400, "one of"),
    ({"name": "sea.txt/x", "data": ["sea.txt"]}, None, ""),
    ({"name": "x", "data": ["sea.txt"], "start": "runs/none"}, 404, ""),
]


@pytest.mark.parametrize(("asked", "status", "words"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_started(server: Any, asked: dict[str, Any], status: int | None, words: str) -> None:
    answer = server.client.post("/api/train/start", asked | {"settings": {"train.steps": 1}})
    if status is None:  # the training itself finds it and says it
        row = serving.until(
            lambda: next((r for r in server.client.ask("/api/train/runs")["runs"] if r["state"] == "failed"), None)
        )
        assert row["words"]
        return
    assert answer.status == status
    assert words in answer.json["error"]


def test_a_run_over_the_wire(server: Any) -> None:
    client = server.client
    asked = {
        "name": "", "data": ["sea.txt"], "preset": "nano",
        "settings": {"train.steps": 12, "model.layers": 1, "data.tokenizer": "char", "train.sample_every": 4,
                     "train.sample_tokens": 5, "train.eval_every": 4},
    }  # fmt: skip
    name = client.ask("/api/train/start", asked)["run"]
    assert name == "runs/sea"
    row = serving.until(lambda: (r := _row(client, name)) and r["state"] in ("done", "failed") and r)
    assert (row["state"], row["step"], row["steps"]) == ("done", 12, 12)
    assert row["best"] is not None
    assert len(row["curve"]) == 12
    full = client.ask("/api/train/run", run=name)
    assert full["settings"]["model.layers"] == 1
    assert len(full["samples"]) == 2
    assert full["checkpoints"][-1] | {"time": 0} == {
        "name": "step-00000012", "step": 12, "time": 0, "loss": full["checkpoints"][-1]["loss"], "latest": True,
        "best": full["checkpoints"][-1]["best"], "there": True,
    }  # fmt: skip
    assert "step 12" in client.ask("/api/train/log", run=name)["log"]
    again = client.post("/api/train/resume", {"run": name})
    assert again.status == 200  # nothing is left to do, and it says so
    serving.until(lambda: "nothing to do" in client.ask("/api/train/log", run=name)["log"])


def _row(client: Any, name: str) -> dict[str, Any] | None:
    return next((row for row in client.ask("/api/train/runs")["runs"] if row["name"] == name), None)


def test_notes(server: Any) -> None:
    client, path = server.client, server.workspace / "runs" / "long" / "notes.md"
    client.ask("/api/train/notes", {"run": "runs/long", "text": "warm-up was too short – ü\n"})
    assert path.read_text() == "warm-up was too short – ü\n"
    assert client.ask("/api/train/run", run="runs/long")["notes"] == path.read_text()
    assert client.post("/api/train/notes", {"run": "runs/long", "text": "x" * (300 << 10)}).status == 400
    assert client.post("/api/train/notes", b'{"run": "runs/long", "text": "\\ud800"}').status == 400
    assert path.read_text() == "warm-up was too short – ü\n"
    client.ask("/api/train/notes", {"run": "runs/long", "text": "  "})
    assert not path.exists()


def test_differences(server: Any) -> None:
    found = server.client.ask("/api/train/diff", {"runs": ["runs/long", "runs/old"]})
    keys = {row["key"]: row["values"] for row in found["rows"]}
    assert keys["train.steps"] == [400, config.load(server.workspace / "runs/old/run.toml").train.steps]
    assert "preset" not in keys


# --------------------------------------------------------------------------------------------------------- curves


def ask(folder: Path, **more: Any) -> dict[str, Any]:
    args: dict[str, Any] = {
        "folders": {"r": str(folder)}, "metrics": ["step.loss"], "x": "step", "low": None, "high": None, "width": 100,
        "log_x": False, "half_life": None,
    }  # fmt: skip
    return curves(**(args | more))["r"]  # type: ignore[no-any-return]


def write(folder: Path, losses: list[float], **fields: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with EventLog(folder / "events.jsonl", clock=iter(range(10**9)).__next__) as log:
        log.emit("start", 0)
        for step, loss in enumerate(losses, 1):
            log.emit("step", step, loss=loss, tokens=step * 10, **{k: v[step - 1] for k, v in fields.items()})


@pytest.mark.parametrize("seed", range(60))
def test_no_extreme_is_lost(tmp_path: Path, seed: int) -> None:
    """The least and the largest value of every stretch of the axis are those of all its points."""
    draw = random.Random(seed)
    losses = [draw.gauss(0, 10) for _ in range(draw.choice([1, 5, 50, 300, 600]))]
    for place in range(len(losses)):
        if draw.random() < 0.03:
            losses[place] = draw.choice([math.nan, math.inf, -math.inf, 1e300])
    width, log_x = draw.randint(16, 60), draw.random() < 0.4
    ends = sorted(draw.randint(-10, 610) for _ in range(2))
    part = ends if draw.random() < 0.5 else None
    folder = tmp_path
    write(folder, losses)
    low, high = (None, None) if part is None else (float(part[0]), float(part[1]))
    found = ask(folder, width=width, log_x=log_x, low=low, high=high)["metrics"]["step.loss"]
    steps = [s for s in range(1, len(losses) + 1) if math.isfinite(losses[s - 1])]
    inside = [s for s in steps if (low is None or s >= low) and (high is None or s <= high)]  # type: ignore[operator]
    bad = [s for s in range(1, len(losses) + 1) if not math.isfinite(losses[s - 1])]
    assert found["bad"] == bad[:200]
    if "y" in found:  # all points, and at most one more on either side
        pairs = dict(zip(found["x"], found["y"], strict=True))
        assert {s: losses[s - 1] for s in inside}.items() <= pairs.items()
        assert len(pairs) <= len(inside) + 2
        return
    assert len(found["x"]) <= width
    edges = [-math.inf, *found["x"]]
    for left, right, least, largest in zip(edges, found["x"], found["low"], found["high"], strict=False):
        held = [losses[s - 1] for s in steps if left < s <= right]
        if left == -math.inf:  # one point before the part may be in the first column
            held = [losses[s - 1] for s in steps if s <= right and (low is None or s >= low - 1 or s == max(
                [t for t in steps if t < low], default=0))]  # fmt: skip
        assert least == min(held)
        assert largest == max(held)


@given(st.lists(st.floats(-1e3, 1e3) | st.just(math.nan), min_size=1, max_size=200), st.floats(0.1, 300))
@settings(max_examples=40)
def test_the_average_is_the_one_that_is_documented(
    tmp_path_factory: pytest.TempPathFactory, losses: list[float], half_life: float
) -> None:
    folder = tmp_path_factory.mktemp("ema")
    write(folder, losses)
    found = ask(folder, width=4000, half_life=half_life)["metrics"]["step.loss"]
    expected = [e for e, loss in zip(smooth(losses, half_life), losses, strict=True) if math.isfinite(loss)]
    assert found["ema"] == expected


@pytest.mark.parametrize("seed", range(60))
def test_curves_are_the_logs_own(tmp_path: Path, seed: int) -> None:
    """Read in pieces, with resumes and starts in between: the points are those of `training.events.series`."""
    draw, folder, step, events = random.Random(seed), tmp_path, 0, []
    for _ in range(draw.randrange(40)):
        kind = draw.choice(["step"] * 6 + ["eval", "eval", "resume", "start"])
        if kind == "step":
            step += 1
        elif kind == "resume":
            step = draw.randint(0, step)
        elif kind == "start":
            step = 0
        events.append((kind, step))
    cuts = [draw.randrange(40) for _ in range(3)]
    path = folder / "events.jsonl"
    log, written = Log(path), 0
    for cut in [*sorted(cuts), len(events)]:
        with path.open("a") as file:
            for place, (kind, at) in list(enumerate(events))[written:cut]:
                file.write(json.dumps({"event": kind, "step": at, "time": place, "loss": place / 7}) + "\n")
        written = max(written, cut)
        log.refresh()
    for kind in ("step", "eval"):
        steps, losses = series(read_events(path), "loss", kind)
        assert log.kinds[kind].steps == steps
        assert log.kinds[kind].values.get("loss", []) == losses


def test_axes(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    write(folder, [5.0, 4.0, 3.0, 2.0], lr=[1e-3, 2e-3, 3e-3, 4e-3])
    one = lambda **more: ask(folder, **more)["metrics"]["step.loss"]  # noqa: E731
    assert one()["x"] == [1, 2, 3, 4]
    assert one(x="tokens")["x"] == [10, 20, 30, 40]
    assert one(x="time")["x"] == [1, 2, 3, 4]
    assert one(x="step.lr")["x"] == [1e-3, 2e-3, 3e-3, 4e-3]
    assert one(x="step.lr")["y"] == [5, 4, 3, 2]
    with EventLog(folder / "events.jsonl", clock=iter(range(10_000, 10_010)).__next__) as log:  # hours later
        log.emit("resume", 2)
        log.emit("step", 3, loss=3.5, tokens=30)
    assert one()["y"] == [5, 4, 3.5]
    assert one(x="time")["x"] == [1, 2, 3]  # the pause is not training time


def test_axes_over_the_wire(server: Any) -> None:
    asked = {"runs": ["runs/long", "runs/old"], "metrics": ["step.loss", "eval.loss", "step.none"], "width": 64}
    found = server.client.ask("/api/train/curves", asked)["runs"]
    assert found["runs/long"]["metrics"]["step.loss"]["points"] == 400
    assert len(found["runs/long"]["metrics"]["step.loss"]["low"]) == 64
    assert "step.none" not in found["runs/long"]["metrics"]
    assert found["runs/long"]["cursor"] == (server.workspace / "runs/long/events.jsonl").stat().st_size
    for wrong in ({"x": "bogus"}, {"metrics": ["loss"]}, {"width": 1}, {"metrics": []}, {"half_life": 0}, {"more": 1}):
        assert server.client.post("/api/train/curves", asked | wrong).status == 400
    assert server.client.post("/api/train/curves", asked | {"runs": ["runs/none"]}).status == 404


def test_a_metric_over_a_metric_stays_small(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    count = 30_000
    write(folder, [math.sin(n / 50) for n in range(count)], lr=[math.cos(n / 31) for n in range(count)])
    found = ask(folder, x="step.lr", width=200)["metrics"]["step.loss"]
    assert found["points"] == count
    assert len(found["x"]) <= 200 * 100


# ---------------------------------------------------------------------------------------------------------- alerts


def alerts(tmp_path: Path, losses: list[float], scores: list[float] | None = None, **fields: Any) -> list[str]:
    folder = tmp_path / f"r{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    with EventLog(folder / "events.jsonl") as log:
        log.emit("start", 0)
        every = len(losses) // len(scores) if scores else 0
        for step, loss in enumerate(losses, 1):
            log.emit("step", step, loss=loss, tokens=step, **{k: v[step - 1] for k, v in fields.items()})
            if scores and step % every == 0:
                log.emit("eval", step, loss=scores[step // every - 1])
    read = Log(folder / "events.jsonl")
    read.refresh()
    return [alert["kind"] for alert in seen_in(read)]


def test_alerts_from_curves(tmp_path: Path) -> None:
    wobble = [0.05 * math.sin(n * 1.7) for n in range(300)]
    falling = [5 / (1 + n / 40) + w for n, w in zip(range(300), wobble, strict=True)]
    assert alerts(tmp_path, falling) == []
    climbing = falling[:200] + [falling[199] + n * 0.03 for n in range(100)]
    assert alerts(tmp_path, climbing) == ["divergence"]
    assert alerts(tmp_path, falling, [4, 3, 2.5, 2.2, 2, 1.9, 1.8, 1.75, 1.7, 1.65]) == []
    assert alerts(tmp_path, falling, [4, 3, 2.0, 2.01, 2.01, 2.01, 2.01, 2.01, 2.01, 2.01]) == ["plateau"]
    rising = [4, 3, 2.5, 2.0, 2.2, 2.4, 2.6, 2.8]
    assert alerts(tmp_path, falling, rising) == ["overfitting"]
    speed = [1000.0] * 250 + [300.0] * 50
    assert alerts(tmp_path, falling, tokens_per_s=speed) == ["slow"]
    assert alerts(tmp_path, [math.nan] * 40) == []


def test_alerts_of_the_log_are_told_in_words(tmp_path: Path) -> None:
    with EventLog(tmp_path / "events.jsonl") as log:
        log.emit("start", 0)
        log.emit("step", 1, loss=3.0)
        log.emit(
            "alert",
            1,
            kind="non-finite",
            what="loss nan",
            where="layer 2, attn (3 of 64 values)",
            batch="b.safetensors",
        )
        log.emit("alert", 1, kind="sample", what="no sample: empty prompt")
        log.emit("stop", 1, reason="non-finite")
    found = story(str(tmp_path))
    assert [alert["level"] for alert in found["alerts"]] == ["bad", "note"]
    text = found["alerts"][0]["text"]
    for words in ("Step 2 was refused", "loss nan", "layer 2, attn", "b.safetensors", "optim.lr"):
        assert words in text
    assert found["stop"] == "non-finite"


def test_a_real_divergence_is_told(server: Any) -> None:
    client = server.client
    asked = {
        "name": "wild", "data": ["sea.txt"], "preset": "nano",
        "settings": {"train.steps": 60, "optim.lr": 1e6, "optim.clip": 0, "data.tokenizer": "char"},
    }  # fmt: skip
    name = client.ask("/api/train/start", asked)["run"]
    row = serving.until(lambda: (r := _row(client, name)) and r["state"] in ("done", "failed") and r)
    full = client.ask("/api/train/run", run=name)
    assert full["alerts"], row
    assert full["alerts"][0]["level"] == "bad"
    if row["state"] == "failed":
        assert "was refused" in full["alerts"][0]["text"]


def test_current_agrees_on_the_served_run(server: Any) -> None:
    path = server.workspace / "runs/long/events.jsonl"
    steps = [event["step"] for event in current(read_events(path)) if event["event"] == "step"]
    assert _row(server.client, "runs/long")["step"] == steps[-1]  # type: ignore[index]
    assert half_life_for(400) == pytest.approx(400 / 150)
