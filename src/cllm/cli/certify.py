"""`cllm certify`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from cllm.certificate.zoo import Finding


def certify(
    run: Path | None = None,
    /,
    *,
    tokens: int = 64,
    preset: str | None = None,
    random: bool = False,
    set: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    seed: int = 1,
    precision: str = "auto",
    checkpoint: str = "latest",
    local: bool = False,
    step: bool = False,
    mutants: bool = False,
    check: Path | None = None,
    json: bool = False,
) -> int:
    """Prove how far the gradients of a training step are from the exact ones.

    The exact loss and every exact gradient entry are enclosed at hundreds of bits, from a specification that shares no
    code with the engine; the engine's numbers are held against them. Of a run: a checkpoint, on rows of its own data;
    the certificate is also written into the run directory. Exit code 1 when something is wrong.

    Examples:

      cllm certify runs/book --tokens 64 --step

      cllm certify --preset seed --tokens 64

      cllm certify --preset seed --local --json

    Parameters
    ----------
    run: Path
        The run directory.
    tokens: int
        Tokens of the step: whole rows, as long as in training at most.
    preset: str
        Instead of a run: this preset at random weights, its position table as long as the rows.
    random: bool
        Says that the preset's weights are random (they always are).
    set: list[str]
        With --preset: one setting, as in --set precision=fp64; may be repeated.
    seed: int
        With --preset: of weights and rows.
    precision: str
        auto, or the working precision in bits.
    checkpoint: str
        Of a run: latest, best or a name as in step-00000400.
    local: bool
        Op by op instead, in seconds: names the op that is wrong.
    step: bool
        Also certify the optimiser's steps t = 1 … 10.
    mutants: bool
        Instead, test the tester: planted bugs, and the healthy engine, through every certificate.
    check: Path
        Verify a certificate file: its hashes, and the proof again at another precision.
    json: bool
        Print one JSON object.
    """
    from cllm.errors import UsageError

    asked = [name for name, on in (("--local", local), ("--mutants", mutants), ("--check", check is not None)) if on]
    if len(asked) > 1:
        raise UsageError(f"{' and '.join(asked)}: each is a certificate of its own; ask for one at a time")
    if random and preset is None:
        raise UsageError("--random: give --preset, too: the sizes of the model whose weights are random")
    if mutants:
        return _zoo(json)
    if check is not None:
        return _check(check, _bits(precision), json)
    if checkpoint != "latest" and run is None:
        raise UsageError("--checkpoint: only a run has checkpoints; give its directory")
    if run is None and preset is None:
        raise UsageError("give a run directory (cllm certify runs/book), or --preset NAME for random weights")

    from cllm import certificate
    from cllm.config import split_setting

    settings: dict[str, Any] = dict(split_setting(text) for text in set or [])
    of: Any = run
    if run is not None and checkpoint != "latest":
        from cllm.api import Run

        of = Run(run, checkpoint)
    found: Any
    if local:
        found = certificate.certify_local(of, tokens, preset=preset, seed=seed, set=settings)
        if step:
            raise UsageError("--step belongs to the full certificate; leave --local out")
    else:
        with _bar("proving") as progress:
            found = certificate.certify(
                of, tokens, preset=preset, seed=seed, set=settings, precision=_bits(precision), step=step,
                progress=progress,
            )  # fmt: skip
    if json:
        import msgspec

        print(msgspec.json.encode({**msgspec.to_builtins(found), "ok": found.ok}).decode())
    else:
        print(found)
    return 0 if found.ok else 1


def _bits(precision: str) -> int | None:
    from cllm.errors import UsageError

    if precision == "auto":
        return None
    if not precision.isdecimal() or not 64 <= int(precision) <= 16384:
        raise UsageError(f'--precision: got "{precision}", expected auto or bits from 64 to 16384')
    return int(precision)


def _check(path: Path, bits: int | None, json: bool) -> int:
    from cllm.certificate.check import check

    with _bar("proving again") as progress:
        found, words = check(path, bits=bits, progress=progress)
    if json:
        import msgspec

        print(msgspec.json.encode({"ok": found.ok, "compared": words, "certificate": found}).decode())
    else:
        print(f"{'CHECKED' if found.ok else 'NOT CERTIFIED'}  {path}")
        print("\n".join(f"  {line}" for line in words))
        if not found.ok:
            print(found)
    return 0 if found.ok else 1


def _zoo(json: bool) -> int:
    from cllm.certificate.zoo import healthy_findings, mutant_findings, summary, table

    with _bar("mutants") as progress:
        healthy = list(healthy_findings())
        found = list(mutant_findings(each=progress))
    if json:
        import msgspec

        print(msgspec.json.encode({"ok": _sound(healthy, found), "healthy": healthy, "mutants": found}).decode())
    else:
        print(table(found))
        print(summary(healthy, found))
    return 0 if _sound(healthy, found) else 1


def _sound(healthy: list[Finding], found: list[Finding]) -> bool:
    return not any(f.found for f in healthy) and all(f.found for f in found)


@contextmanager
def _bar(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """A passing bar with the time left, on a terminal's stderr; lines for a program that asks for them."""
    if os.environ.get("CLLM_PROGRESS") == "lines":
        yield _lines(label)
        return
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _lines(label: str) -> Callable[[int, int], None]:
    """`progress LABEL 0.25` on stderr, a line for each new hundredth."""
    said = -1

    def progress(done: int, total: int) -> None:
        nonlocal said
        now = 100 * done // max(total, 1)
        if now != said:
            said = now
            print(f"progress {label} {now / 100:.2f}", file=sys.stderr, flush=True)

    return progress
