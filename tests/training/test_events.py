"""The log: what is written is read, torn lines cost only themselves, resumed steps keep the last."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cllm.errors import RunError, UsageError
from cllm.training.events import EventLog, current, read_events, series

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(st.lists(st.dictionaries(st.text("abcxyz", min_size=1), JSON, max_size=4), max_size=5))
@settings(deadline=None, max_examples=100)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, fields: list[dict]) -> None:
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    with EventLog(path, clock=lambda: 12.3456) as log:
        written = [log.emit("sample", number, **each) for number, each in enumerate(fields)]
    notes: list[str] = []
    assert read_events(path, notes) == written and notes == []
    expected = [{"event": "sample", "step": n, "time": 12.346, **each} for n, each in enumerate(fields)]
    assert written == expected
    lines = path.read_text().split("\n")[:-1]  # not splitlines(): text may hold U+0085 and its like
    assert [json.loads(line) for line in lines] == expected, "plain JSON for anyone"


def test_floats_keep_every_bit_and_the_non_finite_have_names(tmp_path: Path) -> None:
    values = [0.1, 1e-320, math.pi, math.nan, math.inf, -math.inf]
    with EventLog(tmp_path / "e") as log:
        for step, value in enumerate(values):
            log.emit("step", step, loss=value, nested={"a": [value]})
    steps, found = series(tmp_path / "e", "loss")
    assert steps == [0, 1, 2, 3, 4, 5]
    assert found[:3] == values[:3] and math.isnan(found[3]) and found[4:] == values[4:]
    lines = [json.loads(line, parse_constant=pytest.fail) for line in (tmp_path / "e").read_text().splitlines()]
    assert [line["loss"] for line in lines[3:]] == ["NaN", "Infinity", "-Infinity"]
    assert lines[4]["nested"] == {"a": ["Infinity"]}


def test_tensors_and_numpy_scalars_become_numbers(tmp_path: Path) -> None:
    with EventLog(tmp_path / "e") as log:
        log.emit("step", 1, loss=torch.tensor(0.5), lr=np.float64(0.25), n=np.int64(3), ok=np.bool_(True))
        with pytest.raises(UsageError, match=r"'loss'.*got Tensor"):
            log.emit("step", 2, loss=torch.zeros(2))
        with pytest.raises(UsageError, match="the names time are taken"):
            log.emit("x", 1, time=3)
        with pytest.raises(UsageError, match=r"'sample' cannot be written as JSON"):
            log.emit("sample", 1, text="\ud800")
    (event,) = read_events(tmp_path / "e")
    assert {k: event[k] for k in ("loss", "lr", "n", "ok")} == {"loss": 0.5, "lr": 0.25, "n": 3, "ok": True}


def test_a_torn_last_line_is_left_out_and_ended_by_the_next_opening(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.emit("step", 1, loss=3.0)
        log.emit("step", 2, loss=2.0)
    whole = path.read_bytes()
    second = whole.index(b"\n") + 1
    for cut in range(second, len(whole)):  # killed after any byte of the second line
        path.write_bytes(whole[:cut])
        assert [e["step"] for e in read_events(path)] == [1]
        with EventLog(path) as log:
            log.emit("resume", 1)
            log.emit("step", 2, loss=2.5)
        notes: list[str] = []
        events = read_events(path, notes)
        # Cut just before its newline, the line is whole: ending it makes it an event again.
        assert [e["step"] for e in events] == ([1, 2, 1, 2] if cut == len(whole) - 1 else [1, 1, 2])
        assert len(notes) == (second < cut < len(whole) - 1)
        assert series(events, "loss") == ([1, 2], [3.0, 2.5])


@given(st.binary(max_size=200), st.integers(0, 10_000))
@settings(deadline=None, max_examples=200)
def test_any_damage_costs_only_the_lines_it_touches(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, where: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    with EventLog(path) as log:
        written = [log.emit("step", step, loss=float(step)) for step in range(5)]
    lines = path.read_bytes().split(b"\n")[:-1]
    at = where % 6
    path.write_bytes(b"".join(line + b"\n" for line in [*lines[:at], junk, *lines[at:]]))
    found = read_events(path)
    assert [event for event in written if event not in found] == []


@pytest.mark.parametrize(
    "line", ["null", "3", "[]", "{}", '{"event":"step"}', '{"event":"step","step":"1"}', '{"event":1,"step":1}',
             '{"event":"step","step":true}', "[" * 100_000]
)  # fmt: skip
def test_json_that_is_no_event_is_named_and_left_out(tmp_path: Path, line: str) -> None:
    (tmp_path / "e").write_text(line + '\n{"event":"stop","step":1}\n')
    notes: list[str] = []
    assert [e["event"] for e in read_events(tmp_path / "e", notes)] == ["stop"]
    assert "line 1 is not an event" in notes[0]


def test_a_resume_drops_the_steps_behind_it_and_repeated_steps_keep_the_last(tmp_path: Path) -> None:
    with EventLog(tmp_path / "e") as log:
        log.emit("start", 0)
        for step in range(1, 6):
            log.emit("step", step, loss=float(step))
        log.emit("eval", 4, loss=40.0)
        log.emit("sample", 5, text="abandoned")
        log.emit("resume", 3)
        log.emit("step", 4, loss=-4.0)
        log.emit("eval", 4, loss=44.0)
        log.emit("alert", 4, text="one")
        log.emit("alert", 4, text="two")
        log.emit("step", 4, loss=-4.5)
    events = read_events(tmp_path / "e")
    assert series(events, "loss") == ([1, 2, 3, 4], [1.0, 2.0, 3.0, -4.5])
    assert series(events, "loss", "eval") == ([4], [44.0])
    kinds = [e["event"] for e in current(events)]
    assert kinds == ["start", "step", "step", "step", "resume", "eval", "alert", "alert", "step"]
    assert series(events, "missing") == ([], []) and series(events, "event") == ([], [])


def test_threads_do_not_tear_each_others_lines(tmp_path: Path) -> None:
    with EventLog(tmp_path / "e") as log:

        def work(thread: int) -> None:
            for n in range(200):
                log.emit("x", n, thread=thread, text="long " * 50)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    notes: list[str] = []
    assert len(read_events(tmp_path / "e", notes)) == 800 and notes == []


def test_kill_9_keeps_every_line_emitted(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom cllm.training.events import EventLog\n"
        "log = EventLog(sys.argv[1])\n"
        "for n in range(50): log.emit('step', n, loss=1.0)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "e")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert series(tmp_path / "e", "loss")[0] == list(range(50))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_a_clear_error() -> None:
    log = EventLog("/dev/full")
    with pytest.raises(RunError, match=r"/dev/full: the log cannot be written: No space left"):
        log.emit("step", 1)
    log.close()


def test_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no log to read"):
        read_events(tmp_path / "missing")
    with pytest.raises(RunError, match="cannot be written"):
        EventLog(tmp_path)
    log = EventLog(tmp_path / "e")
    log.sync()
    log.close()
    log.close()
    with pytest.raises(UsageError, match="closed"):
        log.emit("step", 1)
