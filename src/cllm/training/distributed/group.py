"""The processes of one run (ranks 0 … N−1), and what they say to each other.

torchrun starts them and tells each its place by environment variables; sums and copies are torch.distributed's (gloo
on CPUs, NCCL on GPUs). Every rank calls the same methods in the same order. Alone, all of it does nothing, and
torch.distributed is not touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor

from cllm.errors import ConfigError, RunError
from cllm.training.distributed.meeting import meet

T = TypeVar("T")
NONE, GLOO, NCCL = "none", "gloo", "nccl"
TIMEOUT_S = 600.0
"""How long a rank waits for the others in one exchange before it gives up."""
BEAT_S = 10.0
"""How often, at least, rank 0 says that it is still at work while the others wait for as long as it takes."""
STILL = -1


class PeerLost(RunError):
    """Another rank is gone, or did not answer in time: this rank cannot go on, but a new start may."""


class SaidElsewhere(RunError):
    """Another rank has failed, and says why itself: this one only ends with it."""


@dataclass(frozen=True)
class Group:
    """The ranks of one run.

    rank: 0 … size − 1.  local_rank: that of this machine.  backend: "none" (alone), "gloo" or "nccl" (CUDA tensors; CPU
    tensors always go by gloo).  launch: a name that the ranks of one launch share, and keep when torchrun starts them
    again.  beat_s: see `BEAT_S`.  Rank 0 is the one that writes: files, events, the terminal.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    backend: str = NONE
    launch: str = ""
    beat_s: float = field(default=BEAT_S, compare=False)

    @classmethod
    def alone(cls) -> Group:
        """One process: nothing is exchanged."""
        return cls()

    @classmethod
    def from_environment(cls, *, cuda: bool = False, timeout_s: float = TIMEOUT_S) -> Group:
        """The group that torchrun started this process in; alone where it did not.

        cuda: tensors are on GPUs (one a rank, `local_rank`'s).  timeout_s: see `TIMEOUT_S`.
        Raises ConfigError for variables that make no sense, PeerLost when the others cannot be reached.
        """
        if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
            return cls.alone()
        rank, size, local_rank = (_number(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        if not 0 <= rank < size:
            raise ConfigError(f"RANK: got {rank} with WORLD_SIZE {size}, expected 0 to {size - 1}; start with torchrun")
        if size == 1:
            return cls.alone()
        import torch.distributed as dist

        if not dist.is_available():
            raise ConfigError("this PyTorch is built without torch.distributed: train with one process")
        if dist.is_initialized():  # a training before this one, in this process, ended with an error
            dist.destroy_process_group()
        backend = NCCL if cuda else GLOO
        if cuda:
            torch.cuda.set_device(local_rank)
        with _named(rank, size, f"could not meet the others at {_meeting_place()}"):
            patience = timedelta(seconds=timeout_s)
            store = _store(rank, size, patience)
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if cuda else "gloo", rank=rank, world_size=size, timeout=patience, store=store
            )
        return cls(rank, size, local_rank, backend, _launch(), min(BEAT_S, timeout_s / 4))

    @property
    def local_size(self) -> int:
        """Ranks on this machine."""
        return _number("LOCAL_WORLD_SIZE") or 1 if self.size > 1 else 1

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    # --------------------------------------------------------------------------------------------- tensors

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replace `tensor` (contiguous, same shape and type everywhere) by its sum over all ranks; the same bits on
        each. The order of the summands is the library's."""
        if self.size > 1:
            import torch.distributed as dist

            with self.lost("a sum"):
                dist.all_reduce(tensor)
        return tensor

    def broadcast_(self, tensor: Tensor, source: int = 0) -> Tensor:
        """Replace `tensor` by that of rank `source`."""
        if self.size > 1:
            import torch.distributed as dist

            with self.lost("a broadcast"):
                dist.broadcast(tensor, source)
        return tensor

    # ----------------------------------------------------------------------------------------- small values

    def gather(self, values: Sequence[float]) -> list[list[float]]:
        """The float64 values of all ranks, by rank, on all ranks (as many on each). Integers up to 2⁵³ are exact, and
        infinities and NaN arrive as they are. Sum them with `math.fsum`: then neither order nor size matters."""
        mine = torch.tensor(list(values), dtype=torch.float64)
        if self.size == 1:
            return [mine.tolist()]
        import torch.distributed as dist

        out = [torch.empty_like(mine) for _ in range(self.size)]
        with self.lost("a gathering of figures"):
            dist.all_gather(out, mine)
        return [part.tolist() for part in out]

    def gather_objects(self, value: Any) -> list[Any]:
        """JSON-able values of all ranks, by rank, on all ranks; of different lengths. Floats arrive exactly."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        text = json.dumps(value).encode()
        lengths = [int(length) for (length,) in self.gather([len(text)])]
        mine = torch.zeros(max(lengths), dtype=torch.uint8)
        mine[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        out = [torch.empty_like(mine) for _ in range(self.size)]
        with self.lost("a gathering of values"):
            dist.all_gather(out, mine)
        return [json.loads(bytes(part[:n].tolist())) for part, n in zip(out, lengths, strict=True)]

    def agree(self, value: Any) -> Any:
        """Rank 0's JSON-able value, on all ranks. What the others pass is not looked at."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        text = json.dumps(value).encode() if self.first else b""
        length = torch.tensor([len(text)])
        with self.lost("waiting for rank 0"):
            dist.broadcast(length, 0)
            while not self.first and int(length) == STILL:
                dist.broadcast(length, 0)
            buffer = torch.zeros(int(length), dtype=torch.uint8)
            if self.first:
                buffer.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
            dist.broadcast(buffer, 0)
        return json.loads(bytes(buffer.tolist()))

    def lead(self, work: Callable[[], T]) -> T | None:
        """Rank 0 does `work`, which must exchange nothing, and the others wait, however long it takes: its result
        there, None on the others. If it fails it fails on all ranks: with its own error on rank 0, with SaidElsewhere
        on the others."""
        if self.size == 1:
            return work()
        said: str | None = None
        try:
            if not self.first:
                return None
            with self._beating():
                return work()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
            raise
        finally:
            found = self.agree(said)
            if found is not None and not self.first:
                self.end_with(f"rank 0 stopped: {found}")

    @contextmanager
    def _beating(self) -> Iterator[None]:
        """Rank 0 is at work, and says so to the others, who wait in `agree`: silence is a cut network, not work."""
        import torch.distributed as dist

        over = threading.Event()

        def beat() -> None:
            with contextlib.suppress(PeerLost), self.lost("waiting for rank 0"):  # what comes behind the work says it
                while not over.wait(self.beat_s):
                    dist.broadcast(torch.tensor([STILL]), 0)

        beating = threading.Thread(target=beat, name="cllm beat", daemon=True)
        beating.start()
        try:
            yield
        finally:
            over.set()
            beating.join()

    def each(self, work: Callable[[], T]) -> T:
        """Every rank does `work`; when one fails, all do: it with its own error, the others with SaidElsewhere."""
        if self.size == 1:
            return work()
        failed = True
        try:
            result = work()
            failed = False
            return result
        finally:
            bad = [rank for rank, (one,) in enumerate(self.gather([float(failed)])) if one]
            if bad and not failed:
                self.end_with(f"rank {bad[0]} stopped")

    def end_with(self, what: str) -> NoReturn:
        """Another rank is about to end with its error. Wait until it has: the first that ends is the one that torchrun
        shows, and the others it kills. Raises SaidElsewhere."""
        with contextlib.suppress(PeerLost):
            self.barrier()
        raise SaidElsewhere(what)

    def largest(self, value: float) -> float:
        """The largest of the ranks' values, on all ranks."""
        return max(found for (found,) in self.gather([value]))

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.gather([0.0])

    def close(self) -> None:
        """Leave the group, at the end, when the others leave it, too. (Not with an error: see `end_with`.)"""
        if self.size > 1:
            import torch.distributed as dist

            if dist.is_initialized():
                dist.destroy_process_group()

    @contextmanager
    def lost(self, what: str) -> Iterator[None]:
        """Around calls of torch.distributed: what it raises becomes PeerLost, in words. what: "a sum"."""
        with _named(self.rank, self.size, f"{what} with the other ranks failed"):
            yield


@contextmanager
def _named(rank: int, size: int, what: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, TimeoutError) as error:  # torch's own are subclasses: DistError and its kin
        said = _said(error)
        if "EADDRINUSE" in str(error):
            raise ConfigError(
                f"MASTER_PORT: {_meeting_place()} is in use by another process on {socket.gethostname()}: choose "
                "another port, or let torchrun choose one (--rdzv-endpoint=localhost:0)"
            ) from error
        raise PeerLost(
            f"rank {rank} of {size} on {socket.gethostname()}: {what}: {said}. A rank that died, a cut network or one "
            "that is slower than distributed.timeout_s looks like this"
        ) from error


def _said(error: Exception) -> str:
    """The library's first sentence, without the place in its own source."""
    line = str(error).strip().partition("\n")[0].partition(". This ")[0].partition(". original")[0]
    return re.sub(r"\[/\S+\.(cc|h|cpp):\d+\] ", "", line).rstrip(". ")


def _number(name: str) -> int:
    text = os.environ.get(name, "0")
    if not text.isdecimal():
        raise ConfigError(f"{name}: got {text!r} in the environment, expected a number; start with torchrun")
    return int(text)


def _store(rank: int, size: int, patience: timedelta) -> Any:
    """Where the ranks of this start leave their addresses: a part of the launch's store that no other start uses."""
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://", rank, size, timeout=patience))
    name = meet(PrefixStore(f"cllm/{size}", store), rank, size, patience.total_seconds())
    return PrefixStore(f"cllm/{size}/{name}", store)


def _launch() -> str:
    """torchrun's run id; where it has none of its own ("none"), the place where the ranks meet."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return _meeting_place() if name == "none" else name


def _meeting_place() -> str:
    return f"{os.environ.get('MASTER_ADDR', 'MASTER_ADDR?')}:{os.environ.get('MASTER_PORT', 'MASTER_PORT?')}"
