"""Stopping by signal: the loop finishes its step and saves; nothing is cut off in the middle of a save."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupt:
    """`name` is that of the signal that asked to stop, or None. A second SIGINT stops at once, but never inside a
    `shield`. Signals that the process was started to ignore (nohup) stay ignored.

    announce: say on stderr that the first signal has been heard.
    """

    def __init__(self, *, announce: bool = True) -> None:
        self.name: str | None = None
        self._announce, self._shielded, self._again = announce, False, False

    @contextmanager
    def installed(self) -> Iterator[Interrupt]:
        """Catch the signals inside the block (only the main thread can)."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {
            number: signal.signal(number, self._caught)
            for number in SIGNALS
            if signal.getsignal(number) is not signal.SIG_IGN
        }
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def shield(self) -> Iterator[None]:
        """A second SIGINT inside the block takes effect behind it."""
        self._shielded = True
        try:
            yield
        finally:
            self._shielded = False
        if self._again:
            raise KeyboardInterrupt

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self.name is None:
            self.name = signal.Signals(number).name
            if self._announce:  # os.write: a handler must not enter a stream that it may have interrupted
                text = "\nfinishing this step, then saving; Ctrl-C again stops without saving\n"
                os.write(2, text.encode())
        elif number == signal.SIGINT:
            self._again = True
            if not self._shielded:
                raise KeyboardInterrupt
