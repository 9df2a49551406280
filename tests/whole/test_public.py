"""The public face: names, laziness, layers of start-up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import cllm

ROOT = Path(__file__).parents[2]


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_every_public_name_exists_and_is_documented_in_the_reference():
    reference = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for name in cllm.__all__:
        assert getattr(cllm, name) is not None
        if not name.startswith("__"):
            assert f"`cllm.{name}" in reference, f"docs/api.md does not mention cllm.{name}"


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'tarin'"):
        _ = cllm.tarin  # type: ignore[attr-defined]


def test_importing_cllm_imports_nothing_heavy():
    heavy = run("import sys, cllm; print([m for m in ('torch', 'numpy', 'flint', 'tokenizers') if m in sys.modules])")
    assert heavy == "[]"


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_help_needs_no_torch(arguments: list[str]):
    code = f"import sys; from cllm.cli import run; run({arguments!r}); print('torch' in sys.modules)"
    assert run(code).endswith("False")


def test_importing_every_module_has_no_side_effect_on_the_process():
    code = """
import os, pkgutil, importlib, signal, threading, warnings
before = dict(os.environ), signal.getsignal(signal.SIGINT), threading.active_count()
import torch
state = torch.get_num_threads(), torch.random.get_rng_state().sum().item(), torch.is_grad_enabled()
import cllm
for module in pkgutil.walk_packages(cllm.__path__, "cllm."):
    importlib.import_module(module.name)
assert (dict(os.environ), signal.getsignal(signal.SIGINT), threading.active_count()) == before
assert (torch.get_num_threads(), torch.random.get_rng_state().sum().item(), torch.is_grad_enabled()) == state
print("clean")
"""
    assert run(code) == "clean"
