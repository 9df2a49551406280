"""Training by several processes, from the command line: `torchrun -m cllm train` and `cllm train --processes`.

With `distributed.reduction = "fixed"` every number of processes makes the same bits, so that runs are compared by their
checkpoints' bytes. Real processes with gloo on this machine; each launch shows several things.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

import cllm
from cllm.cli import run as command_line
from cllm.config import TrainConfig
from cllm.errors import ConfigError, NonFiniteError
from cllm.training import checkpoint
from cllm.training.distributed.group import Group, PeerLost, SaidElsewhere
from cllm.training.distributed.launch import Failure, report
from cllm.training.distributed.split import share
from cllm.training.events import current, read_events, series
from cllm.training.plan import steps_for

TEXT = "".join(f"The {a} {b} sees the {c}. " for a in ("red", "old", "sly") for b in ("fox", "cat", "hen")
               for c in ("moon", "barn", "well", "road")) * 12  # fmt: skip
STEPS = 12
SETTINGS: dict[str, Any] = {
    "train.steps": STEPS, "train.batch": 2, "train.accumulate": 4, "train.sequence": 16, "train.eval_every": 4,
    "train.sample_every": 6, "train.sample_tokens": 4, "checkpoint.every": 4, "checkpoint.keep": 100,
    "model.dropout": 0.1, "optim.ema": 0.9, "data.tokenizer": "char", "distributed.reduction": "fixed",
}  # fmt: skip
CURVES = Path(__file__).parents[2] / "benchmarks" / "distributed-curves.json"
FACTOR = 8  # between the largest differences of two curves that only add in other orders
FILES = ("weights.safetensors", "state.safetensors")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    """The run as one process makes it."""
    out = tmp_path_factory.mktemp("whole") / "run"
    cllm.train(text, preset="nano", out=out, set=SETTINGS, quiet=True)
    return out


def options(settings: Mapping[str, Any]) -> list[str]:
    return [f"--set={key}={value}" for key, value in settings.items()]


def started(processes: int, *arguments: str, torchrun: bool = False, **environment: str) -> subprocess.Popen[str]:
    """`cllm train ARGUMENTS` in so many processes."""
    launcher, more = [sys.executable, "-m"], [f"--processes={processes}"]
    if torchrun:
        launcher += [
            "torch.distributed.run",
            "--standalone",
            "--local-addr=127.0.0.1",
            f"--nproc-per-node={processes}",
            "-m",
        ]
        more = []
    return subprocess.Popen(
        [*launcher, "cllm", "train", *arguments, *more],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    """What it said, once it has ended with this exit code."""
    out, said = process.communicate(timeout=240)
    assert process.returncode == code, said
    assert not out
    return said


def contents(run_dir: Path, step: int = STEPS) -> dict[str, bytes]:
    folder = run_dir / "checkpoints" / checkpoint.checkpoint_name(step)
    found = {name: (folder / name).read_bytes() for name in FILES}
    meta = checkpoint.load(run_dir, folder.name).meta
    return found | {key: repr(value).encode() for key, value in meta.items() if key != "config"}


def at_step(run_dir: Path, step: int, copy: Path) -> Path:
    """A copy of a finished run that was stopped behind `step`."""
    shutil.copytree(run_dir, copy)
    for folder in (copy / "checkpoints").iterdir():
        if folder.name > checkpoint.checkpoint_name(step):
            shutil.rmtree(folder)
    for pointer in ("latest", "best"):
        (copy / pointer).write_text(checkpoint.checkpoint_name(step) + "\n")
    return copy


def ranks_of(launcher: subprocess.Popen[str]) -> dict[int, int]:
    """Process ids of the ranks, by rank."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    found = {}
    for pid in children:
        variables = dict(
            one.split("=", 1) for one in Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in one
        )
        if "RANK" in variables:
            found[int(variables["RANK"])] = int(pid)
    return found


