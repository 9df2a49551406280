"""One writer a run: a lock that the kernel releases with the process, however it ends.

The file `run.lock` stays in the run directory; what counts is the `flock` on it, not its presence, so there
is never a stale lock to remove. Its content only says who holds it. On network file systems without locks
across machines the message still names the host that wrote last.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

from cllm.errors import RunError

FILE = "run.lock"


class Holder(msgspec.Struct, frozen=True):
    """Who holds a run: process id, host name, start (seconds since 1970), and which start of several processes it
    belongs to ("": none)."""

    pid: int
    host: str
    since: float
    launch: str = ""


class RunLock:
    """Holds the run directory for writing: `with RunLock(run_dir): …`, or acquire() and release().

    Raises RunError naming the other process when there is one, or when the directory cannot be written.
    """

    def __init__(self, run_dir: str | Path) -> None:
        self.run_dir = Path(run_dir)
        self._file = -1

    @property
    def path(self) -> Path:
        """`run.lock` of the run."""
        return self.run_dir / FILE

    def acquire(self) -> RunLock:
        """Takes the lock; returns itself."""
        import socket

        if self._file >= 0:
            return self
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RunError(f"{self.run_dir}: cannot be written: {error.strerror}. Choose another --out.") from error
        if not _try(file):
            os.close(file)
            other = _read(self.path)
            who = f"process {other.pid} on {other.host}" if other else "another process"
            since = time.strftime(" since %Y-%m-%d %H:%M:%S", time.localtime(other.since)) if other else ""
            stop = f", stop it (kill -TERM {other.pid})" if other else ", stop it"
            raise RunError(
                f"{self.run_dir}: in use by {who}{since}: two processes must not write one run. "
                f"Wait for it{stop} or choose another --out."
            )
        self._file, self._holder = file, Holder(os.getpid(), socket.gethostname(), round(time.time(), 3))
        self._write()
        return self

    def note(self, launch: str) -> None:
        """Record that the run is now the work of this launch: a start of it again is to go on with it."""
        if launch:
            self._holder = msgspec.structs.replace(self._holder, launch=launch)
            self._write()

    def _write(self) -> None:
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, msgspec.json.encode(self._holder) + b"\n", 0)
        except OSError as error:
            self.release()
            raise RunError(f"{self.path}: cannot be written: {error.strerror}. Choose another --out.") from error

    def release(self) -> None:
        """Gives the lock back; may be called twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> RunLock:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def holder(run_dir: str | Path) -> Holder | None:
    """Who is writing this run now, or None. Only looks: a start at the same moment is not disturbed."""
    path = Path(run_dir) / FILE
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        return None if _try(file, shared=True) else _read(path)
    finally:
        os.close(file)


def last_launch(run_dir: str | Path) -> str:
    """The launch that this run was last the work of; "" for none. It may have ended."""
    found = _read(Path(run_dir) / FILE)
    return found.launch if found else ""


def _try(file: int, *, shared: bool = False) -> bool:
    """flock without waiting; an exclusive one tries for a moment, since `holder` takes a shared one in passing."""
    import fcntl

    for attempt in range(1 if shared else 20):
        if attempt:
            time.sleep(0.01)
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            continue
    return False


def _read(path: Path) -> Holder | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Holder)
    except (OSError, msgspec.DecodeError):
        return None
