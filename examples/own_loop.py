"""A training loop of one's own: the explicit step, its gradients, and plain gradient descent written by hand."""

import torch

from cllm import Model, Step
from cllm.config import load
from cllm.model.batch import Batch

config = load(preset="nano", overrides={"model.vocab": 64})
model = Model(config.model).initialise(seed=1)
step = Step(model, batch=4, sequence=16)
rows = torch.arange(4 * 17).view(4, 17) % 64  # token rows, one longer than the sequence

for t in range(100):
    step.zero()
    for part in rows.split(2):  # two micro-batches: their sums add up to those of the whole
        sums = step.accumulate(Batch.of(part))
    model.params.data.add_(step.grads.data, alpha=-0.5 / sums.valid)
    if t % 20 == 19:
        largest = max(step.grads, key=lambda name: float(step.grads[name].norm()))
        print(f"step {t + 1}: {sums.mean:.3f} nats a token; the largest gradient is that of {largest}")
