"""Certificates of a run that was really trained, the command line, and `--check`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from cyclopts import App
from safetensors.torch import load_file

import cllm
from cllm import certificate
from cllm.certificate.check import check
from cllm.certificate.record import read
from cllm.cli.certify import certify as command
from cllm.cli.gradcheck import gradcheck as gradcheck_command
from cllm.errors import CertificateError, CllmError, CorruptError, NonFiniteError, RunError, UsageError
from cllm.training import checkpoint

TEXT = "".join(f"The {a} {b} sees the {c}. " for a in ("red", "old", "sly") for b in ("fox", "cat", "hen")
               for c in ("moon", "barn", "well", "road")) * 12  # fmt: skip
SETTINGS = {
    "precision": "fp32", "train.steps": 30, "train.batch": 4, "train.sequence": 24, "data.tokenizer": "char",
    "model.width": 16,
    "model.ff": 32, "optim.ema": 0.9, "train.sample_every": 0, "model.dropout": 0.1, "model.attention_dropout": 0.2,
}  # fmt: skip
EXAMPLE = Path(__file__).parents[2] / "examples" / "certify_your_kernel.py"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    cllm.train(folder / "text.txt", preset="nano", out=folder / "run", set=SETTINGS, quiet=True)
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def cli(function, *words: str) -> int:
    """What the root command does with a command's result."""
    app = App()
    app.default(function)
    try:
        return app(list(words), exit_on_error=False, print_error=False, result_action="return_value")
    except CllmError as error:
        print(error)
        return error.exit_code


def test_a_trained_run_is_certified_and_the_file_written(run: Path) -> None:
    found = certificate.certify(cllm.load(run), tokens=50, step=True)
    assert found.ok and found.bits == 256 and found.subject["trained"] and found.subject["tokens"] == 48
    assert found.subject["rows"] == 2 and found.adamw is not None
    (path,) = run.glob("certificate-*.json")
    data = json.loads(path.read_text())
    assert data["format"] == "cllm-certificate" and len(data["hashes"]["weights"]) == 64
    assert {row["name"] for row in data["tensors"]} | {z["tensor"] for z in data["structural"]} == set(
        checkpoint.load(run).weights
    )
    assert data["engine"]["source_sha256"] != data["spec"]["source_sha256"]


def test_check_agrees_at_another_precision(run: Path) -> None:
    certificate.certify(run, tokens=24)
    (path,) = run.glob("certificate-*.json")
    new, words = check(path)
    assert new.bits == 384 and "overlap" in words[1] and "equal, bit for bit" in words[2]
    assert cli(command, "--check", str(path), "--precision", "320") == 0
    with pytest.raises(CertificateError, match="take another"):
        check(path, bits=256)


