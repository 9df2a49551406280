"""Gradient sums, updates and states of 1, 2, 3 and 4 processes, for data parallel, ZeRO-1 and ZeRO-2.

Real processes with gloo; one launch for each number of them makes all cases (reduce_worker.py).
"""

from __future__ import annotations

import json
import math
import multiprocessing
import random
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cllm.data.prepare import open_prepared, prepare
from cllm.model.model import Model
from cllm.model.tables import averaged
from cllm.training.distributed.group import Group
from judges.bounds import UNIT, gamma
from judges.bounds_model import sensitivity
from judges.plain_model import read
from training import reduce_worker as worker

SIZES = (2, 3, 4)
FIXED = {"distributed.reduction": "fixed"}
OPTIMISERS: dict[str, dict[str, Any]] = {
    "adamw": {"optim.ema": 0.9},
    "sgd": {"optim.name": "sgd", "optim.clip_value": 0.001},
    "muon": {"optim.name": "muon", "model.tied": False},
    "lean": {"precision": "bf16", "memory": "lean"},
    "bf16": {"precision": "bf16", "model.dropout": 0.1},
}


WRONG = [name for name in worker.MUTANTS if name != "poisoned"]


def _cases() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for zero in (0, 1, 2):
        z = {"distributed.zero": zero}
        for name, changes in OPTIMISERS.items():
            found[f"fixed {name} zero{zero}"] = FIXED | z | changes
        found[f"fixed small zero{zero}"] = FIXED | z | {"distributed.bucket_mb": 0.0001}  # parts of nothing, too
        found[f"fixed five zero{zero}"] = FIXED | z | {"train.accumulate": 5, "train.batch": 2}
        for accumulate in (1, 4):
            found[f"fast adamw zero{zero} a{accumulate}"] = z | {"train.accumulate": accumulate}
        found[f"fast small zero{zero}"] = z | {"distributed.bucket_mb": 0.0001}
        found[f"fast muon zero{zero}"] = z | OPTIMISERS["muon"]
        found[f"fast lean zero{zero}"] = z | OPTIMISERS["lean"] | {"train.accumulate": 1}
        found[f"fast equivariant zero{zero}"] = z | {"model.equivariant": True, "precision": "fp64"}
        found[f"fast poisoned zero{zero}"] = z | {"mutant": "poisoned", "train.steps": 1}
        for mutant in WRONG:
            wrong = {"mutant": mutant, "train.accumulate": 12, "train.batch": 1, "train.steps": 1}  # as many for each
            found[f"fixed {mutant} zero{zero}"] = FIXED | z | wrong
            found[f"fast {mutant} zero{zero}"] = z | wrong
    return found


CASES = _cases()
BROKEN = [name for name, changes in CASES.items() if "mutant" in changes]
SOUND = [name for name in CASES if name not in BROKEN]


def sizes(name: str) -> tuple[int, ...]:
    """How many processes make a case: three of them all cases, the others those whose parts differ most."""
    few = ("fixed adamw", "fixed lean", "fixed five", "fixed muon zero2", "fast adamw", "fast poisoned zero2")
    return SIZES if name.startswith(few) else (3,)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("reduce")
    draw, words = random.Random(5), ["ring", "has", "twelve", "places", "and", "seven", "turn", "with", "it"]
    lines = [" ".join(draw.choices(words, k=draw.randint(1, 6))) for _ in range(150)]
    (found / "text").mkdir()
    for i, line in enumerate(lines):  # documents of very different lengths: rows with few valid targets
        (found / "text" / f"{i:03}.txt").write_text(line)
    prepare([str(found / "text")], found / "data", tokenizer="char", vocab_size=40, val_fraction=0.1)
    return found


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[int, list[dict[str, Any]]]:
    """What the ranks of each number of processes found, by rank."""
    alone: dict[str, Any] = {name: worker.run(Group.alone(), folder / "data", CASES[name]) for name in SOUND}
    alone["vocab"] = open_prepared(folder / "data").tokenizer.vocab_size
    found = {1: [alone]}
    for size in SIZES:
        launch(folder, size)
        found[size] = [torch.load(folder / f"{size}-{rank}.pt", weights_only=False) for rank in range(size)]
    return found


