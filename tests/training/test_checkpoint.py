"""Checkpoints: round trip, retention, best, damage of every kind, fallbacks that say so."""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import shutil
from pathlib import Path

import pytest
import torch

from cllm.errors import CorruptError, RunError, UsageError
from cllm.training import checkpoint
from cllm.training.storage import PosixStorage


class Unsynced(PosixStorage):
    """Without waiting for the disk: power loss has its own tests (test_storage.py)."""

    def fsync(self, file: int) -> None: ...

    def fsync_dir(self, path: Path) -> None: ...


def make(run: Path, step: int, *, best: bool = False, keep: int | None = 10) -> Path:
    run.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(step)
    weights = {"tok": torch.randn(5, 3, generator=generator), "lnf.g": torch.ones(3)}
    state = {"m.tok": torch.randn(5, 3, generator=generator).double(), "counter": torch.tensor([step, 2**62])}
    meta = {"tokens": step * 64}
    return checkpoint.save(run, step, weights, state, meta, keep=keep, best=best, storage=Unsynced())


def same(found: checkpoint.Checkpoint, step: int) -> bool:
    generator = torch.Generator().manual_seed(step)
    tok = torch.randn(5, 3, generator=generator)
    moment = torch.randn(5, 3, generator=generator).double()
    return (
        found.step == step
        and found.meta == {"tokens": step * 64}
        and torch.equal(found.weights["tok"], tok)
        and torch.equal(found.state["m.tok"], moment)
        and found.state["counter"].tolist() == [step, 2**62]
    )


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def pointer(run: Path, which: str) -> str:
    return (run / which).read_text()


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    special = torch.tensor([0.0, -0.0, float("nan"), float("inf"), 1e-45, 3.4e38])
    weights = {"x": special, "empty": torch.zeros(0, 4), "scalar": torch.tensor(7, dtype=torch.uint8)}
    state = {"bf": torch.tensor([1.5, -2.0]).bfloat16(), "flag": torch.tensor([True, False])}
    meta = {"lr": 0.1 + 0.2, "nested": {"list": [1, None, "ü"]}, "big": 2**60}
    path = checkpoint.save(tmp_path, 100, weights, state, meta, keep=1, best=False)
    found = checkpoint.load(tmp_path)
    assert path == tmp_path / "checkpoints" / "step-00000100" == found.path
    assert sorted(p.name for p in path.iterdir()) == [
        "DONE",
        "manifest.json",
        "state.safetensors",
        "weights.safetensors",
    ]
    for got, expected in ((found.weights, weights), (found.state, state)):
        assert got.keys() == expected.keys()
        for name, tensor in expected.items():
            assert got[name].dtype == tensor.dtype and got[name].shape == tensor.shape
            assert bytes(got[name].reshape(-1).view(torch.uint8)) == bytes(tensor.reshape(-1).view(torch.uint8))
    assert found.meta == meta and found.name == "step-00000100" and found.step == 100
    assert found.notes == () and not found.best
    assert pointer(tmp_path, "latest") == "step-00000100\n" and not (tmp_path / "best").exists()


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = make(tmp_path / "a", 3), make(tmp_path / "b", 3)
    for file in one.iterdir():
        assert file.read_bytes() == (two / file.name).read_bytes()


def test_manifest_and_done_say_what_the_format_says(tmp_path: Path) -> None:
    path = make(tmp_path, 4, best=True)
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["format"] == "cllm-checkpoint" and manifest["version"] == 2
    assert manifest["step"] == 4 and manifest["best"] is True and manifest["meta"] == {"tokens": 256}
    for name in ("weights.safetensors", "state.safetensors"):
        data = (path / name).read_bytes()
        assert manifest["files"][name] == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    digest = hashlib.sha256((path / "manifest.json").read_bytes()).hexdigest()
    assert (path / "DONE").read_text() == digest + "\n"


def test_the_documented_manifest_is_the_real_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    documented = json.loads(page.split("```json\n")[1].split("```")[0])
    real = json.loads((make(tmp_path, 100) / "manifest.json").read_text())
    assert documented.keys() == real.keys()
    for key in ("files", "environment"):
        assert documented[key].keys() == real[key].keys()
    assert (documented["format"], documented["version"]) == (real["format"], real["version"])


