"""The candidates start equal and are alone in memory; what cannot be measured is said before or beside the figures."""

from __future__ import annotations

import gc
import weakref

import pytest

from cllm import config as settings
from cllm.bench import train_step
from cllm.bench.elsewhere import Elsewhere, tcmalloc
from cllm.bench.train_step import OURS, OWN, candidates, preloaded
from cllm.errors import UsageError
from cllm.model.model import Model

CONFIG = settings.load(preset="nano", overrides={"train.batch": 2, "train.sequence": 16})
PEER = "eager fp32"


def test_all_start_from_the_same_weights() -> None:
    steps = candidates(CONFIG, [OURS, PEER])
    assert list(steps) == [OURS, PEER]
    alone = candidates(CONFIG, [PEER])[PEER]
    first, second = steps[OURS](), steps[PEER]()
    assert first == pytest.approx(second, rel=1e-5)
    assert alone() == second
    assert steps[OURS]() == pytest.approx(steps[PEER](), rel=1e-5) != first


def test_a_peer_alone_keeps_nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Model]] = []
    initialise = Model.initialise

    def watched(self: Model, seed: int) -> Model:
        made.append(weakref.ref(self))
        return initialise(self, seed)

    def refuse(*arguments: object) -> None:
        raise AssertionError("our step was built for a peer alone")

    monkeypatch.setattr(Model, "initialise", watched)
    monkeypatch.setattr(train_step, "our_step", refuse)
    step = candidates(CONFIG, [PEER])[PEER]
    gc.collect()
    assert len(made) == 1
    assert made[0]() is None
    assert step() > 0


def test_an_unknown_peer_is_refused_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_step, "candidates", lambda *a: pytest.fail("built"))
    with pytest.raises(UsageError, match=r"got 'eager fp23'; did you mean \"eager fp32\""):
        train_step.run("nano", batch=2, sequence=16, rounds=1, peers=["eager fp32", "eager fp23"])


def test_the_vocabulary_is_the_one_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(train_step, "limits", lambda: {"bf16_gflops": 1.0, "fp32_gflops": 1.0})
    monkeypatch.setattr(train_step, "candidates", lambda c, names: seen.append(c.model.vocab) or candidates(c, names))
    table = train_step.run("nano", batch=2, sequence=16, rounds=1, peers=(), rss=False, vocab=700)
    assert seen == [700]
    assert table.name == "train-step-nano-v700-b2-t16"


def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(train_step, "limits", lambda: {"bf16_gflops": 1.0, "fp32_gflops": 1.0})
    monkeypatch.setattr("cllm.bench.peers_installed.importlib.import_module", gone)
    table = train_step.run("nano", batch=2, sequence=16, rounds=1, peers=[PEER], rss=False)
    assert [row.name for row in table.rows] == [*OWN, PEER]
    for package in ("transformers", "litgpt"):
        assert any(package in note and "its row is missing" in note for note in table.notes)


@pytest.mark.filterwarnings("ignore")  # torch.compile's own
def test_without_a_compiler_the_compiled_peers_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    from torch._inductor import config as inductor

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(train_step, "limits", lambda: {"fp32_gflops": 1.0, "bf16_gflops": 1.0})
    with inductor.patch({"cpp.cxx": (None, "/nonexistent/c++")}):
        table = train_step.run("nano", batch=2, sequence=16, rounds=1, peers=[PEER, "compile fp32"], rss=False)
    assert [row.name for row in table.rows][:3] == [*OWN, PEER]
    assert "compile fp32" not in [row.name for row in table.rows]
    assert all(row.figures["times_ours"] > 0 for row in table.rows)
    assert any("compile fp32 is left out" in note and "C++ compiler" in note for note in table.notes)


def test_our_step_in_bf16_starts_from_the_same_weights() -> None:
    steps = candidates(CONFIG, OWN)
    assert steps["cllm bf16"]() == pytest.approx(steps[OURS](), rel=2.0**-7)


def test_a_candidate_elsewhere_takes_the_same_steps() -> None:
    here, there = candidates(CONFIG, [PEER])[PEER], preloaded(CONFIG, PEER, tcmalloc())
    assert [there() for _ in range(3)] == [here() for _ in range(3)]
    there.close()


def test_a_candidate_that_fails_elsewhere_says_so() -> None:
    broken = Elsewhere("step = lambda: 1 / 0")
    with pytest.raises(RuntimeError, match="exit code 1"):
        broken()
    broken.close()
