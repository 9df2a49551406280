"""Resume is byte-equal at every step, and a killed run stays loadable."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import cllm
from cllm.training import checkpoint
from cllm.training.events import current, read_events
from waiting import until

STEPS = 12
TEXT = "".join(f"The {a} {b} sees the {c}. " for a in ("red", "old", "sly") for b in ("fox", "cat", "hen")
               for c in ("moon", "barn", "well", "road")) * 12  # fmt: skip
SETTINGS: dict[str, Any] = {
    "train.steps": STEPS,
    "train.batch": 3,
    "train.accumulate": 2,
    "train.sequence": 16,
    "train.eval_every": 4,
    "train.sample_every": 5,
    "train.sample_tokens": 4,
    "checkpoint.every": 1,
    "checkpoint.keep": 100,
    "model.dropout": 0.1,
    "model.attention_dropout": 0.1,
    "optim.ema": 0.9,
    "data.tokenizer": "char",
}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def contents(run_dir: Path, step: int) -> dict[str, bytes]:
    folder = run_dir / "checkpoints" / f"step-{step:08d}"
    found = {name: (folder / name).read_bytes() for name in ("weights.safetensors", "state.safetensors")}
    return found | {"meta": repr(checkpoint.load(run_dir, folder.name).meta).encode()}


def forget_after(run_dir: Path, step: int) -> None:
    """Turn a finished run into one that was stopped behind `step`."""
    for later in range(step + 1, STEPS + 1):
        folder = run_dir / "checkpoints" / f"step-{later:08d}"
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    for pointer in ("latest", "best"):
        (run_dir / pointer).write_text(f"step-{step:08d}\n")


LATTICE: list[dict[str, Any]] = [
    {"model.positions": "sinusoidal"},
    {"model.positions": "spiral", "model.init": "lattice"},
    {"model.positions": "clock"},
    {"model.positions": "prime"},
    {"model.positions": "rope", "model.symmetry_bias": 0.5},
    {"model.positions": "mix", "model.positions_mix_trainable": True},
    {"model.symmetry_bias_trainable": True, "model.lattice_transform": True, "model.equivariant": True},
]


@pytest.mark.parametrize("options", LATTICE, ids=lambda options: " ".join(map(str, options.values())))
def test_resume_with_a_lattice_option_is_byte_equal(tmp_path: Path, text: Path, options: dict[str, Any]):
    whole = tmp_path / "whole"
    cllm.train(text, preset="nano", out=whole, set=SETTINGS | options, quiet=True)
    expected = contents(whole, STEPS)
    forget_after(whole, 5)
    cllm.train(out=whole, resume=True, quiet=True, run=whole / "run.toml")
    assert contents(whole, STEPS) == expected


def test_resume_at_every_step_is_byte_equal(tmp_path: Path, text: Path):
    whole = tmp_path / "whole"
    cllm.train(text, preset="nano", out=whole, set=SETTINGS, quiet=True)
    expected = contents(whole, STEPS)
    again = tmp_path / "again"
    cllm.train(text, preset="nano", out=again, set=SETTINGS, quiet=True)
    assert contents(again, STEPS) == expected, "the same run twice gives the same bytes"
    for step in reversed(range(1, STEPS)):
        forget_after(again, step)
        cllm.train(out=again, resume=True, quiet=True, run=again / "run.toml")
        assert contents(again, STEPS) == expected, f"resumed behind step {step}"


def test_a_bf16_run_that_recomputes_resumes_byte_equal(tmp_path: Path, text: Path):
    plain = SETTINGS | {"precision": "bf16"}
    whole, again = tmp_path / "whole", tmp_path / "again"
    cllm.train(text, preset="nano", out=whole, set=plain, quiet=True)
    cllm.train(text, preset="nano", out=again, set=plain | {"train.recompute": "layer"}, quiet=True)
    expected = contents(whole, STEPS)

    def tensors(run_dir: Path) -> dict[str, bytes]:
        return {name: value for name, value in contents(run_dir, STEPS).items() if name != "meta"}

    assert tensors(again) == tensors(whole), "what is computed again is the same"
    for step in (11, 7, 1):
        forget_after(whole, step)
        cllm.train(out=whole, resume=True, quiet=True, run=whole / "run.toml")
        assert contents(whole, STEPS) == expected, f"resumed behind step {step}"
    assert 'precision = "bf16"' in (whole / "run.toml").read_text()


def test_a_resumed_run_keeps_its_settings(tmp_path: Path, text: Path):
    out = tmp_path / "run"
    cllm.train(text, preset="nano", out=out, set=SETTINGS, quiet=True)
    with pytest.raises(cllm.errors.ConfigError, match=r"optim\.lr: got 0\.5, but the run .* started with 0\.001"):
        cllm.train(out=out, run=out / "run.toml", resume=True, set={"optim.lr": 0.5}, quiet=True)


def test_an_existing_run_is_never_overwritten(tmp_path: Path, text: Path):
    out = tmp_path / "run"
    cllm.train(text, preset="nano", out=out, set=SETTINGS, quiet=True)
    before = contents(out, STEPS)
    with pytest.raises(cllm.errors.RunError, match="already there"):
        cllm.train(text, preset="nano", out=out, set=SETTINGS, quiet=True)
    assert contents(out, STEPS) == before


def test_a_finished_run_is_left_as_it_is(tmp_path: Path, text: Path):
    out = tmp_path / "run"
    cllm.train(text, preset="nano", out=out, set=SETTINGS, quiet=True)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != "run.lock"}
    assert cllm.train(out=out, resume=True, run=out / "run.toml", quiet=True).outcome.reason == "done"
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != "run.lock"}


def test_an_edited_run_file_is_not_trusted_and_a_lost_one_is_written_again(tmp_path: Path, text: Path):
    out = tmp_path / "run"
    cllm.train(text, preset="nano", out=out, set=SETTINGS, quiet=True)
    forget_after(out, 5)
    file = out / "run.toml"
    original = file.read_text()
    file.write_text(original.replace(f"steps = {STEPS}", "steps = 60"))
    with pytest.raises(cllm.errors.ConfigError, match=r"train\.steps: got 60, but the run .* started with 12"):
        cllm.train(out=out, resume=True, quiet=True)
    for lost in (file.unlink, lambda: file.write_text("")):
        file.write_text(original)
        lost()
        cllm.train(out=out, resume=True, quiet=True)
        assert file.read_text() == original
    assert cllm.load(out).checkpoint.step == STEPS


def test_minutes_and_the_steps_they_become_give_the_same_bytes(tmp_path: Path, text: Path):
    timed = {key: value for key, value in SETTINGS.items() if key != "train.steps"} | {"train.max_minutes": 0.004}
    first = cllm.train(text, preset="nano", out=tmp_path / "timed", set=timed, quiet=True)
    steps = first.config.train.steps
    cllm.train(text, preset="nano", out=tmp_path / "plain", quiet=True,
               set=SETTINGS | {"train.steps": steps, "train.max_minutes": 0.004})  # fmt: skip
    assert contents(tmp_path / "timed", steps) == contents(tmp_path / "plain", steps)


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path, text: Path):
    out = tmp_path / "mine"
    (out / ".tmp-stuff").mkdir(parents=True)
    (out / "notes.txt").write_text("hello")
    (out / "tokenizer.json").write_text("precious")
    with pytest.raises(cllm.errors.RunError, match=r"holds tokenizer\.json; nothing was changed"):
        cllm.train(text, preset="nano", out=out, set=SETTINGS, quiet=True)
    assert sorted(path.name for path in out.iterdir()) == [".tmp-stuff", "notes.txt", "tokenizer.json"]
    (out / "tokenizer.json").unlink()
    cllm.train(text, preset="nano", out=out, set=SETTINGS | {"train.steps": 1}, quiet=True)
    assert (out / ".tmp-stuff").is_dir()
    assert (out / "notes.txt").read_text() == "hello"
    with pytest.raises(cllm.errors.UsageError, match="empty name"):
        cllm.train(text, preset="nano", out="", set=SETTINGS, quiet=True)


def test_data_that_were_prepared_before_are_used_and_kept(tmp_path: Path, text: Path):
    from cllm.data import prepare

    out = tmp_path / "run"
    prepare(text, out / "data", tokenizer="char", vocab_size=512, seed=1)
    (tmp_path / "other.txt").write_text(TEXT[::-1])
    with pytest.raises(cllm.errors.RunError):
        cllm.train(tmp_path / "other.txt", preset="nano", out=out, set=SETTINGS, quiet=True)
    assert (out / "data" / "prepared.json").exists()
    cllm.train(text, preset="nano", out=out, set=SETTINGS | {"train.steps": 1}, quiet=True)


def test_a_sample_that_cannot_be_made_does_not_stop_the_training(tmp_path: Path, text: Path):
    whole = cllm.train(text, preset="nano", out=tmp_path / "a", set=SETTINGS, quiet=True)
    nameless = whole.tokenizer.content.replace(b'"<eos>"', b'"<e>"').replace(b'"<bos>"', b'"<b>"')
    (tmp_path / "foreign.json").write_bytes(nameless)
    out = tmp_path / "b"
    cllm.train(text, preset="nano", out=out, quiet=True,
               set=SETTINGS | {"data.tokenizer": str(tmp_path / "foreign.json")})  # fmt: skip
    events = read_events(out / "events.jsonl")
    assert [event["kind"] for event in events if event["event"] == "alert"] == ["sample", "sample"]
    assert events[-1]["reason"] == "done"


def start(text: Path, out: Path, *more: str, steps: int = 4000) -> subprocess.Popen[str]:
    settings = SETTINGS | {"train.steps": steps, "checkpoint.every": 2, "checkpoint.keep": 2, "train.eval_every": 50}
    command = [sys.executable, "-m", "cllm", "train", str(text), "--out", str(out), "--preset", "nano", *more]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)


def test_killed_before_the_first_step_it_is_resumed_by_the_documented_command(tmp_path: Path, text: Path):
    out = tmp_path / "run"
    process = start(text, out)
    until((out / "run.toml").exists)
    process.kill()
    process.communicate()
    command = [sys.executable, "-m", "cllm", "train", "--resume", "--out", str(out)]
    again = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    wait_for_checkpoint(out, again, after=1)
    again.send_signal(signal.SIGINT)
    _, said = again.communicate(timeout=60)
    assert again.returncode == 130, said


def test_stopped_between_the_run_file_and_the_first_checkpoint_it_starts_afresh_the_same(tmp_path: Path, text: Path):
    out = tmp_path / "run"
    cllm.train(text, preset="nano", out=out, set=SETTINGS, quiet=True)
    expected = contents(out, STEPS)
    shutil.rmtree(out / "checkpoints")
    for name in ("latest", "best", "tokenizer.json"):
        (out / name).unlink()
    cllm.train(out=out, resume=True, quiet=True)
    assert contents(out, STEPS) == expected


def wait_for_checkpoint(out: Path, process: subprocess.Popen[str], after: int = 1) -> None:
    def there() -> bool:
        assert process.poll() is None, process.communicate()[1]
        return any(int(name[5:]) > after for name in checkpoint.list_checkpoints(out))

    try:
        until(there)
    except AssertionError:
        process.kill()
        raise


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_says_how_to_resume(tmp_path: Path, text: Path, number: signal.Signals):
    out = tmp_path / "run"
    process = start(text, out)
    wait_for_checkpoint(out, process)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "--resume" in said
    events = read_events(out / "events.jsonl")
    assert events[-1]["event"] == "stop"
    assert events[-1]["reason"] == number.name
    assert checkpoint.load(out).step == events[-1]["step"]
    assert (out / "loss.svg").exists()


def test_kill_minus_nine_leaves_a_run_that_goes_on_and_generates(tmp_path: Path, text: Path):
    out = tmp_path / "run"
    seen = 0
    for delay in (0.0, 0.013, 0.031):  # at different places of a step and a save
        process = start(text, out, *(["--resume"] if seen else []))
        wait_for_checkpoint(out, process, max(seen, 1))
        time.sleep(delay)
        process.kill()
        process.communicate()
        found = checkpoint.load(out)
        assert found.step >= seen
        seen = found.step
        assert all(torch.isfinite(tensor).all() for tensor in found.weights.values())
    assert len(cllm.load(out).generate("The ", max_tokens=5, seed=1)) > 0
    steps = [event["step"] for event in current(read_events(out / "events.jsonl")) if event["event"] == "step"]
    assert steps == sorted(set(steps))


def test_two_processes_cannot_write_one_run(tmp_path: Path, text: Path):
    out = tmp_path / "run"
    first = start(text, out)
    try:
        wait_for_checkpoint(out, first)
        second = start(text, out, "--resume")
        _, said = second.communicate(timeout=60)
        assert second.returncode == 2
        assert str(first.pid) in said
    finally:
        first.kill()
        first.communicate()
