"""The fault table: a sample at every change, all of it in `make prove`, which writes benchmarks/faults.json."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import random
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "benchmarks" / "faults.json"


def load(path: Path) -> ModuleType:
    """A neighbour of this file as a module."""
    spec = importlib.util.spec_from_file_location(f"cllm_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


faults = load(Path(__file__).with_name("faults.py"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return faults.Lab(tmp_path_factory.mktemp("faults"))


def sound(row: Any) -> None:
    assert not row.silent, "\n".join(row.silent)
    assert row.equal + row.said >= row.trials > 0


# ------------------------------------------------------------------------------------------------ a sample


def test_sigterm_sample(lab: Any):
    sound(faults.signals(lab, 4))


def test_full_disk_sample(lab: Any):
    calls = faults.writing_calls(lab)
    assert calls > 60, "run.toml, tokenizer, shards, events, checkpoints, curve"
    sound(faults.full_disk(lab, sorted(random.Random(2).sample(range(1, calls + 1), 10))))


def test_bit_flips_sample(lab: Any):
    sound(faults.bit_flips(lab, 34))


def test_cut_files_sample(lab: Any):
    sound(faults.cuts(lab, 17))


def test_a_second_process_sample(lab: Any):
    sound(faults.two_writers(lab, 2))


# ------------------------------------------------------------------------------------------------ the table


def record(name: str, made: Any) -> None:
    """One row of benchmarks/faults.json, replacing the older one."""
    RESULT.parent.mkdir(exist_ok=True)
    with (Path(tempfile.gettempdir()) / "cllm-faults.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else {}
        rows[name] = made.to_dict()
        rows = {key: rows[key] for key in TABLE if key in rows}
        RESULT.write_text(json.dumps({"format": "cllm-faults-1", "rows": rows}, indent=1, ensure_ascii=False) + "\n")


def every_call(lab: Any) -> Any:
    return faults.full_disk(lab, list(range(1, faults.writing_calls(lab) + 1)))


def power_loss(lab: Any) -> Any:
    """Each trial loads the checkpoint of before or the new one, to the bit, and goes on: see tests/training."""
    storage = load(ROOT / "tests" / "training" / "test_storage.py")
    row = faults.Row("power lost at a file-system call of a save, with writes that were not synced gone")
    for name, history in storage.HISTORIES.items():
        row.trials += storage.crash_every_call(history, lab.folder / "power" / name, randoms=20)
    row.equal = row.trials
    return row


TABLE = {
    "power loss": power_loss,
    "sigterm": lambda lab: faults.signals(lab, 20, seed=1),
    "full disk": every_call,
    "bit flips": lambda lab: faults.bit_flips(lab, 850, seed=1),
    "cut files": lambda lab: faults.cuts(lab, 170, seed=1),
    "two writers": lambda lab: faults.two_writers(lab, 10, seed=1),
}


@pytest.mark.prove
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TABLE)
def test_the_whole_table(lab: Any, name: str):
    row = TABLE[name](lab)
    sound(row)
    record(name, row)
    print(f"{row.fault}: {row.trials} trials, {row.equal} byte-equal, {row.said} said, {len(row.silent)} silent")


def test_the_page_shows_the_table():
    """docs/training.md quotes benchmarks/faults.json: every row of it, as it is."""
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    rows = json.loads(RESULT.read_text())["rows"]
    assert rows.keys() == TABLE.keys()
    for row in rows.values():
        line = f"| {row['fault']} | {row['trials']:,} | {row['equal']:,} | {row['said']:,} | {row['silent']} |"
        assert line in page, line
