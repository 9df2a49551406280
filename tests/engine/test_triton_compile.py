"""The Triton kernels become machine code of GPUs (see triton_compile.py): here of one kind, `prove` does three more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cllm.engine.cuda.layernorm import WIDEST

SCRIPT = Path(__file__).with_name("triton_compile.py")


def compiled(tmp_path: Path, capability: int, width: int, *operands: str) -> list[dict]:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    command = [sys.executable, str(SCRIPT), str(capability), str(width), *operands]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def check(report: list[dict], operands: int) -> None:
    assert len({made["kernel"] for made in report}) == 13, "a kernel is missing"
    assert len({made["operand"] for made in report}) == operands
    for made in report:
        assert made["bytes"] > 1000 and made["shared"] <= 48 << 10, made
        assert made["stack"] <= 16, f"{made}: registers do not suffice"
        assert made["atomics"] == 0, f"{made}: sums in an order that depends on timing"
        assert made["approximate"] == 0, f"{made}: a division or root that is not rounded to nearest"
    barriers = [made["barriers"] for made in report if made["kernel"] == "cross_entropy_rows"]
    assert max(barriers) >= min(barriers) + 2, "dz would overwrite logits that other threads have still to read"


def test_the_kernels_compile_for_hopper(tmp_path):
    report = compiled(tmp_path, 90, 512, "bfloat16")
    check(report, 1)
    for made in report:
        if made["kernel"].startswith(("layernorm_forward", "layernorm_backward", "gelu", "adamw")):
            assert made["wide"], f"{made}: memory is read a number at a time"


@pytest.mark.prove
@pytest.mark.parametrize("capability", [80, 89, 90, 100])
def test_the_kernels_compile_for_others(tmp_path, capability):
    check(compiled(tmp_path, capability, 768, "bfloat16", "float32", "float64"), 3)


@pytest.mark.prove
def test_the_widest_layernorm_fits_the_registers(tmp_path):
    check(compiled(tmp_path, 90, WIDEST, "bfloat16", "float32"), 2)
