"""Small models with weights in general position, random batches, and the whole-step check against the judge."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from cllm.config import ModelConfig
from cllm.engine.dispatch import Kernels
from cllm.engine.dropout import Key
from cllm.model.batch import Batch
from cllm.model.layout import MATRIX
from cllm.model.model import Model
from cllm.model.step import Step
from judges.bounds import BF16, UNIT, Bounded, check
from judges.bounds_model import sensitivity
from judges.plain_model import Drop, Outcome, evaluate, read

SEED, STEP, FIRST_ROW = 11, 5, 3  # of dropout


@dataclass(frozen=True)
class Case:
    layers: int = 2
    heads: int = 3
    head_width: int = 2
    ff: int = 5
    vocab: int = 7
    rows: int = 2
    sequence: int = 5
    extra_context: int = 1
    activation: str = "gelu_tanh"
    tied: bool = True
    documents: bool = False  # rows hold several documents and padding
    document_mask: bool = False
    smoothing: float = 0.0
    dropout: float = 0.0
    attention_dropout: float = 0.0
    seed: int = 0
    rounded: bool = False  # matrices that bfloat16 holds exactly: then all precisions compute the same function

    @property
    def config(self) -> ModelConfig:
        return ModelConfig(
            layers=self.layers,
            width=self.heads * self.head_width,
            heads=self.heads,
            ff=self.ff,
            context=self.sequence + self.extra_context,
            vocab=self.vocab,
            activation=self.activation,
            tied=self.tied,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
        )

    def model(self, dtype: torch.dtype) -> Model:
        model = general(Model(self.config, dtype), self.seed)
        if self.rounded:
            for entry in model.layout.entries:
                if entry.group == MATRIX:
                    model.params[entry.name].copy_(model.params[entry.name].bfloat16())
        return model

    def step(self, model: Model, kernels: Kernels | None = None, rows: int | None = None) -> Step:
        return Step(
            model,
            rows or self.rows,
            self.sequence,
            label_smoothing=self.smoothing,
            document_mask=self.document_mask,
            kernels=kernels,
        )

    @property
    def batch(self) -> Batch:
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.rows, self.sequence + 1)
        tokens = torch.randint(self.vocab, shape, generator=generator)
        documents = torch.zeros(shape, dtype=torch.int64)
        if self.documents:
            documents = torch.randint(3, shape, generator=generator).eq(0).long()
            documents[:, 0] = 0
            documents = documents.cumsum(1)
            length = torch.randint(1, self.sequence + 2, (self.rows, 1), generator=generator)
            documents[torch.arange(self.sequence + 1).expand(shape) >= length] = -1
        return Batch(tokens, documents, FIRST_ROW)

    @property
    def key(self) -> Key | None:
        return Key(SEED, STEP) if self.dropout or self.attention_dropout else None


def general(model: Model, seed: int) -> Model:
    """Weights in general position: no γ of 1 and no bias of 0, which would hide mistakes."""
    generator = torch.Generator().manual_seed(seed + 1)
    for name, view in model.params.items():
        drawn = torch.randn(view.shape, generator=generator, dtype=torch.float64)
        if name.endswith(".g"):
            drawn = 1 + 0.3 * drawn
        elif name in ("tok", "pos", "head.w") or view.dim() == 1:
            drawn = 0.5 * drawn
        else:
            drawn = drawn / view.shape[1] ** 0.5
        view.copy_(drawn.float())  # the same numbers in float32 and float64
    return model


@dataclass(frozen=True)
class Judged:
    """What the judge says of a case, and how far rounding may move it (times the unit roundoff)."""

    training: Outcome
    evaluation: Outcome
    spread: dict[str, Tensor]
    plain_spread: dict[str, Tensor]


@lru_cache(maxsize=8)
def judged(case: Case) -> Judged:
    held = dict(case.model(torch.float32).params)  # float32 numbers are exact in both precisions
    batch = read(case.batch.tokens_BT1, case.batch.documents_BT1, case.document_mask)
    drop = Drop(SEED, STEP, FIRST_ROW, case.dropout, case.attention_dropout) if case.key else None
    sizes = (held, case.layers, case.heads, batch)
    training = evaluate(*sizes, activation=case.activation, smoothing=case.smoothing, drop=drop)
    spread = sensitivity(*sizes, activation=case.activation, smoothing=case.smoothing, drop=drop)
    if drop is None and not case.smoothing:
        return Judged(training, training, spread, spread)
    evaluation = evaluate(*sizes, activation=case.activation)
    return Judged(training, evaluation, spread, sensitivity(*sizes, activation=case.activation))


def check_step(case: Case, dtype: torch.dtype, kernels: Kernels | None = None) -> None:
    """Logits, losses, number of targets and every gradient of one step, entry by entry."""
    want, u = judged(case), BF16 if dtype == torch.bfloat16 else UNIT[dtype]
    model, batch = case.model(dtype), case.batch
    step = case.step(model, kernels)
    step.zero()
    sums = step.accumulate(batch, dropout=case.key)
    assert sums.valid == want.training.valid, f"valid: {sums.valid}, expected {want.training.valid}"
    losses = want.training.losses.sum().view(1)
    allowed = u * want.spread["losses"].sum().view(1) + UNIT[torch.float64] * abs(losses)
    check("loss", torch.tensor([sums.loss], dtype=torch.float64), losses, Bounded(losses, u, allowed))
    for name, got in step.grads.items():
        exact = want.training.gradients[name]
        check(name, got, exact, Bounded(exact, u, u * want.spread[name]))
    structural_zeros(case, dict(step.grads))
    exact = want.evaluation.logits.flatten(0, 1)
    check("logits", step.logits(batch).flatten(0, 1), exact, Bounded(exact, u, u * want.plain_spread["logits"]))
    exact, got = want.evaluation.losses.unsqueeze(1), step.evaluate(batch).losses_BT.reshape(-1, 1)
    check("evaluation", got, exact, Bounded(exact, u, u * want.plain_spread["losses"]))


def structural_zeros(case: Case, gradients: dict[str, Tensor]) -> None:
    """Exact zeros, not small numbers: AdamW would turn rounding noise into whole steps."""
    for i in range(case.layers):
        names = ["bk"] + (["wq", "wk", "bq"] if case.sequence == 1 else [])
        for name in names:
            assert not gradients[f"{i}.attn.{name}"].any(), f"{i}.attn.{name} must be exactly 0"
    assert not gradients["pos"][case.sequence :].any(), "rows of positions that were not used"
    if not case.tied:
        used = torch.zeros(case.vocab, dtype=torch.bool)
        used[case.batch.tokens_BT1[:, :-1].reshape(-1)] = True
        assert not gradients["tok"][~used].any(), "rows of tokens that were not used"
