"""From documents to a shard: encoded segment by segment, on all cores where there is enough text, and taken up again.

The shard's bytes do not depend on the number of processes, nor on how often the work was stopped in between.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any, Final

from cllm import errors
from cllm.cores import usable_cores
from cllm.data import segments as _segments
from cllm.data.segments import Segment, SegmentRecord, encode_segment, finished, segments
from cllm.data.shard import MixPart, ShardRecord, ShardWriter
from cllm.data.table import Documents
from cllm.errors import CorruptError, DataError
from cllm.text import Tokenizer

PARALLEL_FROM: Final = 4
"""Segments from which processes of their own pay (starting one takes about half a second)."""


def write_shard(
    folder: Path,
    name: str,
    documents: Documents,
    tokenizer: Tokenizer,
    tokenizer_file: Path,
    kept: Path,
    *,
    mix: list[MixPart] | None = None,
    digests: dict[Path, hashlib._Hash],
    workers: int | None = None,
    progress: Callable[[int], None] = lambda size: None,
) -> tuple[ShardRecord, str]:
    """Encode `documents` into the shard `name` in `folder`; returns its record and hash.

    kept: folder of finished segments, taken up again when this is called a second time.  digests: of the files that
    the user might change meanwhile; each is given all bytes that were encoded of it.  workers: processes
    (default: one a core, none for little text).  progress(bytes) is called as text is read.

    Raises DataError (text that cannot be used or changes), OSError.
    """
    kept.mkdir(exist_ok=True)
    writer = ShardWriter(folder, name, tokenizer, mix)
    try:
        jobs = segments(documents, tokenizer)
        places = [kept / f"{name}-{number:06d}" for number in range(len(jobs))]
        found = [finished(place) for place in places]
        missing = [number for number, record in enumerate(found) if record is None]
        for job, record in zip(jobs, found, strict=True):
            if record is not None:
                progress(job.size)
        count = min(usable_cores() if workers is None else workers, len(missing))
        if workers is None and len(missing) < PARALLEL_FROM:
            count = 0
        done = (
            _alone(jobs, places, missing, tokenizer, progress)
            if count < 2
            else _together(jobs, places, missing, tokenizer_file, count, progress)
        )
        ready = {number for number, record in enumerate(found) if record is not None}
        with contextlib.closing(done):
            for number, (job, place) in enumerate(zip(jobs, places, strict=True)):
                while number not in ready:
                    ready.add(next(done))
                _join(writer, job, place, digests)
        return writer.finish()
    finally:
        writer.close()


def _join(writer: ShardWriter, job: Segment, place: Path, digests: dict[Path, hashlib._Hash]) -> None:
    """Add a finished segment, after checking that its text is still what is in the files."""
    record = finished(place)
    if record is None:
        raise CorruptError(f"{place}: what was just written there is not what is read back; try again")
    _check_text(job, record, digests)
    writer.append(place, record)


def _check_text(job: Segment, record: SegmentRecord, digests: dict[Path, hashlib._Hash]) -> None:
    """Read the segment's text again: it must be what was encoded; and gather the hashes of whole files."""
    text = hashlib.sha256()
    for part in job:
        document, whole = part.document, digests.get(part.document.path)
        with document.path.open("rb") as file:
            file.seek(document.start)
            left = document.size
            while left > 0 and (block := file.read(min(1 << 20, left))):
                left -= len(block)
                text.update(block)
                if whole is not None:
                    whole.update(block)
    if text.hexdigest() != record.text_sha256:
        raise DataError(f"{next(iter(job)).document.name}: it changed while it was being read; try again")


def _alone(
    jobs: Sequence[Segment],
    places: Sequence[Path],
    missing: Sequence[int],
    tokenizer: Tokenizer,
    progress: Callable[[int], None],
) -> Generator[int, None, None]:
    for number in missing:
        encode_segment(jobs[number], tokenizer, places[number], progress)
        yield number


def _together(
    jobs: Sequence[Segment],
    places: Sequence[Path],
    missing: Sequence[int],
    tokenizer_file: Path,
    count: int,
    progress: Callable[[int], None],
) -> Generator[int, None, None]:
    """Encode in `count` processes; the numbers of finished segments as they come."""
    waiting: Queue[int | None] = Queue()
    answers: Queue[tuple[int, dict[str, Any]]] = Queue()
    for number in [*missing, *[None] * count]:
        waiting.put(number)
    command = [sys.executable, "-m", "cllm.data.encode_worker", str(tokenizer_file)]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        for _ in range(count)
    ]
    threads = [Thread(target=_feed, args=(w, jobs, places, waiting, answers), daemon=True) for w in workers]
    for thread in threads:
        thread.start()
    try:
        left = len(missing)
        while left:
            number, answer = answers.get()
            if "read" in answer:
                progress(answer["read"])
            elif "done" in answer:
                left -= 1
                yield number
            else:
                raise _error(answer)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
        for thread in threads:
            thread.join()
        for worker in workers:
            for pipe in (worker.stdin, worker.stdout):
                with contextlib.suppress(OSError):
                    assert pipe is not None
                    pipe.close()


def _feed(
    worker: subprocess.Popen[str],
    jobs: Sequence[Segment],
    places: Sequence[Path],
    waiting: Queue[int | None],
    answers: Queue[tuple[int, dict[str, Any]]],
) -> None:
    """One worker's thread: a segment at a time, until none waits or the worker is gone."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    while (number := waiting.get()) is not None:
        try:
            worker.stdin.write(_job(jobs[number], places[number]) + "\n")
            worker.stdin.flush()
            for line in worker.stdout:
                answer = json.loads(line)
                answers.put((number, answer))
                if "read" not in answer:
                    break
            else:
                raise OSError
        except (OSError, ValueError):  # killed: by us, or for want of memory
            answers.put((number, {"error": "DataError", "text": "a process that encodes text ended early; try again"}))
            return


def _job(job: Segment, place: Path) -> str:
    files: dict[tuple[str, str], int] = {}
    rows = []
    for part in job:
        d = part.document
        number = files.setdefault((d.name, str(d.path)), len(files))
        rows.append([number, d.start, d.stop, int(part.ends)])
    return json.dumps({"place": str(place), "files": list(files), "parts": rows})


def _error(answer: dict[str, Any]) -> Exception:
    if answer["error"] == "OSError":
        return OSError(answer["errno"], answer["text"], answer["file"] or None)
    kind = getattr(errors, answer["error"], DataError)
    found: Exception = kind(answer["text"])
    return found


def segment_folder(out: Path, key: bytes) -> Path:
    """Where the finished segments of this work are kept, and nobody else's: named by what decides their bytes."""
    name = hashlib.sha256(key + str(_segments.SIZE).encode()).hexdigest()[:16]
    return out.parent / f".{out.name}.segments-{name}"


def remove_segments(out: Path, but: Path | None = None) -> None:
    """Remove kept segments of `out`, all or all but one folder."""
    for path in out.parent.glob(f".{out.name}.segments-*"):
        if path != but:
            shutil.rmtree(path, ignore_errors=True)
