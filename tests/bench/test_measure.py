"""Interleaving, medians, spreads, ratios and the saved table."""

from __future__ import annotations

import io
import json
import time

import pytest

from cllm.bench import measure
from cllm.errors import UsageError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only moves when a candidate moves it."""
    now = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])
    return now


def test_order_rotates_and_every_candidate_is_timed_once_a_round(clock: list[float]) -> None:
    seen: list[str] = []

    def candidate(name: str, seconds: float):
        def call() -> None:
            seen.append(name)
            clock[0] += seconds

        return call

    timings = measure.interleave({"a": candidate("a", 1), "b": candidate("b", 2), "c": candidate("c", 4)}, 4, 2)
    assert "".join(seen) == "aabbcc" + "abc" + "bca" + "cab" + "abc"
    assert {k: t.samples for k, t in timings.items()} == {"a": (1,) * 4, "b": (2,) * 4, "c": (4,) * 4}
    assert timings["b"].median_s == 2 and timings["b"].ms == 2000 and timings["b"].spread == 0


def test_warmup_is_not_timed_and_outliers_do_not_move_the_median(clock: list[float]) -> None:
    costs = iter([100.0, 1.0, 1.0, 50.0, 1.0, 1.0])

    def call() -> None:
        clock[0] += next(costs)

    timing = measure.interleave({"x": call}, rounds=5, warmup=1)["x"]
    assert timing.samples == (1, 1, 50, 1, 1)
    assert timing.median_s == 1 and timing.spread == 0


def test_short_candidates_are_repeated_and_reported_per_call(clock: list[float]) -> None:
    calls = [0]

    def call() -> None:
        calls[0] += 1
        clock[0] += 0.25

    timing = measure.interleave({"x": call}, rounds=2, warmup=0, least_s=1.0)["x"]
    assert calls[0] == 1 + 2 * 4
    assert timing.samples == (0.25, 0.25)


def test_sync_runs_inside_the_timed_span(clock: list[float]) -> None:
    queue = [0.0]

    def call() -> None:
        queue[0] += 3

    def sync() -> None:
        clock[0] += queue[0]
        queue[0] = 0.0

    assert measure.interleave({"x": call}, rounds=2, warmup=1, sync=sync)["x"].samples == (3, 3)


def test_spread_is_the_relative_interquartile_range() -> None:
    timing = measure.Timing.of([1.0, 2.0, 3.0, 4.0, 5.0])
    assert timing.median_s == 3 and timing.spread == pytest.approx((4 - 2) / 3)
    assert measure.Timing.of([2.0]).spread == 0


def test_ratio_pairs_rounds_so_a_common_disturbance_cancels() -> None:
    slow, fast = measure.Timing.of([2.0, 20.0, 4.0]), measure.Timing.of([1.0, 10.0, 2.0])
    ratio = measure.ratio(slow, fast)
    assert ratio.median == 2 and ratio.spread == 0 and ratio.samples == (2, 2, 2)
    with pytest.raises(UsageError, match="3 and 1"):
        measure.ratio(slow, measure.Timing.of([1.0]))


@pytest.mark.parametrize("bad", [{"rounds": 0}, {"warmup": -1}, {"candidates": {}}])
def test_nonsense_is_refused(bad: dict) -> None:
    with pytest.raises(UsageError, match="interleave"):
        measure.interleave(**{"candidates": {"a": int}, **bad})


def test_real_clock_tells_a_slow_call_from_a_fast_one() -> None:
    timings = measure.interleave({"slow": lambda: time.sleep(0.02), "fast": lambda: None}, rounds=3)
    assert timings["slow"].median_s >= 0.02 and measure.ratio(timings["slow"], timings["fast"]).median > 10


def test_table_renders_and_saves(tmp_path) -> None:
    from rich.console import Console

    table = measure.Table("demo", "A demo [of brackets]", facts={"peak_fraction": 0.5})
    table.add_timing("ours", measure.Timing.of([0.001, 0.002, 0.003]), tokens_per_s=12345.6)
    table.add("theirs", ms=8.0, compiled=True)
    table.notes.append("measured while nothing else ran")
    out = io.StringIO()
    table.render(Console(file=out, width=120))
    text = out.getvalue()
    for part in ("A demo [of brackets]", "ours", "12,346", "50.0 %", "yes", "—", "nothing else ran"):
        assert part in text
    assert table.columns == ["ms", "spread", "tokens_per_s", "compiled"]

    path = table.save(tmp_path / "benchmarks", {"cpu": "x"})
    assert path == tmp_path / "benchmarks" / "demo.json" and [p.name for p in path.parent.iterdir()] == ["demo.json"]
    saved = json.loads(path.read_text())
    assert saved["rows"][0]["name"] == "ours" and saved["rows"][0]["ms"] == 2.0
    assert saved["machine"] == {"cpu": "x"} and saved["format"] == measure.FORMAT and saved["date"].endswith("+00:00")
    assert table.save(tmp_path / "benchmarks") == path  # the newest replaces the older


def test_save_refuses_not_a_number_and_keeps_the_old_file(tmp_path) -> None:
    table = measure.Table("demo", "demo")
    table.add("a", ms=1.0)
    path = table.save(tmp_path)
    table.add("b", ms=float("nan"))
    with pytest.raises(ValueError, match="JSON"):
        table.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["demo.json"] and len(json.loads(path.read_text())["rows"]) == 1
