"""Checkpoints that survive a crash at any moment, and damage that is never loaded silently.

A checkpoint is a folder of a run (docs/formats.md gives every byte)::

    checkpoints/step-00000100/  weights.safetensors  state.safetensors  manifest.json  DONE
    latest  best                one line each: the name of a checkpoint

Saving: all files go into `checkpoints/.tmp-step-…`, each is synced; the manifest holds the SHA-256 of the
two tensor files and DONE that of the manifest; the folder is synced, renamed, its parent synced; only then
is `latest` (and `best`) replaced, itself by a synced file and a rename; only then are old ones removed.
So at any crash the files that `latest` names are complete and durable.
(Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014: what may be lost without each of these.)

Loading reads only after every hash was verified, and nothing here ever unpickles.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from torch import Tensor

from cllm.errors import CorruptError, RunError, UsageError
from cllm.training.migrations import upgraded
from cllm.training.storage import PosixStorage, Storage, remove_tree, safetensors_chunks, write_file

FORMAT = "cllm-checkpoint"
VERSION = 2
FOLDER = "checkpoints"
WEIGHTS, STATE, MANIFEST, DONE = "weights.safetensors", "state.safetensors", "manifest.json", "DONE"
LATEST, BEST = "latest", "best"
PROCESSES = "processes"  # of the environment; checkpoints from before there could be several do not say it
_NAME = re.compile(r"step-(\d{8,})")
_TEMPORARY, _SUPERSEDED = ".tmp-", ".old-"


class FileEntry(msgspec.Struct, frozen=True):
    """One file of the manifest."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """`manifest.json`. `meta` is the caller's, `environment` what made it; unknown keys are ignored."""

    format: str
    version: int
    step: int
    best: bool
    files: dict[str, FileEntry]
    environment: dict[str, str]
    meta: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A verified checkpoint.

    weights, state: tensors by name, on the CPU (`state` is empty when it was not asked for); meta: as saved;
    step: optimiser steps done; name: "step-00000100"; best: saved as the best so far;
    environment: versions and machine that wrote it; notes: sentences about anything that was not as it should
    be (a damaged newer checkpoint that was passed over, a pointer that lags): show them to the user.
    """

    name: str
    step: int
    weights: dict[str, Tensor]
    state: dict[str, Tensor]
    meta: dict[str, Any]
    best: bool
    path: Path
    environment: dict[str, str]
    notes: tuple[str, ...]

    def environment_changes(self) -> list[str]:
        """What differs from what wrote it; byte-equal resume is promised only when this is empty."""
        now, then = environment(), {PROCESSES: "1"} | self.environment
        return [
            f"{key}: {then.get(key, 'unknown')} when saved, {now.get(key, 'unknown')} now"
            for key in sorted({*now, *then})
            if then.get(key) != now.get(key)
        ]


def checkpoint_name(step: int) -> str:
    """`step-00000100` for 100 (more digits when needed)."""
    return f"step-{step:08d}"


def environment() -> dict[str, str]:
    """What decides the bits of a step besides the state: versions, processor, processes and their threads,
    deterministic mode."""
    import platform

    import torch

    import cllm

    return {
        "cllm": getattr(cllm, "__version__", "unknown"),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "system": platform.system(),
        "processor": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        PROCESSES: str(_processes()),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "deterministic": str(torch.are_deterministic_algorithms_enabled()).lower(),
    }


def _processes() -> int:
    from torch import distributed

    together = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if together else 1


# ------------------------------------------------------------------------------------------------- saving


def save(
    run_dir: str | Path,
    step: int,
    weights: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    meta: Mapping[str, Any],
    *,
    keep: int | None,
    best: bool,
    spare: Collection[str] = (),
    storage: Storage | None = None,
) -> Path:
    """Writes the checkpoint of `step` and returns its folder once it is durable and `latest` names it.

    step: optimiser steps done so far; weights, state: any shapes, any device, any type of safetensors;
    meta: a JSON-able dict without NaN or infinities; keep: how many of the newest checkpoints up to this
    step stay, at least 1 (None: all; the best one and later steps of an older line of the run always stay);
    spare: names of others that stay;
    best: whether this is the best so far (moves `best`). One writer a run: hold `cllm.training.lock`.

    Raises UsageError for arguments that cannot be saved and RunError when the disk refuses (full, read-only,
    failing); the run is then as it was before, or already has the new checkpoint, never in between.
    """
    run_dir, storage = Path(run_dir), storage or PosixStorage()
    if step < 0 or (keep is not None and keep < 1):
        raise UsageError(f"checkpoint: expected step ≥ 0 and keep ≥ 1, got step={step}, keep={keep}")
    try:
        meta_copy: dict[str, Any] = json.loads(json.dumps(dict(meta), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UsageError(f"checkpoint: meta cannot be written as JSON ({error})") from None

    name, folder = checkpoint_name(step), run_dir / FOLDER
    temporary = folder / (_TEMPORARY + name)
    try:
        _clean(storage, run_dir)
        best = best or _named(storage, run_dir / BEST) == name  # saved again, the best one stays the best
        storage.mkdir(temporary)
        files = {}
        for file, tensors in ((WEIGHTS, weights), (STATE, state)):
            written = write_file(storage, temporary / file, safetensors_chunks(tensors))
            files[file] = FileEntry(written.bytes, written.sha256)
        manifest = Manifest(
            format=FORMAT,
            version=VERSION,
            step=step,
            best=best,
            files=files,
            environment=environment(),
            meta=meta_copy,
        )
        text = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
        sealed = write_file(storage, temporary / MANIFEST, [text])
        write_file(storage, temporary / DONE, [sealed.sha256.encode() + b"\n"])
        storage.fsync_dir(temporary)
        if name in storage.listdir(folder):  # the same step again, after a resume from further back
            storage.replace(folder / name, folder / (_SUPERSEDED + name))
        storage.replace(temporary, folder / name)
        storage.fsync_dir(folder)
        for pointer in (LATEST, BEST) if best else (LATEST,):
            _point(storage, run_dir, pointer, name)
        _retire(storage, run_dir, step, keep, spare)
    except OSError as error:
        with contextlib.suppress(OSError):
            remove_tree(storage, temporary)
        raise _refused(error, run_dir, name) from error
    return folder / name


def _point(storage: Storage, run_dir: Path, pointer: str, name: str) -> None:
    temporary = run_dir / f"{_TEMPORARY}{pointer}"
    write_file(storage, temporary, [name.encode() + b"\n"])
    storage.replace(temporary, run_dir / pointer)
    storage.fsync_dir(run_dir)


def _named(storage: Storage, pointer: Path) -> str | None:
    try:
        return storage.read(pointer).decode("ascii", "replace").removesuffix("\n")
    except FileNotFoundError:
        return None


def _clean(storage: Storage, run_dir: Path) -> None:
    """Makes `checkpoints/` when missing; removes what an interrupted save left, or finishes it."""
    names = storage.listdir(run_dir)
    if FOLDER not in names:
        storage.mkdir(run_dir / FOLDER)
        storage.fsync_dir(run_dir.parent)  # the run's own folder may be as new; its entries wait for `latest`
    for name in names:
        if name in (_TEMPORARY + LATEST, _TEMPORARY + BEST):
            remove_tree(storage, run_dir / name)
    folder = run_dir / FOLDER
    inside = storage.listdir(folder)
    for name in inside:
        if name.startswith(_SUPERSEDED) and name.removeprefix(_SUPERSEDED) not in inside:
            storage.replace(folder / name, folder / name.removeprefix(_SUPERSEDED))
            storage.fsync_dir(folder)
        elif name.startswith((_TEMPORARY, _SUPERSEDED)):
            remove_tree(storage, folder / name)


def _retire(storage: Storage, run_dir: Path, step: int, keep: int | None, spare: Collection[str]) -> None:
    """Removes checkpoints beyond the newest `keep`. Renamed first, so that no half-removed one has a name."""
    folder = run_dir / FOLDER
    names = storage.listdir(folder)
    steps = sorted((at for name in names if (at := _step_of(name)) is not None and at <= step), reverse=True)
    extra = [] if keep is None else [checkpoint_name(at) for at in steps[keep:]]
    best = _named(storage, run_dir / BEST)
    extra = [name for name in extra if name != best and name not in spare]
    garbage = [name for name in names if name.startswith(_SUPERSEDED)]
    for name in extra:
        storage.replace(folder / name, folder / (_TEMPORARY + "removed-" + name))
        garbage.append(_TEMPORARY + "removed-" + name)
    if garbage:
        storage.fsync_dir(folder)
    for name in garbage:
        remove_tree(storage, folder / name)


def _refused(error: OSError, run_dir: Path, name: str) -> RunError:
    import errno

    advice = {
        errno.ENOSPC: "free some space, or lower checkpoint.keep",
        errno.EDQUOT: "your quota is used up: free some space, or lower checkpoint.keep",
        errno.EROFS: "the disk is read-only: choose another --out",
        errno.EACCES: "you may not write there: choose another --out",
        errno.EPERM: "you may not write there: choose another --out",
        errno.ENOENT: "the run directory is gone: was it moved or removed?",
    }.get(error.errno or 0, "check the disk")
    return RunError(
        f"{run_dir}: checkpoint {name} could not be saved: {error.strerror or error}. "
        f"The checkpoints saved before it are intact; {advice}, then continue with --resume."
    )


# ------------------------------------------------------------------------------------------------ loading


def load(run_dir: str | Path, which: str = LATEST, *, with_state: bool = True) -> Checkpoint:
    """The checkpoint named by `which` ("latest", "best" or a name), every hash verified before use.

    For "latest" and "best" a checkpoint that is damaged or missing is passed over for the last good one, and
    `notes` say so; a name is loaded or refused. with_state=False skips the optimiser's tensors.

    Raises RunError when there is none, CorruptError when none (or the one named) can be trusted, naming what
    is wrong with each.
    """
    run_dir = Path(run_dir)
    if which not in (LATEST, BEST):
        return load_folder(_existing(run_dir, which), with_state=with_state)
    notes: list[str] = []
    damage: list[str] = []
    for path in _candidates(run_dir, which, notes):
        try:
            found = load_folder(path, with_state=with_state)
        except CorruptError as error:
            damage.append(str(error))
            continue
        if which == BEST and not found.best and not damage and not notes:
            notes.append(f"{run_dir / BEST} names {found.name}, which was not the best when it was saved")
        if damage:
            damage.append(f"{found.name} is used instead")
        return dataclasses.replace(found, notes=(*notes, *damage))
    if damage:
        raise CorruptError(
            f"{run_dir}: no checkpoint can be trusted:\n  "
            + "\n  ".join(damage)
            + "\nTake the run from a backup, or train again."
        )
    raise RunError(f"{run_dir}: no checkpoint found. Train one with: cllm train … --out {run_dir}")


def load_folder(path: str | Path, *, with_state: bool = True) -> Checkpoint:
    """One checkpoint folder, verified. Raises CorruptError saying which file is wrong and how."""
    path = Path(path)
    manifest = verify(path, with_state=with_state)
    return Checkpoint(
        name=checkpoint_name(manifest.step),
        step=manifest.step,
        weights=_tensors(path / WEIGHTS),
        state=_tensors(path / STATE) if with_state else {},
        meta=manifest.meta,
        best=manifest.best,
        path=path,
        environment=manifest.environment,
        notes=(),
    )


def verify(path: str | Path, *, with_state: bool = True) -> Manifest:
    """Checks DONE, manifest, and each file's length and SHA-256; raises CorruptError at the first fault."""
    path = Path(path)
    text = _read(path / MANIFEST)
    expected = hashlib.sha256(text).hexdigest().encode() + b"\n"
    if _read(path / DONE) != expected:
        raise CorruptError(f"{path / DONE}: is not the hash of {MANIFEST}: one of the two was changed")
    try:
        head = msgspec.json.decode(text)
        if isinstance(head, dict) and head.get("format") == FORMAT:
            head = upgraded(head, VERSION, path)
        manifest = msgspec.convert(head, Manifest)
    except (msgspec.DecodeError, KeyError) as error:
        raise CorruptError(f"{path / MANIFEST}: not a checkpoint's manifest ({error})") from None
    if manifest.format != FORMAT or not {WEIGHTS, STATE} <= manifest.files.keys():
        raise CorruptError(f"{path / MANIFEST}: not a checkpoint's manifest (format {manifest.format!r})")
    for file in (WEIGHTS, STATE) if with_state else (WEIGHTS,):
        _verify_file(path / file, manifest.files[file])
    return manifest


