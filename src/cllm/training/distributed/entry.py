"""What the ranks of a run make sure of before its first step: that they can share it, were started alike and see the
same data."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cllm import config as settings
from cllm.config import Config
from cllm.data.prepare import Prepared, open_prepared
from cllm.data.record import is_prepared
from cllm.errors import RunError
from cllm.training.distributed.arrange import arrange
from cllm.training.distributed.group import Group


def refuse_processes(config: Config, size: int) -> None:
    """Raises ConfigError for what so many ranks cannot do."""
    assert arrange(config, Group(size=size)).share


def check_group(config: Config, group: Group) -> None:
    """Refuse what these ranks cannot do. Raises ConfigError; RunError for a rank that was started otherwise."""
    if group.size == 1:
        return
    group.lead(lambda: refuse_processes(config, group.size))
    mine = flat(settings.to_dict(config))
    theirs: dict[str, Any] = group.agree(mine)
    other = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))

    def same() -> None:
        if other:
            raise RunError(
                f"{other[0]}: got {mine.get(other[0])!r} on {socket.gethostname()}, rank 0 {theirs.get(other[0])!r}: "
                "all ranks must be started with the same arguments"
            )

    group.each(same)


def shared_data(group: Group, folder: Path, work: Callable[[], Prepared]) -> Prepared:
    """Rank 0's data; the others open what it has made. Raises RunError on a rank that does not see the same folder."""
    mine = group.lead(work)
    expected = group.agree(None if mine is None else mine.record.train_sha256)

    def look() -> Prepared:
        if mine is not None:
            return mine
        if not is_prepared(folder):
            raise RunError(
                f"{folder}: rank {group.rank} on {socket.gethostname()} does not see what rank 0 has written there. "
                "The run directory must lie on a file system that all machines share"
            )
        found = open_prepared(folder, verify=False)
        if found.record.train_sha256 != expected:
            raise RunError(f"{folder}: on {socket.gethostname()} these are other data than rank 0's")
        return found

    return group.each(look)


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted key."""
    return {
        f"{name}.{key}" if isinstance(value, dict) else name: inner
        for name, value in values.items()
        for key, inner in (value.items() if isinstance(value, dict) else (("", value),))
    }
