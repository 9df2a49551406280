"""Generation: stop texts, end of text, a full context, repeatability."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cllm.config import load
from cllm.errors import UsageError
from cllm.generation.generate import Request, _Hold, generate
from cllm.model.model import Model
from cllm.text import Tokenizer, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer("char", ["abcdefgh"], 100)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Model:
    """A model that, whatever it reads, continues a → b → … → h → EOS: its output rows point at the next token."""
    c = load(preset="nano", overrides={"model.vocab": tokenizer.vocab_size, "model.tied": False, "model.context": 16})
    model = Model(c.model, torch.float64)
    order = [*(tokenizer.encode(letter)[0] for letter in "abcdefgh"), tokenizer.eos_id]
    p = model.params
    p["lnf.g"].fill_(1.0)
    for place, token in enumerate(order):
        p["tok"][token, place] = 1.0
    for place, token in enumerate(order[1:]):
        p["head.w"][token, place] = 10.0
    p["head.w"][order[0], len(order) - 1] = 10.0
    return model


def text(model: Model, tokenizer: Tokenizer, prompt: str, **options: object) -> str:
    request = Request.of(**{"temperature": 0.0, "max_tokens": 50} | options)
    return "".join(piece.text for piece in generate(model, tokenizer, prompt, request))


def test_it_ends_at_the_end_of_text(model: Model, tokenizer: Tokenizer):
    assert text(model, tokenizer, "ab") == "cdefgh"


def test_an_empty_prompt_begins_a_new_document(model: Model, tokenizer: Tokenizer):
    assert text(model, tokenizer, "", max_tokens=4) == "abcd"


def test_it_stops_before_a_stop_text(model: Model, tokenizer: Tokenizer):
    assert text(model, tokenizer, "a", stop=["ef", "zz"]) == "bcd"
    assert text(model, tokenizer, "a", stop=["ex"]) == "bcdefgh", "what was held back is shown in the end"


def test_a_full_context_stops_or_slides(tokenizer: Tokenizer):
    c = load(preset="nano", overrides={"model.vocab": tokenizer.vocab_size, "model.context": 8, "train.sequence": 8})
    model = Model(c.model).initialise(1)
    options = {"temperature": 1.0, "seed": 5, "max_tokens": 30}
    stopped = list(generate(model, tokenizer, "abc", Request.of(**options)))
    assert len([piece for piece in stopped if piece.token >= 0]) <= 6
    sliding = list(generate(model, tokenizer, "abc", Request.of(**options, past_context="slide")))
    assert len(sliding) > len(stopped)
    assert [p.token for p in sliding[: len(stopped) - 1]] == [p.token for p in stopped[:-1]]
    with pytest.raises(UsageError, match="prompt: 8 tokens leave no room in the context of 8"):
        list(generate(model, tokenizer, "abcdefgh", Request.of(**options)))


def test_a_seed_repeats_and_another_differs(tokenizer: Tokenizer):
    c = load(preset="nano", overrides={"model.vocab": tokenizer.vocab_size})
    model = Model(c.model).initialise(1)
    first, again, other = (text(model, tokenizer, "ab", temperature=1.5, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_options_are_checked():
    with pytest.raises(UsageError, match=r'unknown option "temprature"; did you mean "temperature"'):
        Request.of(temprature=1)
    with pytest.raises(UsageError, match="max_tokens"):
        Request.of(max_tokens=-1)
    with pytest.raises(UsageError, match="empty text"):
        Request.of(stop=[""])
    with pytest.raises(UsageError, match="past_context"):
        Request.of(past_context="wrap")


@given(st.text(alphabet="ab", max_size=30), st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3),
       st.data())  # fmt: skip
def test_holding_back_shows_exactly_the_text_before_the_first_stop(whole: str, stops: list[str], data: st.DataObject):
    hold, shown, rest = _Hold(stops), "", whole
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        shown += hold.push(rest[:size])
        rest = rest[size:]
    shown += hold.flush()
    # the stop that is complete first ends the text (of those complete at once, the one that begins first)
    ends = [(whole.find(stop) + len(stop)) for stop in stops if stop in whole]
    if not ends:
        assert shown == whole
    else:
        assert not any(stop in shown for stop in stops)
        assert whole.startswith(shown)
        assert any(whole[len(shown) :].startswith(stop) for stop in stops)