def launch(folder: Path, size: int) -> None:
    """The cases of `size` processes, forked from one that has imported everything and started nothing."""
    (folder / f"{size}.json").write_text(json.dumps({name: CASES[name] for name in CASES if size in sizes(name)}))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([worker.__name__])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = [context.Process(target=worker.rank, args=(folder, rank, size, port)) for rank in range(size)]
    for one in running:
        one.start()
    for one in running:
        one.join(240)
        one.kill()
    said = [path.read_text() for path in sorted(folder.glob(f"{size}-*.error"))]
    assert not any(one.exitcode for one in running), min(said, key=lambda text: "PeerLost" in text, default="killed")


def together(parts: list[dict[str, tuple[int, Tensor]]], like: dict[str, Tensor]) -> dict[str, Tensor]:
    """The gradients of all ranks' pieces; each entry must be there, and the same on all ranks that have it."""
    found = {}
    for name, one in like.items():
        whole, seen = torch.zeros_like(one), torch.zeros(one.numel(), dtype=torch.bool)
        for part in parts:
            if name in part:
                start, piece = part[name]
                there = slice(start, start + piece.numel())
                assert torch.equal(whole[there][seen[there]], piece[seen[there]]), f"{name} differs between ranks"
                whole[there], seen[there] = piece, True
        assert seen.all(), f"{name}: entries that no rank has"
        found[name] = whole
    return found


def check_sums(ranks: list[dict[str, Any]]) -> None:
    """Each entry within γ_(n − 1)·Σ|terms| of the exact sum of what the ranks had."""
    terms = [term for rank in ranks for term in rank["terms"]]
    sums = together([rank["sums"] for rank in ranks], terms[0])
    for name, got in sums.items():
        parts = torch.stack([term[name].double() for term in terms])
        bound = gamma(max(len(terms) - 1, 1), UNIT[got.dtype]) * parts.abs().sum(0)
        bound *= 2 if got.dtype == torch.float64 else 1  # the judge adds in float64, too
        off = (got.double() - parts.sum(0)).abs()
        assert (off <= bound * (1 + 2.0**-20)).all(), f"{name}: {float((off - bound).max()):.3g} too far"


def check_same(a: dict[str, Any], ranks: list[dict[str, Any]]) -> None:
    """The gradient sums, figures, weights and moments of one process, to the bit."""
    one = {name: piece for name, (_, piece) in a["sums"].items()}
    for name, got in together([rank["sums"] for rank in ranks], one).items():
        assert torch.equal(got, one[name]), f"gradient of {name}"
    for rank in ranks:
        for step in range(worker.STEPS):
            assert rank[f"step {step}"] == a[f"step {step}"]
        for kind in ("weights", "operands"):
            assert rank[kind].keys() == a[kind].keys()
            assert all(torch.equal(value, a[kind][name]) for name, value in rank[kind].items()), kind
    rest = ranks[0]["rest"]
    assert rest.keys() == a["rest"].keys()
    for name, value in rest.items():
        assert value.shape == a["rest"][name].shape and torch.equal(value, a["rest"][name]), name


@pytest.mark.parametrize("name", [name for name in SOUND if name.startswith("fixed")])
def test_the_fixed_tree_gives_the_same_bits_for_any_number_of_processes(results, name: str):
    for size in sizes(name):
        check_same(results[1][0][name], [rank[name] for rank in results[size]])


@pytest.mark.parametrize("name", SOUND)
def test_sums_are_within_the_bound_of_what_was_added(results, name: str):
    for size in sizes(name):
        check_sums([rank[name] for rank in results[size]])


