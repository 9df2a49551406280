"""`cllm bench gpu` without a GPU: what it says then, and its parts as far as a CPU can run them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cllm import config as settings
from cllm.bench import gpu, gpu_link, gpu_ops
from cllm.engine import cuda
from cllm.errors import UsageError

CONFIG = settings.load(
    preset="nano", overrides={"train.batch": 2, "train.sequence": 16, "train.accumulate": 2, "precision": "fp32"}
)
CPU = torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_ends_with_2():
    done = subprocess.run([sys.executable, "-m", "cllm", "bench", "gpu"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert "needs an NVIDIA GPU" in done.stderr and "so nothing was measured" in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3, "one sentence"


def test_without_triton_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'cllm\[cuda\]'"):
        gpu.require()


def test_a_step_of_each_candidate_starts_from_the_same_weights():
    one = settings.replace(CONFIG, {"train.accumulate": 1})
    losses = {name: gpu.candidate(name, one, CPU)() for name in (gpu.GRAPH, gpu.OP_BY_OP, "plain eager")}
    assert losses[gpu.GRAPH] == pytest.approx(losses[gpu.OP_BY_OP], rel=2.0**-40)
    assert losses["plain eager"] == pytest.approx(losses[gpu.OP_BY_OP], rel=1e-5)
    twice = gpu.candidate(gpu.GRAPH, CONFIG, CPU)
    assert twice() > twice(), "it does not learn"


def test_the_bits_of_a_graph_are_compared(monkeypatch):
    assert gpu.same_bits(CONFIG, CPU) == []
    launch = gpu.Graphed.launch
    monkeypatch.setattr(gpu.Graphed, "launch", lambda self, rows, *, number, lr: launch(self, rows, number=0, lr=lr))
    found = gpu.same_bits(CONFIG, CPU)
    assert "tok" in found and "m.tok" in found


def test_the_checks_are_the_repositorys_tests(tmp_path, monkeypatch):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(
        "import os, pytest\n"
        "def test_device(): assert os.environ['CLLM_TEST_DEVICE'] == 'cpu' and 'TRITON_INTERPRET' not in os.environ\n"
        "def test_bad(): assert False\n"
        "@pytest.mark.skip\n"
        "def test_not(): pass\n"
    )
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert gpu._tested(tmp_path, "tests/test_it.py", CPU) == {"passed": 1, "failed": 1, "skipped": 1}
    root = Path(gpu.__file__).parents[3]
    assert all((root / test).exists() for test in gpu.TESTS)
    monkeypatch.setattr(gpu, "_tested", lambda root, test, device: {"passed": 3, "failed": 1, "skipped": 0})
    table = gpu.checks(CONFIG, CPU)
    assert [row.name for row in table.rows[:3]] == list(gpu.TESTS) and gpu.failed([table]) == 3


def test_the_table_of_steps(monkeypatch):
    monkeypatch.setattr(gpu, "PEERS", ("plain eager",))
    monkeypatch.setattr(gpu, "_limits", lambda precision, device: {"gemm_gflops": 1.0})
    table = gpu.steps(settings.replace(CONFIG, {"train.accumulate": 1}), CPU, rounds=1)
    assert [row.name for row in table.rows] == [gpu.GRAPH, gpu.OP_BY_OP, "plain eager"]
    for row in table.rows:
        assert row.figures["tokens_per_s"] == pytest.approx(2 * 16 / row.figures["ms"] * 1e3)
    assert table.rows[0].figures["times_ours"] == 1.0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_op_can_be_called(precision, monkeypatch):
    monkeypatch.setattr(gpu_ops, "WEIGHTS", 1 << 12)
    config = settings.replace(CONFIG, {"precision": precision})
    for name, op in gpu_ops.calls(config, CPU).items():
        op.call(cuda.kernels(torch.float32 if precision == "fp32" else torch.bfloat16))
        assert op.moved > 0, name


def test_sums_over_processes_are_right():
    """By gloo, as NCCL has no CPU."""
    table = gpu_link.links(2, "gloo", (1 << 10, 1 << 12))
    assert [row.name for row in table.rows] == ["1024 bytes", "4096 bytes"]
    assert all(row.figures["failed"] == 0 and row.figures["ms"] > 0 for row in table.rows)
