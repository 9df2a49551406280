"""A tiny model with random weights and a tokenizer that fits it."""

from __future__ import annotations

import pytest

from cllm.config import load
from cllm.model.model import Model
from cllm.text import Tokenizer, train_tokenizer

TEXT = "the cat sat on the mat. a dog saw the cat and ran. " * 30


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer("bpe", [TEXT], 280)


@pytest.fixture(scope="session")
def model(tokenizer: Tokenizer) -> Model:
    import torch

    config = load(preset="nano", overrides={"model.vocab": tokenizer.vocab_size, "model.context": 48}).model
    made = Model(config, torch.float64).initialise(seed=3)
    made.params.data.mul_(4.0)  # far from uniform
    return made
