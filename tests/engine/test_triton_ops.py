"""The Triton kernels through the checks of the torch ops, in Triton's interpreter (or on a GPU: elsewhere.py), with
blocks so short that small shapes have several of them and a tail; and wrong kernels, which the checks must refuse."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import elsewhere
import pytest
import torch
from op_checks import (
    DTYPES,
    Draw,
    check_cross_entropy,
    check_dropout,
    check_embedding,
    check_gelu,
    check_layernorm,
    check_linear,
    check_linear_gelu,
)

from cllm.engine import adamw as twin
from cllm.engine import cuda
from cllm.engine.cross_entropy import in_place
from cllm.engine.cuda import adamw, arithmetic, cross_entropy, dropout, embedding, gelu, layernorm, linear
from cllm.engine.dropout import Key, dropout_mask
from cllm.engine.layernorm import EPS
from judges import plain_ops
from judges.bounds import Bounded, check, stored
from judges.bounds import adamw as adamw_bound
from judges.bounds import layernorm_forward as layernorm_bound

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch):
    if elsewhere.DEVICE != "cpu":  # a GPU has the real sizes
        return
    monkeypatch.setattr(cross_entropy, "COLUMNS", 64)
    monkeypatch.setattr(embedding, "PIECE", 4)
    monkeypatch.setattr(embedding, "COLUMNS", 16)
    monkeypatch.setattr(gelu, "COLUMNS", 16)
    monkeypatch.setattr(linear, "COLUMNS", 16)
    monkeypatch.setattr(layernorm, "PROGRAMS", 3)
    monkeypatch.setattr(layernorm, "COLUMNS", 8)
    monkeypatch.setattr(dropout, "LANES", 4)
    monkeypatch.setattr(adamw, "BLOCK", 64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n", "width", "scale", "shift"), [(7, 37, 1.0, 0.5), (3, 1, 1.0, 0.0), (5, 64, 30.0, 1.0), (1, 67, 1e-2, 0.0)]
)
def test_layernorm(dtype, n, width, scale, shift):
    check_layernorm(elsewhere.kernels(dtype), dtype, 1, n, width, scale, shift)


@pytest.mark.parametrize("dtype", DTYPES)
def test_layernorm_of_a_sum(dtype):
    d, n, width = Draw(3, dtype), 5, 37
    x, branch, bias, g, b = d.wide(n, width), d.normal(n, width), d.wide(width), d.wide(width, shift=1.0), d.wide(width)
    out, y, mean, rstd = d.room(n, width), d.empty(n, width), d.room(n, 1), d.room(n, 1)
    elsewhere.here(layernorm.joined_layernorm_forward)(x, branch, bias, out, g, b, y, mean, rstd)
    bx, bbranch, bbias, bg, bb = d.bounded(x, branch, bias, g, b)
    total = bx + bbranch + bbias
    by, bmean, brstd = layernorm_bound(total, bg, bb)
    check("out", out, total.v, total)
    exact = plain_ops.layernorm(total.v, g.double(), b.double())
    check("y", y, exact, stored(by, dtype))
    check("mean", mean, total.v.mean(1, keepdim=True), bmean)
    check("rstd", rstd, (total.v.var(1, correction=0, keepdim=True) + EPS).rsqrt(), brstd)


def test_a_layernorm_too_wide_for_a_program_takes_the_torch_ops(monkeypatch):
    monkeypatch.setattr(layernorm, "WIDEST", 16)
    monkeypatch.setattr(layernorm, "launch", None)
    check_layernorm(elsewhere.kernels(torch.float32), torch.float32, 1, 3, 17, 1.0, 0.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n", "i", "o", "bias", "joins"),
    [
        (7, 5, 37, True, False),
        (7, 5, 3, True, True),
        (5, 3, 2, False, True),
        (2, 9, 4, False, False),
        (1, 1, 1, True, False),
    ],
)
def test_linear(dtype, n, i, o, bias, joins):
    check_linear(elsewhere.kernels(dtype), dtype, 1, n, i, o, bias, joins)


@pytest.mark.parametrize("dtype", DTYPES)
def test_logits_are_not_rounded(dtype):
    """A product into the precision of sums, as the head's."""
    d = Draw(5, dtype)
    x, w, y = d.normal(3, 17), d.normal(5, 17), d.room(3, 5)
    elsewhere.kernels(dtype).linear_forward(x, w, None, y, None)
    bx, bw = d.bounded(x, w)
    check("y", y, x.double() @ w.double().t(), bx @ bw.mT)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("b", "t", "width", "vocab", "restart"),
    [
        (2, 11, 19, 3, False),
        (1, 37, 5, 1, False),
        (2, 9, 16, 50, True),
        (1, 1, 1, 1, True),
    ],
)
def test_embedding(dtype, b, t, width, vocab, restart):
    check_embedding(elsewhere.kernels(dtype), dtype, 1, b, t, width, vocab, restart)


