"""Which settings the optimiser uses for which tensor: [optim], then every matching [[optim.groups]] in its order."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from cllm.config import Config, OptimConfig
from cllm.engine.buffers import Layout
from cllm.errors import ConfigError, closest
from cllm.model.layout import MATRIX, hidden_matrix

# worked out once for the layout of a model and its settings
_RULES: WeakKeyDictionary[Layout, tuple[OptimConfig, dict[str, Rule]]] = WeakKeyDictionary()
_RUNS: WeakKeyDictionary[Layout, tuple[OptimConfig, tuple[Layout, ...], list[Run]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Rule:
    """How a tensor is updated. algorithm: adamw, sgd or muon.  lr: factor on the scheduled rate."""

    algorithm: str
    lr: float
    decay: float
    betas: tuple[float, float]
    eps: float


@dataclass(frozen=True)
class Run:
    """Neighbouring tensors that are updated alike, `names` in the order of the layout."""

    names: tuple[str, ...]
    rule: Rule


def rules(config: Config, layout: Layout) -> dict[str, Rule]:
    """The rule of each tensor. Raises ConfigError for a pattern that no tensor's name matches."""
    known = _RULES.get(layout)
    if known is None or known[0] is not config.optim:
        known = _RULES[layout] = (config.optim, _rules(config, layout))
    return known[1]


def _rules(config: Config, layout: Layout) -> dict[str, Rule]:
    c = config.optim
    found: dict[str, Rule] = {}
    for entry in layout.entries:
        decay = c.weight_decay if entry.group == MATRIX else 0.0
        muon = c.name == "muon" and hidden_matrix(entry.name)
        algorithm = "muon" if muon else "sgd" if c.name == "sgd" else "adamw"
        found[entry.name] = Rule(algorithm, c.muon_lr / c.lr if muon else 1.0, decay, c.betas, c.eps)
    for i, group in enumerate(c.groups):
        matched = fnmatch.filter(found, group.match)
        if not matched:
            raise ConfigError(
                f"optim.groups[{i}].match: no parameter is called {group.match!r}{closest(group.match, found)}; "
                "names are like tok, pos, 0.attn.wq, 3.ffn.b1, lnf.g, and * stands for anything"
            )
        for name in matched:
            old = found[name]
            found[name] = Rule(
                old.algorithm,
                old.lr * group.lr,
                old.decay if group.weight_decay is None else group.weight_decay,
                group.betas or old.betas,
                group.eps or old.eps,
            )
    return found


def runs(config: Config, layout: Layout, others: tuple[Layout, ...]) -> list[Run]:
    """Neighbours of the same rule in one run, where the other layouts have both, at the same distance, or neither.
    Muon works on one matrix at a time.
    """
    known = _RUNS.get(layout)
    if known is None or known[0] is not config.optim or known[1] != others:
        known = _RUNS[layout] = (config.optim, others, _runs(rules(config, layout), (layout, *others)))
    return known[2]


def _runs(found: dict[str, Rule], layouts: Sequence[Layout]) -> list[Run]:
    out: list[list[str]] = []
    for name, before in _with_previous(found):
        if before is not None and found[before] == found[name] and found[name].algorithm != "muon":
            spacing = {
                layout.offsets[name] - layout.offsets[before]
                if name in layout.offsets and before in layout.offsets
                else 0
                for layout in layouts
                if name in layout.offsets or before in layout.offsets
            }
            if len(spacing) == 1:
                out[-1].append(name)
                continue
        out.append([name])
    return [Run(tuple(names), found[names[0]]) for names in out]


def _with_previous(names: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    before: str | None = None
    for name in names:
        yield name, before
        before = name
