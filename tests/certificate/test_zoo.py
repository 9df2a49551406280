"""The test of the tester: every planted bug is found and named, and the healthy engine raises no alarm."""

from __future__ import annotations

import pytest
import torch

from cllm.certificate.mutants import ZOO, Mutant
from cllm.certificate.peers import WRAPPERS, torch_gradcheck
from cllm.certificate.zoo import SCENES, examine, healthy_findings, kind, mutant_findings, summary, table

DESIGN = 32
"""So many are asked for; the zoo may have more."""


@pytest.fixture(scope="module")
def found():
    return list(mutant_findings())


def test_the_zoo_is_complete() -> None:
    assert len(ZOO) >= DESIGN and len({m.name for m in ZOO}) == len(ZOO)
    assert all(m.scene in SCENES or m.scene == "adamw" for m in ZOO)


def test_every_mutant_is_found(found) -> None:
    assert [f.mutant for f in found if not f.found] == []


def test_the_op_is_named(found) -> None:
    assert [f.mutant for f in found if not f.localised] == []


def test_no_false_alarm() -> None:
    findings = list(healthy_findings())
    assert len(findings) == 2 * (len(SCENES) + 1)
    assert [(f.scene, f.precision) for f in findings if f.found or f.op] == []
    assert "0 false alarms" in summary(findings, [])


def test_gradcheck_beside(found) -> None:
    """What finite differences see and what not, run here: no wrong forward with its own backward is seen."""
    beside = {f.mutant: f.gradcheck for f in found}
    assert beside["layer norm backward without the mean term"] == "found"
    assert beside["mask −10 instead of −∞"] == beside["layer norm ε 1e-6"] == "passes"
    assert beside["AdamW: v not corrected"] == "does not apply"
    assert all(torch_gradcheck(None, op) == "passes" for op in WRAPPERS)


def test_table_and_summary(found) -> None:
    text = table(found)
    assert text.count("\n") == len(ZOO) + 1 and "NO" not in text
    assert f"{len(ZOO)} of {len(ZOO)} mutants found" in summary([], found)


def test_a_mutant_that_does_nothing_is_not_found() -> None:
    """The zoo's verdicts are not made up: a harmless change passes."""

    def same(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor, pre: torch.Tensor, post: torch.Tensor) -> None:
        pre.copy_(torch.nn.functional.linear(x, w, b))
        post.copy_(torch.nn.functional.gelu(pre, approximate="tanh"))

    harmless = Mutant("another GELU kernel", "gelu", lambda kernels: {"linear_gelu_forward": same})
    finding = examine(harmless, "padded")
    assert not finding.found and finding.op is None


@pytest.mark.parametrize("name", ["GELU backward of the sigmoid form", "softmax backward without 1/√h"])
def test_large_bugs_are_found_in_float32_too(name: str) -> None:
    mutant = next(m for m in ZOO if m.name == name)
    finding = examine(mutant, mutant.scene, "fp32")
    assert finding.found and finding.op is not None and kind(finding.op) == mutant.op
