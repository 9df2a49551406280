"""One sentence for each setting, from the comment beside the field in config.py: it is written once, there."""

from __future__ import annotations

import inspect
import re

import msgspec

from cllm import config

_FIELD = re.compile(r"^    (\w+): .*?  # (.+)$")


def sentences() -> dict[str, str]:
    """Dotted key → its comment; keys that need none are left out, all are where the source is not at hand."""
    found: dict[str, str] = {}
    for top in msgspec.structs.fields(config.Config):
        is_section = isinstance(top.type, type) and issubclass(top.type, msgspec.Struct)
        found |= _of(top.type, f"{top.name}.") if is_section else {}
    return found | _of(config.Config, "")


def _of(section: type, prefix: str) -> dict[str, str]:
    try:
        lines = inspect.getsource(section).splitlines()
    except OSError:
        return {}
    return {prefix + match[1]: match[2] for line in lines if (match := _FIELD.match(line))}
