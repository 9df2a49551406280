"""The documentation's Python blocks and the examples run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = "It was the best of times, it was the worst of times; it was the age of wisdom. " * 150
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def run(code: str, folder: Path, *arguments: str) -> str:
    (folder / "book.txt").write_text(TEXT, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_blocks_of_the_api_page(tmp_path: Path):
    blocks = BLOCK.findall((ROOT / "docs" / "api.md").read_text(encoding="utf-8"))
    assert len(blocks) == 2
    run(blocks[0], tmp_path)
    loss = float(run(blocks[1], tmp_path).split()[0])
    assert loss < 1, "50 steps on one batch"


def test_the_python_block_of_the_readme(tmp_path: Path):
    (block,) = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert run(block, tmp_path)


def test_the_figures_of_the_readme_are_those_measured():
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "figures.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("train.py", ("book.txt", "out"), "bits per byte"),
        ("own_loop.py", (), "step 100"),
        ("certify_your_kernel.py", (), "CERTIFIED"),
        ("accumulation.py", (), "| by length | 2 × 6 | 91 % |"),
    ],
)
def test_an_example(tmp_path: Path, name: str, arguments: tuple[str, ...], said: str):
    assert said in run((ROOT / "examples" / name).read_text(encoding="utf-8"), tmp_path, *arguments)
