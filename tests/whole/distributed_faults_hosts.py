"""Faults between two hosts: rows of the fault table in distributed_faults.py."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from whole.distributed_faults import PATIENCE_S, Ended, Lab, Launch
from whole.faults import Row


class Hosts:
    """Two network namespaces with an address each and a cable between them."""

    ADDRESSES = ("10.231.7.1", "10.231.7.2")

    def __init__(self) -> None:
        self.names = [f"cllm{os.getpid()}{side}" for side in "ab"]

    def __enter__(self) -> Hosts:
        a, b = self.names
        for words in (
            f"netns add {a}", f"netns add {b}",
            f"-n {a} link add wire type veth peer name wire netns {b}",
        ):  # fmt: skip
            self._ip(words)
        for name, address in zip(self.names, self.ADDRESSES, strict=True):
            self._ip(f"-n {name} address add {address}/24 dev wire")
            self._ip(f"-n {name} link set wire up")
            self._ip(f"-n {name} link set lo up")
        return self

    def __exit__(self, *_: object) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)

    def cable(self, up: bool) -> None:
        """Plug it in or out."""
        self._ip(f"-n {self.names[0]} link set wire {'up' if up else 'down'}")

    def _ip(self, words: str) -> None:
        subprocess.run(["ip", *words.split()], check=True, capture_output=True)

    def launch(self, lab: Lab, run: Path, *, timeout_s: float = 60.0, restarts: int = 0, static: bool = False) -> Pair:
        """torchrun on both hosts, as its manual says it. static: by `--master-addr` instead of a c10d rendezvous."""
        there = [["ip", "netns", "exec", name] for name in self.names]
        hosts = list(zip(self.ADDRESSES, there, strict=True))
        return Pair(lab, run, hosts, "wire", timeout_s=timeout_s, restarts=restarts, static=static)


class Pair:
    """torchrun on two hosts, one rank on each."""

    GRACE_S = 40  # of agents without ranks: they may be about to start them again

    def __init__(
        self, lab: Lab, run: Path, hosts: Sequence[tuple[str, list[str]]], interface: str, *, port: int = 29600,
        timeout_s: float = 60.0, restarts: int = 0, static: bool = False,
    ) -> None:  # fmt: skip
        """hosts: of each its address, and what comes before a command to run it there."""
        self.launches = []
        for node, (address, before) in enumerate(hosts):
            if static:
                meeting = [f"--master-addr={hosts[0][0]}", f"--master-port={port}"]
            else:
                meeting = [
                    "--rdzv-id=faults", "--rdzv-backend=c10d", f"--rdzv-endpoint={hosts[0][0]}:{port}",
                    f"--local-addr={address}", f"--rdzv-conf=is_host={int(node == 0)},join_timeout=60,close_timeout=5",
                ]  # fmt: skip
            torchrun = [
                sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1",
                f"--node-rank={node}", f"--max-restarts={restarts}", *meeting, "-m", "cllm",
            ]  # fmt: skip
            words = lab.command(run, timeout_s=timeout_s)
            self.launches.append(
                Launch([*before, "env", f"GLOO_SOCKET_IFNAME={interface}", *torchrun, *words], lab.folder)
            )

    def wait(self) -> Ended:
        """The end of both: the code of the worse, the words of both. An agent that still waits for the other one when
        the ranks of both have ended is ended, and only its ranks count."""
        end, gone = time.monotonic() + PATIENCE_S, 0.0
        while any(launch.process.poll() is None for launch in self.launches) and time.monotonic() < end:
            if any(launch.ranks() for launch in self.launches if launch.process.poll() is None):
                gone = 0.0
            elif not gone:
                gone = time.monotonic()
            elif time.monotonic() > gone + self.GRACE_S:
                break
            time.sleep(0.1)
        hung = any(launch.ranks() for launch in self.launches)
        ends = [launch.end() for launch in self.launches]
        told = "\n".join(ended.told for ended in ends)
        if hung:
            return Ended(-1, "")
        over = re.search(r"^done: ", told, re.MULTILINE)
        return Ended(0 if over else max(abs(ended.code) for ended in ends) or 1, told)


CUTS = ("for a second", "for longer than the timeout", "for good")


def cut(lab: Lab, trials: int, seed: int = 0) -> Row:
    """Two hosts (network namespaces), the cable out at a random moment: for a second; for longer than
    `distributed.timeout_s`, when the ranks give up and torchrun starts them again; or for good."""
    row, draw = Row("the network between two hosts cut: " + ", ".join(CUTS)), random.Random(seed)
    for trial in range(trials):
        run, wait_s, how = lab.new(), draw.uniform(0, 1.2 * lab.seconds), CUTS[trial % len(CUTS)]
        with Hosts() as hosts:
            short, good = how == CUTS[0], how == CUTS[2]
            pair = hosts.launch(lab, run, timeout_s=60.0 if short else 6.0, restarts=0 if good else 3, static=good)
            pair.launches[0].until(run / "run.toml")
            time.sleep(wait_s)
            hosts.cable(up=False)
            if not good:
                time.sleep(1 if short else 10)
                hosts.cable(up=True)
            ended = pair.wait()
        told = r"cllm: rank \d of 2 .*(failed|could not meet)"
        lab.judge(row, run, ended, f"cable out after {wait_s:.2f} s {how}", told)
    return row


def killed_on_one(lab: Lab, trials: int, pair: Callable[[Path], Pair], seed: int = 0) -> Row:
    """SIGKILL to the rank of one of two hosts: both agents start their ranks again, each in its own time."""
    row, draw = Row("a rank killed (SIGKILL) on one of two hosts"), random.Random(seed)
    for trial in range(trials):
        run, wait_s = lab.new(), draw.uniform(0, 1.2 * lab.seconds)
        both = pair(run)
        both.launches[0].until(run / "run.toml")
        time.sleep(wait_s)
        for pid in both.launches[trial % 2].ranks():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        lab.judge(row, run, both.wait(), f"rank {trial % 2} killed after {wait_s:.2f} s")
    return row


def killed_on_hosts(lab: Lab, trials: int, seed: int = 0) -> Row:
    """`killed_on_one`, of two network namespaces."""
    with Hosts() as hosts:
        return killed_on_one(lab, trials, lambda run: hosts.launch(lab, run, restarts=3), seed)


def killed_here(lab: Lab, trials: int, seed: int = 0) -> Row:
    """`killed_on_one`, of two agents on this machine: nobody's leave is needed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here: list[tuple[str, list[str]]] = [("127.0.0.1", [])] * 2
    return killed_on_one(lab, trials, lambda run: Pair(lab, run, here, "lo", port=port, restarts=3), seed)