def wait_for(launcher: subprocess.Popen[str], run_dir: Path, seen: Callable[[list[dict[str, Any]]], bool]) -> None:
    """Until the run's events show it."""
    deadline = time.monotonic() + 200
    log = run_dir / "events.jsonl"
    while not (log.exists() and (events := read_events(log)) and seen(events)):
        assert launcher.poll() is None, launcher.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --------------------------------------------------------------------------------------------- the same run


def test_four_processes_make_the_run_of_one_and_others_go_on_with_it(tmp_path: Path, text: Path, whole: Path):
    four = tmp_path / "four"
    zero = ["--set=distributed.zero=2", "--set=checkpoint.background=false"]
    said = ended(started(4, str(text), "--preset=nano", f"--out={four}", *options(SETTINGS), *zero, torchrun=True))
    for step in (0, 4, 8, STEPS):
        assert contents(four, step) == contents(whole, step)
    # rank 0 alone has written, and what one process writes
    assert said.count("4 processes, 1 thread each") == said.count(f"done: {STEPS} steps") == 1
    mine, theirs = (read_events(run / "events.jsonl") for run in (four, whole))
    assert sorted((e["event"], e["step"]) for e in mine) == sorted((e["event"], e["step"]) for e in theirs)
    assert (mine[0]["processes"], theirs[0]["processes"]) == (4, 1)
    for key, event in (("loss", "step"), ("grad_norm", "step"), ("loss", "eval"), ("bits_per_byte", "eval")):
        assert series(mine, key, event) == series(theirs, key, event)
    steps = [[e["grad_norms"] for e in events if e["event"] == "step"] for events in (mine, theirs)]
    parameters = sum(weights.numel() for weights in checkpoint.load(whole).weights.values())
    for pieces, together in zip(*steps, strict=True):  # one sums up in float64, the other exactly, both from blocks
        assert pieces == pytest.approx(together, rel=(parameters + 256) * 2.0**-53, abs=0.0)
        assert len(pieces) == 4
    assert [e["text"] for e in mine if e["event"] == "sample"] == [e["text"] for e in theirs if e["event"] == "sample"]
    assert checkpoint.load(four).environment["processes"] == "4"
    # saved in four pieces, gone on with in one and in three
    one = at_step(four, 8, tmp_path / "one")
    cllm.train(out=one, resume=True, quiet=True)
    assert contents(one) == contents(whole)
    three = at_step(four, 4, tmp_path / "three")
    said = ended(started(3, "--resume", f"--out={three}", "--set=distributed.zero=1"))
    assert contents(three) == contents(whole)
    assert "resuming" in said
    assert "processes:" not in said  # with this reduction it makes no difference
    assert checkpoint.load(three).environment["processes"] == "3"


