"""The native libraries: which one fits this processor, and loading it. The bottom of the native rooms.

`load("engine", "engine")` returns the library `cllm/engine/native/lib/engine-<level>.so` of the best level that the
processor has, or None: no compiler when the wheel was built, another platform, or switched off. Nothing depends on
the libraries: a room without one runs its torch or Python path, and `cllm info` says which path is on.

Libraries have a plain C ABI: pointers, int64_t sizes, scalars, no Python. Calls through ctypes release the GIL. They
share torch's OpenMP threads (torch is imported first, so that its runtime is the one that is found).

Environment (for tests and comparisons): CLLM_NATIVE=off|baseline|avx2|avx512|avx512bf16 forces a level;
CLLM_NATIVE_LIB=DIR takes `DIR/<room>/native/lib/` instead (sanitizer builds).
"""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from pathlib import Path

LEVELS = ("baseline", "avx2", "avx512", "avx512bf16")  # as in native_level.cpp
VARIABLE, FOLDER = "CLLM_NATIVE", "CLLM_NATIVE_LIB"


def load(room: str, name: str) -> ctypes.CDLL | None:
    """The library `name` of `room` at the best level of this processor, or None where `why_not` says why."""
    return _load(room, name, os.environ.get(VARIABLE, ""), os.environ.get(FOLDER, ""))[0]


def level(room: str, name: str) -> str:
    """The level in use: one of LEVELS, or "off"."""
    return _load(room, name, os.environ.get(VARIABLE, ""), os.environ.get(FOLDER, ""))[1] or "off"


def why_not(room: str, name: str) -> str:
    """Why `load` gave None, in words; "" when it did not."""
    return _load(room, name, os.environ.get(VARIABLE, ""), os.environ.get(FOLDER, ""))[2]


def multiplies_bf16(room: str, name: str) -> bool:
    """Whether the library in use multiplies bfloat16 by instructions of its own. Imports nothing: for settings, which
    are read before torch is needed."""
    if os.environ.get(VARIABLE, "") not in ("", LEVELS[-1]):
        return False
    if not (_folder(room) / f"{name}-{LEVELS[-1]}.so").exists():
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    except OSError:
        return False
    return {"avx512_bf16", "avx512_vnni", "avx512f", "avx512bw", "avx512vl", "avx512dq"} <= set(flags)


def _folder(room: str) -> Path:
    wanted = os.environ.get(FOLDER, "")
    return (Path(wanted) if wanted else Path(__file__).parent) / room / "native" / "lib"


@lru_cache
def _load(room: str, name: str, wanted: str, folder: str) -> tuple[ctypes.CDLL | None, str, str]:
    if wanted == "off":
        return None, "", f"switched off by {VARIABLE}=off"
    if wanted and wanted not in LEVELS:
        return None, "", f"{VARIABLE}={wanted}: expected off or one of {', '.join(LEVELS)}"
    import torch  # noqa: F401  its OpenMP runtime must be the first one in the process

    lib = (Path(folder) if folder else Path(__file__).parent) / room / "native" / "lib"
    try:
        highest = int(ctypes.CDLL(str(lib / f"{name}-baseline.so")).cllm_level())
    except OSError as error:
        return (
            None,
            "",
            f"not built or not loadable ({error}); `make native` or reinstalling with a C++ compiler builds it",
        )
    if wanted:
        if LEVELS.index(wanted) > highest:
            return None, "", f"{VARIABLE}={wanted}: this processor has {LEVELS[highest]} at most"
        candidates: tuple[str, ...] = (wanted,)
    else:
        candidates = tuple(reversed(LEVELS[: highest + 1]))
    for candidate in candidates:
        try:
            return ctypes.CDLL(str(lib / f"{name}-{candidate}.so")), candidate, ""
        except OSError as error:
            reason = f"{candidate} is not loadable: {error}"
    return None, "", reason
