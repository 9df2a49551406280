"""Runs beside each other: curves, differing settings, and what may not be compared."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

import cllm
from cllm.cli import run as command
from cllm.errors import UsageError
from cllm.training.chart import Chart, Series
from cllm.training.compare import differences, overlay, short_names
from cllm.training.events import series

TEXT = "".join(f"The {a} {b} sees the {c}. " for a in ("red", "old", "sly") for b in ("fox", "cat", "hen")
               for c in ("moon", "barn", "well", "road")) * 12  # fmt: skip
SETTINGS: dict[str, Any] = {
    "train.steps": 6, "train.batch": 2, "train.sequence": 16, "train.eval_every": 2, "train.sample_every": 0,
    "data.tokenizer": "char",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    for name, more in (
        ("a", {}),
        ("b", {"optim.lr": 0.01, "guard.spikes": "skip"}),
        ("words", {"data.tokenizer": "word"}),
    ):
        cllm.train(folder / "text.txt", preset="nano", out=folder / "x" / name, set=SETTINGS | more, quiet=True)
    return folder / "x"


def test_the_curves_are_those_of_the_logs(folder: Path):
    chart, notes = overlay([folder / "a", folder / "b"])
    assert notes == []
    assert [line.name for line in chart.series] == ["a", "b"]
    for line in chart.series:
        steps, losses = series(folder / line.name / "events.jsonl", "loss", "eval")
        assert list(line.x) == steps
        assert list(line.y) == losses
    tokens, _ = overlay([folder / "a"], "training", "tokens")
    assert list(tokens.series[0].x) == [32 * step for step in range(1, 7)]


def test_losses_of_different_tokenizers_are_not_compared(folder: Path):
    chart, notes = overlay([folder / "a", folder / "words"])
    assert chart.y_label == "validation, bits per byte"
    assert notes == []
    _, notes = overlay([folder / "a", folder / "words"], "validation")
    assert "do not compare" in notes[0]


def test_only_what_differs_is_told(folder: Path):
    assert differences([folder / "a", folder / "b"]) == {"optim.lr": [0.001, 0.01], "guard.spikes": ["off", "skip"]}
    assert differences([folder / "a", folder / "a"]) == {}
    assert short_names([folder / "a", folder / "b"]) == ["a", "b"]


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    target = tmp_path / "compare.svg"
    assert command(["runs", str(folder / "a"), str(folder / "b"), "--plot", str(target)]) == 0
    said = capsys.readouterr().out
    assert "optim.lr" in said
    assert "0.01" in said
    assert "A a   B b" in said
    assert "lowest: " in said
    root = ET.fromstring(target.read_text(encoding="utf-8"))
    texts = [e.text for e in root.iter() if e.tag.endswith("text")]
    assert {"a", "b"} <= set(texts)
    assert sum(e.tag.endswith("path") and "class" in e.attrib for e in root.iter()) >= 4
    assert command(["runs", str(folder / "a"), str(folder / "b"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["differences"]["optim.lr"] == {str(folder / "a"): 0.001, str(folder / "b"): 0.01}
    assert command(["runs", str(folder)]) == 0
    assert "optim.lr" not in capsys.readouterr().out
    assert command(["runs", str(folder), "--plot", str(tmp_path / "no" / "x.svg")]) == 2
    assert command(["runs", str(tmp_path / "none")]) == 2


def test_a_damaged_run_is_listed_and_left_out_of_the_picture(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "run.toml").write_text("steps = [")
    assert command(["runs", str(folder / "a"), str(broken), "--plot", str(tmp_path / "p.svg")]) == 0
    assert "unreadable" in capsys.readouterr().out


def test_too_many_runs_are_refused(folder: Path):
    with pytest.raises(UsageError, match="at most 24"):
        overlay([folder / "a"] * 25)


def test_a_chart_draws_what_it_is_given_and_breaks_where_nothing_is():
    line = Series("x", [1, 2, 3, 4, 5], [1.0, 2.0, math.nan, 4.0, 3.0])
    assert [len(piece) for piece in line.pieces(False)] == [2, 2]
    chart = Chart([line], "t", "steps", "y", log_x=True)
    svg = ET.fromstring(chart.svg())
    paths = [e.attrib["d"] for e in svg.iter() if e.attrib.get("class") == "line" and "clip" not in e.attrib]
    assert len(paths) == 3  # two pieces and the legend
    rows = chart.terminal(20, 6).splitlines()
    assert len(rows) == 8
    top = next(i for i, row in enumerate(rows) if any("\u2800" < c <= "\u28ff" for c in row))
    assert top == 0, "the largest value is in the first row"
    assert "nothing to draw" in Chart([Series("x", [], [])], "t", "x", "y").terminal()
    assert "nothing to draw" in Chart([Series("x", [], [])], "t", "x", "y").svg()
    one = Chart([Series("x", [3], [2.0])], "t", "x", "y")
    assert "nan" not in one.svg()
    assert "<circle" in one.svg()
    assert one.terminal(10, 4)
