"""`cllm bench prepare` sees the memory of every process that a command starts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cllm.bench.prepare import run, watched, write_text
from cllm.errors import RunError

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads /proc")

HOLD = "import time; a = bytearray(60_000_000); time.sleep(1)"


def test_memory_of_children_counts() -> None:
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD!r}])"
    seconds, together, first = watched([sys.executable, "-c", code])
    assert seconds > 1
    assert together > 60_000_000 > 30_000_000 > first


def test_a_failure_is_told() -> None:
    with pytest.raises(RunError, match="no such luck"):
        watched([sys.executable, "-c", "import sys; sys.exit('no such luck')"])


def test_the_text_has_its_size_and_no_copies(tmp_path: Path) -> None:
    write_text(tmp_path / "a", 200_000)
    lines = (tmp_path / "a").read_text().splitlines(keepends=True)
    assert 0 <= sum(map(len, lines)) - 200_000 < 200
    assert len(set(lines)) == len(lines)
    write_text(tmp_path / "b", 200_000)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_row_a_size(tmp_path: Path) -> None:
    table = run([1], vocab_size=300, folder=tmp_path)
    (row,) = table.rows
    assert row.name == "1 MB" and row.figures["within_target"] is True
    assert list(tmp_path.iterdir()) == []