@pytest.mark.parametrize("what", ["loss", "gradient", "weights", "batch", "spec", "engine"])
def test_check_finds_what_was_changed(run: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    certificate.certify(run, tokens=24)
    (path,) = run.glob("certificate-*.json")
    data = json.loads(path.read_text())
    if what == "loss":
        digits = data["loss"]["exact"]
        data["loss"]["exact"] = digits[:12] + str((int(digits[12]) + 1) % 10) + digits[13:]
    elif what == "gradient":
        data["tensors"][3]["worst"]["exact"] = "[0.123 +/- 1e-20]"
    elif what in ("spec", "engine"):
        data[what]["source_sha256"] = "0" * 64
    else:
        data["hashes"][what] = "0" * 64
    path.write_text(json.dumps(data))
    assert cli(command, "--check", str(path)) == 1
    assert "certified" in capsys.readouterr().out or what in ("loss", "gradient")


def test_check_of_other_weights_fails(run: Path) -> None:
    certificate.certify(run, tokens=24)
    (path,) = run.glob("certificate-*.json")
    _rewrite(run, lambda weights: weights["0.attn.wq"].mul_(1 + 1e-6))
    with pytest.raises(CertificateError, match="the weights is not what was certified"):
        check(path)


def test_check_of_a_preset(tmp_path: Path) -> None:
    found = certificate.certify(preset="nano", tokens=6, set={"precision": "fp64", "model.layers": 1})
    path = found.save(tmp_path)
    assert read(path).subject["overrides"] == {"model.layers": 1}
    new, words = check(path)
    assert new.ok and new.bits == 576 and len(words) == 3


def _rewrite(run: Path, change) -> None:
    """The newest checkpoint with other weights, its hashes made anew."""
    found = checkpoint.load(run)
    weights = load_file(found.path / "weights.safetensors")
    change(weights)
    shutil.rmtree(found.path)
    checkpoint.save(run, found.step, weights, found.state, found.meta, keep=2, best=False)


def test_nan_weights_are_reported_with_the_tensor(run: Path) -> None:
    _rewrite(run, lambda weights: weights["1.ffn.w2"].__setitem__((2, 3), float("nan")))
    with pytest.raises(NonFiniteError, match=r"1\.ffn\.w2 has 1 of"):
        certificate.certify(run)


def test_missing_and_torn_runs(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError):
        certificate.certify(tmp_path / "nowhere")
    for folder in (run / "checkpoints").iterdir():
        file = folder / "weights.safetensors"
        file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(CorruptError):
        certificate.certify(run)


def test_command_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(command, str(run), "--tokens", "24", "--step") == 0
    text = capsys.readouterr().out
    assert text.startswith("CERTIFIED") and "AdamW step t=1..10" in text
    assert cli(command, str(run), "--tokens", "24", "--local") == 0
    assert "op by op" in capsys.readouterr().out
    assert cli(command, "--preset", "nano", "--random", "--tokens", "3", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["ok"] and data["subject"]["parameters"] == 41_952
    assert cli(command, "--preset", "nano", "--local", "--json", "--set", "precision=fp64") == 0
    assert json.loads(capsys.readouterr().out)["precision"] == "float64"


def test_command_line_refusals(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(command) == 2
    assert cli(command, str(run), "--preset", "nano") == 2
    assert cli(command, str(run), "--set", "precision=fp64") == 2
    assert cli(command, str(run), "--precision", "many") == 2
    assert cli(command, "--local", "--mutants") == 2
    assert cli(command, "--random") == 2
    assert cli(command, "--preset", "gpt2", "--tokens", "1024") == 2
    assert "GB" in capsys.readouterr().out.splitlines()[-1]


def test_mutants_from_the_command_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import cllm.certificate.zoo as zoo

    monkeypatch.setattr(zoo, "ZOO", zoo.ZOO[:2])
    monkeypatch.setattr(zoo, "SCENES", {"padded": {}})
    assert cli(command, "--mutants") == 0
    assert "2 of 2 mutants found" in capsys.readouterr().out


def test_a_wrong_engine_exits_1_and_names_the_op(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cllm import native
    from cllm.engine import gelu

    def wrong(x: torch.Tensor, dy: torch.Tensor) -> None:
        right(x, dy)
        dy[1, 2] *= 1.01

    right = gelu.gelu_tanh_backward
    monkeypatch.setenv(native.VARIABLE, "off")  # the torch ops are the engine
    monkeypatch.setattr(gelu, "gelu_tanh_backward", wrong)
    assert cli(command, str(run), "--tokens", "24") == 1
    text = capsys.readouterr().out
    assert text.startswith("NOT CERTIFIED") and "first fault: op 1.ffn.gelu" in text
    assert cli(command, str(run), "--tokens", "24", "--local") == 1


def test_gradcheck_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli(gradcheck_command, f"{EXAMPLE}:softsign") == 0
    assert capsys.readouterr().out.startswith("CERTIFIED  op softsign")
    assert cli(gradcheck_command, f"{EXAMPLE}:broken", "--json") == 1
    assert json.loads(capsys.readouterr().out)["bad"]["op"] == "grad of input 0"
    assert cli(gradcheck_command, f"{EXAMPLE}:brokn") == 2
    assert 'did you mean "broken"' in capsys.readouterr().out
    assert cli(gradcheck_command, str(EXAMPLE)) == 2
    assert cli(gradcheck_command, f"{tmp_path}/none.py:x") == 2
    mapping = tmp_path / "mapping.py"
    mapping.write_text(
        "import numpy as np\n"
        "square = dict(forward=lambda S, x: S.sq(x), kernel=lambda x: x * x,\n"
        "              kernel_backward=lambda g, x: 2 * g * x, inputs=[np.array([[1.5, 0.1]])])\n"
        "number = 3\n"
    )
    assert cli(gradcheck_command, f"{mapping}:square") == 0
    assert cli(gradcheck_command, f"{mapping}:number") == 2


def test_either_a_run_or_a_preset() -> None:
    with pytest.raises(UsageError):
        certificate.certify()
