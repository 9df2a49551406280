"""Does it learn? Small texts whose right answer is known."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch

from cllm.config import ModelConfig
from cllm.engine.adamw import adamw
from cllm.model.batch import Batch
from cllm.model.decode import Decoder
from cllm.model.model import Model
from cllm.model.step import Step


class Trainer:
    """AdamW at a constant rate over a model's buffers."""

    def __init__(self, config: ModelConfig, rows: int, sequence: int, lr: float) -> None:
        self.model = Model(config).initialise(seed=1)
        self.step = Step(self.model, rows, sequence)
        self.m, self.v = (torch.zeros_like(self.model.params.data) for _ in range(2))
        self.t, self.lr = 0, lr

    def train(self, batch: Batch) -> float:
        self.step.zero()
        sums = self.step.accumulate(batch)
        self.t += 1
        adamw(
            self.model.params.data, self.step.grads.data, self.m, self.v,
            t=self.t, lr=self.lr, betas=(0.9, 0.95), eps=1e-8, decay=0.0, scale=1 / sums.valid,
        )  # fmt: skip
        return sums.mean


def test_one_batch_is_overfitted():
    """Random tokens hold nothing to generalise: a loss near 0 is memory, and memory needs every gradient."""
    config = ModelConfig(layers=2, width=32, heads=2, ff=128, context=16, vocab=64)
    tokens = torch.randint(64, (4, 17), generator=torch.Generator().manual_seed(1))
    tokens[:, 0] = torch.arange(4)  # a row is known by its first token
    trainer = Trainer(config, 4, 16, lr=3e-3)
    losses = [trainer.train(Batch.of(tokens)) for _ in range(150)]
    assert abs(losses[0] - math.log(64)) < 0.1, "an untrained model knows nothing"
    assert losses[-1] < 0.05


def test_a_b_c_becomes_b_c_d_exactly():
    letters, length = 26, 8
    config = ModelConfig(layers=1, width=32, heads=2, ff=64, context=letters, vocab=letters)
    starts = torch.arange(letters).view(-1, 1)
    rows = (starts + torch.arange(length + 1)) % letters  # the alphabet as a ring, from every letter
    trainer = Trainer(config, letters, length, lr=3e-3)
    for _ in range(150):
        trainer.train(Batch.of(rows))
    decoder = Decoder(trainer.model, batch=letters)
    prompt = rows[:, :3]
    written = []
    for _ in range(length - 2):
        prompt = decoder.read(prompt).argmax(dim=1, keepdim=True)
        written.append(prompt)
    assert torch.equal(torch.cat(written, dim=1), rows[:, 3:])


NAMES, IS, A, STOP = 8, 8, 9, 10  # "<name> is a <the same name>." — the last name needs a memory of three tokens


def sentences(rows: int, count: int, generator: torch.Generator) -> torch.Tensor:
    names = torch.randint(NAMES, (rows, count, 1), generator=generator)
    middle = torch.tensor([IS, A]).expand(rows, count, 2)
    return torch.cat((names, middle, names, torch.full_like(names, STOP)), dim=2).flatten(1)


def bigram_entropy() -> float:
    """Conditional entropy of a token given the one before it, of the generator itself: in nats a token."""
    pairs: Counter[tuple[int, int]] = Counter()
    for a, b in itertools.product(range(NAMES), repeat=2):  # every pair of neighbouring sentences once
        row = [a, IS, A, a, STOP, b]
        pairs.update(itertools.pairwise(row))
    first: Counter[int] = Counter()
    for (a, _), n in pairs.items():
        first[a] += n
    total = sum(pairs.values())
    return -sum(n / total * math.log(n / first[a]) for (a, _), n in pairs.items())


def test_templated_text_comes_down_to_its_entropy():
    """Only the first name of a sentence is free: ln 8 nats in five tokens. A bigram model cannot know the second."""
    entropy, bigram = math.log(NAMES) / 5, bigram_entropy()
    assert bigram > 1.5 * entropy
    generator, count = torch.Generator().manual_seed(2), 5
    config = ModelConfig(layers=2, width=32, heads=2, ff=64, context=25, vocab=11)
    trainer = Trainer(config, 16, 24, lr=3e-3)
    losses = [trainer.train(Batch.of(sentences(16, count, generator))) for _ in range(600)]
    fresh = Batch.of(sentences(16, count, generator))
    found = trainer.step.evaluate(fresh).losses_BT.double().mean().item()
    # in 24 targets there are 4 free names: the best possible mean loss on any such row is exactly this
    best = 4 * math.log(NAMES) / 24
    assert losses[0] > 2.0
    assert found < bigram
    assert best - 1e-3 < found < best + 0.02


def test_recall_over_the_context_needs_attention():
    """With the attention output cut off, the same training cannot pass the bound of a model without memory."""
    generator = torch.Generator().manual_seed(2)
    config = ModelConfig(layers=1, width=32, heads=2, ff=64, context=25, vocab=11)
    trainer = Trainer(config, 16, 24, lr=3e-3)
    for _ in range(100):
        trainer.train(Batch.of(sentences(16, 5, generator)))
        trainer.model.params["0.attn.wo"].zero_()
    found = trainer.step.evaluate(Batch.of(sentences(16, 5, generator))).losses_BT.double().mean().item()
    # position tells what kind of token comes, nothing tells which name: 4 + 5 free names in 24 targets
    assert found > 9 * math.log(NAMES) / 24 - 0.15


@pytest.mark.parametrize("activation", ["gelu_tanh", "gelu_erf"])
def test_loss_falls_in_float64_and_with_both_activations(activation):
    config = ModelConfig(layers=1, width=16, heads=1, ff=32, context=8, vocab=16, activation=activation, tied=False)
    tokens = torch.randint(16, (2, 9), generator=torch.Generator().manual_seed(1))
    trainer = Trainer(config, 2, 8, lr=1e-2)
    losses = [trainer.train(Batch.of(tokens)) for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]
