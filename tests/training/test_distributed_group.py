"""How ranks find each other, start after start, and how they wait for rank 0."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import HashStore

from cllm.training.distributed import meeting
from cllm.training.distributed.meeting import meet


class Meeting:
    """Ranks that meet in one store, each in a thread."""

    def __init__(self, size: int) -> None:
        self.store, self.size = HashStore(), size

    def start(self, *ranks: int, patience_s: float = 20.0) -> dict[int, Any]:
        """Begin; `names` waits for them."""
        found: dict[int, Any] = {}

        def one(rank: int) -> None:
            try:
                found[rank] = meet(self.store, rank, self.size, patience_s)
            except TimeoutError as error:
                found[rank] = error

        found["threads"] = [threading.Thread(target=one, args=(rank,)) for rank in ranks]  # type: ignore[index]
        for thread in found["threads"]:  # type: ignore[index]
            thread.start()
        return found

    @staticmethod
    def names(found: dict[Any, Any]) -> dict[int, Any]:
        for thread in found.pop("threads"):
            thread.join()
        return found


def test_every_start_of_the_ranks_has_one_name_of_its_own():
    """In one store, as torchrun's agents keep it: the second and third start read what the first has left."""
    ranks = Meeting(4)
    seen = set()
    for order in ((0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)):
        found = ranks.names(ranks.start(*order))
        assert len(set(found.values())) == 1
        seen.add(found[0])
    assert len(seen) == 3


def test_a_rank_that_is_early_does_not_follow_a_dead_rank_0():
    """It starts while the store still has the name of the start before, whose ranks had all met."""
    ranks = Meeting(3)
    before = ranks.names(ranks.start(0, 1, 2))
    early = ranks.start(1, 2)
    time.sleep(0.2)
    assert set(early) == {"threads"}  # they still wait
    last = ranks.names(ranks.start(0))
    assert set(ranks.names(early).values()) == set(last.values()) != set(before.values())


def test_a_rank_that_died_while_it_waited_is_replaced():
    ranks = Meeting(3)
    dead = ranks.names(ranks.start(1, patience_s=0.1))  # it said that it is here to nobody
    waiting = ranks.start(0)
    gone = ranks.names(ranks.start(1, patience_s=0.3))  # and to this rank 0
    assert isinstance(dead[1], TimeoutError)
    assert isinstance(gone[1], TimeoutError)
    rest = ranks.names(ranks.start(1, 2))
    assert set(rest.values()) == set(ranks.names(waiting).values())


def test_who_did_not_come_is_said():
    ranks = Meeting(4)
    found = ranks.names(ranks.start(0, 2, patience_s=0.3))
    assert str(found[0]) == "ranks 1, 3 did not come within 0.3 s"
    assert str(found[2]) == "not all ranks came within 0.3 s"
    alone = Meeting(2)
    assert str(alone.names(alone.start(1, patience_s=0.05))[1]) == "rank 0 did not come within 0.05 s"


def test_looks_become_rarer_and_end_in_time(monkeypatch: pytest.MonkeyPatch):
    clock, pauses = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(meeting.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(meeting.time, "sleep", sleep)
    looks = sum(1 for _ in meeting._looks(600))
    assert clock[0] == pytest.approx(600)
    assert pauses[0] == meeting.FIRST_S
    assert max(pauses) == meeting.LONGEST_S
    assert looks == len(pauses) + 1 < 1300


# ------------------------------------------------------------------------------------------ waiting for rank 0

CODE = """
import os, sys, time
from pathlib import Path
from cllm.training.distributed.group import Group, PeerLost, SaidElsewhere
folder, timeout_s, work_s = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
group = Group.from_environment(timeout_s=timeout_s)
def work():
    (folder / "at work").touch()
    time.sleep(work_s)
    if len(sys.argv) > 4:
        raise ValueError(sys.argv[4])
    return 7
begin = time.monotonic()
try:
    said = (group.lead(work), group.agree(group.rank))
except (PeerLost, SaidElsewhere, ValueError) as error:
    said = f"{type(error).__name__} {time.monotonic() - begin < work_s + 20}: {error}"
(folder / str(group.rank)).write_text(repr(said))
os._exit(0)  # threads of the library may still hang in what was lost
"""


def ranks(folder: Path, size: int, *arguments: str) -> list[subprocess.Popen[bytes]]:
    """Processes of a group, started by hand."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = os.environ | {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                          "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}  # fmt: skip
    words = [sys.executable, "-c", CODE, str(folder), *arguments]
    return [subprocess.Popen(words, env=given | {"RANK": str(rank)}) for rank in range(size)]


def said(folder: Path, running: list[subprocess.Popen[bytes]]) -> list[str]:
    for process in running:
        process.wait(60)
    return [(folder / str(rank)).read_text() for rank in range(len(running))]


def until(there: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not there():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_rank_0_may_work_longer_than_the_timeout(tmp_path: Path):
    """It says that it is at work: nobody gives it up."""
    assert said(tmp_path, ranks(tmp_path, 3, "1", "3")) == ["(7, 0)", "(None, 0)", "(None, 0)"]


def test_an_error_of_rank_0_at_work_is_everybodys(tmp_path: Path):
    found = said(tmp_path, ranks(tmp_path, 2, "2", "1", "no text"))
    assert found == ["'ValueError True: no text'", "'SaidElsewhere True: rank 0 stopped: ValueError: no text'"]


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="stops a process")
def test_a_rank_0_that_falls_silent_at_work_is_given_up(tmp_path: Path):
    """As behind a cut network: no connection is closed, and nothing comes any more."""
    running = ranks(tmp_path, 2, "1", "60")
    until((tmp_path / "at work").exists)
    running[0].send_signal(signal.SIGSTOP)
    try:
        assert running[1].wait(30) == 0
    finally:
        running[0].kill()
        running[0].wait()
    words = (tmp_path / "1").read_text()
    assert words.startswith("'PeerLost True: rank 1 of 2 on ")
    assert "waiting for rank 0 with the other ranks failed" in words