def list_checkpoints(run_dir: str | Path) -> list[str]:
    """The names of the complete-looking checkpoints (with a DONE), oldest first; hashes are not checked."""
    return [checkpoint_name(step) for step, path in sorted(_folders(run_dir).items()) if (path / DONE).is_file()]


def _folders(run_dir: str | Path) -> dict[int, Path]:
    """Step → folder. One set aside while its step was saved again counts when a crash left no other."""
    found: dict[int, Path] = {}
    entries = sorted(_entries(Path(run_dir) / FOLDER), key=lambda path: path.name.startswith(_SUPERSEDED))
    for path in entries:
        step = _step_of(path.name.removeprefix(_SUPERSEDED))
        if step is not None:
            found.setdefault(step, path)
    return found


def _candidates(run_dir: Path, which: str, notes: list[str]) -> Iterator[Path]:
    """First what the pointer names, then the others: newest first up to its step, then any later ones."""
    names = _folders(run_dir)
    target = _pointed(run_dir / which, notes, missing_is_news=bool(names))
    complete = [step for step, path in names.items() if (path / DONE).is_file()]
    if target is not None and target not in names:
        notes.append(f"{run_dir / which} names {checkpoint_name(target)}, which does not exist")
    if which == LATEST and target is not None and complete and max(complete) > target:
        notes.append(
            f"{checkpoint_name(max(complete))} exists too, later than {checkpoint_name(target)}, "
            f"which {run_dir / which} names"
        )
    limit = max(names, default=0) if target is None else target
    older = sorted((step for step in names if step <= limit), reverse=True)
    newer = sorted(step for step in names if step > limit)
    for step in older + newer:
        if step == target or (names[step] / DONE).exists():
            yield names[step]


