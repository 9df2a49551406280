"""The command line as people meet it: exit codes, messages, JSON, standard input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cllm.cli import COMMANDS

SENTENCES = "The quick brown fox jumps over the lazy dog. Pack my box with five dozen liquor jugs. " * 60


def cllm(*arguments: str, cwd: Path, text: str | bytes | None = None) -> subprocess.CompletedProcess[str]:
    data = text.encode() if isinstance(text, str) else text
    done = subprocess.run(
        [sys.executable, "-m", "cllm", *arguments],
        cwd=cwd,
        input=data,
        capture_output=True,
        check=False,
        env=os.environ,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "text.txt").write_text(SENTENCES, encoding="utf-8")
    done = cllm(
        *("train", "text.txt", "--preset", "nano", "--out", "run", "--set", "train.steps=30"),
        *("--set", "optim.lr=1e-2", "--set", "train.batch=4"),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "step 30/30" in done.stderr
    assert "cllm generate run" in done.stderr
    return folder / "run"


def test_generate_continues_the_prompt_and_a_seed_repeats(run_dir: Path):
    arguments = ("generate", "run", "--prompt", "The ", "--max-tokens", "8", "--seed", "7")
    first, second = (cllm(*arguments, cwd=run_dir.parent) for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    assert first.stdout.startswith("The ")
    found = json.loads(cllm(*arguments, "--json", cwd=run_dir.parent).stdout)
    assert first.stdout == found["prompt"] + found["text"] + "\n"
    assert len(found["tokens"]) == len(found["surprise"]) == 8
    piped = cllm("generate", "run", "--prompt", "-", *arguments[4:], cwd=run_dir.parent, text="The ")
    assert piped.stdout == first.stdout


def test_eval_prints_figures_and_json(run_dir: Path):
    done = cllm("eval", "run", "--ngrams", cwd=run_dir.parent)
    assert done.returncode == 0, done.stderr
    assert "n = 5" in done.stdout
    found = json.loads(cllm("eval", "run", "text.txt", "--json", cwd=run_dir.parent).stdout)
    assert found["bytes"] == len(SENTENCES.encode())
    assert 0 < found["bits_per_byte"] < 8
    assert found["accuracy"] <= found["top5_accuracy"]


def test_info_of_a_run_a_preset_and_the_settings(run_dir: Path):
    found = json.loads(cllm("info", "run", "--json", cwd=run_dir.parent).stdout)
    assert found["step"] == 30
    assert found["checkpoint"] == "step-00000030"
    seed = json.loads(cllm("info", "--preset", "seed", "--json", cwd=run_dir.parent).stdout)
    assert seed["parameters"] == 24_297_472
    assert "[optim]" in cllm("info", "--settings", cwd=run_dir.parent).stdout


def test_runs_are_listed_with_how_they_ended(run_dir: Path, tmp_path: Path):
    (found,) = json.loads(cllm("runs", ".", "--json", cwd=run_dir.parent).stdout)["runs"]
    assert (found["step"], found["steps"], found["ended"], found["tokens"]) == (30, 30, "done", 30 * 4 * 64)
    assert found["best_loss"] == min(found["losses"])
    assert "30/30" in cllm("runs", ".", cwd=run_dir.parent).stdout
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "run.toml").write_text("[optim", encoding="utf-8")
    done = cllm("runs", ".", cwd=tmp_path)
    assert done.returncode == 0
    assert "unreadable" in done.stdout
    (tmp_path / "torn" / "run.toml").unlink()
    assert "no run in" in cllm("runs", ".", cwd=tmp_path).stdout


def test_plan_measures_and_warns(tmp_path: Path):
    done = cllm("plan", "--preset", "nano", "--set", "train.steps=100", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "tokens a parameter" in done.stdout
    found = json.loads(cllm("plan", "--preset", "nano", "--set", "train.steps=100", "--json", cwd=tmp_path).stdout)
    assert found["bytes_total"] == sum(found["bytes"].values())
    assert found["tokens"] == 100 * 16 * 64
    assert found["seconds"] == pytest.approx(100 * found["seconds_a_step"])
    assert found["largest_batch"] >= 16
    done = cllm("plan", "--preset", "large", "--set", "train.batch=100000", cwd=tmp_path)
    assert done.returncode == 1
    assert "does not fit" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["trian"], 2, 'Did you mean "train"'),
        (["train", "text.txt", "--prest", "nano"], 2, "unknown option --prest; did you mean"),
        (["train", "text.txt", "--set", "optm.lr=1"], 2, 'did you mean "optim"'),
        (["train", "text.txt", "--set", "optim.lr=fast"], 2, 'optim.lr: expected float, got "fast"'),
        (["train", "text.txt", "--preset", "sed"], 2, 'did you mean "seed"'),
        (["train"], 2, "no text given"),
        (["train", "nothing.txt"], 2, "nothing.txt: no such file"),
        (["train", "text.txt", "--out", "run"], 2, "a run is already there"),
        (["train", "text.txt", "--set", "model.width=65536", "--set", "model.layers=99"], 2, "this machine has"),
        (["generate", "nowhere"], 2, "nowhere: does not exist"),
        (["generate", "run", "--top-p", "3"], 2, "top_p: expected a probability"),
        (["generate", "run", "--checkpoint", "step-00000999"], 2, "step-00000999"),
        (["eval", "run", "nothing.txt"], 2, "nothing.txt: no such file"),
        (["info", "--set", "model.heads=3"], 2, "does not divide"),
    ],
)
def test_bad_input_says_what_to_do(run_dir: Path, arguments: list[str], code: int, said: str):
    done = cllm(*arguments, cwd=run_dir.parent)
    assert "Traceback" not in done.stderr
    assert said in " ".join(done.stderr.split()), done.stderr
    assert done.returncode == code
    assert done.stdout == ""


def test_standard_input_is_a_text(tmp_path: Path):
    done = cllm(
        "train", "-", "--preset", "nano", "--out", "run", "--set", "train.steps=2", cwd=tmp_path, text=SENTENCES
    )
    assert done.returncode == 0, done.stderr
    done = cllm("train", "-", "--preset", "nano", "--out", "other", cwd=tmp_path, text=b"abc\xff")
    assert done.returncode == 2
    assert "byte 3" in done.stderr


def test_a_failed_start_leaves_nothing_in_the_way(tmp_path: Path):
    (tmp_path / "tiny.txt").write_text("hi", encoding="utf-8")
    (tmp_path / "text.txt").write_text(SENTENCES, encoding="utf-8")
    assert cllm("train", "tiny.txt", "--preset", "nano", "--out", "run", cwd=tmp_path).returncode == 2
    done = cllm("train", "text.txt", "--preset", "nano", "--out", "run", "--set", "train.steps=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path: Path):
    (tmp_path / "text.txt").write_text(SENTENCES, encoding="utf-8")
    done = cllm(
        *("train", "text.txt", "--preset", "nano", "--out", "run", "--set", "train.steps=50"),
        *("--set", "optim.lr=1e30", "--set", "optim.clip=0", "--set", "schedule.warmup=0"),
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "first seen in" in done.stderr
    assert "The update was not made" in done.stderr
    assert (tmp_path / "run" / "loss.svg").exists()
    assert list((tmp_path / "run").glob("nonfinite-step-*.safetensors"))


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_with_two_examples(tmp_path: Path, name: str):
    done = cllm(name, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"cllm {name}") >= 3, "the usage line and two examples"
