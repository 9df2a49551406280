"""The description is true where it can be checked; the limits are counted right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cllm.bench import machine, measure
from cllm.engine import native
from cllm.errors import UsageError


def test_the_description_is_json_and_says_what_runs() -> None:
    found = json.loads(json.dumps(machine.describe(), allow_nan=False))
    assert found["cpu"] and found["threads"] == torch.get_num_threads()
    assert 1 <= found["cores"] <= found["cores_online"] == os.cpu_count()
    assert found["versions"]["torch"] == torch.__version__ and found["versions"]["numpy"][0].isdigit()


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs /proc")
def test_instructions_are_the_processors() -> None:
    words = set(Path("/proc/cpuinfo").read_text().split())
    found = machine.instructions()
    assert found and set(found) <= words
    assert machine.cpu_name() in Path("/proc/cpuinfo").read_text()


def test_resident_memory_follows_an_allocation() -> None:
    before = machine.rss_bytes()
    if before is None:
        pytest.skip("the system does not tell")
    held = torch.ones(16 << 20)  # 64 MB, touched
    after, peak = machine.rss_bytes(), machine.peak_rss_bytes()
    assert after is not None and peak is not None
    assert 48 << 20 < after - before < 96 << 20 and peak >= after - (1 << 20)
    del held


@pytest.mark.skipif(not machine._lines("/proc/self/status"), reason="needs /proc")
def test_the_peak_of_a_child_is_its_own_and_not_its_parents() -> None:
    held = b"\1" * (1 << 30)
    code = "from cllm.bench import machine; print(machine.rss_bytes(), machine.peak_rss_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    now, peak = map(int, done.stdout.split())
    assert (machine.peak_rss_bytes() or 0) >= len(held)
    assert now - (1 << 20) <= peak < 3 * len(held) // 4


def test_the_peak_is_the_best_shape_by_counted_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that charges each product 1 s + 1 ns a flop, rates are known exactly."""
    now = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])

    def product(m: int, k: int, n: int, dtype: torch.dtype, device: str):
        def call() -> None:
            now[0] += 1.0 + 2e-9 * m * k * n

        return call

    monkeypatch.setattr(machine, "_product", product)
    peak = machine.gemm_peak("fp32", shapes=((10, 10, 10), (1000, 1000, 500), (100, 100, 100)), longest_s=1e9)
    assert peak.shape == (1000, 1000, 500) and peak.flops == pytest.approx(1e9 / 2) and peak.spread == 0
    assert peak.gflops == pytest.approx(0.5)
    slow = machine.gemm_peak("bf16", shapes=((10, 10, 10), (1000, 1000, 500)), longest_s=100.0)
    assert slow.shape == (10, 10, 10), "too slow by the first shape's rate: left out"


def test_bandwidth_counts_reads_and_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    timing = measure.Timing(0.5, 0.0, (0.5,))
    monkeypatch.setattr(machine, "interleave", lambda candidates, *a, **k: dict.fromkeys(candidates, timing))
    found = machine.memory_bandwidth(bytes_each=1 << 20)
    assert found.read == found.write == 2 * (1 << 20) and found.copy == 4 * (1 << 20)


@pytest.mark.parametrize("precision", machine.PRECISIONS)
def test_a_real_small_measurement(precision: str) -> None:
    peak = machine.gemm_peak(precision, shapes=((64, 64, 64), (128, 128, 128)), rounds=2)
    assert peak.shape in ((64, 64, 64), (128, 128, 128)) and 1e6 < peak.flops < 1e16
    found = machine.memory_bandwidth(bytes_each=1 << 22, rounds=2)
    assert all(1e7 < rate < 1e14 for rate in (found.read, found.write, found.copy))


def test_the_register_loop_counts_its_operations_and_is_the_first_choice_for_the_peak() -> None:
    if not native.available():
        assert machine.register_peak("fp32") is None
    else:
        from cllm.engine.native.peak import multiply_adds

        loops = {kind: (multiply_adds(kind, 10), multiply_adds(kind, 30)) for kind in ("fp32", "fp64", "bf16")}
        assert all(0 < 3 * few == many for few, many in loops.values()), "proportional to the steps"
        assert loops["fp32"][0] == 2 * loops["fp64"][0], "twice the lanes"
        assert loops["bf16"][0] in (loops["fp32"][0], 2 * loops["fp32"][0])
        assert 1e6 < machine.register_peak("fp32", rounds=1) < 1e16
    assert machine.peak_gflops({"bf16_gflops": 1.0, "bf16_peak_gflops": 2.0}, "bf16") == 2.0
    assert machine.peak_gflops({"fp32_gflops": 1.0, "bf16_peak_gflops": 2.0}, "fp32") == 1.0


def test_unknown_precision() -> None:
    with pytest.raises(UsageError, match=r"expected one of fp32, bf16, fp64, got 'fp8'"):
        machine.gemm_peak("fp8")
