"""Saving while training goes on: the bytes are copied from the state, then written by a thread.

The copy is all that the thread sees, so the steps that follow cannot touch what is written; `latest` moves only
when the files it names are durable (see `checkpoint.save`). One save at a time: the next one waits for it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cllm.errors import CllmError
from cllm.training import checkpoint


@dataclass(frozen=True)
class Saved:
    """A checkpoint that is durable, and named by `latest`."""

    name: str
    step: int
    best: bool


class Saver:
    """Writes the checkpoints of one run.

    background: by a thread; else each save is finished when `save` returns.  sync: called by the writer first (the
    log is made durable with the checkpoint).
    """

    def __init__(self, run_dir: Path, *, background: bool, sync: Callable[[], None] = lambda: None) -> None:
        self._run_dir, self._background, self._sync = run_dir, background, sync
        self._thread: threading.Thread | None = None
        self._done: Saved | None = None
        self._error: BaseException | None = None

    def save(
        self,
        step: int,
        weights: Mapping[str, Tensor],
        rest: Mapping[str, Tensor],
        meta: dict[str, Any],
        *,
        keep: int,
        best: bool,
        spare: Collection[str] = (),
    ) -> None:
        """Start a save; arguments as in `checkpoint.save`. The one before must have been waited for: see `wait`."""
        assert self._thread is None, "one save at a time"
        if self._background:
            weights, rest = _copies(weights), _copies(rest)

        def write() -> None:
            try:
                self._sync()
                path = checkpoint.save(self._run_dir, step, weights, rest, meta, keep=keep, best=best, spare=spare)
                self._done = Saved(path.name, step, best)
            except BaseException as error:
                self._error = error

        if not self._background:
            write()
            return
        self._thread = threading.Thread(target=write, name=f"checkpoint-{step}")
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a save is being written."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> Saved | None:
        """Wait for the save under way. The save that was finished since the last call, if any; raises what it ended
        with, if that was an error."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        done, error = self._done, self._error
        self._done = self._error = None
        if error is not None:
            raise error
        return done

    def close(self) -> None:
        """Wait; whatever it ended with was, or will be, of no more use."""
        with contextlib.suppress(CllmError):
            self.wait()


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