def _pointed(pointer: Path, notes: list[str], *, missing_is_news: bool) -> int | None:
    try:
        line = pointer.read_bytes()
    except OSError as error:
        if missing_is_news:
            notes.append(f"{pointer}: {error.strerror}; the last complete checkpoint is taken")
        return None
    text = line.decode("ascii", "replace")
    step = _step_of(text.removesuffix("\n"))
    if step is None:
        notes.append(f"{pointer}: expected a checkpoint's name, got {text[:40]!r}; the last one is taken")
    return step


def _existing(run_dir: Path, name: str) -> Path:
    step = _step_of(name)
    path = None if step is None else _folders(run_dir).get(step)
    if path is None or not path.is_dir():
        have = ", ".join(list_checkpoints(run_dir)) or "none"
        raise RunError(f'{run_dir}: no checkpoint "{name}"; there are: {have} (or latest, best)')
    return path


def _step_of(name: str) -> int | None:
    found = _NAME.fullmatch(name)
    return int(found[1]) if found and checkpoint_name(int(found[1])) == name else None


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CorruptError(f"{path}: {error.strerror}") from error


def _verify_file(path: Path, entry: FileEntry) -> None:
    try:
        with path.open("rb") as file:
            length = path.stat().st_size
            if length != entry.bytes:
                raise CorruptError(f"{path}: {length} bytes, expected {entry.bytes}: cut short or changed")
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CorruptError(f"{path}: {error.strerror}") from error
    if digest != entry.sha256:
        raise CorruptError(f"{path}: SHA-256 {digest[:16]}…, expected {entry.sha256[:16]}…: the file changed")


def _tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CorruptError(f"{path}: {error}") from error
