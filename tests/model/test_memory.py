"""Memory: the figure is the bytes really allocated, the same without allocating, and a step adds nothing to it."""

from __future__ import annotations

import gc
import types

import pytest
import torch
from cases import Case
from torch import Tensor

from cllm.config import load
from cllm.model.model import Model
from cllm.model.step import Step


def tensors(root: object, skip: tuple[object, ...]) -> dict[int, Tensor]:
    """Every tensor reachable from `root` without entering `skip`, by the address of its storage."""
    found, seen, open_ = {}, {id(x) for x in skip}, [root]
    while open_:
        item = open_.pop()
        if id(item) in seen or isinstance(item, (type, types.ModuleType, types.FunctionType)):
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            found[item.untyped_storage()._cdata] = item
        else:
            open_ += gc.get_referents(item)
    return found


def reachable_bytes(step: Step) -> int:
    return sum(x.untyped_storage().nbytes() for x in tensors(step, (step.model,)).values())


VARIANTS = [
    Case(),
    Case(tied=False, sequence=1),
    Case(dropout=0.1),
    Case(attention_dropout=0.1, document_mask=True),
    Case(vocab=300, rows=40, sequence=17),  # more rows than the logits hold at a time
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("case", VARIANTS)
def test_the_figure_is_the_bytes_allocated(case, gradients, dtype):
    model = case.model(dtype)
    step = Step(model, case.rows, case.sequence, gradients=gradients)
    # the activations know their model too: leave its parameters out on both sides
    assert sum(step.bytes_by_part.values()) == reachable_bytes(step)
    nothing = Step(Model(case.config, dtype, "meta"), case.rows, case.sequence, gradients=gradients)
    assert nothing.bytes_by_part == step.bytes_by_part
    assert all(x.device.type == "meta" for x in tensors(nothing, ()).values())


def test_large_models_are_counted_without_memory():
    config = load(preset="gpt2").model
    step = Step(Model(config, device="meta"), batch=8, sequence=1024)
    parts = step.bytes_by_part
    assert parts["gradients"] == 4 * step.model.layout.total
    assert parts["residual stream"] == 4 * 8 * 1024 * 768 * (2 * 12 + 1)
    assert sum(parts.values()) > 5 << 30


@pytest.mark.parametrize("case", [Case(dropout=0.2, attention_dropout=0.1, documents=True, document_mask=True), Case()])
def test_a_step_keeps_its_buffers_and_leaves_no_tensor_behind(case):
    model = case.model(torch.float32)
    step = case.step(model)

    def run() -> None:
        step.zero()
        step.accumulate(case.batch, dropout=case.key)
        step.evaluate(case.batch)

    def alive() -> int:
        gc.collect()
        return sum(issubclass(type(x), Tensor) for x in gc.get_objects())

    run()
    places = {key: x.data_ptr() for key, x in tensors(step, ()).items()}
    count = alive()
    for _ in range(3):
        run()
    assert {key: x.data_ptr() for key, x in tensors(step, ()).items()} == places
    assert alive() == count


def test_parameters_are_only_read():
    case = Case(dropout=0.2)
    model = case.model(torch.float32)
    before = model.params.data.clone()
    step = case.step(model)
    step.zero()
    step.accumulate(case.batch, dropout=case.key)
    step.evaluate(case.batch)
    assert torch.equal(model.params.data, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("recompute", ["none", "layer"])
def test_a_branch_has_its_gradients_where_the_logits_were(recompute, dtype, monkeypatch):
    """The end of the logits is used again within the layers; the numbers are those of memory of its own."""
    case = Case(vocab=300, rows=8, sequence=17)
    model = case.model(dtype)
    step = Step(model, case.rows, case.sequence, recompute=recompute)
    logits = step._logits_RV.untyped_storage().data_ptr()
    for buffer in (step._dff_NF, step._dqkv_N3D, step._dheads_ND):
        assert buffer.untyped_storage().data_ptr() == logits
        assert buffer.data_ptr() % 64 == logits % 64
    ends = step._dqkv_N3D.data_ptr() + step._dqkv_N3D.numel() * step._dqkv_N3D.element_size()
    assert ends <= step._dheads_ND.data_ptr()  # both are there at once

    def apart(self: Step, _sink: bool) -> tuple[Tensor, Tensor]:
        room = torch.zeros(1 << 20, dtype=self.model.dtype)
        return room, self._logits_RV.view(-1)

    monkeypatch.setattr(Step, "_branch_room", apart)
    plain = Step(model, case.rows, case.sequence, recompute=recompute)
    assert plain._dff_NF.untyped_storage().data_ptr() != plain._logits_RV.untyped_storage().data_ptr()
    for each in (step, plain):
        each.zero()
        for _ in range(2):
            each.accumulate(case.batch)
    assert torch.equal(step.grads.data, plain.grads.data)
    assert step.sums == plain.sums
