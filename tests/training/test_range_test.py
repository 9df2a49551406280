"""The learning-rate range test: what it measures, what it suggests, and that it leaves nothing behind."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import cllm
from cllm import api
from cllm.cli import run
from cllm.errors import UsageError
from cllm.training.range_test import suggestion

TEXT = "".join(f"The {a} {b} sees the {c}. " for a in ("red", "old", "sly") for b in ("fox", "cat", "hen")
               for c in ("moon", "barn", "well", "road")) * 12  # fmt: skip
SETTINGS: dict[str, Any] = {"train.batch": 4, "train.sequence": 16, "data.tokenizer": "char"}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def find(text: Path, **options: Any) -> api.RangeTest:
    return api.find_lr(text, preset="nano", set=SETTINGS, quiet=True, **options)


def test_it_measures_what_training_would(tmp_path: Path, text: Path):
    found = find(text, low=1e-4, high=1e-2, steps=20)
    ratios = [b / a for a, b in zip(found.lr, found.lr[1:], strict=False)]
    assert found.lr[0] == 1e-4
    assert math.isclose(found.lr[-1], 1e-2, rel_tol=1e-12)
    assert all(math.isclose(r, 100 ** (1 / 19), rel_tol=1e-9) for r in ratios)
    # the first two updates made by training itself, at the same rates: the same loss, to the bit, behind each
    trained = cllm.train(text, preset="nano", out=tmp_path / "run", quiet=True, set=SETTINGS | {
        "train.steps": 2, "optim.lr": 1e-4, "schedule.name": "constant", "schedule.warmup": 0})  # fmt: skip
    events = [json.loads(line) for line in (trained.path / "events.jsonl").read_text().splitlines()]
    assert [e["loss"] for e in events if e["event"] == "step"][1] == found.loss[0]


def test_a_rate_that_is_too_high_ends_it(text: Path):
    found = find(text, low=1e-3, high=1e6, steps=60)
    assert found.ended == "runaway"
    assert len(found.lr) == len(found.loss) < 60
    assert found.suggested is not None
    assert found.suggested < found.lr[-1]
    json.dumps(found.to_dict(), allow_nan=False)
    svg = found.chart("t").svg()
    assert "suggested" in svg
    assert "nan" not in svg


def test_a_range_that_ends_while_the_loss_falls_says_so(text: Path, capsys: pytest.CaptureFixture[str]):
    found = find(text, low=1e-4, high=3e-3, steps=30)
    assert found.ended == "range"
    assert found.still_falling
    assert found.suggested is not None
    sets = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    assert (
        run(["find-lr", str(text), "--preset", "nano", *sets, "--low", "1e-4", "--high", "3e-3", "--steps", "30"]) == 0
    )
    assert "still falling at 0.003" in capsys.readouterr().out


def test_a_rate_that_moves_nothing_has_no_suggestion(text: Path):
    found = find(text, low=1e-12, high=1e-11, steps=12)
    assert found.suggested is None
    assert suggestion([1.0] * 20, [3.0] * 20, 3.0) == (None, None, None)
    assert suggestion([1.0] * 5, [1.0] * 5, 3.0) == (None, None, None)


def test_the_suggestion_lies_where_the_loss_falls():
    rates = [10 ** (-6 + i / 10) for i in range(60)]
    falls = [5 - 3 / (1 + math.exp(-4 * (math.log10(r) + 3))) for r in rates]  # steepest at 1e-3
    curve = [v if r < 0.1 else v + 40 * (math.log10(r) + 1) ** 2 for v, r in zip(falls, rates, strict=True)]
    steepest, lowest, suggested = suggestion(rates, curve, 5.0)
    assert steepest is not None
    assert lowest is not None
    assert suggested is not None
    assert 0.7e-3 < steepest < 1.4e-3
    assert 0.05 < lowest < 0.2
    assert steepest <= suggested < lowest


def test_it_can_be_stopped_and_shows_what_there_is(text: Path, monkeypatch: pytest.MonkeyPatch):
    from cllm.training import stepper

    made = 0
    update = stepper.Stepper.update

    def then_interrupt(self: Any, *args: Any) -> None:
        nonlocal made
        update(self, *args)
        made += 1
        if made == 15:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(stepper.Stepper, "update", then_interrupt)
    found = find(text, steps=100)
    assert found.ended == "interrupted"
    assert found.suggested is None, "it was falling, or never fell"
    assert len(found.loss) == len(found.lr) == 14
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("wrong", [{"low": 0.0}, {"low": 1.0, "high": 0.5}, {"high": math.inf}, {"steps": 3}])
def test_impossible_ranges_are_refused_before_any_work(text: Path, wrong: dict[str, Any]):
    with pytest.raises(UsageError, match="find-lr: --"):
        find(text, **wrong)


def test_the_command_leaves_nothing_behind_also_when_interrupted(tmp_path: Path, text: Path):
    work, spare = tmp_path / "work", tmp_path / "tmp"
    work.mkdir()
    spare.mkdir()
    command = [sys.executable, "-m", "cllm", "find-lr", str(text), "--preset", "nano"]
    for key, value in SETTINGS.items():
        command += ["--set", f"{key}={value}"]
    options: dict[str, Any] = {"cwd": work, "env": os.environ | {"TMPDIR": str(spare)}, "text": True}
    done = subprocess.run([*command, "--steps", "30", "--json"], capture_output=True, **options)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["suggested"] > 0
    assert list(work.iterdir()) == []
    assert list(spare.glob("cllm-*")) == []
    process = subprocess.Popen(
        [*command, "--steps", "100000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )
    while "steps: " not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert list(work.iterdir()) == []
    assert list(spare.glob("cllm-*")) == []
    made = re.search(r"interrupted after (\d+) of 100000 steps", errors)
    assert made is not None, errors
    assert ("│" in said) == (int(made[1]) > 0), "what there is is drawn"


def test_an_existing_picture_is_only_ever_replaced_by_another_picture(tmp_path: Path, text: Path):
    target = tmp_path / "book.txt"
    target.write_text("mine")
    assert run(["find-lr", str(text), "--preset", "nano", "--plot", str(target)]) == 2
    assert target.read_text() == "mine"
