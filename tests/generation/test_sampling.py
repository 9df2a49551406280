"""Sampling against a slow reference in exact-order Python, and its frequencies against a derived bound."""

from __future__ import annotations

import math
from fractions import Fraction

import msgspec
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from cllm.errors import NonFiniteError, UsageError
from cllm.generation.sampling import (
    SamplingOptions,
    distribution,
    penalised,
    sample,
    sample_batch,
    uniform,
)
from judges.philox_reference import philox as reference_philox

EVER = [0.6524476304308656, 0.04736926875821268, 0.9064948674918214]  # of (seed, position, sequence) below
LOGITS = st.lists(
    st.floats(-30, 30, width=32) | st.sampled_from([0.0, 1.0, -1.0, -math.inf]), min_size=1, max_size=40
).filter(lambda row: max(row) > -math.inf)
OPTIONS = st.builds(
    SamplingOptions,
    temperature=st.sampled_from([0.0, 0.25, 0.7, 1.0, 2.0]),
    top_k=st.integers(0, 45),
    top_p=st.sampled_from([1e-9, 0.3, 0.5, 0.9, 0.999, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    repetition_penalty=st.sampled_from([0.5, 1.0, 1.3, 3.0]),
    seed=st.integers(0, 2**64 - 1),
)


def reference(row: list[float], options: SamplingOptions, seen: list[int]) -> tuple[dict[int, float], float]:
    """Token → probability by the documented order, written naively; and how near any decision was to a tie."""
    r, slack = options.repetition_penalty, math.inf
    row = [(l / r if l > 0 else l * r) if i in seen and l != -math.inf else l for i, l in enumerate(row)]
    if options.temperature == 0:
        return {row.index(max(row)): 1.0}, slack
    row = [l / options.temperature for l in row]
    ranked = sorted((i for i, l in enumerate(row) if l != -math.inf), key=lambda i: (-row[i], i))
    if options.top_k:
        ranked = ranked[: options.top_k]
    top = row[ranked[0]]
    if options.top_p < 1:
        total = math.fsum(math.exp(row[i] - top) for i in ranked)
        kept, mass = [], 0.0
        for i in ranked:
            if kept:
                slack = min(slack, abs(mass - options.top_p))
                if mass >= options.top_p:
                    break
            kept.append(i)
            mass = math.fsum(math.exp(row[j] - top) for j in kept) / total
        ranked = kept
    if options.min_p > 0:
        slack = min([slack, *(abs(row[i] - top - math.log(options.min_p)) for i in ranked[1:])])
        ranked = [i for i in ranked if i == ranked[0] or row[i] - top >= math.log(options.min_p)]
    total = math.fsum(math.exp(row[i] - top) for i in ranked)
    return {i: math.exp(row[i] - top) / total for i in sorted(ranked)}, slack


@given(LOGITS, OPTIONS, st.lists(st.integers(0, 39), max_size=6))
@settings(deadline=None, max_examples=600)
def test_the_distribution_is_the_reference(row: list[float], options: SamplingOptions, seen: list[int]) -> None:
    seen = [i for i in seen if i < len(row)]
    expected, slack = reference(row, options, seen)
    assume(slack > 1e-12)  # a cut that rounding may place on either side is not a fault
    ids, probabilities = distribution(torch.tensor(row, dtype=torch.float64), options, seen=seen)
    assert ids.tolist() == list(expected)
    # Each is exp(x)/Σ with |x| ≤ 30·3/0.25·2: the rounding of x costs |x|·u, exp, sum and quotient a few u more.
    bound = (2 * 720 + 2 * len(row) + 8) * 2.0**-53
    for got, wanted in zip(probabilities.tolist(), expected.values(), strict=True):
        assert abs(got - wanted) <= bound * wanted + 5e-324
    assert probabilities.dtype == torch.float64


@given(LOGITS, OPTIONS, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=200)
def test_the_draw_inverts_the_distribution_function(
    row: list[float], options: SamplingOptions, position: int, sequence: int
) -> None:
    logits = torch.tensor(row)
    choice = sample(logits, options, position=position, sequence=sequence)
    assert choice.id in choice.ids.tolist()
    again = sample(logits.clone(), options, position=position, sequence=sequence)
    assert again.id == choice.id
    u = Fraction(uniform(options.seed, position, sequence))
    below = Fraction(0)
    total = sum(map(Fraction, choice.probabilities.tolist()))
    for token, p in zip(choice.ids.tolist(), choice.probabilities.tolist(), strict=True):
        if token == choice.id:
            slack = Fraction(len(row) + 2, 2**53)
            assert below - slack <= u * total <= below + Fraction(p) + slack
        below += Fraction(p)


def test_filters_that_keep_all_change_no_draw() -> None:
    logits = torch.randn(50, generator=torch.Generator().manual_seed(0))
    plain = [sample(logits, SamplingOptions(seed=9), position=n).id for n in range(300)]
    for other in ({"top_k": 50}, {"top_k": 999}, {"top_p": 1.0 - 1e-15}, {"min_p": 1e-12}):
        assert [sample(logits, SamplingOptions(seed=9, **other), position=n).id for n in range(300)] == plain
    assert len(set(plain)) > 20
    assert [sample(logits, SamplingOptions(seed=10), position=n).id for n in range(300)] != plain


def test_rows_of_a_batch_are_independent_of_each_other() -> None:
    logits = torch.randn(4, 30, generator=torch.Generator().manual_seed(1))
    options = SamplingOptions(seed=3, repetition_penalty=1.5)
    seen = [[1], [2, 2], [], [5]]
    together = [c.id for c in sample_batch(logits, options, position=[7, 8, 9, 7], seen=seen)]
    alone = [sample(logits[b], options, position=p, sequence=b, seen=seen[b]).id for b, p in enumerate([7, 8, 9, 7])]
    assert together == alone
    same = torch.zeros(64, 1000)
    assert len({c.id for c in sample_batch(same, options, position=0)}) > 50, "equal rows draw their own numbers"
    with pytest.raises(UsageError, match="64 rows, but 2 positions"):
        sample_batch(same, options, position=[1, 2])


@pytest.mark.parametrize(
    "options",
    [SamplingOptions(seed=1), SamplingOptions(seed=2, temperature=0.5, top_k=5), SamplingOptions(seed=3, top_p=0.8)],
)
def test_frequencies(options: SamplingOptions) -> None:
    """Hoeffding: P(|f − p| ≥ ε) ≤ 2·exp(−2nε²) for each token; ε makes all tokens together 10⁻⁹."""
    logits = torch.tensor([2.0, 0.5, 0.0, -1.0, 1.5, -3.0, 0.5, 2.0])
    n = 6000
    expected = reference(logits.tolist(), options, [])[0]
    counts = dict.fromkeys(range(8), 0)
    for position in range(n):
        counts[sample(logits, options, position=position).id] += 1
    epsilon = math.sqrt(math.log(2 * 8 / 1e-9) / (2 * n))
    for token, count in counts.items():
        assert abs(count / n - expected.get(token, 0.0)) < epsilon
        assert count == 0 or token in expected
    assert epsilon < 0.045


def test_uniform_is_uniform_and_its_neighbours_unrelated() -> None:
    for of in (lambda n: uniform(5, n), lambda n: uniform(n, 5), lambda n: uniform(5, 5, n)):
        draws = sorted(of(n) for n in range(4000))
        assert draws[0] >= 0 and draws[-1] < 1
        # Dvoretzky-Kiefer-Wolfowitz: P(sup|F_n − F| > ε) ≤ 2·exp(−2nε²), here 10⁻⁹
        epsilon = math.sqrt(math.log(2e9) / 8000)
        assert max(max(abs(x - n / 4000), abs(x - (n + 1) / 4000)) for n, x in enumerate(draws)) < epsilon
    with pytest.raises(UsageError, match="out of range"):
        uniform(0, 2**32)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
@example(2**64 - 1, 2**32 - 1, 2**32 - 1)
@example(0, 0, 0)
@settings(deadline=None, max_examples=200)
def test_uniform_is_philox_bit_for_bit(seed: int, position: int, sequence: int) -> None:
    """Against Salmon et al. on Python integers, whose own known answers are checked beside the dropout masks."""
    w0, w1, _, _ = reference_philox((seed % 2**32, seed // 2**32), (position, sequence, 0, 0x73616D70))
    assert uniform(seed, position, sequence) == ((w0 // 2**5) * 2**26 + w1 // 2**6) / 2**53


def test_the_draws_of_a_seed_are_those_ever_made() -> None:
    found = [
        uniform(seed, position, sequence) for seed, position, sequence in ((0, 0, 0), (7, 1, 0), (2**63 + 5, 9, 3))
    ]
    assert found == EVER


def test_greedy_takes_the_lowest_of_equal_logits_and_ignores_the_seed() -> None:
    logits = torch.tensor([1.0, 7.0, 7.0, 2.0])
    for seed in range(5):
        choice = sample(logits, SamplingOptions(temperature=0, seed=seed), position=seed)
        assert choice.id == 1 and choice.ids.tolist() == [1] and choice.probabilities.tolist() == [1.0]
    assert sample(logits, SamplingOptions(temperature=0, repetition_penalty=2), position=0, seen=[1]).id == 2


def test_ties_at_the_edge_of_top_k_go_to_the_lower_ids() -> None:
    ids, p = distribution(torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0, 0.0]), SamplingOptions(top_k=4))
    assert ids.tolist() == [0, 1, 2, 4] and float(p.sum()) == pytest.approx(1, abs=1e-15)


def test_the_penalty_by_hand() -> None:
    logits = torch.tensor([3.0, -3.0, 0.0, 4.0, -math.inf])
    assert penalised(logits, 2.0, [0, 0, 1, 2, 4]).tolist() == [1.5, -6.0, 0.0, 4.0, -math.inf]
    assert logits.tolist() == [3.0, -3.0, 0.0, 4.0, -math.inf], "the input is not changed"
    assert penalised(logits, 2.0, torch.tensor([3])).tolist() == [3.0, -3.0, 0.0, 2.0, -math.inf]
    with pytest.raises(UsageError, match=r"ids in 0 … 4, got 1 … 5"):
        penalised(logits, 2.0, [1, 5])


def test_surprise_is_that_of_the_model_not_of_the_filters() -> None:
    logits = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64).log()
    choice = sample(logits, SamplingOptions(temperature=0), position=0)
    assert choice.id == 0 and choice.surprise == pytest.approx(1.0, abs=1e-15)
    choice = sample(logits, SamplingOptions(top_k=1, repetition_penalty=100.0), position=0, seen=[0, 1, 2])
    assert choice.id == 3 and choice.surprise == pytest.approx(3.0, abs=1e-15)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_logits_are_refused(bad: float) -> None:
    with pytest.raises(NonFiniteError, match=f"logits contain {bad}"):
        sample(torch.tensor([0.0, bad, -math.inf]), SamplingOptions(), position=0)


def test_all_forbidden_and_wrong_shapes() -> None:
    with pytest.raises(NonFiniteError, match="every token is forbidden"):
        sample(torch.full((3,), -math.inf), SamplingOptions(), position=0)
    for shape in ((0,), (1, 3), ()):
        with pytest.raises(UsageError, match=r"expected one row"):
            sample(torch.zeros(shape), SamplingOptions(), position=0)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("temperature", -0.1, "≥ 0"),
        ("temperature", math.nan, "a number"),
        ("temperature", "hot", "a number"),
        ("top_k", -1, "≥ 0"),
        ("top_k", 2.0, "a whole number"),
        ("top_k", True, "a whole number"),
        ("top_p", 0.0, r"\(0, 1\]"),
        ("top_p", 1.1, r"\(0, 1\]"),
        ("min_p", -0.1, r"\[0, 1\]"),
        ("min_p", 2, r"\[0, 1\]"),
        ("repetition_penalty", 0.0, "> 0"),
        ("seed", -1, "from 0 to"),
        ("seed", 2**64, "from 0 to"),
    ],
)
def test_wrong_options_say_what_is_allowed(key: str, value: object, allowed: str) -> None:
    with pytest.raises(UsageError, match=f"{key}: expected .*{allowed}.*got "):
        SamplingOptions(**{key: value})


def test_options_travel_as_json() -> None:
    options = SamplingOptions(temperature=0.8, top_k=40, seed=2**63)
    assert msgspec.json.decode(msgspec.json.encode(options), type=SamplingOptions) == options


def test_half_precision_logits() -> None:
    row = torch.tensor([1.0, 2.0, 3.0])
    expected = distribution(row, SamplingOptions())[1].tolist()
    for kind in (torch.bfloat16, torch.float16, torch.float64):  # 1, 2 and 3 are exact in each
        assert distribution(row.to(kind), SamplingOptions())[1].tolist() == expected


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])  # flat: all are sorted; peaked: only the head is
def test_top_p_of_a_large_vocabulary(scale: float) -> None:
    row = (scale * torch.randn(20_000, generator=torch.Generator().manual_seed(2))).round(decimals=3)
    for top_p in (0.1, 0.5, 0.97):
        options = SamplingOptions(top_p=top_p)
        ids, probabilities = distribution(row, options)
        order = sorted(range(len(row)), key=lambda i: (-row[i].item(), i))
        weights = torch.exp(row.double())[order]
        reached = torch.cumsum(weights, 0) / weights.sum()
        count = int((reached < top_p).sum()) + 1
        assert abs(len(ids) - count) <= 1, "one more or less where rounding decides"
        assert ids.tolist() == sorted(order[: len(ids)])
        assert float(probabilities.sum()) == pytest.approx(1, abs=1e-12)


def test_top_p_reached_exactly_takes_no_further_token() -> None:
    ids, _ = distribution(torch.zeros(4), SamplingOptions(top_p=0.5))
    assert ids.tolist() == [0, 1]
