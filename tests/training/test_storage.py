"""Power loss and full disks at every file-system call of a save.

`Disk` models what POSIX promises and no more: a write lives in the page cache until its file is synced, a
name made, moved or removed lives there until its *folder* is synced, and at a crash any subset of what was
not synced may be on the disk, in any combination. `kill -9` keeps the page cache and would prove nothing.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load as safetensors_load
from safetensors.torch import save as safetensors_save

from cllm.errors import CllmError, RunError, UsageError
from cllm.training import checkpoint
from cllm.training.storage import DTYPES, PosixStorage, remove_tree, safetensors_chunks, write_file

RUN = Path("/work/run")


class PowerLoss(BaseException):
    """Not an Exception: no handler of the code under test may go on after it."""


class File:
    def __init__(self) -> None:
        self.cached = bytearray()
        self.synced = b""


class Folder:
    def __init__(self) -> None:
        self.cached: dict[str, File | Folder] = {}
        self.synced: dict[str, File | Folder] = {}
        self.pending: list[tuple[str, str, str, File | Folder | None]] = []


class Disk:
    """A simulated file system. `fail(call number, call name)` may raise before the call has any effect."""

    def __init__(self, fail: Callable[[int, str], None] = lambda number, call: None) -> None:
        self.root = Folder()
        self.fail = fail
        self.calls: list[str] = []
        self.open: dict[int, File] = {}
        for path in (RUN.parent, RUN):
            self.mkdir(path)
            self.fsync_dir(path.parent)

    def _call(self, name: str) -> None:
        self.calls.append(name)
        self.fail(len(self.calls), name)

    def _at(self, path: Path) -> File | Folder:
        node: File | Folder = self.root
        for part in path.parts[1:]:
            if not isinstance(node, Folder):
                raise NotADirectoryError(errno.ENOTDIR, "Not a directory", str(path))
            if part not in node.cached:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
            node = node.cached[part]
        return node

    def _folder(self, path: Path) -> Folder:
        node = self._at(path)
        if not isinstance(node, Folder):
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory", str(path))
        return node

    def _enter(self, path: Path, node: File | Folder) -> None:
        parent = self._folder(path.parent)
        if path.name in parent.cached:
            raise FileExistsError(errno.EEXIST, "File exists", str(path))
        parent.cached[path.name] = node
        parent.pending.append(("set", path.name, "", node))

    def create(self, path: Path) -> int:
        self._call("create")
        file = File()
        self._enter(path, file)
        self.open[len(self.calls)] = file
        return len(self.calls)

    def write(self, file: int, data: bytes | memoryview) -> None:
        self._call("write")
        self.open[file].cached += data

    def fsync(self, file: int) -> None:
        self._call("fsync")
        self.open[file].synced = bytes(self.open[file].cached)

    def close(self, file: int) -> None:
        self._call("close")
        del self.open[file]

    def read(self, path: Path) -> bytes:
        self._call("read")
        node = self._at(path)
        assert isinstance(node, File)
        return bytes(node.cached)

    def listdir(self, path: Path) -> list[str]:
        self._call("listdir")
        return list(self._folder(path).cached)

    def mkdir(self, path: Path) -> None:
        self._call("mkdir")
        self._enter(path, Folder())

    def replace(self, source: Path, target: Path) -> None:
        self._call("replace")
        assert source.parent == target.parent, "a rename across folders is never needed"
        parent, node = self._folder(source.parent), self._at(source)
        old = parent.cached.get(target.name)
        assert old is None or (isinstance(old, File) and isinstance(node, File)), "would destroy a folder"
        del parent.cached[source.name]
        parent.cached[target.name] = node
        parent.pending.append(("move", source.name, target.name, node))

    def unlink(self, path: Path) -> None:
        self._call("unlink")
        assert isinstance(self._at(path), File)
        self._remove(path)

    def rmdir(self, path: Path) -> None:
        self._call("rmdir")
        assert not self._folder(path).cached
        self._remove(path)

    def _remove(self, path: Path) -> None:
        parent = self._folder(path.parent)
        del parent.cached[path.name]
        parent.pending.append(("del", path.name, "", None))

    def fsync_dir(self, path: Path) -> None:
        self._call("fsync_dir")
        folder = self._folder(path)
        folder.synced, folder.pending = dict(folder.cached), []

    # ------------------------------------------------------------------------------- after a power loss

    def lay_out(self, target: Path, names: Callable[[], str], content: Callable[[], str]) -> Path:
        """Writes what survived below `target`; `names` and `content` decide the fate of each unsynced thing."""

        def survivors(folder: Folder) -> dict[str, File | Folder]:
            entries = dict(folder.synced)
            for kind, name, new, node in folder.pending:
                fate = names()
                if fate == "lost":
                    continue
                if kind == "set":
                    assert node is not None
                    entries[name] = node
                elif kind == "del":
                    entries.pop(name, None)
                else:
                    assert node is not None
                    entries[new] = node
                    if fate != "both":
                        entries.pop(name, None)
            return entries

        def write(node: File | Folder, path: Path) -> None:
            if isinstance(node, Folder):
                path.mkdir(parents=True, exist_ok=True)
                for name, child in survivors(node).items():
                    write(child, path / name)
            else:
                full, data = bytes(node.cached), node.synced
                if full != data:
                    fate = content()
                    half = len(full) // 2
                    data = {
                        "lost": data,
                        "kept": full,
                        "zeros": bytes(len(full)),
                        "half": full[:half],
                        "torn": full[:half] + bytes(len(full) - half),
                    }[fate]
                path.write_bytes(data)

        write(self.root, target)
        return target / RUN.relative_to("/")

    def as_seen(self, target: Path) -> Path:
        """The present content, as running programs see it."""
        return self.lay_out(target, lambda: "kept", lambda: "kept")


class Unsynced(PosixStorage):
    """The real file system without waiting for the disk: the tests lose no power themselves."""

    def fsync(self, file: int) -> None: ...

    def fsync_dir(self, path: Path) -> None: ...


Fates = tuple[Callable[[], str], Callable[[], str]]


def fates(randoms: int) -> Iterator[Fates]:
    """Everything unsynced lost; names kept and contents lost, zeroed or torn; all kept; then random mixtures."""
    yield (lambda: "lost"), (lambda: "lost")
    for content in ("lost", "zeros", "torn", "kept"):
        yield (lambda: "kept"), (lambda content=content: content)
    yield (lambda: "both"), (lambda: "lost")
    for seed in range(randoms):
        rng = random.Random(seed)
        yield (
            (lambda rng=rng: rng.choice(["lost", "kept", "kept", "both"])),
            (lambda rng=rng: rng.choice(["lost", "kept", "zeros", "half", "torn"])),
        )


def tensors(step: int, line: int = 0) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    weights = {"tok": torch.full((3, 2), float(step)), "0.attn.bq": torch.arange(2.0) + line}
    return weights, {"m.tok": torch.full((3, 2), step / 7, dtype=torch.float64), "rng": torch.tensor(step)}


def save(storage, step: int, *, run: Path = RUN, best: bool = False, keep: int | None = 2, line: int = 0):
    weights, state = tensors(step, line)
    return checkpoint.save(run, step, weights, state, {"line": line}, keep=keep, best=best, storage=storage)


def assert_is(found: checkpoint.Checkpoint, step: int, line: int = 0) -> None:
    weights, state = tensors(step, line)
    assert found.step == step and found.meta == {"line": line}
    for got, expected in ((found.weights, weights), (found.state, state)):
        assert got.keys() == expected.keys()
        assert all(torch.equal(got[name], expected[name]) for name in expected)


# What was saved before, and the save that is interrupted: (step, best, line)
HISTORIES: dict[str, list[tuple[int, bool, int]]] = {
    "first save": [(1, True, 0)],
    "second save, the best so far": [(1, True, 0), (2, True, 0)],
    "retention removes one and keeps the best": [(1, True, 0), (2, False, 0), (3, False, 0), (4, False, 0)],
    "the same step once more, with other content": [(1, True, 0), (2, False, 0), (2, False, 1)],
    "the same best step once more": [(1, False, 0), (2, True, 0), (2, True, 1)],
    "the only one once more": [(1, True, 0), (1, True, 1)],
    "the best once more, not said to be": [(1, False, 0), (2, True, 0), (2, False, 1)],
}


def crash_every_call(history: list[tuple[int, bool, int]], tmp_path: Path, randoms: int) -> int:
    *before, (step, best, line) = history
    quiet = Disk()
    for s, b, n in before:
        save(quiet, s, best=b, line=n)
    start = len(quiet.calls)
    save(quiet, step, best=best, line=line)
    total = len(quiet.calls)

    previous = {(s, n) for s, _, n in before[-1:]}
    best_before = [(s, n) for s, b, n in before if b][-1:]
    best = best or step in {s for s, _ in best_before}  # saved again, the best one stays the best
    trials = 0
    for at in range(start + 1, total + 2):  # the last one: power is lost right after save returned

        def fail(number: int, call: str, at: int = at) -> None:
            if number >= at:
                raise PowerLoss

        disk = Disk(fail)
        try:
            for s, b, n in history:
                save(disk, s, best=b, line=n)
            assert at == total + 1
        except PowerLoss:
            assert at <= total
        returned = at == total + 1
        for names, content in fates(randoms):
            trials += 1
            run = disk.lay_out(tmp_path / str(trials), names, content)
            if not before and not returned:
                if not checkpoint.list_checkpoints(run):
                    with pytest.raises(RunError, match="no checkpoint found"):  # not "damaged"
                        checkpoint.load(run)
                    continue
                found = checkpoint.load(run)
            else:
                found = checkpoint.load(run)
                assert checkpoint.list_checkpoints(run), "a run that can be resumed must be seen as one"
            allowed = {(step, line)} if returned else {(step, line), *previous}
            assert (found.step, found.meta["line"]) in allowed
            assert_is(found, found.step, found.meta["line"])
            if best_before or (best and returned):
                champion = checkpoint.load(run, "best")
                allowed = {(step, line)} if best and returned else {*best_before, *([(step, line)] if best else [])}
                assert (champion.step, champion.meta["line"]) in allowed
                assert_is(champion, champion.step, champion.meta["line"])
            if returned:
                assert found.notes == ()
            for listed in checkpoint.list_checkpoints(run):  # nothing half removed goes by a checkpoint's name
                assert checkpoint.load(run, listed).name == listed
            # And the run goes on: leftovers are swept and the next save is as good as any.
            save(Unsynced(), step + 1, run=run)
            after = checkpoint.load(run)
            assert_is(after, step + 1)
            assert after.notes == ()
            assert not [p for p in run.rglob("*") if p.name.startswith((".tmp-", ".old-"))]
    return trials


@pytest.mark.parametrize("name", HISTORIES)
def test_power_loss_at_every_call_of_a_save(name: str, tmp_path: Path) -> None:
    assert crash_every_call(HISTORIES[name], tmp_path, randoms=3) > 200


@pytest.mark.prove
@pytest.mark.parametrize("name", HISTORIES)
def test_power_loss_at_every_call_of_a_save_many_mixtures(name: str, tmp_path: Path) -> None:
    assert crash_every_call(HISTORIES[name], tmp_path, randoms=60) > 2000


def test_the_only_copy_of_a_step_set_aside_survives_the_next_failing_save(tmp_path: Path) -> None:
    class Full(Unsynced):
        def create(self, path: Path) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    path = save(Unsynced(), 1, run=tmp_path)
    path.rename(path.with_name(".old-" + path.name))  # power was lost between the two renames
    assert_is(checkpoint.load(tmp_path), 1)
    with pytest.raises(RunError, match="No space"):
        save(Full(), 2, run=tmp_path)
    assert_is(checkpoint.load(tmp_path), 1)
    assert checkpoint.load(tmp_path).notes == (), "and it has its name again"


class Forgetful(Disk):
    """A disk that ignores some syncs: what a save without them would be."""

    def __init__(self, ignored: str, which: int) -> None:
        self.ignored, self.which, self.seen = "", which, 0
        super().__init__()
        self.ignored = ignored

    def _skips(self, call: str) -> bool:
        self.seen += call == self.ignored
        return call == self.ignored and self.seen == self.which

    def fsync(self, file: int) -> None:
        if not self._skips("fsync"):
            super().fsync(file)

    def fsync_dir(self, path: Path) -> None:
        if not self._skips("fsync_dir"):
            super().fsync_dir(path)


@pytest.mark.parametrize(
    ("call", "which"),
    # weights, state, manifest, DONE, latest; then the folders: (the run's parent,) the new one, checkpoints, the run
    [("fsync", n) for n in range(1, 6)] + [("fsync_dir", n) for n in (2, 3, 4)],
)
def test_the_simulation_notices_each_missing_sync(call: str, which: int, tmp_path: Path) -> None:
    disk = Forgetful(call, which)
    save(disk, 1)
    assert disk.seen >= which
    bad = 0
    for number, (names, content) in enumerate(fates(0)):
        run = disk.lay_out(tmp_path / str(number), names, content)
        try:
            found = checkpoint.load(run)
            bad += found.notes != ()
        except CllmError:
            bad += 1
    assert bad > 0


FAULTS = [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT]


@pytest.mark.parametrize("lasting", [True, False], ids=["from then on", "once"])
@pytest.mark.parametrize("name", HISTORIES)
def test_an_error_at_every_call_leaves_the_run_intact(name: str, lasting: bool, tmp_path: Path) -> None:
    history = HISTORIES[name]
    quiet = Disk()
    for s, b, n in history[:-1]:
        save(quiet, s, best=b, line=n)
    start = len(quiet.calls)
    step, best, line = history[-1]
    save(quiet, step, best=best, line=line)
    changes = {"create", "write", "fsync", "mkdir", "replace", "unlink", "rmdir", "fsync_dir"}

    for at in [n + 1 for n, call in enumerate(quiet.calls) if n >= start and call in changes]:
        armed = [True]

        def fail(number: int, call: str, at: int = at, armed: list[bool] = armed) -> None:
            if armed[0] and call in changes and (number >= at if lasting else number == at):
                raise OSError(FAULTS[at % 4], os.strerror(FAULTS[at % 4]))

        disk = Disk(fail)
        for s, b, n in history[:-1]:
            save(disk, s, best=b, line=n)
        with pytest.raises(RunError, match=r"step-\d+ could not be saved.*intact.*--resume"):
            save(disk, step, best=best, line=line)
        if history[:-1]:
            for view, found in (
                ("seen", checkpoint.load(disk.as_seen(tmp_path / f"seen{at}"))),
                ("lost", checkpoint.load(disk.lay_out(tmp_path / f"lost{at}", *next(fates(0))))),
            ):
                assert (found.step, found.meta["line"]) in {(step, line), history[-2][::2]}, view
                assert_is(found, found.step, found.meta["line"])
        armed[0] = False  # space was made: the next save works and sweeps
        save(disk, step + 1)
        after = checkpoint.load(disk.lay_out(tmp_path / f"after{at}", *next(fates(0))))
        assert_is(after, step + 1)
        assert not disk.open, "a file was left open"


# ------------------------------------------------------------------------------------ the tensor files


@given(
    st.dictionaries(
        st.text(max_size=12),
        st.tuples(st.sampled_from(list(DTYPES)), st.lists(st.integers(0, 4), max_size=3)),
        max_size=8,
    )
)
@settings(deadline=None, max_examples=200)
def test_tensor_files_are_those_of_the_library(shapes: dict) -> None:
    generator = torch.Generator().manual_seed(1)
    made = {}
    for name, (dtype, shape) in shapes.items():
        if name == "__metadata__":
            continue
        bits = torch.randint(-128, 128, (*shape, dtype.itemsize), generator=generator).to(torch.int8)
        made[name] = bits.view(dtype).reshape(shape) if dtype != torch.bool else bits.reshape(shape) > 0
    data = b"".join(bytes(chunk) for chunk in safetensors_chunks(made))
    assert data == safetensors_save(made)
    for name, tensor in safetensors_load(data).items():
        assert tensor.dtype == made[name].dtype and tensor.shape == made[name].shape
        assert (
            tensor.numpy(force=True).tobytes() == made[name].numpy(force=True).tobytes()
            if (tensor.dtype != torch.bfloat16)
            else torch.equal(tensor.view(torch.int16), made[name].view(torch.int16))
        )


def test_views_and_transposes_are_written_by_value(tmp_path: Path) -> None:
    flat = torch.arange(12.0)
    made = {"a": flat[4:10].view(2, 3).t(), "b": flat[:4], "big": torch.arange(5_000_000)}
    path = tmp_path / "x.safetensors"
    written = write_file(PosixStorage(), path, safetensors_chunks(made))
    found = safetensors_load(path.read_bytes())
    assert written.bytes == path.stat().st_size
    assert all(torch.equal(found[name], made[name]) for name in made)


def test_a_type_without_a_name_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'z'.*complex64"):
        list(safetensors_chunks({"z": torch.zeros(1, dtype=torch.complex64)}))


def test_the_real_storage(tmp_path: Path) -> None:
    storage = PosixStorage()
    storage.mkdir(tmp_path / "a")
    written = write_file(storage, tmp_path / "a" / "f", [b"abc", memoryview(b"def"), b""])
    assert storage.read(tmp_path / "a" / "f") == b"abcdef" and written.bytes == 6
    with pytest.raises(FileExistsError):
        storage.create(tmp_path / "a" / "f")
    with pytest.raises(FileExistsError):
        storage.mkdir(tmp_path / "a")
    storage.replace(tmp_path / "a", tmp_path / "b")
    storage.fsync_dir(tmp_path)
    assert storage.listdir(tmp_path) == ["b"]
    remove_tree(storage, tmp_path / "b")
    remove_tree(storage, tmp_path / "b")
    assert storage.listdir(tmp_path) == []


def test_a_failed_write_closes_its_file(tmp_path: Path) -> None:
    closed: list[int] = []

    class Full(PosixStorage):
        def write(self, file: int, data: bytes | memoryview) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self, file: int) -> None:
            closed.append(file)
            super().close(file)

    with pytest.raises(OSError, match="No space"):
        write_file(Full(), tmp_path / "f", [b"x"])
    assert len(closed) == 1
