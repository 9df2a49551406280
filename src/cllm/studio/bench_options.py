"""Options of a measurement, from what the page sends to words of a command line."""

from __future__ import annotations

from typing import Any

from cllm.errors import UsageError
from cllm.presets import PRESETS
from cllm.studio.workspace import Workspace

LARGEST = 2**31
MANY = 32  # values of an option that may be repeated
LONGEST = 200  # characters
_PRECISIONS = ["bf16", "fp32", "fp64"]


def choices(option: dict[str, Any]) -> list[str] | None:
    """The values that an option takes, where its type does not say them."""
    name = option["name"]
    if name == "preset":
        return list(PRESETS)
    if name in ("precision", "precisions"):
        return _PRECISIONS
    if name == "peers":
        return list(option["default"])
    return None


def line(command: dict[str, Any], given: dict[str, Any], workspace: Workspace) -> list[str]:
    """The words for the options that differ from the command's own. Raises UsageError, and Outside for a path that
    leads out of the workspace: any text may be one, so all of them are checked."""
    known = {option["name"]: option for option in command["options"]}
    for name in given:
        if name not in known:
            raise UsageError(
                f"{command['name']}: it has no option {name[:80]!r}; expected {', '.join(known) or 'none'}"
            )
    words: list[str] = []
    for name, option in known.items():
        value, own = given.get(name), option["default"]
        if value is None or (value == own and type(value) is type(own)):  # 1 == True
            continue
        if option["many"]:
            if not isinstance(value, list) or not 1 <= len(value) <= MANY:
                raise UsageError(f"{name}: expected a list of 1 to {MANY} values")
            words += [f"{option['flag']}={_text(option, item, workspace)}" for item in value]
        elif option["type"] == "bool":
            if not isinstance(value, bool):
                raise UsageError(f"{name}: got {value!r}, expected true or false")
            words.append(option["flag"] if value else f"--no-{option['flag'].removeprefix('--')}")
        else:
            words.append(f"{option['flag']}={_text(option, value, workspace)}")
    return words


def _text(option: dict[str, Any], value: Any, workspace: Workspace) -> str:
    name, kind = option["name"], option["type"]
    if kind in ("int", "float"):
        whole = isinstance(value, int) or (isinstance(value, float) and kind == "float")
        if not whole or isinstance(value, bool) or not abs(value) < LARGEST:
            expected = "a whole number" if kind == "int" else "a number"
            raise UsageError(f"{name}: got {value!r}, expected {expected} below {LARGEST}")
        return str(value)
    if not isinstance(value, str) or not 1 <= len(value) <= LONGEST:
        raise UsageError(f"{name}: expected a text of 1 to {LONGEST} characters")
    if option["choices"] and value not in option["choices"]:
        raise UsageError(f"{name}: got {value!r}, expected one of {', '.join(option['choices'])}")
    workspace.resolve(value, exists=False)
    return value
