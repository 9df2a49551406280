"""A run directory: making, opening and resuming it. One process at a time holds its lock; with several ranks it is
rank 0, which alone writes, and the others read the data that it has prepared.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec
import torch

from cllm import config as settings
from cllm.config import Config
from cllm.data.prepare import Prepared, open_prepared, prepare
from cllm.data.record import is_prepared
from cllm.data.take import as_prepared, take
from cllm.errors import ConfigError, LimitError, RunError
from cllm.text import Tokenizer
from cllm.text.training import KINDS
from cllm.training import checkpoint
from cllm.training.checkpoint import Checkpoint
from cllm.training.curve import PICTURE
from cllm.training.distributed.arrange import arrange, bytes_by_part
from cllm.training.distributed.entry import check_group, flat, shared_data
from cllm.training.distributed.group import Group
from cllm.training.distributed.handover import equalise, hand_over
from cllm.training.distributed.split import FIXED
from cllm.training.events import EventLog
from cllm.training.lock import FILE as LOCK_FILE
from cllm.training.lock import RunLock, last_launch
from cllm.training.loop import Loop, Outcome, Reporter
from cllm.training.plan import DEFAULT_MINUTES, device_of, memory_of, size
from cllm.training.starting import Origin, locate, start_from
from cllm.training.state import State
from cllm.training.storage import PosixStorage, write_file
from cllm.training.trackers import Feed, check_installed

RUN_FILE, TOKENIZER_FILE, EVENTS_FILE, DATA_FOLDER = "run.toml", "tokenizer.json", "events.jsonl", "data"

# what may differ on resume: it moves no number of the training itself
FREE_ON_RESUME = ("checkpoint.", "log.", "device", "distributed.", "train.sample_", "data.path")


class Display(Reporter, Protocol):
    """What `train` shows besides the loop's steps."""

    def begin(self, config: Config, step: int, rows_per_epoch: int) -> None: ...

    def preparing(self, stage: str, done: int, total: int) -> None: ...


def train(
    config: Config,
    run_dir: Path,
    *,
    resume: bool,
    display: Display,
    peak_flops: float | None = None,
    group: Group | None = None,
) -> Outcome:
    """Train `config` in `run_dir`, made when missing.

    resume: continue the newest good checkpoint; with nothing to resume, start afresh and say so. Without it a
    directory that already holds a run is refused.
    peak_flops: the machine's, for `log.mfu`.  group: the ranks that train it together, each of which calls this with
    the same arguments. Raises RunError, ConfigError, DataError, NonFiniteError.
    """
    group = group or Group.alone()
    check_group(config, group)
    if group.size > 1:
        threads = torch.get_num_threads()
        display.message(f"{group.size} processes, {threads} thread{'s' * (threads > 1)} each")
    check_installed(config.log)
    lock = RunLock(run_dir)
    group.lead(lambda: _claim(run_dir, lock))
    try:
        found = group.lead(lambda: _existing(run_dir, resume, display))
        if group.first:
            lock.note(group.launch)
        resumed: bool = group.agree(found is not None)
        if resumed:
            loop = _continue(config, run_dir, found, display, group)
        else:
            loop = _start(config, run_dir, display, group)
        loop.peak_flops = peak_flops if config.log.mfu else None
        state, found = loop.state, None  # the tensors that were read are in the state
        if resumed and state.step >= (state.config.train.steps or 0):
            display.message(f"all {state.step:,} steps were made before; nothing to do")
            return Outcome("done", state.step, state.step, None)
        display.begin(state.config, state.step, loop.stream.rows_per_epoch)
        if not group.first:
            return loop.run(None, {})
        name = checkpoint.checkpoint_name(state.step) if resumed else None
        with EventLog(run_dir / EVENTS_FILE) as log:
            feed = Feed(log, state.config, run_dir, display.message)
            try:
                return loop.run(feed, _notes(loop, name))
            finally:
                feed.close()
    finally:
        lock.release()


def _claim(run_dir: Path, lock: RunLock) -> None:
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{run_dir}: cannot be a run directory: {error.strerror}; choose another --out") from None
    _refuse_foreign(run_dir)
    lock.acquire()


