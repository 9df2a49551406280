"""The plain model: it is GPT-2's architecture, by the formulas; and its training steps train."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from torch.nn import functional as F

from cllm.bench.peers import VARIANTS, PlainGPT, adamw, peer_step, peer_steps
from cllm.errors import UsageError
from judges.targets import inputs_and_targets

SIZES = {"layers": 2, "width": 8, "heads": 2, "ff": 12, "context": 6, "vocab": 11}


def model(**changes) -> PlainGPT:
    torch.manual_seed(0)
    made = PlainGPT(**{**SIZES, "dtype": torch.float64, **changes})
    with torch.no_grad():
        for p in made.parameters():  # large and unlike each other, so that no part hides behind another
            p.add_(torch.randn_like(p) * 0.3)
    return made


def by_the_formulas(w: dict[str, torch.Tensor], tokens: list[int], heads: int, activation: str) -> list[list]:
    """model.md's forward of one row, scalar by scalar, in 60-digit arithmetic."""
    mp = mpmath.mp.clone()
    mp.dps = 60
    get = {name: [[mp.mpf(v) for v in row] for row in t.reshape(-1, t.shape[-1]).tolist()] for name, t in w.items()}

    def linear(x, weight, bias=None):
        b = get[bias][0] if bias else [0] * len(get[weight])
        return [mp.fsum(r * v for r, v in zip(row, x, strict=True)) + c for row, c in zip(get[weight], b, strict=True)]

    def norm(x, name):
        mean = mp.fsum(x) / len(x)
        var = mp.fsum((v - mean) ** 2 for v in x) / len(x)
        g, b = get[name + ".g"][0], get[name + ".b"][0]
        return [(v - mean) / mp.sqrt(var + mp.mpf(1e-5)) * gi + bi for v, gi, bi in zip(x, g, b, strict=True)]

    def gelu(v):
        if activation == "gelu_erf":
            return v * (1 + mp.erf(v / mp.sqrt(2))) / 2
        return v / 2 * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (v + mp.mpf("0.044715") * v**3)))

    def add(x, y):
        return [a + b for a, b in zip(x, y, strict=True)]

    x = [add(get["tok"][t], get["pos"][n]) for n, t in enumerate(tokens)]
    d = len(x[0])
    h = d // heads
    for i in range(SIZES["layers"]):
        n = [norm(r, f"{i}.ln1") for r in x]
        q, k, v = ([linear(r, f"{i}.attn.w{c}", f"{i}.attn.b{c}") for r in n] for c in "qkv")
        out = []
        for row in range(len(x)):
            mixed = []
            for head in range(heads):
                s = slice(head * h, head * h + h)
                scores = [
                    mp.exp(mp.fsum(a * b for a, b in zip(q[row][s], k[j][s], strict=True)) / mp.sqrt(h))
                    for j in range(row + 1)
                ]
                total = mp.fsum(scores)
                mixed += [mp.fsum(scores[j] / total * v[j][c] for j in range(row + 1)) for c in range(d)[s]]
            out.append(linear(mixed, f"{i}.attn.wo", f"{i}.attn.bo"))
        x = [add(a, b) for a, b in zip(x, out, strict=True)]
        hidden = [[gelu(u) for u in linear(norm(r, f"{i}.ln2"), f"{i}.ffn.w1", f"{i}.ffn.b1")] for r in x]
        x = [add(a, linear(u, f"{i}.ffn.w2", f"{i}.ffn.b2")) for a, u in zip(x, hidden, strict=True)]
    return [linear(norm(r, "lnf"), "head.w" if "head.w" in get else "tok") for r in x]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("activation", ["gelu_tanh", "gelu_erf"])
def test_the_forward_is_the_formulas(tied: bool, activation: str) -> None:
    plain = model(tied=tied, activation=activation)
    tokens = [3, 0, 10, 3, 7]
    exact = by_the_formulas({k: v.detach() for k, v in plain.named().items()}, tokens, 2, activation)
    logits = plain(torch.tensor([tokens]))[0].tolist()
    for got, wanted in zip(logits, exact, strict=True):
        assert all(abs(g - w) < 1e-12 for g, w in zip(got, wanted, strict=True))  # a wrong term moves 1e-2


def test_loss_is_the_sum_over_valid_targets_with_smoothing() -> None:
    plain = model().requires_grad_(False)
    tokens, targets = torch.tensor([[1, 2, 3]]), torch.tensor([[2, -100, 4]])
    logp = F.log_softmax(plain(tokens), -1)[0]
    s, v = 0.1, SIZES["vocab"]
    wanted = -sum((1 - s) * logp[t, y] + s / v * logp[t].sum() for t, y in ((0, 2), (2, 4)))
    assert float(plain.loss_sum(tokens, targets, smoothing=s)) == pytest.approx(float(wanted), rel=1e-13)


