"""The same run twice gives the same bytes; what two threads instead of one mean is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cllm.training import checkpoint

TEXT = "".join(f"The {a} {b} sees the {c}. " for a in ("red", "old", "sly") for b in ("fox", "cat", "hen")
               for c in ("moon", "barn", "well", "road")) * 12  # fmt: skip


def cllm(*arguments: str, threads: int) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "cllm", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


def train(text: Path, out: Path, threads: int) -> dict[str, bytes]:
    sets = ["train.steps=6", "train.batch=8", "train.sequence=48", "train.accumulate=2", "train.sample_every=0",
            "checkpoint.every=3", "checkpoint.keep=9", "data.tokenizer=char", "model.dropout=0.1"]  # fmt: skip
    more = [word for setting in sets for word in ("--set", setting)]
    cllm("train", str(text), "--preset", "nano", "--out", str(out), *more, threads=threads)
    folder = out / "checkpoints" / "step-00000006"
    found = {name: (folder / name).read_bytes() for name in ("weights.safetensors", "state.safetensors")}
    return found | {"data": b"".join(p.read_bytes() for p in sorted((out / "data").iterdir()))}


def test_twice_is_the_same_with_one_thread_and_with_two(tmp_path: Path):
    text = tmp_path / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    for threads in (1, 2):
        runs = [train(text, tmp_path / f"{threads}-{time}", threads) for time in ("first", "second")]
        assert runs[0] == runs[1], f"two processes of {threads} threads"
        assert checkpoint.load(tmp_path / f"{threads}-first").environment["threads"] == str(threads)
    # another number of threads may give other last bits: nothing is promised, and a resume says so
    run = tmp_path / "1-first"
    for file in sorted((run / "checkpoints" / "step-00000006").iterdir()):
        file.unlink()
    (run / "checkpoints" / "step-00000006").rmdir()
    for pointer in ("latest", "best"):
        (run / pointer).write_text("step-00000003\n")
    said = cllm("train", "--resume", "--out", str(run), threads=2)
    assert "threads: 1 when saved, 2 now; the rest of the run may differ in the last bits" in said