def test_weights_alone(tmp_path: Path) -> None:
    path = make(tmp_path, 1)
    (path / "state.safetensors").write_bytes(b"broken")
    found = checkpoint.load(tmp_path, with_state=False)
    assert found.state == {} and "tok" in found.weights
    with pytest.raises(CorruptError, match=r"state.safetensors"):
        checkpoint.load(tmp_path)


def test_keep_the_last_k_and_the_best(tmp_path: Path) -> None:
    for step, best in [(10, False), (20, True), (30, False), (40, False), (50, False)]:
        make(tmp_path, step, best=best, keep=2)
    assert names(tmp_path) == ["step-00000020", "step-00000040", "step-00000050"]
    assert same(checkpoint.load(tmp_path), 50) and same(checkpoint.load(tmp_path, "best"), 20)
    make(tmp_path, 60, best=True, keep=2)
    assert names(tmp_path) == ["step-00000050", "step-00000060"]
    assert same(checkpoint.load(tmp_path, "best"), 60)
    make(tmp_path, 70, keep=1)
    assert names(tmp_path) == ["step-00000060", "step-00000070"]
    assert checkpoint.list_checkpoints(tmp_path) == names(tmp_path)


def test_the_best_saved_again_stays_the_best(tmp_path: Path) -> None:
    make(tmp_path, 1)
    make(tmp_path, 2, best=True)
    make(tmp_path, 2)  # a finished run resumed once more
    found = checkpoint.load(tmp_path, "best")
    assert same(found, 2) and found.best and found.notes == ()


def test_keep_none_keeps_all_and_a_restart_from_further_back_keeps_the_later_ones(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40):
        make(tmp_path, step, keep=None)
    make(tmp_path, 15, keep=1)  # somebody went back to 10
    assert names(tmp_path) == ["step-00000015", "step-00000020", "step-00000030", "step-00000040"]
    found = checkpoint.load(tmp_path)
    assert same(found, 15) and "step-00000040 exists too" in found.notes[0]


def test_names_grow_beyond_eight_digits(tmp_path: Path) -> None:
    make(tmp_path, 99_999_999)
    make(tmp_path, 100_000_000)
    found = checkpoint.load(tmp_path)
    assert found.step == 100_000_000 and found.notes == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [({"step": -1}, "step=-1"), ({"keep": 0}, "keep=0"), ({"meta": {"x": float("nan")}}, "JSON")],
)
def test_nonsense_is_refused_before_anything_is_written(tmp_path: Path, change: dict, message: str) -> None:
    settings = {"step": 1, "weights": {}, "state": {}, "meta": {}, "keep": 1, "best": False, **change}
    with pytest.raises(UsageError, match=message):
        checkpoint.save(tmp_path, **settings)
    assert list(tmp_path.iterdir()) == []


def test_an_unsavable_tensor_leaves_the_run_intact(tmp_path: Path) -> None:
    make(tmp_path, 1)
    with pytest.raises(UsageError, match=r"complex64"):
        checkpoint.save(tmp_path, 2, {}, {"z": torch.zeros(1, dtype=torch.complex64)}, {}, keep=1, best=False)
    assert same(checkpoint.load(tmp_path), 1) and checkpoint.load(tmp_path).notes == ()
    make(tmp_path, 2)
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


# --------------------------------------------------------------------------------------------- loading


