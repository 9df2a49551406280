"""The optimiser's native kernels: the bits of the torch twins at every level and thread count, and the formulas.

The twins are held against the formula in 50 digits in test_optimisers.py; equal bits carry that over. What is new in
the 8-bit form, the codes, is checked here against exact rationals.
"""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cllm import native
from cllm.engine import adamw as twin
from cllm.engine import moments as twin8
from cllm.engine import rounded
from cllm.engine.moments import Coded, blocks, decode_m, decode_v
from cllm.engine.split import Halves, join, split
from judges.bounds import UNIT, Bounded, check, gamma
from judges.bounds import adamw as adamw_bound

kernels = pytest.importorskip("cllm.engine.native.adamw")
kernels8 = pytest.importorskip("cllm.engine.native.moments")
native_rounded = pytest.importorskip("cllm.engine.native.rounded")

SIZES = [1, 2, 15, 255, 256, 257, 511, 4097, 70001]
GUARD = 64


def drawn(seed: int, n: int, dtype: torch.dtype = torch.float32, spread: float = 3.0) -> torch.Tensor:
    """Numbers over many orders of magnitude, with some exact zeros."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, generator=generator, dtype=torch.float64)
    x *= torch.exp(spread * torch.randn(n, generator=generator, dtype=torch.float64))
    x[torch.rand(n, generator=generator) < 0.05] = 0.0
    return x.to(dtype)


def guarded(x: torch.Tensor) -> torch.Tensor:
    """A copy of x with guard entries on both sides; the middle is returned, the whole is its `_base`."""
    whole = torch.full((x.numel() + 2 * GUARD,), 77, dtype=x.dtype)
    whole[GUARD : GUARD + x.numel()] = x
    return whole[GUARD : GUARD + x.numel()]


def untouched(*views: torch.Tensor) -> bool:
    bases = [view._base for view in views]
    return all(bool((base[:GUARD] == 77).all() and (base[-GUARD:] == 77).all()) for base in bases)


def levels() -> list[str]:
    if native.load("engine", "engine") is None:
        return []
    highest = native.level("engine", "engine")
    return list(native.LEVELS[: native.LEVELS.index(highest) + 1]) if highest in native.LEVELS else [highest]


@pytest.fixture(params=levels() or ["off"])
def level(request, monkeypatch):
    if request.param == "off":
        pytest.skip(native.why_not("engine", "engine"))
    monkeypatch.setenv(native.VARIABLE, request.param)
    return request.param


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


STEP = {"t": 3, "lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-8, "decay": 0.1, "scale": 1 / 37}


@pytest.mark.parametrize("shadowed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adamw_has_the_bits_of_its_twin(level, threads, dtype, shadowed):
    for n in SIZES:
        start = [drawn(1, n, dtype), drawn(2, n, dtype), drawn(3, n, dtype), drawn(4, n, dtype).abs()]
        sets = []
        for update in (twin.adamw, kernels.adamw, kernels.adamw):
            w, g, m, v = (guarded(x) for x in start)
            shadow = guarded(torch.zeros(n, dtype=torch.bfloat16)) if shadowed else None
            update(w, g, m, v, shadow=shadow, **STEP)
            assert torch.equal(g, start[1])
            sets.append([w, m, v, *([] if shadow is None else [shadow])])
            assert untouched(w, g, m, v, *sets[-1])
        for once, again, other in zip(*sets, strict=True):
            assert torch.equal(once, again) and torch.equal(again, other)
        if shadowed:
            assert torch.equal(sets[1][3], sets[1][0].to(torch.float32).to(torch.bfloat16))


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sgd_has_the_bits_of_its_twin(level, threads, dtype, nesterov):
    for n in SIZES:
        start = [drawn(1, n, dtype), drawn(2, n, dtype), drawn(3, n, dtype)]
        sets = []
        for update in (twin.sgd, kernels.sgd):
            w, g, m = (guarded(x) for x in start)
            shadow = guarded(torch.zeros(n, dtype=torch.bfloat16))
            update(w, g, m, lr=0.1, momentum=0.9, nesterov=nesterov, decay=0.1, scale=0.3, shadow=shadow)
            assert untouched(w, g, m, shadow) and torch.equal(g, start[1])
            sets.append([w, m, shadow])
        assert all(torch.equal(a, b) for a, b in zip(*sets, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_sum_of_squares(level, dtype):
    before = torch.get_num_threads()
    for n in SIZES:
        g = drawn(5, n, dtype)
        exact = math.fsum(x * x for x in g.double().tolist())
        found = []
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(kernels.sum_of_squares(g))
        torch.set_num_threads(before)
        assert found[0] == found[1], "any number of threads"
        assert abs(found[0] - exact) <= gamma(n + 2, UNIT[torch.float64]) * exact
        assert abs(twin.sum_of_squares(g) - exact) <= gamma(n + 8, UNIT[torch.float64]) * exact
    for bad in (math.nan, math.inf, -math.inf):
        g = drawn(5, 5000, dtype)
        g[4999] = bad
        assert not math.isfinite(kernels.sum_of_squares(g))
    assert kernels.sum_of_squares(torch.empty(0, dtype=dtype)) == 0.0


def test_the_sum_is_the_same_at_every_level_natively(monkeypatch):
    sums = {}
    for name in levels():
        monkeypatch.setenv(native.VARIABLE, name)
        sums[name] = [kernels.sum_of_squares(drawn(6, 30001, d)) for d in (torch.float32, torch.float64)]
    assert len({tuple(found) for found in sums.values()}) <= 1


# ------------------------------------------------------------------------------------------------ the split master

EDGES = [0x00000000, 0x80000000, 0x00000001, 0x00008000, 0x00018000, 0x00007FFF, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000,
         0xFF800000, 0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x3F808000, 0x3F818000, 0xBF808000]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40))
def test_every_float_survives_the_split(words):
    bits = torch.tensor(EDGES + words, dtype=torch.int64)
    w = torch.where(bits >= 2**31, bits - 2**32, bits).to(torch.int32).view(torch.float32)
    halves = Halves(torch.empty(len(w), dtype=torch.bfloat16), torch.empty(len(w), dtype=torch.int16))
    split(w, halves)
    assert torch.equal(join(halves).view(torch.int32), w.view(torch.int32))
    # the bfloat16 is a nearest one: no further away than that of rounding to nearest even
    # (but where bfloat16 has no finite neighbour: there both are infinite)
    calm = torch.isfinite(w) & torch.isfinite(w.bfloat16()) & torch.isfinite(halves.high)
    off = (halves.high.double() - w.double()).abs()[calm]
    assert torch.equal(off, (w.bfloat16().double() - w.double()).abs()[calm])


def test_a_tie_is_rounded_up_and_its_residual_fits():
    w = torch.tensor([0x3F808000], dtype=torch.int32).view(torch.float32)  # 1 + 2⁻⁸, between two bfloat16
    halves = Halves(torch.empty(1, dtype=torch.bfloat16), torch.empty(1, dtype=torch.int16))
    split(w, halves)
    assert halves.low.item() == -(2**15) and halves.high.item() == 1 + 2**-7
    assert w.bfloat16().item() == 1.0  # to nearest even: the residual would be +2¹⁵


# ---------------------------------------------------------------------------------------------------- 8-bit moments


def fresh(n: int) -> tuple[Coded, Coded]:
    scales = blocks(n)
    return (
        Coded(guarded(torch.zeros(n, dtype=torch.int8)), guarded(torch.zeros(scales))),
        Coded(guarded(torch.zeros(n, dtype=torch.uint8)), guarded(torch.zeros(scales))),
    )


def halves_of(w: torch.Tensor) -> Halves:
    halves = Halves(
        guarded(torch.zeros(w.numel(), dtype=torch.bfloat16)), guarded(torch.zeros(w.numel(), dtype=torch.int16))
    )
    split(w, halves)
    return halves


@pytest.mark.parametrize("gradient", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("halved", [False, True])
def test_adamw8_has_the_bits_of_its_twin(level, threads, gradient, halved):
    for n in SIZES:
        start = drawn(1, n)
        sets = []
        for update in (twin8.adamw8, kernels8.adamw8):
            (m, v), w = fresh(n), halves_of(start) if halved else guarded(start)
            for t in range(1, 4):
                g = guarded(drawn(10 + t, n).to(gradient))
                update(w, g, m, v, first=1 << 31, **(STEP | {"t": t}))
                assert torch.equal(g, drawn(10 + t, n).to(gradient))
            sets.append([*(w if halved else [w]), *m, *v])
            assert untouched(*sets[-1])
        for i, (a, b) in enumerate(zip(*sets, strict=True)):
            assert torch.equal(a, b), (n, i)


def neighbours(value: Fraction, top: Fraction, codes: int, power: int) -> tuple[int, int, Fraction]:
    """The codes k, k + 1 around value = top·(k/codes)^power, and how far it lies between them."""
    k = 0
    while k < codes and top * (k + 1) ** power <= value * codes**power:
        k += 1
    if k == codes:
        return k, k, Fraction(0)
    low, high = (top * Fraction(x, codes) ** power for x in (k, k + 1))
    return k, k + 1, (value - low) / (high - low)


@pytest.mark.parametrize("seed", range(4))
def test_codes_are_the_neighbours_of_the_exact_moments(seed):
    """From coded moments, w, m and v of one step exactly: w within the bound of a float32 step, each code one
    of the two around the exact moment (the float32 rounding of the moment aside)."""
    n, u = 300, UNIT[torch.float32]
    w, (m, v) = drawn(seed, n), fresh(n)
    for t in range(1, 4):
        g = drawn(100 * seed + t, n)
        before_m, before_v = decode_m(m), decode_v(v)
        start = w.clone()
        twin8.adamw8(w, g, m, v, **(STEP | {"t": t}))
        exact = Bounded(before_m, u), Bounded(before_v, u)
        bw, bm, bv = adamw_bound(Bounded(start, u), Bounded(g, u), *exact, **(STEP | {"t": t}))
        check(f"w at t={t}", w, bw.v, bw)
        for coded, bound, codes, power in ((m, bm, 127, 2), (v, bv, 255, 4)):
            for block in range(blocks(n)):
                part = slice(256 * block, min(n, 256 * (block + 1)))
                scale = float(coded.scales[block])
                largest = int(bound.v[part].abs().argmax()) + part.start
                assert abs(scale - abs(float(bound.v[largest]))) <= float(bound.e[part].max())
                for i in range(part.start, part.stop):
                    value, slack = (
                        Fraction(abs(float(bound.v[i]))),
                        Fraction(float(bound.e[i])) + Fraction(scale) / 2**16,
                    )
                    low = neighbours(max(Fraction(0), value - slack), Fraction(scale), codes, power)[0]
                    high = neighbours(value + slack, Fraction(scale), codes, power)[1]
                    k = int(coded.codes[i])
                    assert low <= abs(k) <= max(high, 1), (i, k, low, high)
                    assert k == 0 or (k > 0) == (float(bound.v[i]) > 0)
                    if coded is v:
                        assert (k == 0) == (float(bound.v[i]) == 0.0) or float(bound.v[i]) < 1e-40


def test_a_code_is_right_on_average():
    """The mean over many steps' words is the value: within five standard errors of a draw between two neighbours."""
    n, steps = 256, 400
    m = drawn(1, n, spread=1.0)
    v = drawn(2, n, spread=1.0).abs()
    coded_m, coded_v = fresh(n)
    sums = [torch.zeros(n, dtype=torch.float64) for _ in range(2)]
    for t in range(steps):
        word = twin8.words(n, 0, t)
        twin8._encode_m(m, (word >> 16).float() * 2.0**-16, coded_m)
        twin8._encode_v(v, (word & 0xFFFF).float() * 2.0**-16, coded_v)
        sums[0] += decode_m(coded_m).double()
        sums[1] += decode_v(coded_v).double()
    for total, exact, codes, power in ((sums[0], m, 127, 2), (sums[1], v, 255, 4)):
        top = float(exact.abs().max())
        for i in range(n):
            k, above, part = neighbours(Fraction(abs(float(exact[i]))), Fraction(top), codes, power)
            gap = top * ((above / codes) ** power - (k / codes) ** power)
            error = gap * (math.sqrt(float(part * (1 - part)) / steps) + 2**-16)
            rounding = 8 * UNIT[torch.float32] * abs(float(exact[i]))  # of the decision and of the decoding
            raised = top / codes**power if power == 4 and k == 0 else 0.0  # a v that is not 0 never becomes 0
            assert abs(float(total[i]) / steps - float(exact[i])) <= 5 * error + rounding + raised, i


