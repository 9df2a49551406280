"""The command line as people meet it: exit codes, messages, JSON, standard input."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from cllm import config as settings
from cllm.cli import COMMANDS, run
from cllm.cli.generate import _write
from cllm.generation.generate import Piece

ROOT = Path(__file__).parents[2]
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


def test_the_settings_are_all_of_them_and_a_run_file(tmp_path: Path):
    changed = ("--set", "train.steps=7", "--set", 'data.weights={"a.b"=1.0, c=2.0}')
    for given in ((), changed):
        done = cllm("info", "--settings", *given, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        section, seen = "", set()
        for line in done.stdout.splitlines():
            if line.startswith("["):
                section = line.strip("[]") + "."
                seen.add(section[:-1])
            elif "=" in line:
                seen.add(section + line.removeprefix("# ").partition(" = ")[0])
        assert set(settings.known_keys()) <= seen
        (tmp_path / "all.toml").write_text(done.stdout, encoding="utf-8")
        assert settings.load(tmp_path / "all.toml") == settings.load(overrides=given[1::2])
        found = json.loads(cllm("info", "--settings", *given, "--json", cwd=tmp_path).stdout)
        assert found["train"]["steps"] == (7 if given else None)


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
        (["generate", "run", "--prompt", "The", "--top-p", "3"], 2, "top_p: expected a probability"),
        (["generate", "run", "--prompt", "The " * 500], 2, "leave no room in the context"),
        (["generate", "run", "--checkpoint", "step-00000999"], 2, "step-00000999"),
        (["eval", "run", "nothing.txt"], 2, "nothing.txt: no such file"),
        (["eval", "run", "--batch", "0"], 2, "--batch: expected a whole number ≥ 1, got 0"),
        (["eval", "run", "--batch", "-3"], 2, "--batch: expected a whole number ≥ 1, got -3"),
        (["info", "--set", "model.heads=3"], 2, "does not divide"),
        (["bench", "train-step", "--peers", "eager fp23"], 2, "got 'eager fp23'; did you mean \"eager fp32\"?"),
        (["bench", "train-step", "--save", "text.txt"], 2, "--save text.txt: expected a folder, but"),
        (["bench", "numbers", "--save", "text.txt/sub"], 2, "text.txt is a file"),
        (["bench", "certify", "--save", "text.txt"], 2, "text.txt is a file"),
        (["bench", "machine", "--save", "text.txt"], 2, "text.txt is a file"),
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


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("kind", "shown"), [(Terminal, "a\ufffd[2J\n\tb\ufffdc\ufffd\n"), (io.StringIO, "a\x1b[2J\n\tb\x9bc\r\n")]
)
def test_control_characters_do_not_reach_a_terminal(
    monkeypatch: pytest.MonkeyPatch, kind: type[io.StringIO], shown: str
):
    out = kind()
    monkeypatch.setattr(sys, "stdout", out)
    pieces = [Piece("\n\tb\x9b", 5, 1.0), Piece("c\r", 6, 1.0)]
    _write(types.SimpleNamespace(stream=lambda prompt: iter(pieces)), "a\x1b[2J", {})
    assert out.getvalue() == shown


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said_in_a_line(tmp_path: Path):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cllm", "calc", "1+1"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (1, "cllm: No space left on device\n")


def test_a_system_error_names_the_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    def refuse(*arguments: object, **options: object) -> None:
        (tmp_path / "none").read_bytes()

    monkeypatch.setattr("cllm.bench.measure.Table.save", refuse)
    monkeypatch.setattr("cllm.bench.machine.limits", lambda: {"read_gb_s": 1.0})
    assert run(["bench", "machine", "--save", str(tmp_path)]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"cllm: {tmp_path / 'none'}: No such file or directory"


def test_too_little_text_gets_advice_that_can_be_followed(tmp_path: Path):
    (tmp_path / "tiny.txt").write_text("h", encoding="utf-8")
    done = cllm("train", "tiny.txt", "--preset", "nano", "--out", "run", cwd=tmp_path)
    assert done.returncode == 2
    assert "too little text: 1 bytes" in done.stderr
    assert "give more text" in done.stderr
    assert "val_fraction" not in done.stderr


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
    for run_file in re.findall(r"\bruns/\w+\.toml|\bdocs/[\w/]+\.\w+|\bexamples/\w+\.py", done.stdout):
        assert (ROOT / run_file).is_file(), f"an example names {run_file}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("generate", "text.txt", "--prompt", "x"), "text.txt: is a file, not a run directory"),
        (("info", "none"), "none: no such run directory or run file"),
        (("ablate", "none.toml"), "none.toml: no such study file"),
        (("certify", "--check", "none.json"), "none.json: cannot be read: No such file or directory"),
        (("plan", "--preset", "nano", "--processes", "4..2"), "--processes 4..2: expected numbers of 1 or more"),
        (("plan", "--preset", "nano", "--processes", "1", "--local", "no"), "no: cannot be read: No such file"),
        (("plan", "--preset", "nano", "--bandwidth", "3"), "--bandwidth: it is about several processes"),
        (("plan", "--preset", "nano", "--weak"), "--weak: it is about several processes"),
        (("plan", "--set", "train.steps=abc"), 'train.steps: expected int, got "abc"'),
        (("tokenizer", "train", "text.txt", "--out", "t.json", "--vocab-size", "9"), "--vocab-size)"),
    ],
)
def test_bad_input_is_said_in_the_words_of_the_command(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: tuple[str, ...],
    said: str,
):
    (tmp_path / "text.txt").write_text(SENTENCES, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert run(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert said in err and "Errno" not in err and not out


@pytest.mark.parametrize("as_json", [False, True])
def test_a_full_context_is_told_and_nothing_else_is(capsys: pytest.CaptureFixture[str], run_dir: Path, as_json: bool):
    def told(*options: str) -> str:
        arguments = ("generate", str(run_dir), "--prompt", "The quick", "--seed", "1", *options)
        assert run([*arguments, *(["--json"] if as_json else [])]) == 0
        return capsys.readouterr().err

    assert "the context of 64 tokens is full; --past-context slide goes on" in told("--max-tokens", "100")
    assert told("--max-tokens", "20") == told("--max-tokens", "100", "--past-context", "slide") == ""
