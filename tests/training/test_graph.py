"""The step with its numbers on the device (training/graph.py): run eagerly it is the ordinary step; it never waits for
the device; a step that is not finite changes nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import cllm
from cllm import config as settings
from cllm.data.prepare import open_prepared
from cllm.engine import cuda
from cllm.engine.dispatch import torch_kernels
from cllm.engine.dropout import Key
from cllm.errors import NonFiniteError, RunError
from cllm.model.batch import Batch
from cllm.model.step import Step
from cllm.training import checkpoint, graph, stepper
from cllm.training.groups import rules
from cllm.training.optimiser import gradient_norm, update
from cllm.training.plan import make_step
from cllm.training.state import State
from judges.bounds import UNIT, Bounded
from judges.bounds import adamw as adamw_bound

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "fp64": {"precision": "fp64"},
    "bf16": {"precision": "bf16", "train.accumulate": 2},
    "documents": {"data.document_mask": True, "train.accumulate": 2, "optim.clip": 0.01},
    "dropout": {"model.dropout": 0.1, "model.attention_dropout": 0.2, "train.accumulate": 2, "optim.clip": 0.0},
    "average": {"optim.ema": 0.15, "train.label_smoothing": 0.1, "optim.clip_value": 1e-3},
    "groups": {
        "optim.groups": [
            settings.GroupConfig(match="*.ffn.*", lr=0.5, betas=(0.8, 0.9)),
            settings.GroupConfig(match="tok", weight_decay=0.0),
        ]
    },
    "untied": {"model.tied": False, "precision": "bf16", "train.recompute": "layer"},
    "rope": {"model.positions": "rope"},
}  # fmt: skip
LR = 3e-3


def config(**changes: Any) -> settings.Config:
    small = {"model.vocab": 64, "model.layers": 2, "train.batch": 2, "train.sequence": 9, "precision": "fp32"}
    return settings.check(settings.replace(settings.load(preset="nano", overrides=small), changes))


def rows(c: settings.Config, number: int, columns: int = 10) -> list[Batch]:
    """The micro-batches of a step; their rows hold several documents and some padding."""
    found = []
    for i in range(c.train.accumulate):
        generator = torch.Generator().manual_seed(100 * number + i)
        tokens = torch.randint(64, (2, columns), generator=generator)
        documents = torch.randint(4, (2, columns), generator=generator).eq(0).long().cumsum(1)
        documents[0, -2:] = -1
        found.append(Batch(tokens, documents, first_row=2 * i))
    return found


def ordinary(state: State, step: Step, number: int) -> tuple[float, int, Any]:
    """Gradients as training makes them, on the host's terms; the update is left to the caller."""
    m = state.config.model
    step.zero()
    for batch in rows(state.config, number):
        key = Key(state.config.seed, number) if m.dropout or m.attention_dropout else None
        step.accumulate(batch, key)
    return step.sums.loss, step.sums.valid, gradient_norm(step, state.config.optim.clip)


def numbers(state: State) -> dict[str, Tensor]:
    """Copies of all that a step changes."""
    found = {"w": state.model.params.data, **{name: moment.data for name, moment in state.moments.items()}}
    if state.ema is not None:
        found["ema"] = state.ema.data
    return {name: tensor.clone() for name, tensor in found.items()}


