"""A step that is not finite, in words: what, where it was born, and what is kept of it."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from pathlib import Path

from cllm.training import guard
from cllm.training.stepper import Stepper


@dataclass(frozen=True)
class Refusal:
    """what: the figure.  where: the first op that saw it, and on which rank.  batch: the file with the step's rows.
    half_made: some tensors were updated already (memory mode "fused"): the state is of no use."""

    step: int
    what: str
    where: str | None
    batch: str
    batch_sha256: str
    half_made: bool

    def text(self, run_dir: Path) -> str:
        """For the user."""
        if self.half_made:
            return (
                f"step {self.step + 1}: {self.what}. memory = fused updates inside the backward, so this step is half "
                f"made and nothing of it is saved; the checkpoints in {run_dir} are intact, its batch is in "
                f"{self.batch}. --resume takes the newest one; memory = lean, in a run started --from it, stops before "
                "such an update."
            )
        where = f"first seen in {self.where}" if self.where else "every op is finite: the sum overflowed"
        return (
            f"step {self.step + 1}: {self.what}, {where}. The update was not made; the state before it is saved in "
            f"{run_dir}, its batch in {self.batch}; `cllm replay {shlex.quote(str(run_dir))}` runs it again, "
            "op by op. The usual cure is a lower optim.lr or a longer schedule.warmup, in a new run: this one would "
            "meet the same step again."
        )


def refuse(stepper: Stepper, run_dir: Path, loss: float, norm: float) -> Refusal:
    """Write the whole step's rows (rank 0) and look for the birthplace, each rank in its own. Collective."""
    state, group = stepper.state, stepper.group
    path, digest = run_dir / guard.BATCH_FILE.format(state.step), ""
    if group.first:
        try:
            digest = guard.write_batch(path, stepper.batches(state.position, whole=True))
        except OSError as error:
            digest = f"not written: {error.strerror}"
    if stepper.half_made:
        return Refusal(state.step, f"gradient norm {norm}", "inside the backward", path.name, digest, True)
    what = f"loss {loss}" if not math.isfinite(loss) else f"gradient norm {norm}"
    place = guard.birthplace(stepper.looking, stepper.batches(state.position), stepper.key(state.step))
    where = None if place is None else str(place)
    if group.size > 1:
        every = group.gather_objects(where)
        where = next((f"{one}, on rank {rank}" for rank, one in enumerate(every) if one is not None), None)
    return Refusal(state.step, what, where, path.name, digest, False)
