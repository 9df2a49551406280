"""Two processes on one run: the second is refused; a killed one leaves nothing behind."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cllm.errors import RunError
from cllm.training.lock import RunLock, holder

HOLD = (
    "import sys, time\nfrom cllm.training.lock import RunLock\n"
    "with RunLock(sys.argv[1]):\n    print('held', flush=True)\n    time.sleep(60)\n"
)


@pytest.fixture
def other(tmp_path: Path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    with process:
        yield process
        process.kill()


def test_the_second_process_is_refused_and_told_who_is_there(tmp_path: Path, other: subprocess.Popen) -> None:
    expected = rf"in use by process {other.pid} on {socket.gethostname()} since .*kill -TERM {other.pid}\)"
    with pytest.raises(RunError, match=expected):
        RunLock(tmp_path).acquire()
    found = holder(tmp_path)
    assert found is not None and found.pid == other.pid and found.host == socket.gethostname()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_releases_the_run(tmp_path: Path, other: subprocess.Popen, how: int) -> None:
    os.kill(other.pid, how)
    other.wait()
    assert holder(tmp_path) is None
    with RunLock(tmp_path):
        found = holder(tmp_path)
        assert found is not None and found.pid == os.getpid()
    assert holder(tmp_path) is None


def test_the_same_process_is_refused_a_second_lock(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    with lock:
        assert lock.acquire() is lock
        with pytest.raises(RunError, match=f"process {os.getpid()} "):
            RunLock(tmp_path).acquire()
    lock.release()
    with RunLock(tmp_path):
        pass


def test_looking_never_makes_a_start_fail(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        pass
    looker = os.open(tmp_path / "run.lock", os.O_RDWR)
    fcntl.flock(looker, fcntl.LOCK_SH)  # what `holder` takes, kept here longer than it ever would
    timer = threading.Timer(0.05, os.close, [looker])
    timer.start()
    with RunLock(tmp_path):
        found = holder(tmp_path)
        assert found is not None and found.pid == os.getpid()
    timer.join()


def test_no_folder_and_a_damaged_note(tmp_path: Path) -> None:
    assert holder(tmp_path / "missing") is None and holder(tmp_path) is None
    with pytest.raises(RunError, match=r"cannot be written: No such file.*--out"):
        RunLock(tmp_path / "missing").acquire()
    (tmp_path / "run.lock").write_bytes(b"\xff not json")
    with RunLock(tmp_path):
        (tmp_path / "run.lock").write_bytes(b"\xff not json")
        with pytest.raises(RunError, match="in use by another process:"):
            RunLock(tmp_path).acquire()