def _start(config: Config, run_dir: Path, display: Display, group: Group) -> Loop:
    """A new run at step 0. If it cannot begin, the data prepared for it go again: another text may come."""
    device_of(config)
    data = shared_data(group, run_dir / DATA_FOLDER, lambda: _prepare(config, run_dir, display))
    try:
        state, origin = _fresh(config, data, display, group)
        loop = group.each(lambda: Loop(run_dir, state, data, display, group))
        loop.origin = origin
        loop.fix_steps()

        def keep() -> None:
            _write_durably(run_dir / TOKENIZER_FILE, data.tokenizer.content)
            write_run_file(run_dir, state.config)

        group.lead(keep)
    except BaseException:
        if group.first and not data.reused:
            shutil.rmtree(run_dir / DATA_FOLDER, ignore_errors=True)
        raise
    return loop


def _fresh(config: Config, data: Prepared, display: Display, group: Group | None = None) -> tuple[State, Origin | None]:
    """Step 0 on these data; the size of the vocabulary becomes what the tokenizer has. And where the weights are from,
    when they are another run's."""
    group = group or Group.alone()
    asked = config.data.vocab_size or config.model.vocab
    made: dict[str, Any] = group.agree(group.lead(lambda: _said_before(config, data)))  # rank 0 has the folder
    if made:
        config = settings.replace(config, made)
        asked = data.record.settings.vocab_size or asked
    config = settings.replace(config, {"model.vocab": data.tokenizer.vocab_size})
    if config.data.tokenizer in KINDS:  # else the same run file would ask for another tokenizer
        config = settings.replace(config, {"data.vocab_size": asked})
    if config.train.steps is None and config.train.max_minutes is None:
        config = settings.replace(config, {"train.max_minutes": DEFAULT_MINUTES})
    device = device_of(config)
    group.each(lambda: _fits(config, device, group))
    state = State.fresh(config, device, arrange(config, group).shard)
    origin = None
    if config.start is not None:
        start = Path(config.start)
        origin = group.lead(lambda: start_from(state, start, data))
        for sentence in origin.sentences() if origin is not None else ():
            display.message(sentence)
    equalise(group, state)
    return state, origin


@contextmanager
def passing(config: Config, display: Display) -> Iterator[tuple[State, Prepared]]:
    """A state at step 0 and its data, for a measurement that leaves nothing behind: no run directory is touched."""
    device_of(config)
    with tempfile.TemporaryDirectory(prefix="cllm-passing-") as folder:
        data = _prepare(config, Path(folder), display)
        yield _fresh(config, data, display)[0], data


def _continue(config: Config, run_dir: Path, found: Checkpoint | None, display: Display, group: Group) -> Loop:
    """The run where its newest good checkpoint left it. found: rank 0's; the others get all from there."""
    saved = group.agree(None if found is None else found.meta)
    config = group.each(lambda: _resumed(config, saved["config"], run_dir))
    data = shared_data(group, run_dir / DATA_FOLDER, lambda: _own_data(config, run_dir, saved, display))
    state = hand_over(group, config, found, device_of(config))
    return group.each(lambda: Loop(run_dir, state, data, display, group))


def _own_data(config: Config, run_dir: Path, saved: Mapping[str, Any], display: Display) -> Prepared:
    """The run's data, if they are those that it was trained on; other files of the run that are gone are made again."""
    data = open_prepared(run_dir / DATA_FOLDER)
    if saved.get("tokenizer") != data.tokenizer.sha256 or saved.get("data") != data.record.train_sha256:
        raise RunError(
            f"{run_dir / DATA_FOLDER}: these are not the data that {checkpoint.checkpoint_name(saved['step'])} was "
            "trained on; restore the original folder, or start a new run from these weights with --from"
        )
    if not (run_dir / TOKENIZER_FILE).exists():
        _write_durably(run_dir / TOKENIZER_FILE, data.tokenizer.content)
        display.message(f"{TOKENIZER_FILE} was missing; it is written again")
    if not _readable(run_dir / RUN_FILE):
        write_run_file(run_dir, config)
        display.message(f"{RUN_FILE} was missing or damaged; it is written again")
    return data


def write_run_file(run_dir: Path, config: Config) -> None:
    """`run.toml`, durable, whole or not at all: everything resolved, enough to repeat the run."""
    head = "# Everything resolved; `cllm train --run run.toml --out NEW` repeats this run.\n"
    _write_durably(run_dir / RUN_FILE, (head + settings.to_toml(config)).encode())


