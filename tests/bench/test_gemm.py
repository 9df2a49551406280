"""`cllm bench gemm`: the same products on both sides, figures from the timings, what it refuses."""

from __future__ import annotations

import pytest
import torch

from cllm.bench import gemm, measure
from cllm.engine import native
from cllm.errors import UsageError

needs_native = pytest.mark.skipif(not native.available(), reason="no native kernels")


@needs_native
@pytest.mark.parametrize("kind", gemm.KINDS)
def test_both_sides_compute_the_same_product(kind: str) -> None:
    """What the calls write is found through their closures; exact operands leave no rounding to differ in."""
    calls = gemm.products(kind, 6, 5, 4, torch.float64)
    seen = {name: dict(zip(f.__code__.co_freevars, f.__closure__, strict=True)) for name, f in calls.items()}
    tensors = {name: cell.cell_contents for cells in seen.values() for name, cell in cells.items()}
    for name in ("x", "dy", "w"):
        if name in tensors:
            tensors[name].round_()
    if "b" in tensors:
        tensors["b"].zero_()
    results = []
    for name, call in calls.items():
        for other in ("y", "dx", "dw", "out"):
            if other in tensors:
                tensors[other].zero_()
        call()
        results.append(tensors[{"forward": "y", "dX": "dx", "dW": "dw" if name == "cllm" else "out"}[kind]].clone())
    assert torch.equal(*results) and results[0].abs().sum() > 0


@needs_native
def test_figures_follow_from_the_timings(monkeypatch: pytest.MonkeyPatch) -> None:
    timings = {
        "cllm": measure.Timing.of([2e-6, 4e-6, 2e-6]),
        "torch": measure.Timing.of([6e-6] * 3),
        "peak": measure.Timing.of([1e-6] * 3),
    }
    monkeypatch.setattr(gemm, "interleave", lambda calls, *a, **k: {name: timings[name] for name in calls})
    monkeypatch.setattr(gemm, "register_loop", lambda kind: lambda: 1000.0)
    monkeypatch.setattr(gemm, "register_peak", lambda kind, rounds: 1e9)
    monkeypatch.setattr(gemm, "MAPS", {"tiny": (5, 2, 50)})
    (table,) = gemm.run(precisions=["fp32"], maps=["tiny"], rounds=3)
    assert [row.name for row in table.rows] == ["tiny forward", "tiny dX", "tiny dW"]
    for row in table.rows:  # 1000 operations, as many as a run of the loop
        assert row.figures["gflops"] == pytest.approx(0.5) and row.figures["peak_fraction"] == pytest.approx(0.5)
        assert row.figures["torch_ratio"] == pytest.approx(3.0) and row.figures["best_fraction"] == pytest.approx(0.5)
    assert table.facts["fp32 register loop (Gop/s)"] == 1.0


@needs_native
def test_what_it_refuses() -> None:
    with pytest.raises(UsageError, match=r"expected one of fp32, bf16, fp64, got 'fp8'"):
        gemm.run(precisions=["fp8"])
    with pytest.raises(UsageError, match=r"expected one of attention out, .*, got 'tail'"):
        gemm.run(maps=["tail"])


def test_without_native_kernels_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLLM_NATIVE", "off")
    with pytest.raises(UsageError, match=r"there are none here: switched off by CLLM_NATIVE=off"):
        gemm.run()
