"""The working precision: a context variable of ours, never a mutable global.

python-flint reads its precision from one process-wide object. `at` and `flint_precision` lend it to one calculation:
set under a lock, restored whatever happens, so that threads and asynchronous tasks never see each other's precision.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

import flint

from cllm.numbers.limits import check_precision

DEFAULT_BITS = 128

_P = ParamSpec("_P")
_R = TypeVar("_R")

_bits: ContextVar[int] = ContextVar("cllm.numbers.precision", default=DEFAULT_BITS)
_flint_lock = threading.RLock()


def current_bits() -> int:
    """The precision in bits that functions use when no `bits=` is given (128 outside any `precision` block)."""
    return _bits.get()


def resolve_bits(bits: int | None) -> int:
    """`bits` where given (checked), else the precision of the context."""
    return _bits.get() if bits is None else check_precision(int(bits), "bits")


@contextmanager
def precision(bits: int) -> Iterator[int]:
    """Work with `bits` binary digits inside a `with` block (or a decorated function).

    The setting belongs to the current thread or asynchronous task and ends with the block.

    Raises:
        LimitError: fewer than 4 bits or more than `limits.MAX_PRECISION_BITS`.

    >>> from cllm.numbers import precision, sqrt
    >>> with precision(256):
    ...     print(sqrt(2).digits(60))
    1.41421356237309504880168872420969807856967187537694807317668
    """
    token = _bits.set(check_precision(int(bits)))
    try:
        yield bits
    finally:
        _bits.reset(token)


@contextmanager
def flint_precision(bits: int) -> Iterator[None]:
    """Lend flint's process-wide precision to the block; for code that works on raw `arb` or `arb_mat` objects."""
    with _flint_lock:
        before = flint.ctx.prec
        try:
            flint.ctx.prec = bits
            yield
        finally:
            flint.ctx.prec = before


def at(bits: int, function: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """`function(*args)` with flint working at `bits` bits; quicker than the `with` form."""
    with _flint_lock:
        before = flint.ctx.prec
        try:
            flint.ctx.prec = bits
            return function(*args, **kwargs)
        finally:
            flint.ctx.prec = before
