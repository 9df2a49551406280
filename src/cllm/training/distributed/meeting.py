"""How the ranks of one start find each other in a store that remembers earlier starts.

torchrun's agents keep one store for all their starts of the ranks, so what a rank reads there may be a dead one's.
Nothing that the agents tell their ranks names a start: the count of restarts is each agent's own, and one that starts
its ranks again because another did does not count that. So the ranks agree on a name by themselves:

    rank 0       leader ← a new name
    each other   name/here/r ← a token of its own, under the name that it reads
    rank 0       name/seen/r ← that token
    each other   name/sure/r ← its token, if that is the one seen
    rank 0       name/go, once every rank is sure

A dead rank 0's name does not answer with the token of a living rank, and a dead rank is not sure.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

FIRST_S, LONGEST_S = 0.01, 0.5  # between two looks into the store


def meet(store: Any, rank: int, size: int, patience_s: float) -> str:
    """A name that the ranks of this start share and no other start has. store: a torch.distributed.Store.

    Raises TimeoutError, with the ranks that did not come within `patience_s` seconds, and what the store raises.
    """
    own = uuid.uuid4().hex
    return _lead(store, size, own, patience_s) if rank == 0 else _follow(store, rank, own, patience_s)


def _lead(store: Any, size: int, name: str, patience_s: float) -> str:
    store.set("leader", name)
    seen: dict[int, str] = {}
    missing = list(range(1, size))
    for _ in _looks(patience_s):
        for rank in range(1, size):
            token = _read(store, f"{name}/here/{rank}")
            if token is not None and token != seen.get(rank):
                store.set(f"{name}/seen/{rank}", token)
                seen[rank] = token
        missing = [r for r in range(1, size) if r not in seen or _read(store, f"{name}/sure/{r}") != seen[r]]
        if not missing:
            store.set(f"{name}/go", "")
            return name
    some = ", ".join(map(str, missing[:8])) + (", …" if len(missing) > 8 else "")
    raise TimeoutError(f"rank{'s' * (len(missing) > 1)} {some} did not come within {patience_s:g} s")


def _follow(store: Any, rank: int, token: str, patience_s: float) -> str:
    name, sure = "", False
    for _ in _looks(patience_s):
        leader = _read(store, "leader")
        if leader is None:
            continue
        if leader != name:
            name, sure = leader, False
            store.set(f"{name}/here/{rank}", token)
        if not sure and _read(store, f"{name}/seen/{rank}") == token:
            store.set(f"{name}/sure/{rank}", token)
            sure = True
        if sure and store.check([f"{name}/go"]):
            return name
    raise TimeoutError(f"{'not all ranks came' if sure else 'rank 0 did not come'} within {patience_s:g} s")


def _read(store: Any, key: str) -> str | None:
    """What is under a key, without waiting for it."""
    return store.get(key).decode() if store.check([key]) else None


def _looks(patience_s: float) -> Iterator[None]:
    """Again and again, less and less often, until patience is over."""
    end, pause = time.monotonic() + patience_s, FIRST_S
    while True:
        yield
        left = end - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(pause, left))
        pause = min(1.5 * pause, LONGEST_S)