@pytest.mark.parametrize("name", VARIANTS)
def test_it_is_the_ordinary_step(name):
    c = config(**VARIANTS[name])
    state, other = State.fresh(c), State.fresh(c)
    step, work = make_step(state), graph.OnDevice(other, make_step(other))
    u = UNIT[state.model.dtype]
    for number in range(3):
        for there, batches in ((work.tokens_ABT1, "tokens_BT1"), (work.documents_ABT1, "documents_BT1")):
            there.copy_(torch.stack([getattr(batch, batches) for batch in rows(c, number)]))
        work.rate.fill_(LR)
        work.number.fill_(number)
        before = numbers(state)
        loss, valid, norm = ordinary(state, step, number)
        gradients = step.grads.data.clone()
        work.run()
        found = work.figures.tolist()
        assert found[1] == valid and found[4] == 1.0
        assert math.isclose(found[0], loss, rel_tol=16 * 2.0**-53)  # the micro-batches' sums, added elsewhere
        assert math.isclose(found[2], norm.value, rel_tol=64 * 2.0**-53)
        assert math.isclose(found[3], norm.clip, rel_tol=64 * 2.0**-53)
        if not c.optim.clip_value:  # (which overwrites them)
            assert torch.equal(work.step.grads.data, gradients)
        update(state, step, step.kernels, LR, norm)
        after, again = numbers(state), numbers(other)
        scale = norm.clip / valid
        for entry in state.model.layout.entries:
            start = state.model.layout.offsets[entry.name]
            part, rule = slice(start, start + entry.size), rules(c, state.model.layout)[entry.name]
            g = gradients[part]
            if c.optim.clip_value:
                g, scale = (g * (norm.clip / valid)).clamp(-c.optim.clip_value, c.optim.clip_value), 1.0
            w, m, v = (Bounded(before[key][part], u) for key in ("w", "m", "v"))
            bound = adamw_bound(
                w, Bounded(g, u), m, v, t=number + 1, lr=LR * rule.lr, betas=rule.betas, eps=rule.eps,
                decay=rule.decay, scale=scale,
            )  # fmt: skip
            for key, limit in zip(("w", "m", "v"), bound, strict=True):
                room = 2 * limit.e
                if c.optim.clip_value:  # the entry itself may differ by a rounding before
                    room = room + 4 * u * after[key][part].double().abs() + 4 * u * LR
                assert ((after[key][part] - again[key][part]).abs().double() <= room).all(), f"{entry.name}: {key}"
        if state.ema is not None:
            spread = 8 * u * (after["w"].abs() + after["ema"].abs()) + (after["w"] - again["w"]).abs()
            assert ((after["ema"] - again["ema"]).abs() <= spread).all()
        if state.model.operand != state.model.dtype:
            assert torch.equal(other.model.operands["tok"], other.model.params["tok"].to(torch.bfloat16))
        other.model.params.data.copy_(state.model.params.data)  # the next step begins with the same bits
        for key, moment in state.moments.items():
            other.moments[key].data.copy_(moment.data)
        if state.ema is not None:
            other.ema.data.copy_(state.ema.data)


class NeverWaits(TorchDispatchMode):
    """Refuses what a CUDA graph cannot hold: numbers read by the host or brought from it, shapes made of data."""

    REFUSED = (
        "_local_scalar_dense",
        "lift_fresh",
        "nonzero",
        "masked_select",
        "unique",
        "is_nonzero",
        "bincount",
        "repeat_interleave.Tensor",
    )

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        assert not any(refused in name for refused in self.REFUSED), f"the step calls {name}"
        if "index" in name and "aten.index" in name:
            for index in args[1] if isinstance(args[1], list | tuple) else ():
                assert not isinstance(index, Tensor) or index.dtype != torch.bool, f"{name} by a mask"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", VARIANTS)
def test_it_never_waits_for_the_device(name):
    """With the ops of a GPU without Triton, and with those of one with it (as far as torch sees them)."""
    c = config(**VARIANTS[name] | {"model.layers": 1, "train.sequence": 5})
    for kernels in (torch_kernels, cuda.kernels):
        state = State.fresh(c)
        step = make_step(state)
        step.kernels = kernels(state.model.operand)
        step.acts.kernels = step.kernels
        b, t, m = c.train.batch, step.sequence, c.model
        step.acts.attention_scratch = step.kernels.attention_scratch(
            b, t, m.heads, m.head_width, backward=True, dtype=state.model.operand
        )
        work = graph.OnDevice(state, step)
        work.tokens_ABT1.random_(64)
        graph.Graphed._refresh(type("Steps", (), {"work": work}))
        with NeverWaits():
            work.run()
        assert work.figures[4] == 1.0 and math.isfinite(work.figures[0])


def test_the_refusal_refuses():
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NeverWaits():
        float(torch.ones(()))
    with pytest.raises(AssertionError, match="by a mask"), NeverWaits():
        torch.ones(2)[torch.ones(2).bool()]


def test_a_whole_step_of_the_cuda_kernels():
    """In Triton's interpreter, with dropout: what the torch ops do, up to rounding; and it learns."""
    c = config(**VARIANTS["dropout"] | {"model.layers": 1, "train.sequence": 5, "optim.clip": 1.0})
    losses = {}
    for name, kernels in (("torch", torch_kernels), ("triton", cuda.kernels)):
        state = State.fresh(c)
        step = make_step(state)
        step.kernels = step.acts.kernels = kernels(torch.float32)
        step.acts.attention_scratch = step.kernels.attention_scratch(
            2, 5, c.model.heads, c.model.head_width, backward=True, dtype=torch.float32
        )
        steps = graph.Graphed(state, step)
        losses[name] = [steps.launch(rows(c, 0, 6), number=n, lr=1e-2).result().mean for n in range(2)]
    assert losses["triton"] == pytest.approx(losses["torch"], rel=1e-4)
    assert losses["triton"][1] < losses["triton"][0]


