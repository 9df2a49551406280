"""What a step of N ranks costs, by the α–β model: a message of b bytes takes α + b·β (Hockney 1994).

    ring all-reduce of b bytes                  2(N−1)·α + 2(N−1)/N · b·β     (Patarasuk and Yuan 2009)
    reduce-scatter, all-gather, all-to-all       (N−1)·α +  (N−1)/N · b·β     (ring, or each to each)
    double binary tree all-reduce               2⌈log₂N⌉·α + 2(N−1)/N · b·β   (Sanders et al. 2009; NCCL's "tree")

What travels when is that of reduce.py and zero.py: gradients whose sums every rank needs by the library's all-reduce;
parts that only their owner needs by an all-to-all, and from the owner to all by another. A sum in the fixed tree is
two all-to-alls, the first one once for each node of the tree that a rank's micro-batches leave.

Communication runs beside the backward: a bucket of gradients starts when the backward has completed its last tensor
and the bucket before it is through. What is left when the backward has ended is *exposed*. Where the ranks of a machine
keep all of its cores busy, nothing is free: the step takes at least the core-seconds of computing and communicating
together, divided by the cores.

The model knows no stragglers, no congestion and no placement: every rank is as fast as the one that was measured, every
link as fast as the one given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from cllm.errors import UsageError

Collective = Literal["all-reduce", "reduce-scatter", "all-gather", "all-to-all"]
COLLECTIVES: tuple[Collective, ...] = ("all-reduce", "reduce-scatter", "all-gather", "all-to-all")
RING, TREE = "ring", "tree"


@dataclass(frozen=True)
class Link:
    """α in seconds a message and β in seconds a byte, of one rank's traffic in one direction.

    core_s_per_byte, core_s_per_message: seconds of a core that a rank spends on a byte or message that it sends (and on
    one that it receives); 0 for hardware that moves data by itself.
    """

    alpha_s: float
    beta_s: float
    core_s_per_byte: float = 0.0
    core_s_per_message: float = 0.0

    @classmethod
    def of(cls, gigabytes_per_s: float, microseconds: float) -> Link:
        """From bandwidth in 10⁹ bytes/s and latency in µs. Raises UsageError unless both make sense."""
        if not (gigabytes_per_s > 0 and math.isfinite(gigabytes_per_s)):
            raise UsageError(f"bandwidth: expected GB/s above 0, got {gigabytes_per_s:g}")
        if not (microseconds >= 0 and math.isfinite(microseconds)):
            raise UsageError(f"latency: expected microseconds, 0 or more, got {microseconds:g}")
        return cls(microseconds * 1e-6, 1e-9 / gigabytes_per_s)


@dataclass(frozen=True)
class Network:
    """The links of each collective (gloo's reduce-scatter is an all-reduce inside, so they differ), and the algorithm
    of the all-reduce: "ring" or "tree"."""

    links: Mapping[str, Link]
    algorithm: str = RING

    @classmethod
    def uniform(cls, link: Link, algorithm: str = RING) -> Network:
        """The same link for all. Raises UsageError for an unknown algorithm."""
        if algorithm not in (RING, TREE):
            raise UsageError(f"algorithm: expected {RING} or {TREE}, got {algorithm!r}")
        return cls(dict.fromkeys(COLLECTIVES, link), algorithm)

    def seconds(self, what: Collective, ranks: int, count: float) -> float:
        """Time of one collective over `count` bytes (of the whole buffer) on `ranks` ranks."""
        link = self.links[what]
        return messages(what, ranks, self.algorithm) * link.alpha_s + sent(what, ranks, count) * link.beta_s

    def core_seconds(self, what: Collective, ranks: int, count: float) -> float:
        """Seconds of a core that each rank spends on it."""
        link = self.links[what]
        return (
            messages(what, ranks, self.algorithm) * link.core_s_per_message
            + sent(what, ranks, count) * link.core_s_per_byte
        )


def messages(what: Collective, ranks: int, algorithm: str = RING) -> int:
    """Messages one after the other: what α is multiplied with."""
    if ranks < 2:
        return 0
    if what == "all-reduce" and algorithm == TREE:
        return 2 * math.ceil(math.log2(ranks))
    return (ranks - 1) * (2 if what == "all-reduce" else 1)


def sent(what: Collective, ranks: int, count: float) -> float:
    """Bytes that each rank sends in a collective over `count` bytes: what β is multiplied with."""
    share = (ranks - 1) / ranks if ranks > 1 else 0.0
    return share * count * (2 if what == "all-reduce" else 1)


@dataclass(frozen=True)
class Bucket:
    """Gradients that are communicated together. ready: when the backward has completed them, as a part of its time
    (0 … 1).  bytes: of the gradients."""

    ready: float
    bytes: int


def exposed(work: Sequence[tuple[float, float]], backward_s: float) -> float:
    """Seconds of communication that are left behind the backward. work: (ready at this second of it, duration)."""
    end = 0.0
    for ready, duration in work:
        end = max(end, ready) + duration
    return max(0.0, end - backward_s)


@dataclass(frozen=True)
class Pieces:
    """Measured times of one rank that works on micro-batches of `rows` rows (see pieces.py).

    forward_s, backward_s: of a micro-batch.  clear_s: of the gradients, before a step (before a micro-batch where its
    gradients are sums of their own: in the fixed tree and in ZeRO 2).  norm_s, update_s: of all tensors.  squares_s:
    Σg² as it is made where the gradients lie on several ranks (squares.py).  written_s: what every rank does behind an
    update of shards.  buckets: in the order in which they travel.  threads: of the rank.  beside: processes that
    computed at the same time.
    """

    rows: int
    forward_s: float
    backward_s: float
    clear_s: float
    norm_s: float
    update_s: float
    squares_s: float
    written_s: float
    buckets: tuple[Bucket, ...]
    threads: int = 1
    beside: int = 1

    def compute_s(self, micro_batches: int, ranks: int, mode: Mode) -> float:
        """One rank's computing in a step."""
        if mode.zero:
            behind = (self.squares_s + self.update_s) / ranks + self.written_s
        else:
            behind = self.update_s + (self.squares_s if mode.nodes else self.norm_s)
        clears = micro_batches if mode.nodes or mode.zero == 2 else 1
        return micro_batches * (self.forward_s + self.backward_s) + clears * self.clear_s + behind

    @property
    def gradient_bytes(self) -> int:
        return sum(bucket.bytes for bucket in self.buckets)


@dataclass(frozen=True)
class Machine:
    """What ranks share. cores: of one machine; 0 where each rank has a device of its own.  ranks: at most, on one."""

    cores: int
    ranks: int = 1

    def here(self, ranks: int) -> int:
        """How many of the ranks are on the fullest machine."""
        return min(self.ranks, ranks)

    def count(self, ranks: int) -> int:
        """Machines, or devices where each rank has its own."""
        return math.ceil(ranks / self.ranks) if self.cores else ranks

    def threads(self, ranks: int) -> int:
        """Of each rank: the cores are divided, and every rank has one thread at least."""
        return max(1, self.cores // self.here(ranks)) if self.cores else 1

    def waiting(self, ranks: int) -> float:
        """How many times as long computing takes because more threads than cores want to run."""
        return max(1.0, self.here(ranks) * self.threads(ranks) / self.cores) if self.cores else 1.0


@dataclass(frozen=True)
class Mode:
    """How the ranks divide the work. zero: 0, 1 or 2.  nodes: of the fixed tree that a rank sends; 0: no such tree.
    weight_bytes: that travel back behind an update of shards."""

    zero: int = 0
    nodes: int = 0
    weight_bytes: int = 0


@dataclass(frozen=True)
class Prediction:
    """Of one step on `ranks` ranks, seconds and bytes; `exposed_s` is the part of `communicate_s` nothing hides."""

    ranks: int
    rows: int
    micro_batches: int
    step_s: float
    compute_s: float
    communicate_s: float
    exposed_s: float
    sent_bytes: float
    core_bound: bool = field(default=False)


def predict(
    pieces: Pieces, ranks: int, micro_batches: int, network: Network, machine: Machine, mode: Mode
) -> Prediction:
    """The step of `ranks` ranks that each walk `micro_batches` micro-batches of `pieces.rows` rows.

    pieces: measured with `machine.threads(ranks)` threads while as many ranks computed as the machine has cores for.
    """
    wait = machine.waiting(ranks)
    compute = wait * pieces.compute_s(micro_batches, ranks, mode)
    if ranks == 1:
        return Prediction(ranks, pieces.rows, micro_batches, compute, compute, 0.0, 0.0, 0.0)
    small = (2 if mode.zero else 1) * messages("all-gather", ranks) * network.links["all-gather"].alpha_s
    there, back, times = _there(mode), _back(mode, pieces), micro_batches if mode.zero == 2 else 1
    backward = wait * pieces.backward_s
    work = [
        (bucket.ready * backward, sum(n * network.seconds(what, ranks, bucket.bytes) for what, n in there))
        for bucket in pieces.buckets
    ]
    gather = sum(network.seconds("all-to-all", ranks, size) for size in back)
    shown = times * exposed(work, backward) + gather + small
    communicate = times * sum(duration for _, duration in work) + gather + small
    each: list[tuple[Collective, int, float]] = [
        (what, times * n, bucket.bytes) for bucket in pieces.buckets for what, n in there
    ]
    each += [("all-to-all", 1, size) for size in back]
    sent_bytes = sum(n * sent(what, ranks, size) for what, n, size in each)
    step, bound = compute + shown, False
    if machine.cores:
        cores = sum(n * network.core_seconds(what, ranks, size) for what, n, size in each)
        busy = machine.here(ranks) * (machine.threads(ranks) * compute / wait + cores) / machine.cores
        step, bound = max(step, busy), busy > step
    return Prediction(
        ranks, pieces.rows, micro_batches, step, compute, communicate, step - compute, sent_bytes, core_bound=bound
    )


def _there(mode: Mode) -> list[tuple[Collective, int]]:
    """What happens to a bucket beside the backward, and how often."""
    if mode.nodes:
        return [("all-to-all", mode.nodes + (0 if mode.zero else 1))]
    return [("all-to-all" if mode.zero else "all-reduce", 1)]


def _back(mode: Mode, pieces: Pieces) -> list[float]:
    """Bytes of weights that travel behind an update of shards, a bucket at a time."""
    if not mode.zero:
        return []
    return [mode.weight_bytes * bucket.bytes / pieces.gradient_bytes for bucket in pieces.buckets]