def test_rounding_to_nearest_would_hold_a_falling_v():
    """With zero gradients v falls by 1 − β₂ a step: the drawn codes follow it down on average."""
    n = 256
    w, (m, v) = torch.zeros(n), fresh(n)
    g = torch.full((n,), 0.1)
    g[0] = 1.0  # the scale of the block, renewed each step
    twin8.adamw8(w, g, m, v, **(STEP | {"t": 1, "scale": 1.0, "betas": (0.9, 0.999)}))
    begin = decode_v(v)[1:].mean().item()
    g[1:] = 0.0
    for t in range(2, 300):
        twin8.adamw8(w, g, m, v, **(STEP | {"t": t, "scale": 1.0, "betas": (0.9, 0.999)}))
    # 255 independent walks of unbiased rounding: their mean is within 15 % of 0.999²⁹⁸ = 0.742
    assert decode_v(v)[1:].mean().item() / begin == pytest.approx(0.999**298, rel=0.15)


@pytest.mark.parametrize("update", [twin8.adamw8, kernels8.adamw8], ids=["twin", "native"])
def test_zero_gradients_leave_exact_zeros(update):
    n = 300
    w = drawn(1, n)
    start, (m, v) = w.clone(), fresh(n)
    for t in range(1, 4):
        update(w, torch.zeros(n), m, v, **(STEP | {"t": t, "decay": 0.0}))
    assert torch.equal(w, start)
    assert not m.codes.any() and not v.codes.any() and not m.scales.any() and not v.scales.any()