def broken(c: settings.Config) -> State:
    state = State.fresh(c)
    state.model.params["lnf.g"][3] = math.inf
    return state


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_that_is_not_finite_changes_nothing_until_it_is_released(precision):
    c = config(**{"precision": precision, "optim.ema": 0.9})
    state = State.fresh(c)
    steps = graph.Graphed(state, make_step(state))
    assert steps.launch(rows(c, 0), number=0, lr=LR).result().updated
    kept = float(state.model.params["lnf.g"][3])
    state.model.params["lnf.g"][3] = math.inf
    before, operands = numbers(state), state.model.operands["tok"].clone()
    found = steps.launch(rows(c, 1), number=1, lr=LR).result()
    assert not found.updated and not (math.isfinite(found.loss) and found.norm.finite) and found.norm.clip == 1.0
    after = numbers(state)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(state.model.operands["tok"], operands)
    state.model.params["lnf.g"][3] = kept
    before = numbers(state)
    found = steps.launch(rows(c, 1), number=1, lr=LR).result()
    assert not found.updated and math.isfinite(found.loss), "a later step must not be made behind one that was not"
    assert all(torch.equal(before[name], after) for name, after in numbers(state).items())
    steps.release()
    assert steps.launch(rows(c, 1), number=1, lr=LR).result().updated
    assert not torch.equal(before["w"], state.model.params.data)


def test_figures_are_kept_for_two_steps():
    c = config()
    state = State.fresh(c)
    steps = graph.Graphed(state, make_step(state))
    one = steps.launch(rows(c, 0), number=0, lr=LR)
    two = steps.launch(rows(c, 1), number=1, lr=LR)
    assert one.result().loss != two.result().loss and one.result() == one.result()
    steps.launch(rows(c, 2), number=2, lr=LR)
    with pytest.raises(ValueError, match="until 2 more"):
        one.result()
    assert two.result().updated


def test_rows_that_do_not_fit_are_refused():
    c = config(**{"train.accumulate": 2})
    state = State.fresh(c)
    steps = graph.Graphed(state, make_step(state))
    with pytest.raises(ValueError, match="1 micro-batches; this step takes 2"):
        steps.launch(rows(c, 0)[:1], number=0, lr=LR)
    with pytest.raises(ValueError, match="micro-batch 0 begins at row 2"):
        steps.launch(rows(c, 0)[::-1], number=0, lr=LR)


def test_weights_that_something_else_wrote_are_rounded_afresh():
    c = config(precision="bf16")
    state, other = State.fresh(c), State.fresh(c)
    steps, again = graph.Graphed(state, make_step(state)), graph.Graphed(other, make_step(other))
    steps.launch(rows(c, 0), number=0, lr=LR)
    state.model.params.data.copy_(other.model.params.data)
    for name in "mv":
        state.moments[name].zero_()
    one, two = (s.launch(rows(c, 0), number=0, lr=LR).result() for s in (steps, again))
    assert one == two


REASONS = {
    "memory = standard": {"memory": "lean", "precision": "bf16"},
    "optim.name = adamw": {"optim.name": "muon"},
    "guard.spikes = off": {"guard.spikes": "skip"},
    "log.noise_scale = false": {"log.noise_scale": True, "train.accumulate": 2},
    "model.positions other than mix": {"model.positions": "mix"},
}


@pytest.mark.parametrize("reason", REASONS)
def test_what_cannot_be_a_graph_is_refused(reason):
    c = config(**REASONS[reason])
    assert reason in graph.why_not(c)
    state = State.fresh(c)
    with pytest.raises(ValueError, match=reason):
        graph.OnDevice(state, make_step(state))
    assert graph.why_not(config()) == ""


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("a small text about nothing much, said again and again. " * 80)
    return path


def run(text, out, **changes):
    sizes = {"data.tokenizer": "char", "train.batch": 2, "train.sequence": 8, "train.steps": 6, "train.eval_every": 3}
    return cllm.train(text, preset="nano", out=out, quiet=True, set=sizes | {"precision": "fp64"} | changes)


def test_a_training_of_graphs_is_the_ordinary_training(tmp_path, text, monkeypatch):
    """With the graphs run eagerly: the loop, its events and its checkpoints are the same."""
    ordinary = run(text, tmp_path / "ordinary", **{"train.accumulate": 2, "optim.ema": 0.5})
    made = []

    def graphed(state, step):
        made.append(graph.Graphed(state, step))
        return made[-1]

    monkeypatch.setattr(stepper, "graphed", graphed)
    found = run(text, tmp_path / "graphs", **{"train.accumulate": 2, "optim.ema": 0.5})
    assert len(made) == 1
    one, two = ordinary.checkpoint, found.checkpoint
    for key in ("step", "tokens", "position"):
        assert one.meta[key] == two.meta[key]
    assert one.meta["best"] == pytest.approx(two.meta["best"], rel=2.0**-40)
    for name, want in one.weights.items():
        # the update's few factors may be a rounding apart, six times
        assert ((two.weights[name] - want).abs() <= 2.0**-40 * (want.abs() + LR)).all(), name