@pytest.mark.parametrize("name", [name for name in BROKEN if "poisoned" not in name])
def test_a_wrong_reduction_is_found(results, name: str):
    for size in sizes(name):
        with pytest.raises(AssertionError):
            check_sums([rank[name] for rank in results[size]])


@pytest.mark.parametrize("name", [name for name in SOUND if name.startswith("fast")])
def test_all_ranks_have_the_same_weights_and_figures(results, name: str):
    for size in sizes(name):
        ranks = [rank[name] for rank in results[size]]
        for rank in ranks[1:]:
            assert all(rank[f"step {step}"] == ranks[0][f"step {step}"] for step in range(worker.STEPS))
            for kind in ("weights", "operands"):
                assert all(torch.equal(value, ranks[0][kind][n]) for n, value in rank[kind].items()), kind
        if CASES[name].get("precision") == "bf16":
            continue
        for tensor, value in ranks[0]["weights"].items():
            assert torch.equal(ranks[0]["operands"][tensor], value)


@pytest.mark.parametrize("name", [name for name in BROKEN if "poisoned" in name])
def test_what_is_not_finite_on_one_rank_is_seen_by_all_before_the_update(results, name: str):
    for size in sizes(name):
        norms = [rank[name]["step 0"][1] for rank in results[size]]
        assert all(math.isnan(norm) for norm in norms)


@pytest.mark.parametrize("zero", [0, 1, 2])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_sums_are_within_the_bound_of_those_of_one_process(results, spreads, zero: int, accumulate: int):
    """The whole way: rows dealt out, their forward and backward, the sum over ranks. Both are within the bound of a
    step's gradients (judges/bounds_model.py) of the exact ones."""
    name = f"fast adamw zero{zero} a{accumulate}"
    one = {tensor: piece for tensor, (_, piece) in results[1][0][name]["sums"].items()}
    for size in SIZES:
        sums = together([rank[name]["sums"] for rank in results[size]], one)
        for tensor, got in sums.items():
            bound = 2 * UNIT[torch.float32] * spreads[accumulate][tensor].reshape(-1)
            assert ((got.double() - one[tensor].double()).abs() <= bound).all(), tensor


@pytest.fixture(scope="module")
def spreads(results) -> dict[int, dict[str, Tensor]]:
    """λ·s/u of each gradient entry, for steps of 4 and of 16 rows."""
    found = {}
    for accumulate in (1, 4):
        rows = results[1][0][f"fast adamw zero0 a{accumulate}"]["rows"]
        tokens, documents = (torch.cat(parts) for parts in zip(*rows, strict=True))
        c = worker.config({}, results[1][0]["vocab"]).model
        weights = {name: value.double() for name, value in Model(c).initialise(1).params.items()}
        found[accumulate] = sensitivity(weights, c.layers, c.heads, read(tokens, documents, document_mask=False))
    return found


@pytest.mark.parametrize("zero", [0, 1, 2])
def test_entries_that_are_equal_by_construction_stay_equal(results, zero: int):
    name = f"fast equivariant zero{zero}"
    one = {tensor: piece for tensor, (_, piece) in results[1][0][name]["sums"].items()}
    sums = together([rank[name]["sums"] for rank in results[3]], one)
    for tensor in ("0.attn.wv", "1.attn.wo"):
        weights = results[3][0][name]["weights"][tensor]
        assert torch.equal(weights, averaged(weights)), tensor
        assert torch.equal(sums[tensor], averaged(sums[tensor].view(weights.shape)).reshape(-1)), tensor


def test_ranks_have_different_numbers_of_valid_targets(results):
    rows = [rank["fast adamw zero0 a1"]["rows"] for rank in results[4]]
    counts = [sum(int((documents[:, 1:] >= 0).sum()) for _, documents in own) for own in rows]
    assert len(set(counts)) > 1
