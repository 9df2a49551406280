"""Studies: the file, real tiny trainings, the statistics against scipy, the report."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from statistics import mean
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cllm.errors import ConfigError, CorruptError, DomainError, RunError
from cllm.evaluation.ablation import Runner, compare, read_study, student_quantile, write_report

TEXT = "It was the best of times, it was the worst of times; it was the age of wisdom. " * 60

STUDY = """
title = "Dropout"
seeds = [1, 2]
lengths = [8, 64, 128]
[run]
preset = "nano"
train.steps = 6
train.batch = 4
train.sequence = 16
train.eval_every = 3
train.sample_every = 0
data.path = ["book.txt"]
data.tokenizer = "char"
[grid]
"model.dropout" = [0.0, 0.2]
[[cell]]
name = "narrow"
set = { "model.ff" = 64 }
"""


@pytest.fixture
def study_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "book.txt").write_text(TEXT, encoding="utf-8")
    file = tmp_path / "dropout.toml"
    file.write_text(STUDY, encoding="utf-8")
    return file


@pytest.mark.parametrize("degrees", [1, 2, 4, 9, 40, 1000])
@pytest.mark.parametrize("p", [0.5, 0.9, 0.975, 0.995, 0.99999])
def test_the_quantile_of_students_distribution(degrees: int, p: float):
    assert student_quantile(p, degrees) == pytest.approx(stats.t.ppf(p, degrees), rel=1e-10, abs=1e-12)


def test_a_quantile_that_is_none_is_refused():
    for p, degrees in ((0.4, 3), (1.0, 3), (0.9, 0)):
        with pytest.raises(DomainError):
            student_quantile(p, degrees)


@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=2, max_size=12), st.integers(1, 5))
@settings(deadline=None, max_examples=40)
def test_intervals_are_those_of_the_paired_t_test(pairs: list[tuple[float, float]], m: int):
    a, b = (dict(enumerate(values)) for values in zip(*pairs, strict=True))
    found = compare("x", a, b, alpha=0.05, comparisons=m)
    d = np.array([x - y for x, y in pairs])
    if d.std() < 1e-9:
        return
    low, high = stats.ttest_rel(*map(list, zip(*pairs, strict=True))).confidence_interval(1 - 0.05 / m)
    assert (found.low, found.high) == (pytest.approx(low, rel=1e-6, abs=1e-9), pytest.approx(high, rel=1e-6, abs=1e-9))
    assert found.verdict == ("lower" if found.high < 0 else "higher" if found.low > 0 else "no difference shown")


def test_one_pair_says_nothing():
    found = compare("x", {1: 2.0, 3: 9.0}, {1: 1.5, 2: 7.0})
    assert (found.n, found.mean, found.verdict) == (1, 0.5, "no difference shown")
    assert math.isnan(found.low)
    assert compare("x", {}, {1: 1.0}).n == 0


def test_false_alarms_are_as_rare_as_promised():
    """2,000 studies of four cells without any difference: at most about 5 % of them claim one."""
    rng, wrong = np.random.default_rng(5), 0
    for _ in range(2000):
        base = dict(enumerate(rng.normal(size=5)))
        cells = [dict(enumerate(rng.normal(size=5))) for _ in range(3)]
        wrong += any(compare("c", c, base, comparisons=3).verdict != "no difference shown" for c in cells)
    assert wrong / 2000 < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 2000)


def test_a_study_is_trained_reported_and_gone_on_with(study_file: Path, tmp_path: Path):
    study = read_study(study_file)
    assert [cell.name for cell in study.cells] == ["dropout=0.0", "dropout=0.2", "narrow"]
    out = tmp_path / "out"
    runner = Runner(study, out)
    seen: list[tuple[str, int]] = []
    assert len(runner.left) == 6
    assert runner.left[0][1] == runner.left[2][1] == 1  # seed by seed
    assert runner.run(started=lambda cell, seed: seen.append((cell.name, seed)))
    assert len(seen) == 6
    again = Runner(read_study(study_file), out)
    assert again.left == []
    assert again.results == runner.results

    path = write_report(study, again.results, out)
    found = json.loads((out / "results.json").read_text())
    runs = {(r["cell"], r["seed"]): r for r in found["runs"]}
    assert len(runs) == 6
    for c in found["comparisons"]:
        d = [runs[c["name"], s]["loss"] - runs["dropout=0.0", s]["loss"] for s in (1, 2)]
        assert c["differences"] == d
        assert c["mean_difference"] == pytest.approx(mean(d))
    one = runs["narrow", 1]
    assert one["lengths"]["128"] is None  # longer than nano's context of 64
    assert one["lengths"]["8"] != one["lengths"]["64"]
    assert one["parameters"] < runs["dropout=0.0", 1]["parameters"]
    assert one["tokens"] == 6 * 4 * 16
    text = path.read_text(encoding="utf-8")
    assert "not applicable" in text
    assert "narrow has -" in text
    assert STUDY.strip() in text
    ElementTree.fromstring((out / "curves.svg").read_text(encoding="utf-8"))


def test_a_run_that_was_stopped_goes_on_where_it_was(study_file: Path, tmp_path: Path):
    """What the study leaves open (rows of an evaluation, warm-up, size of the vocabulary) is as in the run."""
    study_file.write_text(STUDY.replace('[[cell]]\nname = "narrow"\nset = { "model.ff" = 64 }\n', ""))
    whole = Runner(read_study(study_file), tmp_path / "whole")
    assert whole.run()
    stopped = Runner(whole.study, tmp_path / "stopped")

    def stop(step: int, steps: int, loss: float) -> None:
        if step == 4 and not stopped.results:
            signal.raise_signal(signal.SIGINT)

    assert not stopped.run(stepped=stop)
    assert not stopped.results
    again = Runner(whole.study, tmp_path / "stopped")
    assert again.run()
    assert {key: found.loss for key, found in again.results.items()} == {
        key: found.loss for key, found in whole.results.items()
    }


def test_a_cell_alone_gives_the_same_run(study_file: Path, tmp_path: Path):
    """What the report says of a cell can be had again by a reader from its run file."""
    study = read_study(study_file)
    runner = Runner(study, tmp_path / "out")
    runner.run()
    cell = study.cells[1]
    one = subprocess.run(
        [sys.executable, "-m", "cllm", "train", "--run", str(runner.place(cell, 2) / "run.toml"), "--out", "again"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert one.returncode == 0, one.stderr
    events = [json.loads(line) for line in (tmp_path / "again" / "events.jsonl").read_text().splitlines()]
    whole = [e for e in events if e["event"] == "eval" and e.get("whole")][-1]
    assert whole["loss"] == runner.results[cell.name, 2].loss


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[grid]", "[gird]", "grid"),
        ("train.steps = 6\n", "", "train.steps: expected a number of steps"),
        ("seeds = [1, 2]", "seeds = [1, 1]", "named twice"),
        ("seeds = [1, 2]", "seeds = []", "seeds"),
        ('"model.ff"', '"model.fff"', "model.fff: unknown key"),
        ('name = "narrow"', 'name = "dropout=0.2"', "a name of its own"),
        ('"model.ff" = 64', '"seed" = 64', "the seeds are those of the study"),
        ('title = "Dropout"', 'baseline = "narow"', 'did you mean "narrow"'),
    ],
)
def test_a_bad_study_is_refused_before_training(study_file: Path, old: str, new: str, said: str):
    study_file.write_text(STUDY.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        read_study(study_file)


def test_runs_of_another_study_are_not_taken(study_file: Path, tmp_path: Path):
    study_file.write_text(STUDY.replace("[1, 2]", "[1]").replace("[0.0, 0.2]", "[0.0]"), encoding="utf-8")
    runner = Runner(read_study(study_file), tmp_path / "out")
    runner.run()
    study_file.write_text(study_file.read_text().replace("steps = 6", "steps = 7"), encoding="utf-8")
    with pytest.raises(RunError, match="other settings"):
        Runner(read_study(study_file), tmp_path / "out")
    place = runner.place(runner.study.cells[0], 1) / "result.json"
    place.write_text("{")
    with pytest.raises(CorruptError, match="not a result"):
        Runner(runner.study, tmp_path / "out")
