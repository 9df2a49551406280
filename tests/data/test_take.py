"""Text that is prepared once and trained on in many runs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import cllm
from cllm.data import open_prepared, prepare
from cllm.data.take import take
from cllm.errors import CllmError, ConfigError, CorruptError, DataError, RunError

BOOK = "".join(f"Line {i} of the bóok, with {i * i % 17} things in it.\n" for i in range(400))
FEW = {"train.steps": 2, "train.batch": 2, "log.every": 1}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`book.txt`, and `prepared`: what a nano run of seed 1 makes of it by itself."""
    folder = tmp_path_factory.mktemp("shelf")
    (folder / "book.txt").write_text(BOOK)
    prepare(folder / "book.txt", folder / "prepared", vocab_size=512, seed=1)
    return folder


def train(data: Any, out: Path, **more: Any) -> cllm.Run:
    return cllm.train(data, preset="nano", out=out, set={**FEW, **more}, quiet=True)


def weights(run: cllm.Run) -> bytes:
    return (run.checkpoint.path / "weights.safetensors").read_bytes()


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_run_on_prepared_data_is_that_on_their_text(shelf: Path, tmp_path: Path) -> None:
    before = content(shelf / "prepared")
    own = train(shelf / "book.txt", tmp_path / "own")
    runs = [train(shelf / "prepared", tmp_path / "first"), train(tmp_path / "own" / "data", tmp_path / "second")]
    for run in runs:
        assert weights(run) == weights(own)
        assert content(run.path / "data") == content(tmp_path / "own" / "data") == before
    assert content(shelf / "prepared") == before


def test_it_needs_the_text_no_more_and_the_folder_only_once(shelf: Path, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(BOOK)
    prepare(tmp_path / "book.txt", tmp_path / "p", tokenizer="char", vocab_size=200, val_fraction=0.3, dedup=True)
    (tmp_path / "book.txt").unlink()
    run = train(tmp_path / "p", tmp_path / "run")
    data = run.config.data
    assert (data.tokenizer, data.vocab_size, data.val_fraction, data.dedup) == ("char", 200, 0.3, True)
    again = cllm.train(run=tmp_path / "run" / "run.toml", out=tmp_path / "again", quiet=True)
    assert weights(again) == weights(run)
    shutil.rmtree(tmp_path / "p")
    more = cllm.train(out=tmp_path / "run", resume=True, quiet=True)
    assert weights(more) == weights(run)


def test_a_given_tokenizer_stays_the_one(shelf: Path, tmp_path: Path) -> None:
    own = shelf / "prepared" / "tokenizer.json"
    prepare(shelf / "book.txt", tmp_path / "p", tokenizer=own)
    run = train(tmp_path / "p", tmp_path / "run")
    assert run.config.data.tokenizer == str(tmp_path / "p" / "tokenizer.json")
    train(tmp_path / "p", tmp_path / "said", **{"data.tokenizer": str(own)})
    first = train(shelf / "prepared", tmp_path / "first")
    cllm.train(tmp_path / "p", start=first.path, out=tmp_path / "from", set=FEW, quiet=True)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("data.tokenizer", "char", "data.tokenizer: got 'char', but .*prepared was prepared with 'bpe'"),
        ("data.vocab_size", 300, "data.vocab_size: got 300, but .* with 512"),
        ("data.val_fraction", 0.2, "data.val_fraction: got 0.2"),
        ("data.dedup", True, "data.dedup"),
        ("data.field", "body", "data.field"),
    ],
)
def test_what_would_change_nothing_is_refused(
    shelf: Path, tmp_path: Path, setting: str, value: object, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        train(shelf / "prepared", tmp_path / "run", **{setting: value})
    train(shelf / "prepared", tmp_path / "run")  # nothing is left behind that would be in the way


def test_with_text_beside_them_they_are_refused(shelf: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="prepared: prepared data, no text; `cllm train` takes them as they are, alone"):
        train([shelf / "prepared", shelf / "book.txt"], tmp_path / "run")


def test_damaged_data_are_refused(shelf: Path, tmp_path: Path) -> None:
    for name in content(shelf / "prepared"):
        shutil.rmtree(tmp_path / "p", ignore_errors=True)
        shutil.copytree(shelf / "prepared", tmp_path / "p")
        whole = bytearray((tmp_path / "p" / name).read_bytes())
        whole[len(whole) // 2] ^= 1
        (tmp_path / "p" / name).write_bytes(bytes(whole))
        with pytest.raises((CorruptError, RunError)) as error:
            take(tmp_path / "p", tmp_path / "out")
        assert isinstance(error.value, CllmError) and str(tmp_path / "p") in str(error.value)
        assert not (tmp_path / "out").exists()


def test_the_folder_is_whole_or_not_there(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    first = take(shelf / "prepared", tmp_path / "out")
    second = take(shelf / "prepared", tmp_path / "out")
    assert (first.reused, second.reused) == (False, True) and second.record == open_prepared(shelf / "prepared").record
    prepare(shelf / "book.txt", tmp_path / "other", vocab_size=300)
    with pytest.raises(RunError, match="it holds other data than"):
        take(tmp_path / "other", tmp_path / "out")

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(RunError, match="cannot copy the prepared data: No space left on device"):
        take(shelf / "prepared", tmp_path / "new" / "data")
    assert list((tmp_path / "new").iterdir()) == []