def test_nothing_to_load(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no checkpoint found.*cllm train"):
        checkpoint.load(tmp_path)
    with pytest.raises(RunError, match="no checkpoint found"):
        checkpoint.load(tmp_path / "missing")
    make(tmp_path, 5)
    for name in ("step-00000006", "../checkpoints/step-00000005", "step-5", ""):
        with pytest.raises(RunError, match=r"there are: step-00000005 \(or latest, best\)"):
            checkpoint.load(tmp_path, name)


def test_a_name_is_loaded_or_refused_never_replaced(tmp_path: Path) -> None:
    make(tmp_path, 1)
    path = make(tmp_path, 2)
    assert same(checkpoint.load(tmp_path, "step-00000001"), 1)
    (path / "weights.safetensors").write_bytes(b"")
    with pytest.raises(CorruptError, match=r"step-00000002/weights.safetensors: 0 bytes, expected"):
        checkpoint.load(tmp_path, "step-00000002")


@pytest.mark.parametrize("file", ["weights.safetensors", "state.safetensors", "manifest.json", "DONE"])
@pytest.mark.parametrize("how", ["missing", "empty", "short", "long", "zeros", "a folder"])
def test_damage_falls_back_to_the_last_good_one_and_says_so(tmp_path: Path, file: str, how: str) -> None:
    make(tmp_path, 1, best=True)
    make(tmp_path, 2)
    path = make(tmp_path, 3) / file
    data = path.read_bytes()
    path.unlink()
    if how == "a folder":
        path.mkdir()
    elif how != "missing":
        path.write_bytes({"empty": b"", "short": data[:-1], "long": data + b"\0", "zeros": bytes(len(data))}[how])
    found = checkpoint.load(tmp_path)
    assert same(found, 2)
    assert f"step-00000003/{'' if file == 'manifest.json' else file}" in found.notes[0]
    assert found.notes[-1] == "step-00000002 is used instead"
    make(tmp_path, 3)  # and training goes on over the damaged one
    assert same(checkpoint.load(tmp_path), 3) and checkpoint.load(tmp_path).notes == ()


def flips(run: Path, count: int, seed: int) -> tuple[int, int]:
    """Random single-bit flips over all files of one checkpoint and the pointers; how many fell back, refused."""
    make(run, 1)
    make(run, 2, best=True)
    make(run, 3)
    files = [*sorted((run / "checkpoints" / "step-00000003").iterdir()), run / "latest", run / "best"]
    rng = random.Random(seed)
    fell_back = refused = 0
    for trial in range(count):
        path = files[trial % len(files)]
        data = bytearray(path.read_bytes())
        bit = rng.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
        good = path.read_bytes()
        path.write_bytes(data)
        which = "best" if path.name == "best" else "latest"
        found = checkpoint.load(run, which)
        assert found.notes, f"bit {bit} of {path.name} was accepted silently"
        assert same(found, found.step)
        fell_back += 1
        if path.parent != run:
            assert found.step == 2
            with pytest.raises(CorruptError, match=r"step-00000003"):
                checkpoint.load(run, "step-00000003")
            refused += 1
        path.write_bytes(good)
    assert checkpoint.load(run).notes == () and checkpoint.load(run, "best").notes == ()
    return fell_back, refused


def test_flipped_bits_are_never_accepted_silently(tmp_path: Path) -> None:
    assert flips(tmp_path, 90, seed=0) == (90, 60)


@pytest.mark.prove
def test_flipped_bits_are_never_accepted_silently_in_two_thousand_trials(tmp_path: Path) -> None:
    assert flips(tmp_path, 2100, seed=1) == (2100, 1400)


@pytest.mark.prove
def test_every_truncation_is_detected(tmp_path: Path) -> None:
    make(tmp_path, 1)
    for path in sorted(make(tmp_path, 2).iterdir()):
        data = path.read_bytes()
        for length in range(len(data)):
            path.write_bytes(data[:length])
            with pytest.raises(CorruptError):
                checkpoint.load(tmp_path, "step-00000002")
        path.write_bytes(data)
    assert same(checkpoint.load(tmp_path), 2)


def test_all_damaged_is_refused_naming_each(tmp_path: Path) -> None:
    for step in (1, 2):
        (make(tmp_path, step) / "state.safetensors").write_bytes(b"x")
    with pytest.raises(CorruptError, match=r"(?s)no checkpoint can be trusted.*00000002.*00000001"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (None, "No such file"),
        (b"", "got ''"),
        (b"step-00000009\n", "does not exist"),
        (b"step-00000001\n", "step-00000002 exists too"),
        (b"\xff\xfe", "expected a checkpoint's name"),
        (b"../../etc\n", "expected a checkpoint's name"),
    ],
)
def test_a_wrong_pointer_is_said(tmp_path: Path, content: bytes | None, note: str) -> None:
    make(tmp_path, 1)
    make(tmp_path, 2)
    (tmp_path / "latest").unlink()
    if content is not None:
        (tmp_path / "latest").write_bytes(content)
    found = checkpoint.load(tmp_path)
    assert same(found, 1 if content == b"step-00000001\n" else 2)
    assert note in found.notes[0]


