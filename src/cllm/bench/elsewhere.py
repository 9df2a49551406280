"""A candidate that runs in a process of its own, one call at a time: for peers under another memory allocator.

The call travels over a pipe (some tens of microseconds), so that a candidate elsewhere is timed beside the others.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TCMALLOC = ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4")  # Debian: libtcmalloc-minimal4, libgoogle-perftools4t64
FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib")


def tcmalloc() -> Path | None:
    """The library, where it is installed."""
    return next((path for folder in FOLDERS for name in TCMALLOC if (path := Path(folder) / name).exists()), None)


class Elsewhere:
    """`code` is run in a new process with `arguments` in sys.argv; it makes `step`, which every call here runs once.

    preload: a library for LD_PRELOAD.  A call returns what `step` returned, a float. Ends with the object.
    """

    def __init__(self, code: str, arguments: Sequence[Any] = (), *, preload: Path | None = None) -> None:
        environment: Mapping[str, str] = os.environ | ({"LD_PRELOAD": str(preload)} if preload else {})
        server = f"import sys\n{code}\nfor _ in sys.stdin:\n    print('result', float(step()), flush=True)\n"
        self._process = subprocess.Popen(
            [sys.executable, "-c", server, *(json.dumps(x) for x in arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def __call__(self) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            for line in self._process.stdout:
                if line.startswith("result "):
                    return float(line.split()[1])
        except BrokenPipeError:
            pass
        raise RuntimeError(f"the candidate's process ended with exit code {self._process.wait()}")

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._process.wait()

    def __del__(self) -> None:
        if hasattr(self, "_process"):
            self.close()
