"""The fault table: a sample at every change, all of it in `make prove`, which writes benchmarks/faults.json."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import random
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "benchmarks" / "faults.json"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cllm_faults", Path(__file__).with_name("faults.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["cllm_faults"] = module
    spec.loader.exec_module(module)
    return module


faults = _load()


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


def record(name: str, lab: Any, made: Any, seconds: float) -> None:
    """One row of benchmarks/faults.json, replacing the older one."""
    RESULT.parent.mkdir(exist_ok=True)
    with (RESULT.parent / ".faults.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else {}
        rows[name] = made.to_dict() | {"seconds": round(seconds, 1)}
        RESULT.write_text(json.dumps({"format": "cllm-faults-1", "rows": rows}, indent=1, ensure_ascii=False) + "\n")


def every_call(lab: Any) -> Any:
    return faults.full_disk(lab, list(range(1, faults.writing_calls(lab) + 1)))


TABLE = {
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
    begin = time.perf_counter()
    row = TABLE[name](lab)
    sound(row)
    record(name, lab, row, time.perf_counter() - begin)
    print(f"{row.fault}: {row.trials} trials, {row.equal} byte-equal, {row.said} said, {len(row.silent)} silent")
