"""Builds the native libraries with CMake into src/cllm/*/native/lib.

Run by the wheel's build (also of an editable install) as hatchling's custom hook, and by `make native`. Where there is
no C++ compiler or CMake the package still installs: it then runs on torch ops, and `cllm info` says so.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

ROOT = Path(__file__).resolve().parent


def build(folder: Path, package: Path, *options: str) -> None:
    """Configure and compile in `folder`, then put the libraries into `package`/<room>/native/lib.

    Each library is replaced whole and only when it changed: a process that has the old one mapped keeps it.
    Raises CalledProcessError or OSError.
    """
    cmake = shutil.which("cmake")
    if cmake is None:
        raise OSError("cmake not found")
    folder.mkdir(parents=True, exist_ok=True)
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    stage = folder / "stage"
    with (folder / "lock").open("w") as lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two builds at once would write the same objects
        run = [
            [cmake, "-S", str(ROOT), "-B", str(folder), *generator, *options],
            [cmake, "--build", str(folder), "--parallel", str(os.cpu_count() or 1)],
            [cmake, "--install", str(folder), "--prefix", str(stage)],
        ]
        for command in run:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if done.returncode:
                print(done.stdout, file=sys.stderr)
                raise subprocess.CalledProcessError(done.returncode, command[:2])
        for built in sorted(stage.rglob("*.so")):
            place = package / built.relative_to(stage)
            if place.exists() and filecmp.cmp(built, place, shallow=False):
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            fresh = place.with_suffix(".new")
            shutil.copy2(built, fresh)
            os.replace(fresh, place)


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand, outside a wheel's build
    pass
else:

    class NativeHook(BuildHookInterface):  # type: ignore[type-arg]
        """Compile, then pack what was compiled and tag the wheel for this platform."""

        def initialize(self, version: str, build_data: dict[str, object]) -> None:
            if self.target_name != "wheel":
                return
            try:
                build(ROOT / "build" / "wheel", ROOT / "src" / "cllm")  # cached tools live elsewhere
            except (OSError, subprocess.CalledProcessError) as error:
                if os.environ.get("CLLM_NATIVE_REQUIRED"):
                    raise
                self.app.display_warning(f"native kernels were not built ({error}); cllm will run on torch ops")
                return
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{_platform()}"


def _platform() -> str:
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "sanitize":
        build(ROOT / "build" / "sanitize", ROOT / "build" / "sanitize" / "lib", "-DCLLM_SANITIZE=ON")
    else:
        build(
            ROOT / "build" / "native", ROOT / "src" / "cllm", f"-DCLLM_WERROR={'ON' if os.environ.get('CI') else 'OFF'}"
        )
