"""Starting from another run's weights: what is taken over, what is different, and that it is said and recorded."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from cllm import config as settings
from cllm.config import Config
from cllm.data.prepare import Prepared
from cllm.errors import CllmError, ConfigError, RunError
from cllm.model.tables import PREFIX
from cllm.training import checkpoint
from cllm.training.state import State

POSITIONS = "pos"
_TAKEN = ("data.tokenizer", "data.vocab_size", "model.vocab", "model.init")  # the same tokenizer by another name


class Origin(msgspec.Struct, frozen=True):
    """Where a run's first weights come from; goes into its `start` event.

    step, tokens: how far that run was.  weights_sha256: of its weights' file.  same_text: whether the training rows are
    of the very same shard.  changes: settings of data, model and sequence that differ, [theirs, ours].
    new_positions: rows of the position table that no training has touched.
    """

    run: str
    checkpoint: str
    step: int
    tokens: int
    weights_sha256: str
    same_text: bool
    changes: dict[str, list[Any]]
    new_positions: int

    def sentences(self) -> list[str]:
        """What the user should know."""
        said = [f"starting from the weights of {self.run} at {self.checkpoint}, with a fresh optimiser at step 0"]
        text = "the same text as there" if self.same_text else "another text, or another mix of it, than there"
        said.append(f"training on {text}")
        said += [f"{key}: {_show(ours)} here, {_show(theirs)} there" for key, (theirs, ours) in self.changes.items()]
        if self.new_positions:
            said.append(
                f"the last {self.new_positions} positions of the longer context were never trained: they start as in a "
                "new model"
            )
        return said


def start_from(state: State, start: Path, data: Prepared) -> Origin:
    """Take the weights (only those) of another run's newest checkpoint, or of one checkpoint's folder, into `state`.

    A position table of another length is taken as far as both reach; the rest of a longer one stays as it was drawn.
    Raises RunError for another tokenizer, ConfigError for a model that the weights do not fit.
    """
    run_dir, which = locate(start)
    found = checkpoint.load(run_dir, which, with_state=False)
    if found.meta.get("tokenizer") != data.tokenizer.sha256:
        raise RunError(
            f"{start}: its tokenizer is another one than this run's; leave data.tokenizer out to take its own"
        )
    weights, new = _fitted(found.weights, state)
    try:
        state.model.load(weights)
    except ValueError as error:
        raise ConfigError(
            f"{start}: its weights do not fit this model: {error}; leave the [model] settings out"
        ) from None
    if state.ema is not None:
        for name, value in state.model.params.items():
            state.ema.put(name, value)
    with (found.path / checkpoint.WEIGHTS).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Origin(
        run=str(run_dir),
        checkpoint=found.name,
        step=found.step,
        tokens=int(found.meta.get("tokens", 0)),
        weights_sha256=digest,
        same_text=found.meta.get("data") == data.record.train_sha256,
        changes=_changes(found.meta["config"], state.config),
        new_positions=new,
    )


def locate(start: Path) -> tuple[Path, str]:
    """(run directory, which checkpoint) of a run directory or of one of its checkpoints' folders."""
    if (start / checkpoint.MANIFEST).is_file() and start.parent.name == checkpoint.FOLDER:
        return start.parent.parent, start.name
    return start, checkpoint.LATEST


def _fitted(weights: dict[str, Tensor], state: State) -> tuple[dict[str, Tensor], int]:
    """The weights with a position table of this model's length, and how many of its rows are new. Fixed tables are
    this model's own."""
    weights = {name: value for name, value in weights.items() if not name.startswith(PREFIX)}
    if POSITIONS not in weights or POSITIONS not in state.model.params:
        return weights, 0
    theirs, ours = weights[POSITIONS], state.model.params[POSITIONS]
    if theirs.dim() != 2 or theirs.shape[1:] != ours.shape[1:] or len(theirs) == len(ours):
        return weights, 0
    both = min(len(theirs), len(ours))
    table = torch.cat((theirs[:both].to(ours.dtype), ours[both:].detach().cpu()))
    return weights | {POSITIONS: table}, max(0, len(ours) - len(theirs))


def _changes(theirs: dict[str, Any], ours: Config) -> dict[str, list[Any]]:
    """Settings that decide what is learnt from what, and differ."""
    before, now = (_flat(one) for one in (settings.to_dict(_known(theirs, ours)), settings.to_dict(ours)))
    keys = [key for key in before | now if key.startswith(("data.", "model.")) or key == "train.sequence"]
    return {
        key: [before.get(key), now.get(key)] for key in keys if key not in _TAKEN and before.get(key) != now.get(key)
    }


def _known(theirs: dict[str, Any], ours: Config) -> Config:
    try:
        return settings.load(base=theirs)
    except CllmError:  # of another version: nothing to compare with
        return ours


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    return {f"{name}.{key}": inner for name, value in values.items() if isinstance(value, dict)
            for key, inner in value.items()}  # fmt: skip


def _show(value: Any) -> str:
    return "nothing" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