@pytest.mark.parametrize("update", [twin8.adamw8, kernels8.adamw8], ids=["twin", "native"])
def test_a_gradient_that_is_not_finite_reaches_the_weights_and_breaks_nothing_else(update):
    n = 600
    for bad in (math.nan, math.inf):
        w, (m, v) = drawn(1, n), fresh(n)
        g = drawn(2, n)
        g[3] = bad
        update(w, g, m, v, **STEP)
        assert not math.isfinite(w[3].item())
        assert torch.isfinite(w[256:]).all(), "other blocks are as they would be"


# ---------------------------------------------------------------------------------------------- bfloat16 gradients


def test_adding_to_bfloat16_has_the_bits_of_its_twin(level, threads):
    for n in SIZES:
        total, part = drawn(1, n).bfloat16(), drawn(2, n)
        part[0] = math.nan
        sums = [guarded(total), guarded(total)]
        rounded.add_rounded(sums[0], part)
        native_rounded.add_rounded(sums[1], part)
        assert torch.equal(sums[0][1:], sums[1][1:])
        assert untouched(*sums)
        assert math.isnan(sums[1][0].item())
        exact = total.double() + part.double()
        unit = 2.0**-8  # of bfloat16; the float32 sum before it adds another 2⁻²⁴
        assert ((sums[1].double() - exact).abs() <= unit * (1 + 2**-15) * exact.abs() + 2.0**-133)[1:].all()


