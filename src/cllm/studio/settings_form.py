"""Every setting of a run as a form needs it: kind, range, choices, default and a few words."""

from __future__ import annotations

import inspect
import re
import types
import typing
from typing import Any, Literal

import msgspec

from cllm import config as settings
from cllm.config import Config
from cllm.presets import DEFAULT, PRESETS

HIDDEN = {"preset", "start", "data.path", "data.weights"}  # asked for in another way, or not a single value


class Setting(msgspec.Struct):
    """kind: whole, number, switch, choice, list or text.  low, high: inclusive unless `open_low`/`open_high`; None is
    unbounded.  optional: may be left out; then the training decides."""

    key: str
    kind: str
    default: Any
    optional: bool = False
    choices: list[str] = []
    low: float | None = None
    high: float | None = None
    open_low: bool = False
    open_high: bool = False
    help: str = ""


def all_settings() -> list[Setting]:
    """In the order of the run file."""
    plain = msgspec.to_builtins(Config())
    found = []
    for field in msgspec.structs.fields(Config):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            words = _comments(field.type)
            for inner in msgspec.structs.fields(field.type):
                key = f"{field.name}.{inner.name}"
                found.append(_setting(key, inner.type, plain[field.name][inner.name], words.get(inner.name, "")))
        else:
            found.append(_setting(field.name, field.type, plain[field.name], _comments(Config).get(field.name, "")))
    return [one for one in found if one is not None and one.key not in HIDDEN]


def presets() -> dict[str, dict[str, Any]]:
    """The sizes of each preset, the default first."""
    return {name: dict(PRESETS[name]) for name in sorted(PRESETS, key=lambda name: name != DEFAULT)}


def _setting(key: str, kind: Any, default: Any, words: str) -> Setting | None:
    kind, optional = _without_none(kind)
    bounds: dict[str, Any] = {}
    if typing.get_origin(kind) is typing.Annotated:
        kind, *notes = typing.get_args(kind)
        for note in notes:
            bounds |= _bounds(note)
    kind, also = _without_none(kind)
    name = {int: "whole", float: "number", bool: "switch", str: "text"}.get(kind)
    choices: list[str] = []
    if typing.get_origin(kind) is Literal:
        name, choices = "choice", [str(choice) for choice in typing.get_args(kind)]
    elif typing.get_origin(kind) in (tuple, list):
        name = "list"
    if name is None:
        return None
    return Setting(key, name, default, optional or also, choices, help=words, **bounds)


def _bounds(note: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if isinstance(note, msgspec.Meta):
        if note.ge is not None:
            found["low"] = note.ge
        if note.gt is not None:
            found |= {"low": note.gt, "open_low": True}
        if note.le is not None:
            found["high"] = note.le
        if note.lt is not None:
            found |= {"high": note.lt, "open_high": True}
    return found


def _without_none(kind: Any) -> tuple[Any, bool]:
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        left = [one for one in typing.get_args(kind) if one is not type(None)]
        if len(left) == 1:
            return left[0], True
    return kind, False


def _comments(kind: type) -> dict[str, str]:
    """What the source says behind each field: the same words that somebody who reads the code sees."""
    try:
        source = inspect.getsource(kind)
    except OSError:  # without sources the form has no words, and works
        return {}
    return {name: words.strip() for name, words in re.findall(r"^    (\w+): .*?  # (.+)$", source, re.MULTILINE)}


def checked(preset: str | None, values: dict[str, Any]) -> Config:
    """The configuration of a form. Raises ConfigError in words."""
    return settings.load(preset=preset, overrides=values)