@pytest.mark.parametrize("count", [3, 4, 5, 8, 9, 23])
def test_runs_of_one_token_beside_each_other(count):
    """The last piece of one run and the first of the next may start within the same stretch of rows."""
    d = Draw(count, torch.float64)
    index = torch.arange(4).repeat_interleave(count)[torch.randperm(4 * count, generator=d.generator)]
    dx, table = d.wide(4 * count, 3), torch.zeros(5, 3, dtype=torch.float64)
    elsewhere.here(embedding.scatter)(dx, index, table)
    for token in range(4):
        total = torch.zeros(3, dtype=torch.float64)
        rows = dx[index == token]
        for piece in rows.split(embedding.PIECE):
            total += sum(piece[1:], piece[0].clone())
        assert torch.equal(table[token], total), "not the sum of the pieces, in their order"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", ["gelu_tanh", "gelu_erf"])
def test_gelu(form, dtype):
    for scale in (1e-4, 1.0, 4.0, 100.0):
        check_gelu(elsewhere.kernels(dtype, form), dtype, 1, 6, scale, form)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "i", "f", "o"), [(5, 11, 37, 7), (1, 1, 1, 1)])
def test_linear_with_gelu(dtype, n, i, f, o):
    check_linear_gelu(elsewhere.kernels(dtype), dtype, 1, n, i, f, o)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n", "vocab", "ignored", "smoothing", "scale"),
    [
        (6, 131, True, 0.1, 3.0),
        (3, 2, False, 0.0, 1.0),
        (4, 64, True, 0.5, 40.0),
        (2, 257, False, 0.0, 0.1),
    ],
)
def test_cross_entropy(dtype, n, vocab, ignored, smoothing, scale):
    check_cross_entropy(elsewhere.kernels(dtype), dtype, 1, n, vocab, ignored, smoothing, scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("b", "t", "width", "p"), [(2, 3, 21, 0.3), (1, 1, 1, 0.5), (3, 2, 16, 0.01)])
def test_dropout(dtype, b, t, width, p):
    check_dropout(elsewhere.kernels(dtype), dtype, 1, b, t, width, p, 2)


def test_the_mask_takes_its_step_from_the_device():
    found, wanted = torch.zeros(2, 3, 21, dtype=torch.bool), torch.zeros(2, 3, 21, dtype=torch.bool)
    step, seed = 2**31 + 7, 2**32 - 5
    mask = elsewhere.kernels(torch.float32).dropout_mask
    for key in (Key(seed, torch.tensor(step), 9), Key(seed, step, 9)):
        if elsewhere.DEVICE == "cpu" or isinstance(key.step, int):
            mask(key, 0.3, 200, 3, found)
            dropout_mask(Key(seed, step, 9), 0.3, 200, 3, wanted)
            assert torch.equal(found, wanted)


