"""Arguments that several commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from cyclopts import Parameter

from cllm.errors import UsageError, closest

# DATA and texts may be "-", standard input, which the parser would otherwise take for an option
Text = Annotated[str, Parameter(allow_leading_hyphen=True)]


def data_names(data: Sequence[str], command: Callable[..., Any]) -> list[str]:
    """`data` as it is, once it is known to hold no mistyped option of `command`. Raises UsageError."""
    options = ["--" + name.replace("_", "-") for name in inspect.signature(command).parameters]
    for name in data:
        if name.startswith("-") and name != "-":
            hint = closest(name, options)
            raise UsageError(f"unknown option {name}{hint} (for a file of that name: ./{name})")
    return list(data)
