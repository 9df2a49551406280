"""The native library `slices`: C++ sources in src/, libraries in lib/ (built by native_build.py).

`call(name, …)` runs slices_<name>; `View` is how it sees an array of balls.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

from numpy.typing import NDArray

from cllm import native
from cllm.errors import CertificateError

FAILED = -2
INT, REAL, POINTER = ctypes.c_int64, ctypes.c_double, ctypes.c_void_p


class View(ctypes.Structure):
    """m×n integers of L limbs and their radii; strides in limbs and in float64."""

    _fields_ = [
        ("limbs", POINTER),
        ("rad", POINTER),
        ("row", INT),
        ("column", INT),
        ("rad_row", INT),
        ("rad_column", INT),
    ]


ARRAY = ctypes.POINTER(View)
SIZE = (INT, INT, INT)
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "add": (*SIZE, ARRAY, INT, ARRAY, INT, INT, REAL, ARRAY),
    "mul": (*SIZE, ARRAY, INT, ARRAY, INT, INT, REAL, ARRAY),
    "rowsum": (*SIZE, ARRAY, INT, REAL, ARRAY),
    "magnitude": (*SIZE, ARRAY, INT, POINTER),
    "range": (INT, POINTER, POINTER),
    "from_floats": (*SIZE, POINTER, INT, INT, INT, REAL, ARRAY),
    "to_floats": (*SIZE, ARRAY, INT, POINTER, POINTER, POINTER),
    "digits": (*SIZE, ARRAY, INT, INT, POINTER, INT, INT, INT),
    "float_digits": (INT, INT, POINTER, INT, INT, INT, INT, POINTER, INT, INT, INT),
    "recombine": (*SIZE, INT, INT, POINTER, INT, POINTER),
    "exp": (*SIZE, ARRAY, INT, POINTER, POINTER, POINTER, INT, INT, REAL, ARRAY),
    "tanh": (*SIZE, ARRAY, INT, POINTER, POINTER, POINTER, INT, REAL, ARRAY),
    "subnormals_survive": (),
}


def library() -> ctypes.CDLL | None:
    """The library in use; None where `cllm.native.why_not("spec", "slices")` says why."""
    return native.load("spec", "slices")


def available() -> bool:
    """Whether the library is there."""
    return library() is not None


@cache
def _function(library: ctypes.CDLL, name: str) -> Any:
    found = getattr(library, f"slices_{name}", None)
    if found is None:
        raise CertificateError(f"the native library has no slices_{name}: `make native` builds it anew")
    found.argtypes, found.restype = SIGNATURES[name], INT
    return found


def call(name: str, *arguments: Any) -> int:
    """What slices_<name> returns. Raises CertificateError where it refuses its input."""
    used = library()
    if used is None:
        raise CertificateError(f"no native arithmetic: {native.why_not('spec', 'slices')}")
    found = int(_function(used, name)(*arguments))
    if found == FAILED:
        raise CertificateError(f"native {name}: the numbers are not finite, or too large for their places")
    return found


def address(x: NDArray[Any]) -> int:
    """Of an array's first entry."""
    return int(x.ctypes.data)