def test_the_librarys_sum_stays_close_and_the_clock_is_rank_0s(
    tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]
):
    """fp64: what another order of additions changes is 10⁷ times smaller than what one left-out row would."""
    changes = {"distributed.reduction": "fast", "precision": "fp64", "train.max_minutes": 0.02}
    settings = {key: value for key, value in SETTINGS.items() if key != "train.steps"} | changes
    two, one = tmp_path / "two", tmp_path / "one"
    said = ended(started(2, str(text), "--preset=nano", f"--out={two}", *options(settings)))
    assert "timing the first steps to fit 0.02 minutes" in said
    steps = cllm.load(two).config.train.steps
    cllm.train(text, preset="nano", out=one, set=settings | {"train.steps": steps}, quiet=True)
    (at, losses), (_, expected) = series(two / "events.jsonl", "loss"), series(one / "events.jsonl", "loss")
    assert at[-1] == steps
    assert max(abs(a - b) for a, b in zip(losses, expected, strict=True)) < 1e-9
    # resumed by another number of processes the bits may differ, and that is said
    cllm.train(out=at_step(two, max(0, steps - 8) // 4 * 4, tmp_path / "again"), resume=True)
    assert "note: processes: 2 when saved, 1 now" in capsys.readouterr().err


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_loss_curves_of_200_steps_stay_as_close_as_another_cut_in_one_process(tmp_path: Path):
    """float32, the library's sums. The yardstick: one process that cuts the same rows into other micro-batches. Both
    only add in another order, and training enlarges that; a wrong reduction is off by orders of magnitude."""
    settings = {
        "train.steps": 200, "train.batch": 4, "train.accumulate": 4, "train.sequence": 64, "precision": "fp32",
        "train.eval_every": 0, "train.sample_every": 0, "checkpoint.every": 0, "model.dropout": 0.1,
    }  # fmt: skip
    more = ["shakespeare/hamlet", "--preset=nano", "--quiet"]

    def curve(out: Path) -> list[float]:
        at, losses = series(out / "events.jsonl", "loss")
        assert at == list(range(1, 201))
        return losses

    def alone(name: str, **other: Any) -> list[float]:
        cllm.train(more[0], preset="nano", out=tmp_path / name, set=settings | other, quiet=True)
        return curve(tmp_path / name)

    one = alone("one")

    def distance(losses: list[float]) -> float:
        return max(abs(a - b) for a, b in zip(losses, one, strict=True))

    found = {"1, cut into 2 × 8 rows": distance(alone("cut", **{"train.batch": 8, "train.accumulate": 2}))}
    for processes, zero in [(n, z) for n in (2, 3, 4) for z in (0, 1, 2)]:
        out = tmp_path / f"{processes}-{zero}"
        ended(started(processes, *more, f"--out={out}", *options(settings | {"distributed.zero": zero})))
        found[f"{processes}, zero {zero}"] = distance(curve(out))
    wrong = distance(alone("wrong", **{"train.batch": 5, "train.accumulate": 3}))  # 15 rows instead of 16
    result = {"steps": 200, "last_loss": one[-1], "largest_difference": found, "one_row_less": wrong}
    CURVES.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    yardstick = found["1, cut into 2 × 8 rows"]
    assert all(value <= FACTOR * yardstick for value in found.values()), found
    assert wrong > 10 * FACTOR * yardstick


# --------------------------------------------------------------------------------------------- stops and faults


def test_a_killed_rank_and_a_signal_leave_the_run_as_it_would_have_been(tmp_path: Path, text: Path):
    settings = SETTINGS | {"train.steps": 300, "checkpoint.every": 10, "checkpoint.keep": 1000, "train.eval_every": 100}
    out, whole = tmp_path / "run", tmp_path / "whole"
    process = started(2, str(text), "--preset=nano", f"--out={out}", *options(settings))
    try:
        wait_for(process, out, lambda events: events[-1]["step"] > 10)
        os.kill(ranks_of(process)[1], signal.SIGKILL)
        wait_for(
            process, out, lambda events: any(e["event"] == "resume" for e in events) and events[-1]["event"] == "step"
        )
        process.send_signal(signal.SIGINT)
        said = ended(process, 130)
    finally:
        process.kill()
        process.communicate()
    assert re.search(r"cllm: rank 1 \(process \d+\): killed by SIGKILL", said)
    assert "all ranks start again from the newest checkpoint (1 of 3)" in said
    assert said.count("everything is saved. Continue with") == 1
    events = read_events(out / "events.jsonl")
    (again,) = [e for e in events if e["event"] == "resume"]
    assert 10 <= again["step"] < 300
    stop = events[-1]
    assert (stop["event"], stop["reason"]) == ("stop", "SIGINT")
    assert checkpoint.load(out).step == stop["step"] < 300  # one checkpoint, of the step behind which all stopped
    cllm.train(text, preset="nano", out=whole, set=settings, quiet=True)
    cllm.train(out=out, resume=True, quiet=True)
    assert contents(out, 300) == contents(whole, 300)
    assert series(current(read_events(out / "events.jsonl")), "loss") == series(whole / "events.jsonl", "loss")


def test_a_loss_that_is_not_finite_stops_all_and_is_not_tried_again(tmp_path: Path, text: Path):
    wrong = {"optim.lr": 1e30, "optim.clip": 0.0, "precision": "fp32", "schedule.warmup": 0, "model.dropout": 0.0}
    wrong |= {"distributed.reduction": "fast"}
    said = ended(started(2, str(text), "--preset=nano", f"--out={tmp_path / 'run'}", *options(SETTINGS | wrong)), 1)
    assert said.count("cllm: ") == 1
    assert re.search(r"cllm: step \d+: loss nan, first seen in .*, on rank 0\. The update was not made", said)
    (alert,) = [e for e in read_events(tmp_path / "run" / "events.jsonl") if e["event"] == "alert"]
    # the batch that is kept is the whole step's, for one process to look at
    expected = tmp_path / "alone"
    with pytest.raises(NonFiniteError):
        cllm.train(text, preset="nano", out=expected, set=SETTINGS | wrong, quiet=True)
    (theirs,) = [e for e in read_events(expected / "events.jsonl") if e["event"] == "alert"]
    assert alert["batch_sha256"] == theirs["batch_sha256"]


def test_started_by_hand_a_port_in_use_and_different_arguments_are_named(tmp_path: Path, text: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        arguments = [str(text), "--preset=nano", f"--out={tmp_path / 'run'}", *options(SETTINGS)]

        def rank(number: int, *more: str) -> subprocess.Popen[str]:
            return subprocess.Popen(
                [sys.executable, "-m", "cllm", "train", *arguments, *more],
                env=os.environ | place | {"RANK": str(number), "LOCAL_RANK": str(number), "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip

        assert f"MASTER_PORT: 127.0.0.1:{port} is in use by another process" in ended(rank(0), 2)
    both = rank(0), rank(1, "--set=optim.lr=0.5")
    first, second = (ended(one, 2) for one in both)
    assert "cllm" not in first  # the other one says why
    assert "cllm: rank 1: optim.lr: got 0.5 on" in second
    assert not (tmp_path / "run").exists()


def test_a_rank_that_does_not_see_the_run_directory_says_so(tmp_path: Path, text: Path):
    """As on two machines without a shared file system: each has a folder of this name of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    command = [sys.executable, "-m", "cllm", "train", str(text), "--preset=nano", "--out=run", *options(SETTINGS)]
    both = []
    for rank in range(2):
        (tmp_path / str(rank)).mkdir()
        environment = place | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            command, env=os.environ | environment, cwd=tmp_path / str(rank),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        both.append(process)
    first, second = (ended(one, 2) for one in both)
    assert "cllm:" not in first
    assert re.search(r"cllm: rank 1: run/data: rank 1 on .* does not see what rank 0 has written there", second)
    assert "must lie on a file system that all machines share" in second


# ------------------------------------------------------------------------------------------- without processes


@pytest.mark.parametrize(
    ("settings", "processes", "said"),
    [
        (
            ["distributed.reduction=fast"],
            9,
            r"9 processes share the 8 rows of a step .*: more processes than rows. Use",
        ),
        ([], 5, r"5 processes share train.accumulate = 4; .*: train.accumulate = 8, train.batch = 1"),
        (
            ["memory=fused", "precision=bf16", "optim.clip=0.0", "train.accumulate=1", "distributed.reduction=fast"],
            2,
            r"memory: \"fused\" updates each tensor inside the backward, .*: use memory = \"lean\", and distributed",
        ),
        (
            ["train.accumulate=1", "train.batch=4"],
            2,
            r"use at most 1 process, or .*: train.accumulate = 2, train.batch = 2",
        ),
        ([], 0, r"--processes 0: expected 1 or more"),
    ],
)
def test_what_so_many_processes_cannot_do_is_refused_before_any_starts(
    tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str], settings: list[str], processes: int, said: str
):
    more = [f"--set={one}" for one in settings]
    out = tmp_path / "run"
    given_ = [str(text), "--preset=nano", f"--out={out}", *options(SETTINGS), *more, f"--processes={processes}"]
    assert command_line(["train", *given_]) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not out.exists()


def test_processes_inside_torchrun_and_restarts_alone_are_refused(
    text: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert command_line(["train", str(text), "--restarts=1"]) == 2
    monkeypatch.setenv("RANK", "0")
    assert command_line(["train", str(text), "--processes=2"]) == 2
    said = capsys.readouterr().err
    assert "--restarts: it is about --processes N" in said
    assert "torchrun has started this already" in said


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_every_row_of_a_step_is_one_ranks(a: int, b: int, data: st.DataObject):
    train = TrainConfig(accumulate=a, batch=b)
    for reduction, most, in_turn in (("fast", a * b, False), ("fixed", a, False), ("fixed", a, True)):
        size = data.draw(st.integers(1, most))
        shares = [share(train, rank, size, reduction, in_turn=in_turn) for rank in range(size)]
        parts = [part for one in shares for part in one.parts]
        assert sorted(row for first, count in parts for row in range(first, first + count)) == list(range(a * b))
        assert all(1 <= count <= b for _, count in parts)
        if reduction == "fixed":  # whole micro-batches, the same for every number of ranks
            assert sorted(parts) == list(share(train, 0, 1).parts)
        else:  # nobody has much more to do than the others
            assert max(one.rows for one in shares) - min(one.rows for one in shares) <= 1
        with pytest.raises(ConfigError):
            share(train, 0, most + 1, reduction)


def test_one_process_forms_no_group_and_every_exchange_gives_back_what_it_gets(tmp_path: Path, text: Path):
    group = Group.alone()
    assert Group.from_environment() == group
    assert group.gather([1.5, math.inf]) == [[1.5, math.inf]]
    assert (group.gather_objects("a"), group.agree({"b": 1}), group.largest(2.0)) == (["a"], {"b": 1}, 2.0)
    assert group.lead(lambda: 3) == group.each(lambda: 3) == 3
    code = f"""
import sys, torch
already = {{name for name in sys.modules if name.startswith("torch.distributed")}}
import cllm
settings = {{"train.steps": 2, "train.sequence": 8, "data.tokenizer": "char"}}
cllm.train({str(text)!r}, preset="nano", out={str(tmp_path / "run")!r}, set=settings, quiet=True)
assert not torch.distributed.is_initialized()
print(sorted({{name for name in sys.modules if name.startswith("torch.distributed")}} - already))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found == "[]\n"  # nothing of torch.distributed but what torch itself takes


def test_steps_are_timed_by_the_clock_that_is_given():
    ticks: Iterator[float] = iter(range(1000))
    steps = steps_for(10, lambda: None, lambda: None, 0, clock=lambda: float(next(ticks)))
    assert steps == int(10 * 60 * 0.96 - 7)  # one second a step, six steps and an evaluation timed


def failure(tmp_path: Path, code: int, error: Any = None) -> ProcessFailure:
    file = tmp_path / f"{code}-{type(error).__name__}.json"
    if error is not None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
            report(error)
        assert json.loads(file.read_text())["exit_code"] == error.exit_code
    return ProcessFailure(local_rank=0, pid=7, exitcode=code, error_file=str(file))


def test_of_several_failures_the_cause_is_named(tmp_path: Path):
    """What went wrong by itself comes before a death, before losing another, before being told, before being ended."""
    ends = [
        Failure.of(0, failure(tmp_path, -signal.SIGTERM), ""),
        Failure.of(1, failure(tmp_path, 2, SaidElsewhere("rank 4 stopped")), ""),
        Failure.of(2, failure(tmp_path, 2, PeerLost("rank 2: a sum failed")), ""),
        Failure.of(3, failure(tmp_path, -signal.SIGSEGV), "    the last line"),
        Failure.of(4, failure(tmp_path, 1, NonFiniteError("step 3: loss nan")), ""),
    ]
    causes = [one.cause for one in ends]
    assert causes == sorted(causes, reverse=True)
    assert len(set(causes)) == len(causes)
    assert str(ends[3]) == "rank 3 (process 7): killed by SIGSEGV; its last words:\n    the last line"
    assert (str(ends[4]), ends[4].exit_code) == ("rank 4 (process 7): step 3: loss nan", 1)
