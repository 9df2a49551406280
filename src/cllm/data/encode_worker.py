"""A process that encodes segments: `python -m cllm.data.encode_worker TOKENIZER.json`; started by encode.py alone.

It reads one JSON line a segment, {"place", "files": [[name, path]…], "parts": [[file, start, stop, ends]…]}, and
answers in lines: {"read": bytes} now and then, then {"done": place}, or {"error": kind, "text": words}. It ends with
its standard input. (A process of its own, not multiprocessing: that would run the user's script again.)
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any


def main(tokenizer_file: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes our input
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core a process
    from cllm.text import Tokenizer

    tokenizer = Tokenizer.load(tokenizer_file)
    for line in sys.stdin:
        say(work(json.loads(line), tokenizer))


def work(job: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    """Encode one segment; what to answer."""
    from cllm.data.documents import Document
    from cllm.data.segments import Part, encode_segment
    from cllm.errors import CllmError

    files = [(name, Path(path)) for name, path in job["files"]]
    unsaid = 0

    def read(size: int) -> None:
        nonlocal unsaid
        unsaid += size
        if unsaid >= 1 << 20:
            say({"read": unsaid})
            unsaid = 0

    parts = (
        Part(Document(files[file][0], files[file][1], start, stop), bool(ends))
        for file, start, stop, ends in job["parts"]
    )
    try:
        encode_segment(parts, tokenizer, Path(job["place"]), read)
    except CllmError as error:
        return {"error": type(error).__name__, "text": str(error)}
    except OSError as error:
        return {"error": "OSError", "text": error.strerror, "errno": error.errno, "file": str(error.filename or "")}
    if unsaid:
        say({"read": unsaid})
    return {"done": job["place"]}


def say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
