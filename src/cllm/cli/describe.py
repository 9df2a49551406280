"""What the commands of a group take, for a program that offers them: a sentence, options, types and defaults.

Read from the same signatures and docstrings as `--help`, so that nothing is said twice.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from cyclopts import App

_TYPES = {int: "int", float: "float", bool: "bool", str: "str", Path: "path"}


def commands(group: str) -> list[dict[str, Any]]:
    """The commands of `cllm GROUP`: name, about (its first sentence), options (see `_option`)."""
    app: App = importlib.import_module(f"cllm.cli.{group}").app
    return [_command(name, app[name]) for name in app if not name.startswith("-")]


def _command(name: str, app: App) -> dict[str, Any]:
    about, _, more = app.help.partition("\n\n")
    text = more.partition("Examples:")[0]
    found = app.assemble_argument_collection(parse_docstring=True)
    return {
        "name": name,
        "about": " ".join(about.split()),
        "more": " ".join(text.split()),
        "options": [_option(argument) for argument in found],
    }


def _option(argument: Any) -> dict[str, Any]:
    """name (as in JSON), flag, type (int, float, bool, str, path), many (may be repeated), choices, default, help."""
    kind, many, choices = _type(argument.hint)
    default = argument.field_info.default
    required = default is inspect.Parameter.empty
    if isinstance(default, tuple):
        default = list(default)
    return {
        "name": argument.name.lstrip("-").replace("-", "_"),
        "flag": argument.name,
        "type": kind,
        "many": many,
        "choices": choices,
        "required": required,
        "default": None if required or isinstance(default, Path) else default,
        "help": argument.parameter.help or "",
    }


def _type(hint: Any) -> tuple[str, bool, list[str] | None]:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return _type(next(part for part in get_args(hint) if part is not type(None)))
    if origin is Literal:
        return "str", False, [str(word) for word in get_args(hint)]
    if isinstance(origin, type) and issubclass(origin, Sequence):
        kind, _, choices = _type(get_args(hint)[0])
        return kind, True, choices
    return _TYPES.get(hint, "str"), False, None
