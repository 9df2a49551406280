"""`cllm train --processes N`: N ranks on this machine by torchrun's elastic agent, which starts them again when one
dies.

What is added to the agent: signals go to the ranks, which agree on a step to stop behind (torchrun gives them 30 s and
then kills); a rank that failed is named with its last words; and an error that would only come again (a wrong setting,
a loss that is not finite) is not tried again. Several machines: torchrun itself (docs/distributed.md).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

from cllm.errors import CllmError
from cllm.training.distributed.group import PeerLost, SaidElsewhere
from cllm.training.interrupt import SIGNALS

RESTARTS = 3
TOLD = 20  # last lines of a failed rank's words that are repeated
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # set by torchrun for each rank
_INTERRUPTED = 130


def launch(arguments: Sequence[str], processes: int, *, restarts: int = RESTARTS) -> int:
    """Run `python -m cllm ARGUMENTS` in `processes` processes; returns what the command line exits with.

    Rank 0 has this terminal; what the others write is kept until it is needed. Threads: as many as one process would
    have, shared, unless OMP_NUM_THREADS is set.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // processes)))
    if sys.platform in ("linux", "darwin"):  # one machine: no name is looked up, nothing listens outside
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = "SIGQUIT"  # the others are ours
    _hush()
    with tempfile.TemporaryDirectory(prefix="cllm-ranks-") as folder:
        agent = _Agent(_spec(arguments, processes, restarts), folder, processes)
        with agent.forwarding():
            try:
                result = agent.run()
            finally:
                agent.rendezvous.shutdown()
    if agent.asked is not None:
        return _INTERRUPTED
    return 0 if result is not None and not result.is_failed() else agent.exit_code


def report(error: CllmError) -> None:
    """A rank's last act before it exits with this error: say it where torchrun and `launch` look."""
    path = os.environ.get(ERROR_FILE)
    if not path:
        return
    text = f"{type(error).__name__}: {error}"
    said = {
        "message": {"message": text, "extraInfo": {"py_callstack": text, "timestamp": str(int(time.time()))}},
        "exit_code": error.exit_code,
        "kind": "echo" if isinstance(error, SaidElsewhere) else "lost" if isinstance(error, PeerLost) else "own",
        "text": str(error),
    }
    Path(path).write_text(json.dumps(said), encoding="utf-8")


@dataclass(frozen=True)
class Failure:
    """A rank that ended badly. kind: own (its own error), died, lost (it lost another rank), echo (told to end), ended
    (by the agent).  text: what it said."""

    rank: int
    pid: int
    kind: str
    text: str
    exit_code: int

    ORDER = ("own", "died", "lost", "echo", "ended")

    @classmethod
    def of(cls, rank: int, failure: ProcessFailure, words: str) -> Failure:
        """From what the agent found; words: the last that the rank wrote."""
        said: Mapping[str, Any] = failure.error_file_data
        if "kind" in said:
            return cls(rank, failure.pid, said["kind"], said["text"], said["exit_code"])
        if failure.exitcode == -signal.SIGTERM:
            return cls(rank, failure.pid, "ended", "", 1)
        how = f"exit code {failure.exitcode}"
        if failure.exitcode < 0:
            how = f"killed by {failure.signal_name()}"
            if failure.exitcode == -signal.SIGKILL:
                how += " (by hand, or by a system that is out of memory)"
        return cls(rank, failure.pid, "died", how + (f"; its last words:\n{words}" if words else ""), 1)

    @property
    def cause(self) -> int:
        """The smaller, the nearer to what went wrong first."""
        return self.ORDER.index(self.kind)

    def __str__(self) -> str:
        return f"rank {self.rank} (process {self.pid}): {self.text or 'ended with the others'}"


class _Agent(LocalElasticAgent):
    """asked: the signal that stopped the ranks.  exit_code: of the rank that failed first."""

    def __init__(self, spec: WorkerSpec, folder: str, processes: int) -> None:
        kept = {rank: Std.ALL if rank else Std.NONE for rank in range(processes)}
        super().__init__(spec, DefaultLogsSpecs(log_dir=folder, redirects=kept), exit_barrier_timeout=60)
        self.rendezvous, self.restarts = spec.rdzv_handler, spec.max_restarts
        self.asked: str | None = None
        self.exit_code = 1
        self._times = 0

    @contextmanager
    def forwarding(self) -> Iterator[None]:
        """Signals to stop go to the ranks, which finish their step, save and end; a third one ends them at once."""
        before = {number: signal.getsignal(number) for number in SIGNALS}
        caught = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
        for number in caught:
            signal.signal(number, self._pass_on)
        try:
            yield
        finally:
            for number in caught:
                signal.signal(number, before[number])

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self.asked, self._times = signal.Signals(number).name, self._times + 1
        pids = [worker.id for worker in self.get_worker_group().workers if worker.id]
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL if self._times > 2 else number)
            except ProcessLookupError:
                continue
        if not pids:
            raise KeyboardInterrupt

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        found: RunResult = super()._monitor_workers(worker_group)
        if found.is_failed() and found.failures:
            self._judge(found.failures)
        return found

    def _judge(self, failures: Mapping[int, ProcessFailure]) -> None:
        """Say which rank failed and why, and whether a new start makes sense."""
        ended = [Failure.of(rank, failure, self._words(failure.local_rank)) for rank, failure in failures.items()]
        first = min(ended, key=lambda one: (one.cause, one.rank))
        self.exit_code = first.exit_code
        if self.asked is not None or first.kind == "own":
            self._remaining_restarts = 0
            if self.asked is None and first.rank:  # rank 0 has said it itself
                _say(f"cllm: {first}")
        elif self._remaining_restarts:
            number = self.restarts - self._remaining_restarts + 1
            _say(f"cllm: {first}\ncllm: all ranks start again from the newest checkpoint ({number} of {self.restarts})")
        else:
            _say(f"cllm: {first}\ncllm: stopped. What was saved is intact; continue with --resume")

    def _words(self, local_rank: int) -> str:
        """The last lines that a rank wrote, if they were kept."""
        path = self._pcontext.stderrs.get(local_rank) if self._pcontext is not None else None
        try:
            lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines() if path else []
        except OSError:
            lines = []
        return "\n".join(f"    {line}" for line in lines[-TOLD:])


def _spec(arguments: Sequence[str], processes: int, restarts: int) -> WorkerSpec:
    """One node, its own rendezvous on a free port of this machine, as `torchrun --standalone` has it."""
    parameters = RendezvousParameters(
        backend="c10d",
        endpoint="localhost:0",
        run_id=str(uuid.uuid4()),
        min_nodes=1,
        max_nodes=1,
        local_addr="127.0.0.1",
        timeout=900,
    )
    return WorkerSpec(
        role="rank",
        local_world_size=processes,
        entrypoint=sys.executable,
        args=("-m", "cllm", *arguments),
        rdzv_handler=get_rendezvous_handler(parameters),
        max_restarts=restarts,
        monitor_interval=0.1,
        local_addr="127.0.0.1",
    )


def _hush() -> None:
    """The agent's own log says less in more lines; with LOGLEVEL set it speaks."""
    if "LOGLEVEL" not in os.environ:
        for name in list(logging.root.manager.loggerDict):
            if name.startswith("torch.distributed.elastic"):
                logging.getLogger(name).setLevel(logging.CRITICAL)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
