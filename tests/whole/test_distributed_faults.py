"""The fault table of several processes: a sample at every change, all of it in `make prove`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from whole import distributed_faults as faults
from whole import distributed_faults_hosts as hosts

RESULT = Path(__file__).parents[2] / "benchmarks" / "distributed-faults.json"
MAY = faults.may_mount()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return faults.Lab(tmp_path_factory.mktemp("distributed"))


def sound(row: Any) -> None:
    assert not row.silent, "\n".join(row.silent)
    assert row.equal + row.said == row.trials > 0


def test_a_killed_rank_sample(lab: Any) -> None:
    sound(faults.killed(lab, 1))


def test_a_killed_rank_of_two_agents_sample(lab: Any) -> None:
    sound(hosts.killed_here(lab, 1, seed=1))


TABLE = {
    "killed": lambda lab: faults.killed(lab, 20, seed=1),
    "launcher killed": lambda lab: faults.launcher_killed(lab, 5, seed=1),
    "slow": lambda lab: faults.slow(lab, 6, seed=1),
    "full disk": lambda lab: faults.full_disk(lab, 6, seed=1),
    "killed on one host": lambda lab: hosts.killed_on_hosts(lab, 6, seed=1),
    "cut": lambda lab: hosts.cut(lab, 6, seed=1),
}
NEEDS_ROOT = ("full disk", "killed on one host", "cut")


@pytest.mark.prove
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TABLE)
def test_the_whole_table(lab: Any, name: str) -> None:
    if name in NEEDS_ROOT and not MAY:
        pytest.skip("needs a file system and networks of its own: Linux, root")
    row = TABLE[name](lab)
    sound(row)
    rows = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else {}
    rows[name] = row.to_dict()
    rows = {key: rows[key] for key in TABLE if key in rows}
    RESULT.write_text(json.dumps({"format": "cllm-faults-1", "rows": rows}, indent=1, ensure_ascii=False) + "\n")


def test_the_page_shows_the_table() -> None:
    """docs/distributed.md quotes benchmarks/distributed-faults.json: every row of it, as it is."""
    page = (RESULT.parents[1] / "docs" / "distributed.md").read_text(encoding="utf-8")
    rows = json.loads(RESULT.read_text())["rows"]
    assert rows.keys() == TABLE.keys()
    for row in rows.values():
        line = f"| {row['fault']} | {row['trials']:,} | {row['equal']:,} | {row['said']:,} | {row['silent']} |"
        assert line in page, line
