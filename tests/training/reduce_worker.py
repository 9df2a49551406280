"""What every rank of the reduction tests does: the steps of each case, and what came of them into a file.

`rank` is a process of a group: the cases of FOLDER/N.json, results to FOLDER/N-R.pt.
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cllm import config as settings
from cllm.config import Config
from cllm.data.prepare import open_prepared
from cllm.model.step import Sums
from cllm.training.distributed.group import Group
from cllm.training.distributed.reduce import Reducer
from cllm.training.distributed.zero import Passing
from cllm.training.state import State
from cllm.training.stepper import Stepper

SMALL = {
    "data.path": ["-"], "data.pack": False, "train.batch": 4, "train.accumulate": 4, "train.sequence": 12,
    "train.steps": 10, "precision": "fp32", "distributed.bucket_mb": 0.02,
}  # fmt: skip
STEPS = 2
RATE = 0.01


def config(changes: Mapping[str, Any], vocab: int) -> Config:
    return settings.load(preset="nano", overrides=SMALL | {"model.vocab": vocab} | dict(changes))


def run(group: Group, data: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A few steps from step 0. This rank's part of the first step's gradient sums, what it added to them, and the whole
    state at the end (rank 0)."""
    prepared = open_prepared(data, verify=False)
    c = config(changes, prepared.tokenizer.vocab_size)
    stepper = fresh(group, c, data)
    state, found = stepper.state, dict[str, Any]()
    for number in range(min(STEPS, c.train.steps or STEPS)):
        batches = stepper.batches(state.position)
        if number == 0:
            found["terms"] = terms(stepper, batches)
        norm = stepper.gradients(batches, number, RATE)
        if number == 0:
            found["sums"] = pieces(stepper)
            found["rows"] = [(b.tokens_BT1, b.documents_BT1) for b in batches]
        found[f"step {number}"] = (stepper.loss, norm.value, norm.clip, stepper.step.sums.valid)
        if stepper.finite(norm):
            stepper.update(RATE, norm)
    found["weights"] = {name: value.clone() for name, value in state.weights().items()}
    found["operands"] = {name: value.clone() for name, value in state.model.operands.items()}
    found["rest"] = stepper.whole(lambda _, rest: {name: value.clone() for name, value in rest.items()})
    found["meta"] = state.meta()
    return found


def fresh(group: Group, c: Config, data: Path) -> Stepper:
    from cllm.training.distributed.arrange import arrange

    return Stepper(State.fresh(c, shard=arrange(c, group).shard), open_prepared(data, verify=False).train, group=group)


def pieces(stepper: Stepper) -> dict[str, tuple[int, Tensor]]:
    """This rank's part of each gradient: where it begins, and its entries."""
    shard, reducer = stepper.state.shard, stepper.reducer
    if shard is None or reducer is None:
        return {name: (0, gradient.reshape(-1).clone()) for name, gradient in stepper.step.grads.items()}
    return {name: (ends[0], reducer.piece(name, *ends).clone()) for name, ends in shard.pieces.items()}


def terms(stepper: Stepper, batches: list[Any]) -> list[dict[str, Tensor]]:
    """The gradient sums that this rank adds: its own of the step, or of each micro-batch where they travel or are added
    one by one. Made by the same step without its reducer."""
    step, found = stepper.looking, list[dict[str, Tensor]]()
    reducer, step.reducer = step.reducer, None
    apart = stepper.arrangement.fixed or stepper.arrangement.zero == 2
    step.zero()
    for number, batch in enumerate(batches):
        step.accumulate(batch, stepper.key(0))
        if apart or number + 1 == len(batches):
            found.append({name: gradient.reshape(-1).clone() for name, gradient in step.grads.items()})
            step.zero()
    step.sums, step.reducer = Sums(), reducer
    return found


# Wrong reductions, each of which the checks must find.


def _left_out(ready: Callable[..., None]) -> Callable[..., None]:
    return lambda self, index: None if index == 2 else ready(self, index)


def _twice(ready: Callable[..., None]) -> Callable[..., None]:
    def wrong(self: Reducer, index: int) -> None:
        if index == 2 and self.spread and not self.count:
            ready(self, index)
        elif index == 2:  # sent twice a part would replace itself: it must be added twice
            self._view(index).mul_(2)
        ready(self, index)

    return wrong


def _divided(ready: Callable[..., None]) -> Callable[..., None]:
    def wrong(self: Reducer, index: int) -> None:
        self._view(index).div_(self.group.size)
        ready(self, index)

    return wrong


def _poisoned(ready: Callable[..., None]) -> Callable[..., None]:
    def wrong(self: Reducer, index: int) -> None:
        if self.group.rank == self.group.size - 1 and index == 2:
            self._view(index)[-1] = float("nan")
        ready(self, index)

    return wrong


MUTANTS = {"left out": _left_out, "twice": _twice, "divided": _divided, "poisoned": _poisoned}


@contextmanager
def broken(name: str) -> Any:
    """Every reducer works wrongly in this way, meanwhile."""
    kept = Reducer._ready, Passing._ready
    Reducer._ready, Passing._ready = (MUTANTS[name](one) for one in kept)  # type: ignore[method-assign]
    try:
        yield
    finally:
        Reducer._ready, Passing._ready = kept  # type: ignore[method-assign]


def rank(folder: Path, number: int, size: int, port: int) -> None:
    """One process: rank `number` of `size`, met at a port of this machine. What it dies of is in N-R.error."""
    try:
        os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)})
        os.environ.update({"RANK": str(number), "LOCAL_RANK": str(number)})
        torch.set_num_threads(1)
        _run_all(folder, Group.from_environment())
    except BaseException:
        (folder / f"{size}-{number}.error").write_text(traceback.format_exc())
        raise


def _run_all(folder: Path, group: Group) -> None:
    found = dict[str, Any]()
    for name, changes in json.loads((folder / f"{group.size}.json").read_text()).items():
        changes = dict(changes)
        mutant = changes.pop("mutant", None)
        if mutant is None:
            found[name] = run(group, folder / "data", changes)
        else:
            with broken(mutant):
                found[name] = run(group, folder / "data", changes)
    torch.save(found, folder / f"{group.size}-{group.rank}.pt")
    group.barrier()
    group.close()
