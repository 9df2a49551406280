"""Runs that older versions wrote are read, and go on; what cannot be read is refused in words."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

import cllm
from cllm.errors import CorruptError, RunError
from cllm.training import checkpoint, migrations
from cllm.training.events import current, read_events

OLD = Path(__file__).parent / "old"


@pytest.fixture
def old_run(tmp_path: Path) -> Path:
    """A run stopped behind step 3 of 6, as version 1 left it (moving average on)."""
    shutil.copytree(OLD / "v1-run", tmp_path / "run")
    return tmp_path / "run"


def resealed(run: Path, **changes: Any) -> None:
    """Another manifest, properly sealed."""
    folder = run / "checkpoints" / "step-00000003"
    manifest = json.loads((folder / "manifest.json").read_text()) | changes
    text = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(text)
    (folder / "DONE").write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n")


def test_every_version_leads_to_the_newest():
    assert sorted(migrations.STEPS) == list(range(1, checkpoint.VERSION))


def test_a_run_of_version_1_is_read_and_goes_on(old_run: Path):
    before = {p: p.read_bytes() for p in (old_run / "checkpoints" / "step-00000003").iterdir()}
    assert json.loads((old_run / "checkpoints/step-00000003/manifest.json").read_text())["version"] == 1
    found = checkpoint.load(old_run)
    assert found.step == 3
    assert found.meta["statistics"] == {}
    assert {p: p.read_bytes() for p in before} == before, "reading changes nothing"
    run = cllm.train(out=old_run, resume=True, quiet=True)
    assert run.checkpoint.step == 6
    manifest = json.loads((run.checkpoint.path / "manifest.json").read_text())
    assert manifest["version"] == checkpoint.VERSION
    losses = [e["loss"] for e in current(read_events(old_run / "events.jsonl")) if e["event"] == "step"]
    assert len(losses) == 6
    assert all(math.isfinite(loss) and loss < 4 for loss in losses)
    assert run.generate("The", max_tokens=3, seed=1)


def test_a_version_that_nobody_knows_is_refused_in_words(old_run: Path):
    resealed(old_run, version=0)
    with pytest.raises(RunError, match=r"checkpoint format 0, but this cllm reads 1 to 2 only"):
        checkpoint.load(old_run)
    resealed(old_run, version=checkpoint.VERSION + 1)
    with pytest.raises(RunError, match=r"checkpoint format 3, but this cllm knows up to 2\. Upgrade"):
        checkpoint.load(old_run)
    for wrong in ("1", None, True, 1.5):
        resealed(old_run, version=wrong)
        with pytest.raises(CorruptError, match="not a checkpoint's manifest"):
            checkpoint.load(old_run, "step-00000003")
    resealed(old_run, version=1, meta=[])
    with pytest.raises(CorruptError, match="not a checkpoint's manifest"):
        checkpoint.load(old_run, "step-00000003")
