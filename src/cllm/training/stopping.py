"""When to stop for a signal: this process, or all ranks of a run behind the same step."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from cllm.training.distributed.group import Group
from cllm.training.interrupt import SIGNALS, Interrupt


class Stopping:
    """name: the signal that all ranks stop for, once they have agreed on it."""

    def __init__(self, group: Group) -> None:
        self._group, self._interrupt, self._parent = group, Interrupt(), os.getppid()
        self.name: str | None = None

    @contextmanager
    def installed(self, *, announce: bool) -> Iterator[None]:
        """Catch signals inside the block."""
        with Interrupt(announce=announce).installed() as self._interrupt:
            yield

    def shield(self) -> AbstractContextManager[None]:
        """A second SIGINT inside the block takes effect behind it."""
        return self._interrupt.shield()

    @property
    def heard(self) -> str | None:
        """The signal that this rank has caught. One whose launcher has died stops, too: nobody would start it again,
        or stop it."""
        if self._interrupt.name is None and self._group.size > 1 and os.getppid() != self._parent:
            return "SIGTERM"
        return self._interrupt.name

    @property
    def code(self) -> int:
        """`heard`, as the other ranks are told: 0, or its place in SIGNALS and 1."""
        return 0 if self.heard is None else SIGNALS.index(signal.Signals[self.heard]) + 1

    def agreed(self, told: Sequence[int]) -> bool:
        """Whether to stop behind this step. told: the codes of all ranks before it, the same on each, so that all stop
        behind the same one; sent with the figures of the step, they cost nothing."""
        self.name = self.heard if self._group.size == 1 else _first(told)
        return self.name is not None

    def ask(self) -> bool:
        """Whether any rank has caught a signal by now. Collective."""
        self.name = _first([round(code) for (code,) in self._group.gather([self.code])]) or self.name
        return self.name is not None


def _first(codes: Sequence[int]) -> str | None:
    return next((SIGNALS[code - 1].name for code in codes if code), None)
