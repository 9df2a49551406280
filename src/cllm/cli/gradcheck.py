"""`cllm gradcheck`."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def gradcheck(target: str, /, *, json: bool = False) -> int:
    """Certify anyone's op: a formula, a kernel and its backward, from your own Python file.

    FILE.py:NAME names a cllm.certificate.OpCheck (or a mapping with the same fields), or a function without arguments
    that returns one. The file is run to find it. Exit code 1 when the kernel is outside its budget.

    Examples:

      cllm gradcheck examples/certify_your_kernel.py:softsign

      cllm gradcheck examples/certify_your_kernel.py:broken --json

    Parameters
    ----------
    target: str
        FILE.py:NAME.
    json: bool
        Print one JSON object.
    """
    from cllm.certificate.own_op import gradcheck as run

    file, colon, name = target.rpartition(":")
    path = Path(file)
    found = _find(path, name) if colon else _usage(target)
    result = run(found.forward, found.kernel, found.kernel_backward, found.inputs, settings=found.settings, name=name)
    if json:
        import msgspec

        print(msgspec.json.encode({"ok": result.ok, "op": name, **msgspec.to_builtins(result)}).decode())
    else:
        print(result)
    return 0 if result.ok else 1


def _usage(target: str) -> Any:
    from cllm.errors import UsageError

    raise UsageError(f"gradcheck: got {target!r}, expected FILE.py:NAME")


def _find(path: Path, name: str) -> Any:
    """Run the user's file and take the object of that name."""
    import importlib.util
    from collections.abc import Mapping

    from cllm.certificate.own_op import OpCheck
    from cllm.errors import UsageError, closest

    if not path.is_file():
        raise UsageError(f"gradcheck: {path}: no such file")
    specification = importlib.util.spec_from_file_location(path.stem, path)
    if specification is None or specification.loader is None:
        raise UsageError(f"gradcheck: {path}: not a Python file")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    if not hasattr(module, name):
        raise UsageError(f"gradcheck: {path} has no {name!r}{closest(name, vars(module))}")
    found = getattr(module, name)
    if callable(found) and not isinstance(found, OpCheck):
        found = found()
    if isinstance(found, Mapping):
        try:
            found = OpCheck(**found)
        except TypeError as error:
            raise UsageError(f"gradcheck: {path}:{name}: {error}") from None
    if not isinstance(found, OpCheck):
        raise UsageError(f"gradcheck: {path}:{name} is {type(found).__name__}, expected an OpCheck or a mapping")
    return found
