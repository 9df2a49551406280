"""docs/lattice.md and the docstrings' examples run as tests; the page's pictures are small and true."""

import doctest
import importlib
import re
import runpy
from pathlib import Path

import pytest
from PIL import Image

import cllm.lattice
from cllm.lattice.picture import check_primes

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page():
    result = doctest.testfile(str(DOCS / "lattice.md"), module_relative=False)
    assert result.attempted > 30 and result.failed == 0


def test_docstrings():
    attempted = 0
    for path in sorted(Path(cllm.lattice.__file__).parent.rglob("*.py")):
        name = ".".join(("cllm.lattice", *path.relative_to(Path(cllm.lattice.__file__).parent).with_suffix("").parts))
        module = importlib.import_module(name.removesuffix(".__init__"))
        result = doctest.testmod(module)
        assert result.failed == 0, name
        attempted += result.attempted
    assert attempted > 0


def test_pictures_of_the_page():
    names = re.findall(r"\((pictures/[^)]+)\)", (DOCS / "lattice.md").read_text(encoding="utf-8"))
    assert sorted(names) == sorted(f"pictures/{p.name}" for p in (DOCS / "pictures").iterdir())
    for name in names:
        assert (DOCS / name).stat().st_size < 60_000, name
    assert check_primes(DOCS / "pictures" / "ulam.png") == 101 * 101


def test_the_script_draws_them(tmp_path):
    module = runpy.run_path(str(DOCS / "pictures.py"))
    module["main"](tmp_path)
    for path in (DOCS / "pictures").iterdir():
        with Image.open(path) as kept, Image.open(tmp_path / path.name) as made:
            assert kept.size == made.size


def test_public_names():
    assert len(set(cllm.lattice.__all__)) == len(cllm.lattice.__all__) > 90
    for name in cllm.lattice.__all__:
        assert getattr(cllm.lattice, name) is not None
    with pytest.raises(AttributeError):
        _ = cllm.lattice.no_such_name
