"""Faults done to a run of several processes, and what becomes of it: rows of the fault table.

Real processes under torchrun's agent, killed, stopped, cut off and starved of disk at random moments. A trial ends as
in faults.py: "equal" (the run ended by itself or was resumed, and its last checkpoint is byte for byte the
undisturbed one's), "said" (it ended with an error that names what happened, and resumed it is equal), or "silent".
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cllm.bench.prepare import family
from whole.faults import FILES, TEXT, Row

STEPS, RANKS = 60, 3
SETTINGS = {
    "train.steps": STEPS, "train.batch": 2, "train.accumulate": 3, "train.sequence": 12, "train.eval_every": 20,
    "train.sample_every": 0, "checkpoint.every": 4, "checkpoint.keep": 2, "data.tokenizer": "char",
    "model.width": 16, "model.ff": 32, "model.dropout": 0.1, "distributed.reduction": "fixed",
}  # fmt: skip
PATIENCE_S = 170
TOLD = r"rank \d+ .*(killed by|lost|failed|did not answer|timed? ?out|closed|reset)"


@dataclass
class Ended:
    """A launch that is over."""

    code: int
    told: str


class Lab:
    """A text, the run that nothing happened to, and a place for others."""

    def __init__(self, folder: Path, *, zero: int = 0) -> None:
        self.folder, self.zero = folder, zero
        self.text = folder / "text.txt"
        self.text.write_text(TEXT, encoding="utf-8")
        self.number = 0
        whole = folder / "whole"
        self.went_well(self.launch(whole).wait())
        self.expected = self.contents(whole)
        log = (whole / "events.jsonl").stat()
        self.seconds = max(1.0, log.st_mtime - (whole / "run.toml").stat().st_mtime)  # of training

    def new(self) -> Path:
        self.number += 1
        return self.folder / f"run-{self.number}"

    def contents(self, run: Path) -> dict[str, bytes]:
        """The last checkpoint, to the byte."""
        folder = run / "checkpoints" / f"step-{STEPS:08d}"
        return {name: (folder / name).read_bytes() for name in FILES}

    def command(self, run: Path, *, resume: bool = False, timeout_s: float = 60.0) -> list[str]:
        """What follows `cllm`."""
        if resume:
            return ["train", "--resume", "--out", str(run)]
        made = SETTINGS | {"distributed.zero": self.zero, "distributed.timeout_s": timeout_s}
        return ["train", str(self.text), "--out", str(run), "--preset", "nano",
                *(f"--set={key}={value}" for key, value in made.items())]  # fmt: skip

    def launch(self, run: Path, ranks: int = RANKS, *, resume: bool = False, timeout_s: float = 60.0) -> Launch:
        words = self.command(run, resume=resume, timeout_s=timeout_s)
        return Launch([sys.executable, "-m", "cllm", *words, "--processes", str(ranks)], self.folder)

    def went_well(self, ended: Ended) -> None:
        assert ended.code == 0, ended.told

    def judge(self, row: Row, run: Path, ended: Ended, what: str, told: str = TOLD, ranks: int = 2) -> None:
        """The verdict. A launch that gave up must have said why; it is then resumed with another number of ranks."""
        row.trials += 1
        named = ended.code == 0
        if not named:
            if not re.search(told, ended.told, re.IGNORECASE):
                row.silent.append(f"{what}: ended with {ended.code} without a cause: {ended.told[-1500:]}")
                return
            again = self.launch(run, ranks, resume=True).wait()
            if again.code:
                row.silent.append(f"{what}: does not go on: {again.told[-1500:]}")
                return
        if self.contents(run) != self.expected:
            row.silent.append(f"{what}: another run came out")
        elif named:
            row.equal += 1
        else:
            row.said += 1
        shutil.rmtree(run)


class Launch:
    """A command and all that it starts."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._told = folder / f"told-{time.monotonic_ns()}"
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with self._told.open("wb") as out:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, start_new_session=True
            )

    @property
    def told(self) -> str:
        return self._told.read_text(encoding="utf-8", errors="replace")

    def ranks(self) -> list[int]:
        """The ranks' processes, in order."""
        found = {}
        for pid in family(self.process.pid)[1:]:
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                named = dict(word.partition(b"=")[::2] for word in words)
                if b"LOCAL_RANK" in named:
                    found[int(named[b"RANK"])] = pid
        return [found[rank] for rank in sorted(found)]

    def until(self, there: Path) -> None:
        """Wait until a file is there (or the launch is over)."""
        end = time.monotonic() + PATIENCE_S
        while not there.exists() and self.process.poll() is None:
            assert time.monotonic() < end, f"no {there}: {self.told}"
            time.sleep(0.01)

    def wait(self) -> Ended:
        """Its end; one that does not end is killed, and the trial fails."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE_S)
        ended = self.end()
        return ended if ended.code != -1 else Ended(-1, "")

    def end(self) -> Ended:
        """Now; what still runs is killed."""
        code = self.process.poll()
        if code is None:
            for pid in family(self.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()
        told = self.told
        self._told.unlink(missing_ok=True)
        return Ended(-1 if code is None else code, told)


# ----------------------------------------------------------------------------------------- killed, and stopped


def killed(lab: Lab, trials: int, seed: int = 0) -> Row:
    """SIGKILL to a random rank at a random moment from its first breath to the end of the run: the agent starts the
    ranks again, and they go on from the newest good checkpoint."""
    row, draw = Row("a rank killed (SIGKILL) at a random moment"), random.Random(seed)
    for _ in range(trials):
        run, rank, wait_s = lab.new(), draw.randrange(RANKS), draw.uniform(0, 1.1 * lab.seconds)
        launch = lab.launch(run)
        launch.until(run / "run.toml")
        time.sleep(wait_s)
        pids = launch.ranks()
        if rank < len(pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pids[rank], signal.SIGKILL)
        lab.judge(row, run, launch.wait(), f"rank {rank} killed after {wait_s:.2f} s")
    return row


def launcher_killed(lab: Lab, trials: int, seed: int = 0) -> Row:
    """SIGKILL to the launcher: the ranks must not go on alone for ever, nor two runs write into one folder."""
    row, draw = Row("the launcher killed (SIGKILL) at a random moment"), random.Random(seed)
    for _ in range(trials):
        run, wait_s = lab.new(), draw.uniform(0, lab.seconds)
        launch = lab.launch(run)
        launch.until(run / "run.toml")
        time.sleep(wait_s)
        orphans = launch.ranks()
        launch.process.kill()
        launch.wait()
        end = time.monotonic() + PATIENCE_S
        while any(Path(f"/proc/{pid}/stat").exists() for pid in orphans) and time.monotonic() < end:
            time.sleep(0.05)
        left = [pid for pid in orphans if Path(f"/proc/{pid}/stat").exists()]
        ended = Ended(1, "" if left else "the launcher was killed by the test")
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        lab.judge(row, run, ended, f"launcher killed after {wait_s:.2f} s", told="killed by the test")
    return row


def slow(lab: Lab, trials: int, seed: int = 0) -> Row:
    """A rank that stands still (SIGSTOP) for a while, shorter or longer than `distributed.timeout_s`."""
    row, draw = Row("a slow rank: it stands still for shorter, or longer, than the timeout"), random.Random(seed)
    for trial in range(trials):
        run, rank, wait_s = lab.new(), draw.randrange(RANKS), draw.uniform(0, lab.seconds)
        timeout_s, still_s = (60.0, 3.0) if trial % 2 == 0 else (4.0, 12.0)
        launch = lab.launch(run, timeout_s=timeout_s)
        launch.until(run / "run.toml")
        time.sleep(wait_s)
        pids = launch.ranks()
        if rank < len(pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pids[rank], signal.SIGSTOP)
                time.sleep(still_s)
                os.kill(pids[rank], signal.SIGCONT)
        lab.judge(row, run, launch.wait(), f"rank {rank} still for {still_s:.0f} s after {wait_s:.2f} s")
    return row


# ------------------------------------------------------------------------------------------------------ disk


def may_mount() -> bool:
    """Whether this process may have a small file system of its own, and networks (Linux, root)."""
    done = subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True, check=False)
    return done.returncode == 0


@contextlib.contextmanager
def small_disk(folder: Path, size_kib: int) -> Iterator[Path]:
    """A file system of this size at `folder`."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


def full_disk(lab: Lab, trials: int, seed: int = 0) -> Row:
    """The disk of the rank that writes fills up at a random moment; with room again, the run is resumed."""
    row, draw = Row("the disk full on the rank that writes"), random.Random(seed)
    for trial in range(trials):
        with small_disk(lab.folder / f"disk-{trial}", 40_000) as disk:
            run, wait_s = disk / "run", draw.uniform(0, 0.8 * lab.seconds)
            launch = lab.launch(run)
            launch.until(run / "run.toml")
            time.sleep(wait_s)
            filler = disk / "filler"
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            ended = launch.wait()
            filler.unlink()
            lab.judge(row, run, ended, f"disk full after {wait_s:.2f} s", told=r"no space left")
    return row
