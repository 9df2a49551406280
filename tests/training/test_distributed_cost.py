"""The cost model against simulations of what it describes, the fits, the measured pieces, `cllm plan --processes`."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cllm import config as settings_of
from cllm.bench import link as bench_link
from cllm.bench import scale as bench_scale
from cllm.cli import plan_processes
from cllm.cli import run as cllm
from cllm.cli.processes import numbers
from cllm.errors import ConfigError, RunError, UsageError
from cllm.training import plan as planning
from cllm.training.distributed import cost, measured, outlook, pieces
from cllm.training.distributed.cost import Bucket, Link, Machine, Mode, Network, Pieces
from cllm.training.distributed.group import Group
from cllm.training.distributed.together import together

LINK = Link(alpha_s=3e-5, beta_s=1e-9, core_s_per_byte=2e-10, core_s_per_message=1e-5)
U = 2.0**-53


def near(a: float, b: float, terms: int = 16) -> bool:
    """Equal but for the roundings of `terms` float64 operations."""
    return abs(a - b) <= terms * U * max(abs(a), abs(b))


def ring(ranks: int, count: float, link: Link, *, rounds: int) -> tuple[float, list[float]]:
    """A ring played message by message: each rank sends its chunk to the next one, `rounds` times N−1 steps, and
    begins a step when the message of the step before has reached it. (seconds, bytes sent by each rank)"""
    at, out = [0.0] * ranks, [0.0] * ranks
    for _ in range(rounds * (ranks - 1)):
        sent = [time + link.alpha_s + count / ranks * link.beta_s for time in at]
        out = [total + count / ranks for total in out]
        at = [sent[rank - 1] for rank in range(ranks)]
    return max(at), out


@given(st.integers(1, 40), st.floats(1, 1e9), st.sampled_from(cost.COLLECTIVES))
@settings(deadline=None, max_examples=60)
def test_a_ring_costs_what_it_costs_when_it_is_played(ranks: int, count: float, what: cost.Collective) -> None:
    rounds = 2 if what == "all-reduce" else 1
    seconds, sent = ring(ranks, count, LINK, rounds=rounds)
    steps = rounds * (ranks - 1)
    assert near(Network.uniform(LINK).seconds(what, ranks, count), seconds, 4 * steps + 16)
    assert all(near(cost.sent(what, ranks, count), each, 4 * steps + 16) for each in sent)
    assert cost.messages(what, ranks) == steps


@pytest.mark.parametrize(("ranks", "levels"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (4096, 12)])
def test_trees_have_so_many_levels(ranks: int, levels: int) -> None:
    assert cost.messages("all-reduce", ranks, cost.TREE) == 2 * levels
    assert cost.messages("all-gather", ranks, cost.TREE) == ranks - 1, "only the all-reduce has a tree"


def played(work: list[tuple[float, float]], backward: float, tick: float = 1 / 64) -> float:
    """Overlap by a clock: at every tick the link works on the first bucket that is ready and not through."""
    left, now = [list(one) for one in work], 0.0
    while any(remaining > 0 for _, remaining in left):
        first = next(one for one in left if one[1] > 0)
        if first[0] <= now:
            first[1] -= tick
        now += tick
    return max(0.0, now - backward)


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 64)), max_size=12), st.integers(0, 200))
@settings(deadline=None, max_examples=100)
def test_what_is_left_behind_the_backward(work: list[tuple[int, int]], backward: int) -> None:
    parts = sorted((ready / 64, duration / 64) for ready, duration in work)  # of the clock's ticks: exact
    parts = [(ready, duration) for ready, duration in parts if duration]
    assert cost.exposed(parts, backward / 64) == played(parts, backward / 64)


PIECES = Pieces(
    rows=4, forward_s=0.1, backward_s=0.2, clear_s=0.01, norm_s=0.01, update_s=0.03, squares_s=0.05, written_s=0.002,
    buckets=(Bucket(0.25, 4_000_000), Bucket(0.5, 4_000_000), Bucket(1.0, 8_000_000)),
)  # fmt: skip
APART = Machine(cores=2, ranks=1)
MODE = Mode(weight_bytes=12_000_000)


def test_one_process_pays_for_no_communication() -> None:
    found = cost.predict(PIECES, 1, 3, Network.uniform(LINK), APART, MODE)
    assert near(found.step_s, 3 * 0.3 + 0.01 + 0.04) and found.step_s == found.compute_s
    assert found.communicate_s == found.exposed_s == found.sent_bytes == 0


def test_a_step_of_four_by_hand() -> None:
    """Buckets of 4, 4 and 8 MB, ready at 50, 100 and 200 ms; each takes 6α + 1.5·b·β = 0.18 ms + 1.5 ns a byte."""
    found = cost.predict(PIECES, 4, 2, Network.uniform(LINK), APART, MODE)
    small = 3 * 3e-5
    assert near(found.exposed_s, 0.00018 + 0.012 + small, 64), "the first two are hidden, the last one is not"
    assert near(found.communicate_s, 3 * 0.00018 + 0.024 + small, 64)
    assert near(found.compute_s, 2 * 0.3 + 0.05) and near(found.step_s, found.compute_s + found.exposed_s)
    assert near(found.sent_bytes, 1.5 * 16e6)


def test_zero_updates_its_part_gathers_the_weights_and_reduces_every_micro_batch_in_stage_two() -> None:
    network, weights = Network.uniform(LINK), MODE.weight_bytes
    one, two = (cost.predict(PIECES, 4, 3, network, APART, replace(MODE, zero=zero)) for zero in (1, 2))
    assert near(one.compute_s, 3 * 0.3 + 0.01 + (0.05 + 0.03) / 4 + 0.002) and near(
        two.compute_s, one.compute_s + 2 * 0.01
    )
    assert near(one.sent_bytes, 0.75 * 16e6 + 0.75 * weights), "as many as an all-reduce"
    assert near(two.sent_bytes, 3 * 0.75 * 16e6 + 0.75 * weights)
    assert near(one.communicate_s - two.communicate_s, -2 * (9 * 3e-5 + 0.012), 64)
    assert two.exposed_s > one.exposed_s


def test_the_fixed_tree_sends_each_node_and_gets_the_sums_back() -> None:
    network = Network.uniform(LINK)
    plain, even, odd = (cost.predict(PIECES, 4, 3, network, APART, replace(MODE, nodes=n)) for n in (0, 1, 3))
    assert near(even.compute_s, plain.compute_s + 2 * 0.01 + 0.05 - 0.01), "Σg² is made block by block"
    assert near(even.sent_bytes, plain.sent_bytes), "one node: as many as a ring"
    assert near(odd.sent_bytes, (3 + 1) * 0.75 * 16e6)
    shards = cost.predict(PIECES, 4, 3, network, APART, replace(MODE, nodes=3, zero=1))
    assert near(shards.sent_bytes, 3 * 0.75 * 16e6 + 0.75 * 12e6), "the sums stay, the weights come back"


def test_cores_that_compute_and_communicate_are_not_used_twice() -> None:
    """Four ranks on two cores: computing takes twice as long, and communication takes its core-seconds from it."""
    crowded, costly = Machine(cores=2, ranks=4), Network.uniform(replace(LINK, beta_s=1e-12, core_s_per_byte=4e-9))
    assert (crowded.threads(4), crowded.waiting(4), crowded.waiting(3), crowded.waiting(2)) == (1, 2, 1.5, 1)
    assert (crowded.threads(1), crowded.count(9), Machine(cores=0, ranks=8).count(9)) == (2, 3, 9)
    found = cost.predict(PIECES, 4, 1, costly, crowded, MODE)
    assert near(found.compute_s, 2 * 0.35)
    cores = 4 * (0.35 + 18 * 1e-5 + 24e6 * 4e-9)
    assert found.core_bound and near(found.step_s, cores / 2, 64)
    free = cost.predict(PIECES, 4, 1, Network.uniform(replace(LINK, beta_s=1e-12, core_s_per_byte=0)), crowded, MODE)
    assert free.step_s < found.step_s


@given(st.floats(1e-6, 1e-2), st.floats(1e-12, 1e-7), st.sampled_from(cost.COLLECTIVES), st.integers(2, 8))
@settings(deadline=None, max_examples=60)
def test_a_fit_finds_the_link_that_made_the_figures(
    alpha: float, beta: float, what: cost.Collective, ranks: int
) -> None:
    network = Network.uniform(Link(alpha, beta, beta / 3, alpha / 2))
    seconds = [network.seconds(what, ranks, size) for size in bench_link.SIZES]
    cores = [network.core_seconds(what, ranks, size) for size in bench_link.SIZES]
    found = bench_link.fit(what, ranks, bench_link.SIZES, seconds, cores)
    # judged by what it predicts: of α 10⁻⁶ and β 10⁻¹² only the sum is seen. 2×2 normal equations square the condition
    for size, true in zip(bench_link.SIZES, seconds, strict=True):
        model = cost.messages(what, ranks) * found.alpha_s + cost.sent(what, ranks, size) * found.beta_s
        assert abs(model - true) <= 1e-6 * true
    assert found.core_s_per_message >= 0 and found.core_s_per_byte >= 0


def test_a_fit_is_never_below_zero() -> None:
    falling = [1e-3 / (k + 1) for k in range(len(bench_link.SIZES))]
    found = bench_link.fit("all-reduce", 2, bench_link.SIZES, falling, falling)
    assert found.alpha_s > 0 and 0 <= found.beta_s <= 1e-15
    steep = [float(size) ** 2 for size in bench_link.SIZES]
    assert bench_link.fit("all-reduce", 2, bench_link.SIZES, steep, steep).alpha_s == 0


def test_a_link_that_makes_no_sense() -> None:
    for speed, delay in ((0, 1), (-1, 1), (math.inf, 1), (1, -1), (1, math.nan)):
        with pytest.raises(UsageError, match="expected"):
            Link.of(speed, delay)
    assert Link.of(12.5, 20) == Link(20 * 1e-6, 1e-9 / 12.5)
    with pytest.raises(UsageError, match="ring or tree"):
        Network.uniform(LINK, "star")


# ------------------------------------------------------------------------------------------------------ measured


NANO = settings_of.load(preset="nano", overrides={"train.batch": 4, "train.accumulate": 2, "train.sequence": 16})


def test_pieces_of_a_real_step_hold_every_gradient_in_the_order_of_the_backward() -> None:
    config = settings_of.replace(NANO, {"distributed.bucket_mb": 1e-3})
    found = pieces.measure(config, 2, steps=1)
    layout = planning.State.fresh(NANO, "meta").model.layout
    assert 4 * layout.parameters <= found.gradient_bytes <= 4 * layout.total
    assert (
        min(found.forward_s, found.backward_s, found.clear_s, found.norm_s, found.update_s, found.squares_s) > 0
        and found.rows == 2
    )
    ready = [bucket.ready for bucket in found.buckets]
    assert len(ready) >= 8 and 0 < ready[0] < 0.9 and ready[0] < ready[-1] <= 1
    assert found.buckets[-1].bytes >= 4 * 512 * 32 and ready[-1] == max(ready), "the tied embedding is last"
    assert len(pieces.measure(NANO, 2, steps=1).buckets) < len(ready), "larger buckets are fewer"


@pytest.fixture
def found_from_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other processes import this file by its name."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=os.pathsep)


@pytest.mark.usefixtures("found_from_anywhere")
def test_processes_side_by_side_measure_communicate_and_train(tmp_path: Path) -> None:
    config = settings_of.replace(NANO, {"distributed.zero": 1})
    bench_scale.prepare_text(config, tmp_path)
    found = together(_several, 2, settings_of.to_dict(config), str(tmp_path), threads=1, wait_s=240)
    assert [one["rank"] for one in found] == [0, 1] and all(one["threads"] == 1 for one in found)
    assert all(one["pieces"]["beside"] == 2 and one["pieces"]["backward_s"] > 0 for one in found)
    for what in cost.COLLECTIVES:
        assert all(len(size["s"]) >= 5 and min(size["s"]) > 0 for one in found for size in one["scale"]["link"][what])
    first, second = (one["scale"] for one in found)
    assert len(first["pieces"]) == 1 and not second["pieces"], "one core: the second waits while the first measures"
    assert len(first["steps"]) == len(second["steps"]) == bench_scale.STEPS and min(first["steps"]) > 0
    table = bench_scale.Table("scale", "t")
    bench_scale.add(table, config, Machine(cores=1, ranks=2), 2, [first, second], SMALL)
    (row,) = table.rows
    assert row.figures["compute_ms"] < row.figures["predicted_ms"]
    assert near(1 + row.figures["off_fraction"], row.figures["predicted_ms"] / row.figures["ms"])


SMALL = (1024, 4096)


def _several(group: Group, told: dict, folder: str) -> dict:
    """Much at one launch: a launch costs seconds."""
    import torch

    return {
        "rank": group.rank,
        "threads": torch.get_num_threads(),
        "pieces": pieces._measured(group, told, 2, 1),
        "scale": bench_scale.measure(group, told, folder, 1, 1, SMALL),
    }


@pytest.mark.usefixtures("found_from_anywhere")
def test_a_process_that_fails_is_told_with_its_words() -> None:
    with pytest.raises(RunError, match="one of 2 processes failed") as caught:
        together(_failing, 2, wait_s=240)
    assert "the second one has a headache" in str(caught.value)


def _failing(group: Group) -> None:
    if group.rank == 1:
        raise ValueError("the second one has a headache")
    group.barrier()


# ------------------------------------------------------------------------------------------------------- outlook


def figures(config: object, rows: int, beside: int, threads: int) -> Pieces:
    """10 ms forward and 20 ms backward a row on one thread, half of it on two; half as fast again beside another."""
    slow = (1.5 if beside > 1 else 1.0) / threads
    return replace(
        PIECES, rows=rows, forward_s=0.01 * rows * slow, backward_s=0.02 * rows * slow, threads=threads, beside=beside
    )


def two_cores(take: measured.Take = figures) -> measured.Measured:
    return measured.Measured(NANO, take=take, cores=2, threads=2)


def test_the_same_rows_for_any_number_of_processes_until_there_are_none_left() -> None:
    lines = outlook.outlook(NANO, [1, 2, 8, 16], outlook.Job(Network.uniform(LINK)), measured=two_cores())
    assert [line.rows_a_step for line in lines] == [8, 8, 8, 0]
    assert [(line.prediction.rows, line.prediction.micro_batches) for line in lines[:3]] == [(4, 2), (4, 1), (1, 1)]
    copy = planning.size(NANO).bytes_by_part["checkpoint copy"]
    assert lines[0].efficiency == 1 and lines[0].memory_bytes == planning.size(NANO).total_bytes - copy
    assert 1 > lines[1].efficiency > lines[2].efficiency > 0
    assert "more processes than rows" in lines[3].why_not and lines[3].prediction is None
    assert lines[2].memory_bytes < lines[1].memory_bytes, "fewer rows, smaller activations"


def test_weak_scaling_grows_the_global_batch() -> None:
    job = outlook.Job(Network.uniform(LINK), weak=True)
    lines = outlook.outlook(NANO, [1, 4096], job, measured=two_cores())
    assert [line.rows_a_step for line in lines] == [8, 8 * 4096]
    assert lines[1].prediction.compute_s == lines[0].prediction.compute_s
    assert near(lines[1].speedup, 4096 * lines[0].prediction.step_s / lines[1].prediction.step_s, 32)


def test_processes_of_one_machine_share_it() -> None:
    """Two on two cores are measured beside each other with a thread each; four take turns."""
    fast = replace(LINK, alpha_s=1e-9, beta_s=1e-15, core_s_per_byte=0, core_s_per_message=0)
    asked: list[tuple[int, int, int]] = []

    def take(config: object, rows: int, beside: int, threads: int) -> Pieces:
        asked.append((rows, beside, threads))
        return figures(config, rows, beside, threads)

    job = outlook.Job(Network.uniform(LINK), Network.uniform(fast), per_machine=4)
    one, two, four = outlook.outlook(NANO, [1, 2, 4], job, measured=two_cores(take))
    assert asked == [(4, 1, 2), (4, 2, 1), (2, 2, 1)]
    assert near(four.prediction.compute_s, 2 * (0.06 * 1.5 + 0.01 + 0.04), 64)
    assert [line.machines for line in (one, two, four)] == [1, 1, 1] and two.speedup == two.efficiency < 1


def test_what_cannot_be_asked() -> None:
    job = outlook.Job(Network.uniform(LINK))
    for wrong in ([], [0], [2, -1]):
        with pytest.raises(UsageError, match="1 or more"):
            outlook.outlook(NANO, wrong, job, measured=two_cores())
    fused = {"precision": "bf16", "memory": "fused", "optim.clip": 0.0}
    with pytest.raises(ConfigError, match="fused"):
        outlook.outlook(settings_of.load(preset="nano", overrides=fused), [2], job, measured=two_cores())
    assert numbers(["1,3", "4..32"], []) == [1, 3, 4, 8, 16, 32] and numbers(None, [2]) == [2]
    for word in ("0", "a", "1..", "-1", "..4", "1,,2"):
        with pytest.raises(UsageError, match="--processes"):
            numbers([word], [])


def test_plan_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "plan",
        "--preset",
        "nano",
        "--set",
        "train.batch=4",
        "--set",
        "train.sequence=16",
        "--set",
        "train.steps=3",
    ]
    command += ["--processes", "1..8", "--bandwidth", "2", "--latency", "10"]
    picture = tmp_path / "efficiency.svg"
    command += ["--measured", str(tmp_path / "pieces.json")]
    assert cllm([*command, "--picture", str(picture), "--json"]) == 0
    assert len(json.loads((tmp_path / "pieces.json").read_text())["pieces"]) == 3, "4, 2 and 1 rows"
    said = json.loads(capsys.readouterr().out)
    assert [line["processes"] for line in said["processes"]] == [1, 2, 4, 8]
    four = said["processes"][2]
    assert near(four["sent_bytes"], 1.5 * 4 * said["parameters"]) and four["exposed_s"] > 18 * 10e-6
    assert said["processes"][3]["why_not"] and said["link"]["bandwidth"] == 2
    assert picture.read_text().count("<path") >= 2 and "Efficiency" in picture.read_text()
    assert cllm(["plan", "--preset", "nano", "--picture", str(picture)]) == 2
    assert cllm([*command, "--local", str(picture)]) == 2
    assert "cllm bench link" in capsys.readouterr().err


def test_the_table_of_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    lines = outlook.outlook(NANO, [1, 4, 16], outlook.Job(Network.uniform(LINK)), measured=two_cores())
    link = {"bandwidth": 1.0, "latency": 30.0, "per_machine": 1, "algorithm": "ring", "weak": False}
    plan_processes.show(lines, NANO, link)
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "nano, 4 × 2 rows a step, data parallel, ring, 1 process a machine, 1 GB/s, 30 µs"
    four = next(line.split() for line in told if line.split()[:2] == ["4", "2"])
    expected = lines[1]
    assert four[2] == f"{1e3 * expected.prediction.step_s:.1f}" and four[5] == f"{100 * expected.efficiency:.1f}%"
    assert any(line.split() == ["16", "—"] for line in told) and "more processes than rows" in told[-1]


def test_measured_pieces_are_kept_and_taken_again(tmp_path: Path) -> None:
    job, file, first = outlook.Job(Network.uniform(LINK)), tmp_path / "pieces.json", two_cores()
    before = outlook.outlook(NANO, [1, 2, 4], job, measured=first)
    first.save(file)
    assert outlook.outlook(NANO, [1, 2, 4], job, measured=measured.Measured.load(file, NANO)) == before
    with pytest.raises(UsageError, match="no pieces of 1 rows, 1 processes"):
        outlook.outlook(NANO, [8], job, measured=measured.Measured.load(file, NANO))
    with pytest.raises(UsageError, match="sequence = 16, here 8"):
        measured.Measured.load(file, settings_of.replace(NANO, {"train.sequence": 8}))
    for text in ("", "[]", '{"format": "cllm-bench-1"}'):
        file.write_text(text)
        with pytest.raises(UsageError, match=r"pieces\.json: expected"):
            measured.Measured.load(file, NANO)


def test_a_saved_link_is_read_again(tmp_path: Path) -> None:
    table = bench_link.Table("link-gloo-n2", "t", facts={"processes": 2})
    for what in cost.COLLECTIVES:
        figures = (30.0, 2.0, 10.0, 0.2)
        table.facts |= {f"{what} {key}": value for key, value in zip(bench_link.KEYS, figures, strict=True)}
    count, network = bench_link.load(table.save(tmp_path))
    assert count == 2 and network.links["all-gather"] == Link(30.0 * 1e-6, 1e-9 / 2.0, 0.2 * 1e-9, 10.0 * 1e-6)
    (tmp_path / "link-gloo-n2.json").write_text(json.dumps({"format": "cllm-bench-1", "name": "memory", "facts": {}}))
    with pytest.raises(UsageError, match="memory"):
        bench_link.load(tmp_path / "link-gloo-n2.json")
