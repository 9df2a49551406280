"""The study file: which settings are compared, on which seeds.

    title = "Positions"
    seeds = [1, 2, 3, 4, 5]
    baseline = "learned"        # the cell that the others are compared with (default: the first)
    lengths = [64, 128]         # lengths at which the trained models are scored, besides train.sequence

    [run]                       # what all cells share: keys of a run file
    preset = "nano"
    train.steps = 300
    data.path = "shakespeare"

    [grid]                      # every combination is a cell
    "model.positions" = ["learned", "rope"]
    "model.dropout" = [0.0, 0.1]

    [[cell]]                    # and cells of their own, with or without a grid
    name = "wide"
    set = { "model.width" = 64 }

Paths in `run` are as the command line would take them.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, field

from cllm import config as settings
from cllm.config import Config
from cllm.errors import ConfigError, closest
from cllm.training.plan import size


@dataclass(frozen=True)
class Cell:
    """One combination of settings. `name` is what people read, `folder` where its runs are."""

    name: str
    changes: dict[str, Any]
    config: Config

    @property
    def folder(self) -> str:
        return re.sub(r"[^A-Za-z0-9.=-]+", "_", self.name).strip("_") or "cell"

    @property
    def parameters(self) -> int:
        """Trained numbers, before the tokenizer fixes the vocabulary's exact size."""
        return size(self.config).parameters

    def with_seed(self, seed: int) -> Config:
        return settings.replace(self.config, {"seed": seed})


@dataclass(frozen=True)
class Study:
    """What is compared: cells (the baseline first), seeds, more lengths to score at."""

    title: str
    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]
    lengths: tuple[int, ...]
    text: str = ""  # the file as it was written

    @property
    def baseline(self) -> Cell:
        return self.cells[0]


class _Cell(Struct, forbid_unknown_fields=True, frozen=True):
    name: str
    set: dict[str, Any] = field(default_factory=dict)


class _File(Struct, forbid_unknown_fields=True, frozen=True):
    title: str = "Ablation"
    seeds: Annotated[list[Annotated[int, Meta(ge=0, lt=2**32)]], Meta(min_length=1)] = field(
        default_factory=lambda: [1, 2, 3, 4, 5]
    )
    baseline: str | None = None
    lengths: list[Annotated[int, Meta(ge=1)]] = field(default_factory=list)
    run: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, Annotated[list[Any], Meta(min_length=1)]] = field(default_factory=dict)
    cell: list[_Cell] = field(default_factory=list)


def read_study(path: str | Path) -> Study:
    """Read and check a study file: every cell's settings are checked before anything is trained.

    Raises ConfigError with the file, the key, what was got and what was expected.
    """
    path = Path(path)
    said = settings.read_toml(path, "study file")
    try:
        file = msgspec.convert(said, _File, strict=True)
    except msgspec.ValidationError as error:
        known = [item.name for item in msgspec.structs.fields(_File)]
        hint = next((closest(key, known) for key in said if key not in known), "")
        raise ConfigError(f"{path}: {error}{hint}") from None
    cells = [_cell(path, name, changes, file.run) for name, changes in _combinations(file)]
    if not cells:
        raise ConfigError(f"{path}: nothing to compare: give a [grid] of settings, or [[cell]] tables")
    for names in ([c.name for c in cells], [c.folder for c in cells]):
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ConfigError(f'{path}: two cells are called "{twice[0]}"; give each a name of its own')
    if len(set(file.seeds)) < len(file.seeds):
        raise ConfigError(f"{path}: seeds: the same seed is named twice; each is a pair of its own")
    first = file.baseline or cells[0].name
    if first not in [cell.name for cell in cells]:
        names = [cell.name for cell in cells]
        raise ConfigError(f'{path}: baseline: got "{first}", expected one of {"; ".join(names)}{closest(first, names)}')
    cells.sort(key=lambda cell: cell.name != first)  # stable: the others keep their order
    return Study(file.title, tuple(cells), tuple(file.seeds), tuple(file.lengths), path.read_text(encoding="utf-8"))


def _combinations(file: _File) -> list[tuple[str, dict[str, Any]]]:
    keys = list(file.grid)
    found = [
        (", ".join(f"{key.rpartition('.')[2]}={_word(value)}" for key, value in zip(keys, values, strict=True)), values)
        for values in (itertools.product(*file.grid.values()) if keys else [])
    ]
    cells = [(name, dict(zip(keys, values, strict=True))) for name, values in found]
    return cells + [(cell.name, dict(cell.set)) for cell in file.cell]


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _cell(path: Path, name: str, changes: dict[str, Any], run: Mapping[str, Any]) -> Cell:
    for key in changes:
        if key == "seed":
            raise ConfigError(f"{path}: {name}: seed: the seeds are those of the study; leave it out")
    if not name.strip():
        raise ConfigError(f"{path}: a cell has no name")
    try:
        config = settings.load(base=run, overrides=changes)
    except ConfigError as error:
        raise ConfigError(f'{path}: cell "{name}": {error}') from None
    if config.train.steps is None:
        raise ConfigError(
            f'{path}: cell "{name}": train.steps: expected a number of steps: what a clock stops cannot be compared'
        )
    if not config.data.path:
        raise ConfigError(f'{path}: cell "{name}": data.path: no text given')
    return Cell(name, changes, config)
