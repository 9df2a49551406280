"""The measured pieces of a configuration's step, kept: for several plans of the same figures, or elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch

from cllm import config as settings
from cllm.config import Config
from cllm.cores import usable_cores
from cllm.errors import RunError, UsageError
from cllm.training.distributed.cost import Pieces
from cllm.training.distributed.pieces import measure, measure_beside
from cllm.training.plan import device_of

FORMAT = "cllm-pieces-1"
Key = tuple[int, int, int]
"""Rows of a micro-batch, processes that compute at once, threads of each."""
Take = Callable[[Config, int, int, int], Pieces]


class Measured:
    """Pieces by key, measured here and now when they are first asked for.

    cores: of the machine, 0 where each process has a GPU.  threads: of a process that has the machine to itself.
    """

    def __init__(self, config: Config, *, take: Take | None = None, cores: int | None = None, threads: int = 0) -> None:
        self._config, self._take = config, take or _now
        self.cores = cores if cores is not None else 0 if device_of(config).type != "cpu" else usable_cores()
        self.threads = threads or torch.get_num_threads()
        self.known: dict[Key, Pieces] = {}

    def pieces(self, rows: int, beside: int, threads: int) -> Pieces:
        """Of one key; measured once."""
        key = (rows, beside, threads)
        if key not in self.known:
            self.known[key] = self._take(self._config, *key)
        return self.known[key]

    def save(self, file: Path) -> None:
        """As JSON. Raises RunError when it cannot be written."""
        said = {
            "format": FORMAT, "of": _decides(self._config), "cores": self.cores, "threads": self.threads,
            "pieces": [msgspec.to_builtins(one) for one in self.known.values()],
        }  # fmt: skip
        try:
            file.write_bytes(msgspec.json.format(msgspec.json.encode(said), indent=1) + b"\n")
        except OSError as error:
            raise RunError(f"{file}: cannot be written: {error.strerror}") from None

    @classmethod
    def load(cls, file: Path, config: Config) -> Measured:
        """What was saved; what is not in it is refused, not measured: this may be another machine.

        Raises UsageError for a file of another format or of another model.
        """
        try:
            said = msgspec.json.decode(file.read_bytes())
            if said["format"] != FORMAT:
                raise ValueError(f"its format is {said['format']!r}, not {FORMAT!r}")
            theirs, ours = said["of"], _decides(config)
            if differ := [key for key in ours if theirs.get(key) != ours[key]]:
                raise ValueError(
                    "it is of another step: "
                    + ", ".join(f"{key} = {theirs.get(key)!r}, here {ours[key]!r}" for key in differ)
                )
            found = cls(config, take=_refuse(file), cores=said["cores"], threads=said["threads"])
            for one in msgspec.convert(said["pieces"], list[Pieces]):
                found.known[(one.rows, one.beside, one.threads)] = one
            return found
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{file}: expected what `cllm plan --processes … --measured` kept: {error}") from None


def _decides(config: Config) -> dict[str, Any]:
    """What the pieces depend on."""
    t = config.train
    model = settings.to_dict(config)["model"]
    return {
        **model, "precision": config.precision, "memory": config.memory,
        "optimiser": config.optim.name, "sequence": t.sequence, "recompute": t.recompute,
        "bucket_mb": config.distributed.bucket_mb,
    }  # fmt: skip


def _now(config: Config, rows: int, beside: int, threads: int) -> Pieces:
    if beside == 1 and threads == torch.get_num_threads():
        return measure(config, rows)
    return measure_beside(config, rows, beside, threads)


def _refuse(file: Path) -> Take:
    def take(config: Config, rows: int, beside: int, threads: int) -> Pieces:
        raise UsageError(
            f"{file}: no pieces of {rows} rows, {beside} processes at once and {threads} threads each; measure them on "
            "the machine of this file, into a new one"
        )

    return take