STEP = {"lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-8, "decay": 0.1, "scale": 1 / 37}


def drawn(n, dtype, shadowed=False):
    d = Draw(n, torch.float64)
    start = [(d.wide(n) * torch.exp(2 * d.wide(n))).to(dtype) for _ in range(4)]
    start[3].abs_()
    return [x.clone() for x in start], torch.zeros(n, dtype=torch.bfloat16) if shadowed else None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("t", [1, 3, 1000])
def test_adamw(dtype, t):
    for n in (1, 63, 64, 67, 200):
        (w, g, m, v), shadow = drawn(n, dtype, shadowed=True)
        bounds = [Bounded(x.clone(), 2.0 ** (-24 if dtype == torch.float32 else -53)) for x in (w, g, m, v)]
        elsewhere.kernels(torch.float32).adamw(w, g, m, v, t=t, shadow=shadow, **STEP)
        for name, got, bound in zip("wmv", (w, m, v), adamw_bound(*bounds, t=t, **STEP), strict=True):
            check(name, got, bound.v, bound)
        assert torch.equal(shadow, w.float().to(torch.bfloat16))


@pytest.mark.skipif(elsewhere.DEVICE != "cpu", reason="a GPU fuses multiplications and additions")
def test_adamw_rounds_as_its_twin_does():
    (w, g, m, v), _ = drawn(300, torch.float32)
    others = [x.clone() for x in (w, g, m, v)]
    elsewhere.kernels(torch.float32).adamw(w, g, m, v, t=5, **STEP)
    twin.adamw(*others, t=5, **STEP)
    assert all(torch.equal(a, b) for a, b in zip((w, m, v), (others[0], *others[2:]), strict=True))


@pytest.mark.parametrize("go", [True, False])
def test_the_device_decides_whether_there_is_an_update(go):
    betas, numbers = STEP["betas"], {"scale": 1 / 37, "lr": 1e-2}
    scale, lr = (torch.tensor(x, dtype=torch.float64) for x in numbers.values())
    factors = twin.factors(scale, lr, torch.tensor(5), STEP["decay"], betas, torch.tensor(go))
    (w, g, m, v), shadow = drawn(131, torch.float32, shadowed=True)
    g[7] = math.nan if not go else g[7]
    before = [x.clone() for x in (w, g, m, v, shadow)]
    elsewhere.here(adamw.adamw_on_device)(w, g, m, v, factors, betas=betas, eps=STEP["eps"], shadow=shadow)
    if not go:
        assert all(torch.equal(a, b) for a, b in zip((w, m, v, shadow), (before[0], *before[2:]), strict=True))
        return
    bounds = [Bounded(x, 2.0**-24) for x in before[:4]]
    for name, got, bound in zip("wmv", (w, m, v), adamw_bound(*bounds, t=5, **STEP), strict=True):
        check(name, got, bound.v, bound)


def test_sum_of_squares():
    x = Draw(1, torch.float32).wide(1009)
    found = elsewhere.kernels(torch.float32).sum_of_squares(x)
    exact = math.fsum(a * a for a in x.double().tolist())
    assert abs(found - exact) <= (1009 + 8) * 2.0**-53 * exact


@pytest.mark.skipif(elsewhere.DEVICE != "cpu", reason="the interpreter's case of exp")
def test_exp_is_accurate_far_from_zero():
    """The kernels' eˣ by 2ᵏ·2ʳ: the same within eight roundings down to where float32 has no normal numbers."""
    import triton
    import triton.language as tl

    @triton.jit
    def kernel(x, y, BLOCK: tl.constexpr):
        at = tl.arange(0, BLOCK)
        tl.store(y + at, arithmetic.exponential(tl.load(x + at)))

    x = torch.linspace(-87.0, 87.0, 4096)
    y = torch.empty_like(x)
    kernel[(1,)](x, y, BLOCK=4096)
    exact = x.double().exp()
    assert ((y.double() - exact).abs() <= 8 * 2.0**-24 * exact).all()
    for value, wanted in ((-math.inf, 0.0), (-1e30, 0.0), (0.0, 1.0)):
        kernel[(1,)](torch.full((2,), value), y[:2], BLOCK=2)
        assert y[0] == wanted
    kernel[(1,)](torch.full((2,), math.nan), y[:2], BLOCK=2)
    assert y[0].isnan()


def test_bfloat16_is_rounded_to_nearest_even():
    d = Draw(1, torch.float32)
    special = torch.tensor([0.0, -0.0, 1e-40, 3.4e38, math.inf, -math.inf, math.nan])
    x = torch.cat((d.wide(500) * torch.exp(20 * d.wide(500)), 1 + torch.arange(64) * 2.0**-9, special))
    n = x.numel()
    y, zero = torch.empty(1, n, dtype=torch.bfloat16), torch.zeros(n)
    (w, g, m, v) = x.clone(), zero.clone(), zero.clone(), zero.clone()
    elsewhere.kernels(torch.float32).adamw(w, g, m, v, t=1, shadow=y[0], **STEP | {"lr": 0.0})
    assert torch.equal(w.nan_to_num(7.0), x.nan_to_num(7.0))
    assert torch.equal(y[0].view(torch.int16)[:-1], x.to(torch.bfloat16).view(torch.int16)[:-1]) and y[0, -1].isnan()


def test_nothing_is_hidden_by_the_kernels():
    """What is not finite stays so: the guard must see it."""
    k = elsewhere.kernels(torch.float32)
    z = torch.zeros(3, 140)
    z[1, 77], z[2, 8] = torch.nan, torch.inf
    loss, lse = torch.zeros(3), torch.zeros(3)
    with pytest.warns(RuntimeWarning) if elsewhere.DEVICE == "cpu" else _nothing():
        k.cross_entropy(z, torch.tensor([0, 0, 0]), 0.0, loss, lse, z)
    assert loss.isfinite().tolist() == [True, False, False]
    x, y, one = torch.ones(2, 40), torch.zeros(2, 40), torch.ones(40)
    x[1, 3] = torch.nan
    k.layernorm_forward(x, one, one, y, torch.zeros(2, 1), torch.zeros(2, 1))
    assert y[0].isfinite().all() and y[1].isnan().all()
    pre, post = torch.full((1, 3), math.nan), torch.zeros(1, 3)
    k.gelu_forward(pre, post)
    assert post.isnan().all()


def test_a_tensor_of_another_kind_is_refused():
    k = elsewhere.kernels(torch.float32)
    x, one = torch.zeros(2, 8), torch.zeros(4)
    with pytest.raises(ValueError, match="expected a contiguous"):
        k.layernorm_forward(x[:, ::2], one, one, torch.zeros(2, 4), torch.zeros(2, 1), torch.zeros(2, 1))
    with pytest.raises(ValueError, match="contiguous rows"):
        k.gelu_forward(x.t(), torch.zeros(8, 2).t().t())
    with pytest.raises(IndexError, match="the table has 1"):
        k.embedding_forward(torch.zeros(1, 2, dtype=torch.int64), None, x, x[:1], torch.zeros(2, 8))
    with pytest.raises(IndexError, match="int64"):
        k.embedding_forward(torch.zeros(1, 2), None, x, x, torch.zeros(2, 8))


def test_the_name_says_the_device():
    assert [cuda.kernels(dtype).name for dtype in DTYPES] == ["cuda-fp64", "cuda-fp32", "cuda-bf16"]


# Mutants, each one wrong line of a kernel: module, what stands there, what is put there, the check that must fail.

LAYERNORM = partial(check_layernorm, seed=1, n=5, width=6, scale=0.1, shift=0.0)
GELU = partial(check_gelu, seed=1, n=9, scale=1.0, form="gelu_tanh")
LINEAR_GELU = partial(check_linear_gelu, seed=1, n=3, i=5, f=19, o=2)
EMBEDDING = partial(check_embedding, seed=1, b=2, t=11, width=19, vocab=3, restart=False)
ENTROPY = partial(check_cross_entropy, seed=1, n=6, vocab=131, ignored=True, smoothing=0.1, scale=1.0)
DROPOUT = partial(check_dropout, seed=1, b=2, t=3, width=21, p=0.3, site=2)
MUTANTS = [
    ("layernorm", "hat - tl.sum(hat, 0) * (1.0 / WIDTH) - normal", "hat - normal", LAYERNORM),
    ("layernorm", "- normal * inner) * r", ") * r", LAYERNORM),
    ("layernorm", "hat = found * gain", "hat = found", LAYERNORM),
    ("layernorm", "tl.load(dx + at, mask=inside, other=0.0) + d", "d", LAYERNORM),
    ("layernorm", "gain + more_gain", "more_gain", LAYERNORM),
    ("layernorm", "for program in range(count):", "for program in range(count - 1):", LAYERNORM),
    ("layernorm", "range(program, rows, PROGRAMS)", "range(program, rows - 1, PROGRAMS)", LAYERNORM),
    ("layernorm", "centred * centred, 0) * (1.0 / WIDTH)", "centred * centred, 0) * (1.0 / (WIDTH - 1))", LAYERNORM),
    ("layernorm", "tl.where(inside, x - mean, 0.0)", "x - mean", LAYERNORM),
    ("gelu", "+ 1.0) * s\n", ") * s\n", GELU),
    ("gelu", "(3.0 * CUBIC)", "CUBIC", GELU),
    ("gelu", "x = widened(kept)", "x = widened(kept) + 0.01", LINEAR_GELU),
    ("gelu", "x += tl.load(bias + column, mask=inside, other=0.0)", "pass", LINEAR_GELU),
    ("gelu", "row * pre_row", "row * width", LINEAR_GELU),
    ("embedding", "range(i + PIECE, stop", "range(i + 2 * PIECE, stop", EMBEDDING),
    ("embedding", "(i // PIECE) * 2 + (i == start).to(tl.int64)", "i // PIECE", EMBEDDING),
    ("embedding", "if stop - start <= PIECE:", "if stop - start < PIECE * 100:", EMBEDDING),
    ("embedding", "tl.load(to, mask=inside, other=0.0) + total", "total", EMBEDDING),
    ("embedding", "at = n % SEQUENCE", "at = n % SEQUENCE + 1", EMBEDDING),
    ("cross_entropy", "d -= SMOOTHING / VOCAB", "pass", ENTROPY),
    ("cross_entropy", "tl.where(target < 0, 0.0, d)", "d", ENTROPY),
    ("cross_entropy", "total * exponential(top - higher)", "total", ENTROPY),
    ("cross_entropy", "plain += tl.sum", "plain = tl.sum", ENTROPY),
    ("cross_entropy", "d - (1.0 - SMOOTHING)", "d - 1.0", ENTROPY),
    ("dropout", "interleave(w0, w2), tl.interleave(w1, w3)", "interleave(w0, w1), tl.interleave(w2, w3)", DROPOUT),
    ("dropout", "// SEQUENCE + first_row", "// SEQUENCE", DROPOUT),
]  # fmt: skip
OPS = {
    "layernorm": ("layernorm_forward", "layernorm_backward"),
    "gelu": ("linear_gelu_forward", "linear_gelu_backward_input", "gelu_forward"),
    "embedding": ("embedding_forward", "embedding_backward"),
    "cross_entropy": ("cross_entropy",),
    "dropout": ("dropout_mask",),
}


def mutant(tmp_path: Path, module: str, old: str, new: str):
    """The module with one place changed, under another name."""
    original = importlib.import_module(f"cllm.engine.cuda.{module}")
    text = Path(original.__file__).read_text()
    assert old in text, f"{module} has no {old!r} any more"
    path = tmp_path / f"mutant_{module}.py"
    path.write_text(text.replace(old, new))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    for name in ("PIECE", "COLUMNS", "LANES", "PROGRAMS"):  # the short blocks
        if hasattr(found, name):
            setattr(found, name, getattr(original, name))
    return found


@pytest.mark.skipif(elsewhere.DEVICE != "cpu", reason="tests of the checks, not of the device")
@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize(("module", "old", "new", "run"), MUTANTS, ids=lambda x: x if isinstance(x, str) else "")
def test_the_checks_refuse_a_wrong_kernel(tmp_path, monkeypatch, module, old, new, run, changed):
    if not changed and (module, old) not in FIRST:
        return
    empty = torch.empty

    def poisoned(*shape, **options):  # what a kernel reads before it is written is no lucky zero
        made = empty(*shape, **options)
        return made.fill_(torch.nan) if made.is_floating_point() else made

    monkeypatch.setattr(torch, "empty", poisoned)
    found = mutant(tmp_path, module, old, new if changed else old)
    form = {"form": "gelu_tanh"} if module == "gelu" else {}
    ops = {name: partial(getattr(found, name), **form) for name in OPS[module]}
    kernels = replace(cuda.kernels(torch.float64), **ops)
    if changed:
        with pytest.raises((AssertionError, IndexError)):
            run(kernels, torch.float64)
    else:
        run(kernels, torch.float64)


FIRST = {(module, next(old for m, old, *_ in MUTANTS if m == module)) for module in OPS}


@pytest.mark.skipif(elsewhere.DEVICE != "cpu", reason="tests of the checks, not of the device")
@pytest.mark.parametrize(("old", "new"), [
    ("first * rate", "first"), ("x * (1.0 - B2) * x", "x * (1.0 - B1) * x"), ("weight * keep -", "weight -"),
    ("* root + EPS", "+ EPS"),
    ("tl.load(g + at, mask=inside, other=0.0) * scale", "tl.load(g + at, mask=inside, other=0.0)"),
])  # fmt: skip
def test_the_bound_refuses_a_wrong_update(tmp_path, old, new):
    found = mutant(tmp_path, "adamw", old, new)
    (w, g, m, v), _ = drawn(67, torch.float32)
    bounds = [Bounded(x.clone(), 2.0**-24) for x in (w, g, m, v)]
    found.adamw(w, g, m, v, t=2, **STEP)
    with pytest.raises(AssertionError):
        for name, got, bound in zip("wmv", (w, m, v), adamw_bound(*bounds, t=2, **STEP), strict=True):
            check(name, got, bound.v, bound)


def test_moved_kernels_bring_everything_back():
    """The way to another device (here a copy on the same one): strides, shared memory and results survive it."""
    k = elsewhere.moved(cuda.kernels(torch.bfloat16), "cpu")
    check_cross_entropy(k, torch.bfloat16, 1, 6, 131, True, 0.1, 3.0)
    check_linear_gelu(k, torch.bfloat16, 1, 3, 5, 19, 2)
    z = torch.randn(2, 8)
    dz = in_place(z, torch.bfloat16)
    k.cross_entropy(z, torch.tensor([1, 2]), 0.0, torch.zeros(2), torch.zeros(2), dz)
    assert abs(float(dz[0].float().sum())) < 0.05


def _nothing():
    from contextlib import nullcontext

    return nullcontext()
