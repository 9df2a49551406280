"""A second judge of the whole step: the same model written with torch.nn, which the benchmarks also time."""

from __future__ import annotations

import pytest
import torch
from cases import Case, judged

from cllm.bench.peers import PlainGPT
from judges.bounds import UNIT, Bounded, check
from judges.targets import inputs_and_targets


@pytest.mark.parametrize(
    "case",
    [
        Case(seed=3),
        Case(tied=False, activation="gelu_erf", smoothing=0.1, seed=4),
        Case(documents=True, document_mask=True, sequence=8, rows=3, seed=5),
        Case(sequence=1, rows=3, seed=6),
    ],
)
def test_step_agrees_with_torch_nn(case):
    c, model, batch = case.config, case.model(torch.float64), case.batch
    step = case.step(model)
    step.zero()
    sums = step.accumulate(batch)
    peer = PlainGPT(
        layers=c.layers, width=c.width, heads=c.heads, ff=c.ff, context=c.context, vocab=c.vocab, tied=c.tied,
        activation=c.activation, dtype=torch.float64,
    )  # fmt: skip
    peer.load_named(model.params)
    inputs, targets, documents = inputs_and_targets(batch.tokens_BT1, batch.documents_BT1, case.document_mask)
    loss = peer.loss_sum(inputs, targets, documents, case.smoothing)
    loss.backward()
    u, want = UNIT[torch.float64], judged(case)
    allowed = u * (want.spread["losses"].sum().view(1) + loss.detach().abs())
    check(
        "loss",
        torch.tensor([sums.loss], dtype=torch.float64),
        loss.detach().view(1),
        Bounded(loss.detach().view(1), u, allowed),
    )
    for name, parameter in peer.named().items():
        exact = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        if name.endswith(".bk"):
            exact = torch.zeros_like(exact)  # autograd leaves its rounding noise there
        check(name, step.grads[name], exact, Bounded(exact, u, u * want.spread[name]))