def test_a_training_of_graphs_stops_before_an_update_that_is_not_finite(tmp_path, text, monkeypatch):
    monkeypatch.setattr(stepper, "graphed", graph.Graphed)
    with pytest.raises(NonFiniteError, match=r"step 2: loss .* first seen in .* The update was not made"):
        run(text, tmp_path / "run", **{"optim.lr": 1e300, "schedule.warmup": 0})
    kept = checkpoint.load(tmp_path / "run")
    assert kept.step == 1
    assert all(torch.isfinite(weight).all() for weight in kept.weights.values())


def test_an_update_at_another_rate_is_refused(tmp_path, text, monkeypatch):
    found = run(text, tmp_path / "run")
    monkeypatch.setattr(stepper, "graphed", graph.Graphed)
    steps = stepper.Stepper(State.fresh(found.config), open_prepared(found.path / "data").train)
    norm = steps.gradients(steps.batches(0), 0, 1e-3)
    with pytest.raises(ValueError, match=r"a rate of 0.002, but the step was made with 0.001"):
        steps.update(2e-3, norm)
    steps.update(1e-3, norm)
    assert (steps.state.step, steps.state.tokens, steps.state.position) == (1, 16, 2)
    without = stepper.Stepper(State.fresh(found.config), open_prepared(found.path / "data").train, fused=False)
    assert without.graph is None


def test_a_capture_that_fails_says_how_to_do_without(monkeypatch):
    def refuse(*args):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "Stream", refuse)
    with pytest.raises(RunError, match="not permitted when stream is capturing\nCLLM_CUDA_GRAPH=off"):
        graph.captured(lambda: None, torch.device("cuda"))


def test_where_graphs_are_wanted(monkeypatch):
    gpu = torch.device("cuda")
    assert graph.wanted(config(), gpu) and not graph.wanted(config(), torch.device("cpu"))
    assert not graph.wanted(config(**{"optim.name": "sgd"}), gpu)
    monkeypatch.setenv(graph.VARIABLE, "off")
    assert not graph.wanted(config(), gpu)


ELSEWHERE = VARIANTS | {
    "spiral": {"model.positions": "spiral", "data.document_mask": True},
    "clock": {"model.positions": "clock"},
    "transform": {"model.lattice_transform": True},
    "equivariant": {"model.equivariant": True, "model.width": 48, "model.heads": 4},
    "symmetry": {"model.symmetry_bias": 0.5},
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_every_tensor_of_a_step_is_made_on_its_device(name, monkeypatch):
    """On the device "meta", which has shapes only: torch refuses an op that mixes it with the CPU, as it would CUDA;
    and torch's own CUDA ops (products into float32, attention) are called as a GPU has them."""
    from cllm.engine.cuda import adamw, cross_entropy, dropout, embedding, gelu, layernorm, linear

    launched = []
    for module in (adamw, cross_entropy, dropout, embedding, gelu, layernorm, linear):
        monkeypatch.setattr(module, "launch", lambda kernel, grid, *args, **options: launched.append(args))
    c = config(**ELSEWHERE[name])
    assert graph.why_not(c) == ""
    for kernels in (torch_kernels, cuda.kernels):
        state = State.fresh(c, "meta")
        step = make_step(state)
        m = c.model
        step.kernels = step.acts.kernels = kernels(state.model.operand)
        step.acts.attention_scratch = step.kernels.attention_scratch(
            2, 9, m.heads, m.head_width, backward=True, dtype=state.model.operand, device="meta"
        )
        graph.OnDevice(state, step).run()
    assert launched
    assert all(x.device.type == "meta" for args in launched for x in args if isinstance(x, Tensor))


def test_8_bit_moments_are_made_on_their_device():
    from cllm.engine.moments import Coded, adamw8

    w, g = torch.empty(300, device="meta"), torch.empty(300, device="meta")
    codes = [torch.empty(300, dtype=kind, device="meta") for kind in (torch.int8, torch.uint8)]
    m, v = (Coded(code, torch.empty(2, device="meta")) for code in codes)
    adamw8(w, g, m, v, t=1, lr=0.1, betas=(0.9, 0.95), eps=1e-8, decay=0.1)