def _write_durably(path: Path, content: bytes) -> None:
    storage, temporary = PosixStorage(), path.with_name(f".{path.name}.tmp")
    try:
        write_file(storage, temporary, [content])
        storage.replace(temporary, path)
        storage.fsync_dir(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(f"{path}: cannot be written: {error.strerror}; free space or choose another --out") from None


def settings_of(run_dir: Path) -> dict[str, Any] | None:
    """What an existing run says about itself: its run.toml, else its newest good checkpoint; None without either."""
    if _readable(run_dir / RUN_FILE):
        return settings.read_toml(run_dir / RUN_FILE)
    if checkpoint.list_checkpoints(run_dir):
        found: dict[str, Any] = checkpoint.load(run_dir, with_state=False).meta["config"]
        return found
    return None


def read_run_file(run_dir: Path) -> Config:
    """The configuration of an existing run. Raises RunError when there is none."""
    said = settings_of(run_dir)
    if said is None:
        if run_dir.is_file():
            raise RunError(f"{run_dir}: is a file, not a run directory; `cllm runs` lists those there are")
        what = "does not exist" if not run_dir.exists() else "is not a run directory: it has no run.toml"
        raise RunError(f"{run_dir}: {what}. Train one with: cllm train YOUR_TEXT.txt --out {run_dir}")
    return settings.load(base=said)


def _readable(run_file: Path) -> bool:
    """Whether a run file is there with something in it (a torn one is empty, or no TOML)."""
    try:
        return bool(settings.read_toml(run_file))
    except ConfigError:
        return False


def _refuse_foreign(run_dir: Path) -> None:
    """A folder of somebody else's that holds a name we would write is left alone."""
    if (run_dir / LOCK_FILE).exists() or checkpoint.list_checkpoints(run_dir):
        return
    ours = (RUN_FILE, TOKENIZER_FILE, EVENTS_FILE, PICTURE, checkpoint.FOLDER, checkpoint.LATEST, checkpoint.BEST)
    held = [name for name in ours if (run_dir / name).exists()]
    if (run_dir / DATA_FOLDER).exists() and not is_prepared(run_dir / DATA_FOLDER):
        held.append(DATA_FOLDER)
    if held:
        raise RunError(
            f"{run_dir}: it is no run that cllm train made, and it holds {', '.join(held)}; nothing was changed. "
            "Choose another --out"
        )


def started_again(run_dir: Path, group: Group) -> bool:
    """Whether this launch had the run before: torchrun has started its ranks again, so they are to go on with it."""
    return bool(group.launch) and last_launch(run_dir) == group.launch


def as_resumed(run_dir: Path, asked: Mapping[str, Any]) -> Config | None:
    """The settings to go on with: the run's own, and those asked for that a resumed run may change. None: there is
    nothing to go on with yet."""
    if not checkpoint.list_checkpoints(run_dir):
        return None
    free = {key: value for key, value in asked.items() if key.startswith(FREE_ON_RESUME)}
    return settings.load(base=settings_of(run_dir), overrides=free)


def starting_point(start: Path) -> dict[str, Any]:
    """Settings that a run started from another's weights takes over: its model and its tokenizer."""
    run_dir, _ = locate(start)
    theirs = settings.to_dict(read_run_file(run_dir))
    return {
        "start": str(start),
        "preset": theirs["preset"],
        "model": theirs["model"],
        "data": {"tokenizer": str(run_dir / TOKENIZER_FILE)},
    }


def _bytes(config: Config, group: Group) -> dict[str, int]:
    """What this rank's training allocates, by part."""
    return size(config).bytes_by_part if group.size == 1 else bytes_by_part(config, group.rank, group.size)


def _fits(config: Config, device: torch.device, group: Group | None = None) -> None:
    """Refuse a model that the machine's memory cannot hold, before any of it is taken."""
    group = group or Group.alone()
    needed, memory = sum(_bytes(config, group).values()), memory_of(device)
    if device.type == "cpu":
        needed *= group.local_size
    if needed > memory:
        raise LimitError(
            f"training needs {needed / 1e9:.1f} GB, this machine has {memory / 1e9:.1f} GB. A smaller train.batch "
            f"(now {config.train.batch}), train.sequence (now {config.train.sequence}) or model fits; "
            "`cllm info` shows the memory by part"
        )


def _existing(run_dir: Path, resume: bool, display: Display) -> Checkpoint | None:
    has_checkpoint = bool(checkpoint.list_checkpoints(run_dir)) or any((run_dir / checkpoint.FOLDER).glob("step-*"))
    if not resume:
        if has_checkpoint or (run_dir / RUN_FILE).exists():
            raise RunError(
                f"{run_dir}: a run is already there. Continue it with --resume, or give another --out; "
                "nothing was changed"
            )
        return None
    if not has_checkpoint:
        display.message(f"{run_dir}: nothing to resume; starting afresh")
        return None
    found = checkpoint.load(run_dir)
    for note in found.notes:
        display.message(note)
    display.message(f"resuming {run_dir} at step {found.step}")
    fixed = found.meta["config"].get("distributed", {}).get("reduction") == FIXED
    for change in found.environment_changes():
        if fixed and change.startswith(checkpoint.PROCESSES):
            continue  # the bits do not depend on it
        display.message(f"note: {change}; the rest of the run may differ in the last bits")
    return found


def _resumed(asked: Config, saved_config: Mapping[str, Any], run_dir: Path) -> Config:
    """The configuration that the checkpoint was saved with; what may change on resume is taken from `asked`."""
    saved = settings.load(base=saved_config)
    theirs, ours = flat(settings.to_dict(saved)), flat(settings.to_dict(asked))
    changed = {key: ours.get(key) for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}
    bound = ("checkpoint.every",) if saved.guard.spikes == "rollback" else ()  # it says where a rollback goes to
    for key, value in changed.items():
        if not key.startswith(FREE_ON_RESUME) or key in bound:
            raise ConfigError(
                f"{key}: got {value!r}, but the run in {run_dir} was started with {theirs.get(key)!r}. A resumed run "
                "keeps its settings, so that it ends as if never interrupted; start a new one with another --out"
            )
    return settings.replace(saved, {key: value for key, value in changed.items() if key != "data.path"})


def _prepare(config: Config, run_dir: Path, display: Display) -> Prepared:
    """The run's shards; those that are already there are used if text and settings are the same."""
    if not config.data.path:
        raise ConfigError("data.path: no text given. Say what to train on: cllm train book.txt, or a folder, or -")
    before = _prepared_before(config)
    data = _made(config, run_dir, display) if before is None else take(before, run_dir / DATA_FOLDER)
    for note in data.notes:
        display.message(note)
    return data


def _made(config: Config, run_dir: Path, display: Display) -> Prepared:
    return prepare(
        config.data.path,
        run_dir / DATA_FOLDER,
        tokenizer=config.data.tokenizer,
        vocab_size=config.data.vocab_size or config.model.vocab,
        val_fraction=config.data.val_fraction,
        seed=config.seed,
        field=config.data.field,
        skip_bad=config.data.skip_bad,
        dedup=config.data.dedup,
        weights=config.data.weights,
        progress=display.preparing,
    )


def _prepared_before(config: Config) -> Path | None:
    """The folder that `cllm data prepare` made (or another run's data), where that is what is trained on."""
    return Path(config.data.path[0]) if len(config.data.path) == 1 and is_prepared(config.data.path[0]) else None


def _said_before(config: Config, data: Prepared) -> dict[str, Any]:
    """The settings with which `data` were prepared before this run; nothing where the run has prepared them itself."""
    if (before := _prepared_before(config)) is None:
        return {}
    asked, default = (settings.to_dict(one)["data"] for one in (config, settings.load()))
    return {f"data.{name}": value for name, value in as_prepared(data, before, asked, default).items()}


def _notes(loop: Loop, resumed: str | None) -> dict[str, Any]:
    data = loop.data
    return {
        "parameters": loop.state.model.layout.parameters,
        "bytes": _bytes(loop.state.config, loop.group),
        "kernels": loop.step.kernels.name,
        "threads": torch.get_num_threads(),
        "processes": loop.group.size,
        "data": data.statistics,
        "tokenizer": data.tokenizer.sha256,
        "from": resumed,
        **({} if loop.origin is None else {"started_from": msgspec.to_builtins(loop.origin)}),
    }


def open_tokenizer(run_dir: Path) -> Tokenizer:
    """The run's tokenizer."""
    path = run_dir / TOKENIZER_FILE
    if not path.exists():
        raise RunError(f"{path}: missing; the run cannot be used without its tokenizer")
    return Tokenizer.load(path)