@pytest.mark.parametrize("width", [1, 37, 512, 700])
@pytest.mark.parametrize("n", [1, 50, 300])
def test_scattering_to_bfloat16(level, threads, n, width):
    index = torch.randint(max(1, n // 3), (n,), generator=torch.Generator().manual_seed(n))
    rows = drawn(3, n * width).view(n, width)
    start = drawn(4, (n // 3 + 2) * width).view(-1, width).bfloat16()
    target, starts, order = rounded.groups(index)
    tables = [guarded(start.view(-1)).view_as(start) for _ in range(2)]
    rounded.scatter_rounded(starts, order, target, rows, tables[0])
    native_rounded.scatter_rounded(starts, order, target, rows, tables[1])
    count = torch.bincount(index, minlength=len(start)).double().unsqueeze(1)
    exact = start.double().index_add(0, index, rows.double())
    size = start.double().abs().index_add(0, index, rows.double().abs())
    bound = 2.0**-8 * exact.abs() + (1 + 2.0**-8) * (count + 1) * 2.0**-24 / (1 - (count + 1) * 2.0**-24) * size
    for table in tables:
        assert ((table.double() - exact).abs() <= bound * (1 + 2.0**-20)).all()
        assert torch.equal(table[count.squeeze(1) == 0], start[count.squeeze(1) == 0])


def test_weight_gradients_in_slabs_are_those_in_one_piece():
    n, rows, k = 33, 70, 11
    dy, x = drawn(1, n * rows).view(n, rows), drawn(2, n * k).view(n, k)
    db, other_db = torch.zeros(rows), torch.zeros(rows)
    dw, other = torch.zeros(rows, k, dtype=torch.bfloat16), torch.zeros(rows, k)

    def linear(dy, x, dw, db, *, add=True):
        dw.copy_(dw + dy.T @ x if add else dy.T @ x)
        db += dy.sum(0)

    for room in (k, 5 * k + 3, 10**4):
        for buffer in (dw, db, other, other_db):
            buffer.zero_()
        kernels_ = rounded.InSlabs(linear, rounded.add_rounded, torch.full((room,), 3.0))
        dw.fill_(math.nan)
        kernels_.linear_backward_weight(dy, x, dw, db, add=False)
        linear(dy, x, other, other_db)
        size = (dy.double().abs().T @ x.double().abs()) * gamma(n + 3, 2.0**-24)
        exact = dy.double().T @ x.double()
        assert ((dw.double() - exact).abs() <= 2.0**-8 * exact.abs() + 1.01 * size).all()
        assert torch.allclose(db, other_db, rtol=0, atol=float(gamma(n + 3, 2.0**-24) * dy.double().abs().sum(0).max()))