def test_packed_documents_are_as_if_alone() -> None:
    plain = model()
    first, second = torch.tensor([[5, 6, 7]]), torch.tensor([[8, 9]])
    rows = torch.cat([first, second, torch.zeros(1, 2, dtype=torch.int64)], 1)
    documents = torch.tensor([[0, 0, 0, 1, 1, -1, -1]])
    inputs, targets, masked = inputs_and_targets(rows, documents, True)
    assert targets.tolist() == [[6, 7, -100, 9, -100, -100]]
    together = plain(inputs, masked)[0]
    torch.testing.assert_close(together[:3], plain(first)[0], rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(together[3:5], plain(second)[0], rtol=1e-13, atol=1e-13)
    assert inputs_and_targets(rows, documents)[1].tolist() == [[6, 7, 8, 9, -100, -100]]
    assert inputs_and_targets(rows, documents)[2] is None


def test_parameters_are_those_of_the_design() -> None:
    for sizes, count in (
        ({"layers": 4, "width": 128, "heads": 4, "ff": 512, "context": 512, "vocab": 1000}, 986_880),
        ({"layers": 6, "width": 512, "heads": 8, "ff": 2048, "context": 512, "vocab": 10000}, 24_297_472),
    ):
        with torch.device("meta"):
            plain = PlainGPT(**sizes)
        assert sum(p.numel() for p in plain.parameters()) == count
        assert sum(p.numel() for p in plain.named().values()) == count


def test_load_named_takes_every_value_and_refuses_others() -> None:
    one, two = model(), PlainGPT(**SIZES, dtype=torch.float64)
    two.load_named(one.named())
    tokens = torch.tensor([[1, 2, 3, 4]])
    assert torch.equal(one(tokens), two(tokens))
    names = dict(one.named())
    with pytest.raises(UsageError, match=r"missing \['0.attn.bq'\], unknown \['x'\]"):
        two.load_named({"x": names["tok"], **{k: v for k, v in names.items() if k != "0.attn.bq"}})
    with pytest.raises(UsageError, match=r"tok: expected \[11, 8\], got \[8, 11\]"):
        two.load_named({**names, "tok": names["tok"].T})


def test_decay_is_on_matrices_only() -> None:
    plain = model(tied=False)
    decayed, others = adamw(plain).param_groups
    names = {id(p): name for name, p in plain.named().items()}
    assert {names[id(p)] for p in decayed["params"]} == {
        "tok", "head.w", *(f"{i}.{m}" for i in range(2) for m in
                           ("attn.wq", "attn.wk", "attn.wv", "attn.wo", "ffn.w1", "ffn.w2")),
    }  # fmt: skip
    assert len(decayed["params"]) + len(others["params"]) == len(names)
    assert decayed["weight_decay"] == 0.1 and others["weight_decay"] == 0


@pytest.mark.parametrize("variant", ["eager fp32", "eager bf16"])
def test_a_step_trains(variant: str) -> None:
    tokens = torch.randint(11, (4, 7), generator=torch.Generator().manual_seed(0))
    step = peer_steps(SIZES, tokens, (variant,), lr=1e-2)[variant]
    losses = [step() for _ in range(150)]
    assert abs(losses[0] - math.log(11)) < 0.1 and losses[-1] < 0.5


def test_a_step_is_torchs_own_arithmetic() -> None:
    tokens = torch.randint(11, (2, 7), generator=torch.Generator().manual_seed(3))
    one, two = model(dtype=torch.float32), model(dtype=torch.float32)
    loss = peer_step(one, tokens, "eager fp32", lr=1e-2, clip=0.5)()
    inputs, targets, _ = inputs_and_targets(tokens, torch.zeros_like(tokens))
    wanted = two.loss_sum(inputs, targets) / targets.numel()
    wanted.backward()
    named = list(two.named().items())
    norm = torch.stack([p.grad.norm() for _, p in named if p.grad is not None]).norm()
    assert norm > 0.5 and loss == pytest.approx(float(wanted.detach()), rel=1e-6)
    for name, p in named:
        g = p.grad * (0.5 / (norm + 1e-6))
        update = 1e-2 * g / (g.abs() + 1e-8)  # the first step of Adam: m̂ = g, √v̂ = |g|
        decay = 1 - 1e-2 * (0.1 if p.ndim == 2 and name != "pos" else 0.0)
        seen = g.abs() > 1e-5  # below, ε and rounding decide
        torch.testing.assert_close(one.named()[name][seen], (p * decay - update)[seen], rtol=1e-4, atol=2e-5, msg=name)


@pytest.mark.prove
@pytest.mark.filterwarnings("ignore")  # torch.compile's own
@pytest.mark.parametrize("kind", ["fp32", "bf16"])
def test_compiled_is_eager(kind: str) -> None:
    tokens = torch.randint(11, (2, 7), generator=torch.Generator().manual_seed(1))
    steps = peer_steps(SIZES, tokens, (f"eager {kind}", f"compile {kind}"))
    for _ in range(3):
        eager, compiled = (step() for step in steps.values())
        assert compiled == pytest.approx(eager, abs=1e-4 if kind == "fp32" else 3e-2)


def test_unknown_variant() -> None:
    with pytest.raises(UsageError, match=r"expected one of eager fp32, .*got 'int4'"):
        peer_step(model(), torch.zeros(1, 3, dtype=torch.int64), "int4")
    assert len(VARIANTS) == 4