def test_best_that_never_was_best_is_said(tmp_path: Path) -> None:
    make(tmp_path, 1, best=True)
    make(tmp_path, 2)
    (tmp_path / "best").write_text("step-00000002\n")
    assert "was not the best" in checkpoint.load(tmp_path, "best").notes[0]


def test_an_exchanged_pair_of_files_is_detected(tmp_path: Path) -> None:
    one, two = make(tmp_path, 1), make(tmp_path, 2)
    shutil.copy(one / "weights.safetensors", two / "weights.safetensors")  # same length, good file, wrong place
    with pytest.raises(CorruptError, match="SHA-256"):
        checkpoint.load(tmp_path, "step-00000002")


def reseal(path: Path, change) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    text = json.dumps(manifest).encode()
    (path / "manifest.json").write_bytes(text)
    (path / "DONE").write_text(hashlib.sha256(text).hexdigest() + "\n")


def test_a_newer_format_asks_for_an_upgrade(tmp_path: Path) -> None:
    path = make(tmp_path, 1)
    reseal(path, lambda manifest: manifest.update(version=checkpoint.VERSION + 1, files="whatever"))
    with pytest.raises(RunError, match=r"format 3.*up to 2. Upgrade cllm") as caught:
        checkpoint.load(tmp_path)
    assert not isinstance(caught.value, CorruptError)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("files"),
        lambda m: m.update(format="other"),
        lambda m: m["files"].pop("state.safetensors"),
        lambda m: m.update(step="7"),
        lambda m: m.pop("version"),
        lambda m: m.update(version="1"),
    ],
)
def test_a_well_sealed_wrong_manifest_is_refused(tmp_path: Path, change) -> None:
    reseal(make(tmp_path, 1), change)
    with pytest.raises(CorruptError, match=r"manifest.json: not a checkpoint's manifest"):
        checkpoint.load_folder(tmp_path / "checkpoints" / "step-00000001")


def test_unknown_keys_are_ignored(tmp_path: Path) -> None:
    reseal(make(tmp_path, 1), lambda manifest: manifest.update(later="addition"))
    assert same(checkpoint.load(tmp_path), 1)


def test_nothing_is_unpickled_even_when_well_sealed(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    path = make(tmp_path, 1)
    data = pickle.dumps(Bomb())
    (path / "weights.safetensors").write_bytes(data)
    entry = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    reseal(path, lambda manifest: manifest["files"].update({"weights.safetensors": entry}))
    with pytest.raises(CorruptError, match=r"weights.safetensors"):
        checkpoint.load(tmp_path, "step-00000001")
    assert not (tmp_path / "exploded").exists()


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    make(tmp_path, 1)
    for name in ("mine", "step-1", "step-0000000001"):
        (tmp_path / "checkpoints" / name).mkdir()
    (tmp_path / "checkpoints" / "step-00000099").mkdir()  # without DONE: not a checkpoint
    found = checkpoint.load(tmp_path)
    assert same(found, 1) and found.notes == ()
    make(tmp_path, 2, keep=1)
    assert names(tmp_path) == ["mine", "step-0000000001", "step-00000002", "step-00000099", "step-1"]


def test_changes_of_the_environment_are_said(tmp_path: Path) -> None:
    path = make(tmp_path, 1)
    assert checkpoint.load(tmp_path).environment_changes() == []
    reseal(path, lambda manifest: manifest["environment"].update(torch="1.0", threads="64"))
    changes = checkpoint.load(tmp_path).environment_changes()
    assert changes[1].startswith("torch: 1.0 when saved, ") and changes[0].startswith("threads: 64 when saved")


def test_a_folder_by_its_path(tmp_path: Path) -> None:
    path = make(tmp_path / "run", 7)
    shutil.move(path, tmp_path / "anywhere")
    assert same(checkpoint.load_folder(tmp_path / "anywhere"), 7)
    with pytest.raises(CorruptError, match=r"manifest.json: No such file"):
        checkpoint.load_folder(tmp_path / "run")
