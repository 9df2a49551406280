"""`cllm replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def replay(
    run: Path,
    /,
    *,
    step: int | None = None,
    batch: Path | None = None,
    balls: Annotated[bool | None, Parameter(negative="--no-balls")] = None,
    json: bool = False,
) -> int:
    """Run a step of a run again, and see op by op how large its values are.

    When training stops at a loss or gradient that is not finite, it keeps the state before the step and writes the
    step's batch. This runs that step again in its own format, in float64 and, where it is small, in balls; it says at
    which op the format gave out, and how large the true values are against its range. Nothing is changed.

    Examples:

      cllm replay runs/book

      cllm replay runs/book --step 400 --no-balls --json

    Parameters
    ----------
    run: Path
        The run directory.
    step: int
        Instead of the refused step: the one behind the checkpoint of this step.
    batch: Path
        A batch that the guard wrote. Default: the newest in the run directory.
    balls: bool
        The true values, proven, of the row that failed. Default: where that takes seconds.
    json: bool
        Print one JSON object.
    """
    from cllm.errors import UsageError

    if step is not None and batch is not None:
        raise UsageError("--step and --batch: a batch belongs to a step of its own; give one of them")
    if step is not None and step < 0:
        raise UsageError(f"--step {step}: expected 0 or more")
    from cllm.api import replay as again

    found = again(run, step=step, batch=batch, balls=balls)
    if json:
        import msgspec

        print(msgspec.json.encode(found.to_dict()).decode())
    else:
        print(found)
    return 0 if found.ok else 1
