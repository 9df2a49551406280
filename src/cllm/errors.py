"""Every error that cllm raises on purpose, in one tree.

::

    CllmError                     base of all; `.exit_code` is what the command line exits with
    ├── UsageError           (2)  a command, option or call that makes no sense
    ├── ConfigError          (2)  a run file or a `--set` that is wrong: path, got, expected, closest key
    ├── DataError            (2)  text, shards or tokenizers that cannot be used
    ├── DomainError          (2)  a mathematical function outside its domain (also a ValueError)
    ├── UndecidableError     (1)  a comparison or rounding that the enclosure cannot decide (also an ArithmeticError)
    ├── LimitError           (2)  a size refused before memory or time is spent
    ├── MissingExtraError    (2)  an optional package is not installed; says the one command that installs it
    ├── RunError             (2)  a run directory that is missing, in use or does not fit the request
    │   └── CorruptError     (1)  a file whose hash, length or format is wrong
    ├── NonFiniteError       (1)  a loss or gradient that is not finite; the update was not made
    └── CertificateError     (1)  a certificate that could not be made or does not hold

Messages say what, where, got, expected, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CllmError(Exception):
    """Base class. `exit_code`: 1 = the check failed or the work could not be finished, 2 = bad input."""

    exit_code = 1


class UsageError(CllmError):
    """A command, option or call that makes no sense."""

    exit_code = 2


class ConfigError(CllmError):
    """A setting that is unknown, of the wrong type or out of range."""

    exit_code = 2


class DataError(CllmError):
    """Text, token shards or a tokenizer that cannot be used."""

    exit_code = 2


class DomainError(CllmError, ValueError):
    """A function was asked outside its domain; the message names function, argument and domain."""

    exit_code = 2


class UndecidableError(CllmError, ArithmeticError):
    """An enclosure does not decide the question; the message shows it."""


class LimitError(CllmError):
    """Refused before memory or time is spent; the message names the limit."""

    exit_code = 2


class MissingExtraError(CllmError):
    """An optional package is missing."""

    exit_code = 2

    def __init__(self, what: str, command: str) -> None:
        super().__init__(f"{what} is not installed. Install it with:\n  {command}")
        self.command = command


class RunError(CllmError):
    """A run directory that is missing, in use, or does not fit what was asked."""

    exit_code = 2


class CorruptError(RunError):
    """A file whose hash, length or format is wrong."""

    exit_code = 1


class NonFiniteError(CllmError):
    """A loss or gradient is not finite; the state before the step is kept."""


class CertificateError(CllmError):
    """A certificate could not be made, or does not hold."""


def closest(name: str, known: Iterable[str]) -> str:
    """A hint `; did you mean "x"?` for a mistyped `name`, or the empty string."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f'; did you mean "{found[0]}"?' if found else ""
