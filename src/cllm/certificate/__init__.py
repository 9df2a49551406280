"""Proofs about the engine: how far its numbers are from the exact ones (docs/certificates.md).

- `certify`: the loss and every gradient of one training step, enclosed in balls, and the engine held against them.
- `certify_local`: the same step op by op, in seconds, naming the op that is wrong.
- `gradcheck`: an op-local certificate for anyone's op.

Everything heavy is imported when a function is called.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cllm.certificate.local import LocalCertificate
    from cllm.certificate.own_op import OpCertificate, OpCheck
    from cllm.certificate.record import Certificate
    from cllm.certificate.subjects import Before, Subject

__all__ = ["OpCheck", "certify", "certify_local", "gradcheck", "subject"]


def subject(
    run: Any = None,
    tokens: int = 64,
    *,
    preset: str | None = None,
    seed: int = 1,
    set: Mapping[str, Any] | None = None,
    before: Before | None = None,
) -> Subject:
    """The step to certify: of a run (a `Run`, or its directory) or of a preset at random weights."""
    from cllm.certificate.subjects import of_preset, of_run
    from cllm.errors import UsageError

    if (run is None) == (preset is None):
        raise UsageError("certify: give a run directory, or a preset for random weights, and not both")
    if preset is not None:
        rest = dict(set or {})
        precision = rest.pop("precision", "fp32")
        return of_preset(preset, tokens, seed=seed, precision=precision, overrides=rest, before=before)
    if set:
        raise UsageError("certify: settings can be given with a preset only; a run has its own")
    path: str | os.PathLike[str] = getattr(run, "path", run)
    return of_run(path, tokens, which=getattr(run, "which", "latest"), before=before)


def certify(
    run: Any = None,
    tokens: int = 64,
    *,
    preset: str | None = None,
    seed: int = 1,
    set: Mapping[str, Any] | None = None,
    precision: int | None = None,
    step: bool = False,
    save: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Certificate:
    """Certify one training step of a run's newest checkpoint on `tokens` tokens of its own data.

    run: a `Run` or a run directory; or preset (with `seed` and settings `set`): random weights.  precision: bits
    (default: chosen, and doubled until they suffice).  step: also ten steps of AdamW.  save: write the certificate
    file into the run directory.  progress(done, total): called along the way.

    The result's `str()` is the statement, `.ok` whether the engine is within its budget. Raises RunError, CorruptError,
    NonFiniteError for what cannot be certified, LimitError for what memory cannot hold, CertificateError when no
    precision suffices.
    """
    from cllm.certificate.full import certify_step
    from cllm.certificate.memory import refuse_too_large

    given = subject(run, tokens, preset=preset, seed=seed, set=set, before=partial(refuse_too_large, bits=precision))
    found = certify_step(given, bits=precision, progress=progress)
    if step:
        from cllm.certificate.adamw import add_steps

        add_steps(found, given)
    if found.bad is not None and found.bad.op is None:
        from cllm.certificate.local import name_the_op

        name_the_op(found, given)
    if save and "run" in given.source:
        found.save(given.source["run"])
    return found


def certify_local(
    run: Any = None,
    tokens: int = 64,
    *,
    preset: str | None = None,
    seed: int = 1,
    set: Mapping[str, Any] | None = None,
) -> LocalCertificate:
    """Every op and wire of the same step against its specification, at the kernels' own inputs, with a priori budgets
    per entry; names the first op that is outside. Arguments as in `certify`."""
    from cllm.certificate.local import certify_ops

    return certify_ops(subject(run, tokens, preset=preset, seed=seed, set=set))


def gradcheck(
    forward: Callable[..., Any],
    kernel: Callable[..., Any],
    kernel_backward: Callable[..., Any] | None,
    inputs: Sequence[Any],
    **options: Any,
) -> OpCertificate:
    """An op-local certificate of a kernel against a formula over the primitives; see `cllm.certificate.own_op`."""
    from cllm.certificate.own_op import gradcheck as run

    return run(forward, kernel, kernel_backward, inputs, **options)


def __getattr__(name: str) -> Any:
    if name == "OpCheck":
        from cllm.certificate.own_op import OpCheck

        return OpCheck
    raise AttributeError(name)
